"""Models by name: libraries, the zoo, a bundle, a file. Weights are loaded without ever running what is in them.

ast.Model ─load_model→ LoadedModel
"""

from __future__ import annotations

import importlib.util
import json
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from netxform.errors import Diagnostic, NetxformError, Span, did_you_mean, fail
from netxform.graph.layer_spec import Invocation
from netxform.language.values import CONSTANTS, plain
from netxform.sources.trust import Trust, need_code, need_pickle, read_path
from netxform.syntax import ast
from netxform.syntax.format import format_node
from netxform.zoo import REGISTRY, build

if TYPE_CHECKING:
    from torch import Tensor, nn

NAMESPACES = ("torchvision", "timm", "hf", "zoo")
OPTIONS = ("weights", "input", "by_position")
_INPUT = re.compile(r"(\d+(?:x\d+)*)(?::(f16|f32|f64|bf16|i64|i32))?")


@dataclass(frozen=True)
class LoadedModel:
    """A model as it came. `shapes`: the shape and dtype name of each input, None where the source does not know."""

    module: nn.Module
    shapes: tuple[tuple[tuple[int, ...], str], ...] | None
    description: str
    provenance: dict[str, Any]


def check_model_source(model: ast.Model) -> list[Diagnostic]:
    """What the text alone shows to be wrong with a model declaration. Imports nothing."""
    found: list[Diagnostic] = []
    source = model.source
    for option in model.options:
        if option.key not in OPTIONS:
            found.append(
                Diagnostic(
                    "X0404",
                    f"a model has no option `{option.key}`",
                    option.span,
                    "unknown",
                    helps=did_you_mean(option.key, OPTIONS) or (f"options: {', '.join(OPTIONS)}",),
                )
            )
        if option.key == "input" and isinstance(option.value, ast.String):
            try:
                parse_input(option.value.value, option.value.span)
            except NetxformError as error:
                found += error.diagnostics
    if isinstance(source, ast.Call | ast.Path):
        name = source.name if isinstance(source, ast.Call) else source.text
        space, dot, rest = name.partition(".")
        if isinstance(source, ast.Call) and name == "shrink":
            pass
        elif not dot or space not in NAMESPACES:
            found.append(
                Diagnostic(
                    "X0211",
                    f"`{name}` is no source of models",
                    source.span,
                    "unknown source",
                    helps=did_you_mean(space, NAMESPACES)
                    or (f'sources: {", ".join(f"{n}.NAME(…)" for n in NAMESPACES)}, "folder", "file.pt2", "file.py:function"',),
                )
            )
        elif space == "zoo" and rest not in REGISTRY:
            found.append(
                Diagnostic(
                    "X0211",
                    f"the zoo has no model `{rest}`",
                    source.span,
                    "unknown model",
                    helps=did_you_mean(rest, REGISTRY) or (f"the zoo: {', '.join(REGISTRY)}",),
                )
            )
    elif not isinstance(source, ast.String):
        found.append(Diagnostic("X0211", f"`{format_node(source)}` is no source of models", source.span, "not a source"))
    return found


def parse_input(text: str, span: Span) -> tuple[tuple[tuple[int, ...], str], ...]:
    """`1x3x224x224:f32`, several separated by commas. Raises NetxformError X0401."""
    out: list[tuple[tuple[int, ...], str]] = []
    for part in text.split(","):
        found = _INPUT.fullmatch(part.strip())
        if found is None:
            raise fail(
                "X0401",
                f"`{part.strip()}` is no input shape",
                span,
                "cannot be read",
                helps=('write `input="1x3x224x224:f32"`',),
            )
        out.append((tuple(int(n) for n in found.group(1).split("x")), found.group(2) or "f32"))
    return tuple(out)


def load_model(model: ast.Model, trust: Trust, seed: int = 0, bundle: Callable[[Path], nn.Module] | None = None) -> LoadedModel:
    """The declared model, on the CPU, with its weights. Fresh weights are drawn under `seed`.

    Raises NetxformError X0211 (unknown), X0807 (missing file), X0808–X0812 (bad weights), X09xx (trust).
    """
    import torch

    options = {o.key: o.value for o in model.options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loaded = _from_source(model, trust, bundle)
    module, shapes, provenance = loaded
    weights = options.get("weights")
    if weights is not None:
        path = read_path(str(plain(weights)), trust, weights.span)
        by_position = plain(options["by_position"]) is True if "by_position" in options else False
        load_weights(module, path, trust, weights.span, by_position)
        provenance["weights"] = path.name
    declared = options.get("input")
    if declared is not None:
        shapes = parse_input(str(plain(declared)), declared.span)
    _finite(module, model.span)
    return LoadedModel(module, shapes, format_node(model.source), provenance)


def _from_source(
    model: ast.Model, trust: Trust, bundle: Callable[[Path], nn.Module] | None
) -> tuple[nn.Module, tuple[tuple[tuple[int, ...], str], ...] | None, dict[str, Any]]:
    source = model.source
    if isinstance(source, ast.String):
        return _from_file(source, trust, bundle)
    call = _call(source)
    space, _, name = call.name.partition(".")
    try:
        match space:
            case "zoo":
                return (
                    build(name, *call.arguments, **call.keywords),
                    ((REGISTRY[name].input, REGISTRY[name].dtype),),
                    {"source": call.name},
                )
            case "torchvision":
                return _torchvision(name, call)
            case "timm":
                return _timm(name, call)
            case "hf":
                return _hf(name, call)
            case _:
                raise fail("X0211", f"`{call.name}` is no source of models", call.span, "unknown source")
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        text = (str(error).strip().splitlines() or [""])[0]
        raise fail("X0411", f"`{call}` cannot be made: {text}", call.span, "bad arguments") from error
    except OSError as error:
        raise fail(
            "X0813",
            f"the weights of `{call.name}` could not be fetched: {error}",
            call.span,
            "no download",
            helps=('check the connection, or give a local file: `weights="file.safetensors"`',),
        ) from error


def _call(source: ast.Expr) -> Invocation:
    if isinstance(source, ast.Path):
        return Invocation(source.text, span=source.span)
    assert isinstance(source, ast.Call)
    positional = tuple(plain(a.value) for a in source.arguments if a.key is None)
    keywords = {a.key: _value(a.value) for a in source.arguments if a.key is not None}
    return Invocation(source.name, positional, keywords, source.span)


def _value(expression: ast.Expr) -> Any:
    if isinstance(expression, ast.Path):
        return CONSTANTS.get(expression.text, expression.text)
    return plain(expression)


def _need(package: str, extra: str, span: Span) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise fail(
            "X0814",
            f"`{package}` is not installed",
            span,
            "needed here",
            helps=(f"pip install 'netxform[{extra}]'",),
        ) from error


def _torchvision(name: str, call: Invocation) -> Any:
    models = _need("torchvision.models", "vision", call.span)
    known = models.list_models()
    if name not in known:
        raise fail("X0211", f"torchvision has no model `{name}`", call.span, "unknown model", helps=did_you_mean(name, known))
    keywords: dict[str, Any] = {"weights": None} | call.keywords
    if name in ("googlenet", "inception_v3") and keywords["weights"] is None:
        keywords.setdefault("init_weights", True)
    module = models.get_model(name, **keywords)
    size = 299 if name == "inception_v3" else 256 if name == "swin_v2_t" else 224
    return module, (((1, 3, size, size), "f32"),), {"source": call.name, "weights": str(keywords["weights"])}


def _timm(name: str, call: Invocation) -> Any:
    timm = _need("timm", "vision", call.span)
    known = timm.list_models()
    if name.split(".")[0] not in known:
        raise fail("X0211", f"timm has no model `{name}`", call.span, "unknown model", helps=did_you_mean(name, known))
    module = timm.create_model(name, **call.keywords)
    shape = tuple(module.default_cfg["input_size"])
    return module, (((1, *shape), "f32"),), {"source": call.name}


def _hf(name: str, call: Invocation) -> Any:
    transformers = _need("transformers", "text", call.span)
    cls: Any = getattr(transformers, name, None)
    if cls is None or not callable(getattr(cls, "from_pretrained", None)):
        raise fail("X0211", f"transformers has no model class `{name}`", call.span, "unknown model")
    module = cls.from_pretrained(*call.arguments, **{"trust_remote_code": False} | call.keywords)
    return module, (((1, 16), "i64"),), {"source": call.name}


def _from_file(source: ast.String, trust: Trust, bundle: Callable[[Path], nn.Module] | None) -> Any:
    text, span = source.value, source.span
    file, colon, function = text.rpartition(":")
    if colon and file.endswith(".py"):
        need_code(text, trust, span)
        return _python(read_path(file, trust, span), function, span), None, {"source": text}
    path = read_path(text, trust, span)
    if path.is_dir():
        if bundle is None or not (path / "certificate.json").exists():
            raise fail("X0815", f"`{text}` is no bundle of netxform", span, "no certificate.json in it")
        held = json.loads((path / "graph.json").read_text())
        shapes = tuple((tuple(i["shape"]), i["dtype"]) for i in held["inputs"])
        return bundle(path), shapes, {"source": text, "bundle": True}
    if path.suffix == ".pt2":
        need_pickle(text, trust, span)
        import torch

        try:
            program: Any = torch.export.load(path)
        except Exception as error:
            message = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise fail("X0808", f"`{text}` cannot be read: {message}", span, "damaged, or no exported program") from error
        shapes = tuple(_placeholder(n) for n in program.graph_signature.user_inputs for n in [_find(program.graph, n)])
        module = torch.export.unflatten(program)
        for part in module.modules():  # what export noted on its nodes cannot be copied, and nothing here reads it
            for node in getattr(part, "graph", torch.fx.Graph()).nodes:
                node.meta.clear()
        return module, shapes, {"source": text}
    if path.suffix == ".onnx":
        from netxform.sources.foreign import OnnxModel

        teacher = OnnxModel(path, span)
        return teacher, teacher.shapes, {"source": text}
    if path.suffix == ".skops":
        from netxform.sources.foreign import stored_classifier

        return stored_classifier(path, span), None, {"source": text}
    if path.suffix == ".safetensors":
        raise fail(
            "X0815",
            f"`{text}` holds weights, not a model",
            span,
            "weights alone",
            helps=(f'name the model, and the file as its weights: `model net = zoo.smallcnn() weights="{text}"`',),
        )
    if path.suffix in (".pt", ".pth", ".bin", ".pkl"):
        need_pickle(text, trust, span)
        import torch
        from torch import nn

        _no_bomb(path, span)
        found: Any = torch.load(path, weights_only=False, map_location="cpu")
        if not isinstance(found, nn.Module):
            raise fail("X0815", f"`{text}` holds a {type(found).__name__}, not a model", span, "not a model")
        return found, None, {"source": text}
    raise fail("X0815", f"`{text}` is no kind of file that holds a model", span, "unknown kind of file")


def _find(graph: Any, name: str) -> Any:
    return next(n for n in graph.nodes if n.name == name)


def _placeholder(node: Any) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of an exported program's input; a dynamic size counts as it was traced."""
    names = {"torch.float32": "f32", "torch.float64": "f64", "torch.float16": "f16", "torch.bfloat16": "bf16"}
    names |= {"torch.int64": "i64", "torch.int32": "i32"}
    held = node.meta["val"]
    return tuple(int(s) if isinstance(s, int) else int(s.node.hint) for s in held.shape), names[str(held.dtype)]


def _python(path: Path, function: str, span: Span) -> nn.Module:
    spec = importlib.util.spec_from_file_location(f"netxform_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(code)
        made: Any = getattr(code, function)()
    except Exception as error:
        raise fail("X0816", f"`{path.name}:{function}` failed: {type(error).__name__}: {error}", span, "raised") from error
    from netxform.sources.foreign import as_model

    return as_model(made, span)


# --- weights ---------------------------------------------------------------------------------------------------------


def load_weights(module: nn.Module, path: Path, trust: Trust, span: Span, by_position: bool = False) -> None:
    """Load a file of tensors into the model: all keys must fit, and every misfit is reported at once."""
    state = read_tensors(path, trust, span)
    wanted = module.state_dict()
    if by_position:
        if len(state) != len(wanted):
            raise fail("X0809", f"{len(state)} tensors in the file, {len(wanted)} in the model", span, "by position")
        from netxform.sources.positions import not_in_order

        why = not_in_order(state, wanted)
        if why is not None:
            raise fail(
                "X0809",
                f"`{path.name}` is not in the order of the model: {why}",
                span,
                "by position",
                notes=("tensors of equal shape would change places, and nothing would say so",),
                helps=("name the tensors in the file as the model does, and leave `by_position` out",),
            )
        state = dict(zip(wanted, state.values(), strict=True))
    missing = [k for k in wanted if k not in state]
    extra = [k for k in state if k not in wanted]
    wrong = [
        f"{k}: {_times(state[k].shape)}, not {_times(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    if missing or extra or wrong:
        notes = [
            f"{what}: {_few(names)}"
            for what, names in (("missing", missing), ("not in the model", extra), ("wrong shape", wrong))
            if names
        ]
        raise fail(
            "X0809",
            f"the weights in `{path.name}` do not fit the model",
            span,
            f"{len(missing)} missing, {len(extra)} unknown, {len(wrong)} of wrong shape",
            notes=tuple(notes),
            helps=("`by_position=true` matches tensors by their order",) if missing and len(missing) == len(extra) else (),
        )
    module.load_state_dict(state)


def read_tensors(path: Path, trust: Trust, span: Span) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a state dict in a `.pt` file. Nothing in it is run."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise fail(
                "X0808",
                f"`{path.name}` cannot be read: {error}",
                span,
                "truncated or damaged",
                helps=("fetch the file again and compare its size",),
            ) from error
    _no_bomb(path, span)
    try:
        found: Any = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        if not trust.pickle:
            raise fail(
                "X0903",
                f"`{path.name}` holds more than tensors, or is damaged",
                span,
                "not loaded",
                notes=(str(error).strip().splitlines()[0][:160],),
                helps=("store the weights as safetensors; or, if you trust the file, add `--trust-pickle`",),
            ) from error
        found = torch.load(path, weights_only=False, map_location="cpu")
    if isinstance(found, dict) and "state_dict" in found:
        found = cast("dict[str, Any]", found)["state_dict"]
    state: Any = cast(Any, found).state_dict() if hasattr(cast(Any, found), "state_dict") else found
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}


def _no_bomb(path: Path, span: Span) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
                raise fail("X0812", f"`{path.name}` has compressed members", span, "torch.save never compresses")


def _finite(module: nn.Module, span: Span) -> None:
    """Raises NetxformError X0811 where a weight is NaN or infinite."""
    bad: list[str] = []
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not tensor.is_meta and not bool(tensor.isfinite().all()):
            bad.append(name)
    if bad:
        raise fail(
            "X0811",
            f"{len(bad)} tensor(s) of the model hold NaN or infinite values",
            span,
            "not finite",
            notes=(_few(bad),),
            helps=("mend the checkpoint: nothing that is measured on it would mean anything",),
        )


def check_finite(module: nn.Module) -> None:
    """As for declared models, for one that was handed in."""
    from netxform.errors import NOWHERE

    _finite(module, NOWHERE)


def _few(names: Iterable[str], most: int = 6) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" … ({len(listed)} in all)" if len(listed) > most else "")


def _times(shape: Iterable[int]) -> str:
    return " x ".join(str(n) for n in shape) or "scalar"
