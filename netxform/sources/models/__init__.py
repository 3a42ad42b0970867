"""Models by name: a library (a file each in this folder), or a file or bundle (`sources.formats`), and their weights.

ast.Model ─load_model→ LoadedModel
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.errors import Diagnostic, Label, NetxformError, Span, did_you_mean, fail
from netxform.graph.layer_spec import Invocation
from netxform.language.values import CONSTANTS, plain
from netxform.limits import need
from netxform.sources.companions import of_bundle
from netxform.sources.formats import Asked, from_file
from netxform.sources.loaded import Loaded, Shapes, WeightsNeeded
from netxform.sources.models.source import MODELS, ModelSource
from netxform.sources.trust import Trust, read_path
from netxform.sources.weights import Asked as AskedWeights
from netxform.sources.weights import Taken, load_weights
from netxform.sources.weights import check_finite as check_finite
from netxform.syntax import ast
from netxform.syntax.format import format_node

if TYPE_CHECKING:
    from torch import nn

OPTIONS = ("weights", "input", "inside", "rename", "partial", "by_position", "bake", "normalize")
_OF_WEIGHTS = OPTIONS[2:-2]


def _text(e: ast.Expr) -> bool:
    return isinstance(e, ast.String)


def _truth(e: ast.Expr) -> bool:
    return isinstance(e, ast.Path) and e.text in ("true", "false")


def _normal(e: ast.Expr) -> bool:
    return normal_of(e) is not None


def normal_of(e: ast.Expr) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """A mean and a spread above 0, a number or a list each; None for what is neither."""
    if not isinstance(e, ast.List) or len(e.items) != 2:
        return None
    found: list[tuple[float, ...]] = []
    for one in e.items:
        held = one.items if isinstance(one, ast.List) else (one,)
        if not held or not all(isinstance(v, ast.Number) for v in held):
            return None
        found.append(tuple(float(v.value) for v in held if isinstance(v, ast.Number)))
    return (found[0], found[1]) if len(found[0]) == len(found[1]) and min(found[1]) > 0 else None


def _texts(e: ast.Expr) -> bool:
    return isinstance(e, ast.Mapping) and all(isinstance(i.value, ast.String) for i in e.items)


_WANTED: dict[str, tuple[Callable[[ast.Expr], bool], str, str]] = {
    "weights": (_text, "the name of a file", '`weights="net.safetensors"`'),
    "input": (_text, "a shape, as a text", '`input="1x3x224x224:f32"`'),
    "inside": (_text, "the key that the weights lie under", '`inside="model_state_dict"`'),
    "rename": (_texts, "a mapping of names to names", '`rename={"old.*": "new.*"}`'),
    "partial": (_truth, "true or false", "`partial=true`"),
    "by_position": (_truth, "true or false", "`by_position=true`"),
    "bake": (_truth, "true or false", "`bake=true`"),
    "normalize": (
        _normal,
        "a mean and a spread, or a list of each, one a channel",
        "`normalize=[[0.48, 0.46, 0.41], [0.23, 0.22, 0.23]]`",
    ),
}
_INPUT = re.compile(r"(\d+(?:x\d+)*)(?::(f16|f32|f64|bf16|i64|i32))?")


@dataclass(frozen=True)
class LoadedModel:
    """A model as it came. `shapes`: the shape and dtype name of each input, None where the source does not know. `taken`: what
    was done to take its weights; `beside`: tokenizer, image processor and configuration, as files. `why`: it was asked for
    without weights and has them, for this reason.
    """

    module: nn.Module
    shapes: Shapes | None
    description: str
    provenance: dict[str, object]
    taken: Taken = field(default_factory=Taken)
    beside: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    why: str = ""


def check_model_source(model: ast.Model) -> list[Diagnostic]:
    """What the text alone shows to be wrong with a model declaration. Imports nothing."""
    found: list[Diagnostic] = []
    source = model.source
    seen: dict[str, Span] = {}
    for key, span in [(o.key, o.span) for o in model.options] + [
        (f"({a.key})", a.span) for a in (source.arguments if isinstance(source, ast.Call) else ()) if a.key is not None
    ]:
        if key in seen:
            labels, helps = (Label(seen[key], "first"),), ("leave one of them",)
            found.append(Diagnostic("X0407", f"`{key.strip('()')}` is given twice", span, "second time", labels, helps=helps))
        seen[key] = span
    for option in model.options:
        wanted = _WANTED.get(option.key)
        if wanted is not None and not wanted[0](option.value):
            message = f"`{option.key}` is {wanted[1]}, not `{format_node(option.value)}`"
            found.append(Diagnostic("X0401", message, option.value.span, "of another kind", helps=(f"write {wanted[2]}",)))
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
        if option.key in _OF_WEIGHTS and not any(o.key == "weights" for o in model.options):
            found.append(
                Diagnostic(
                    "X0404",
                    f"`{option.key}` says how weights are read, and no `weights` are named",
                    option.span,
                    "of what?",
                    helps=('name the file: `weights="file.safetensors"`',),
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
        elif not dot or space not in MODELS:
            found.append(
                Diagnostic(
                    "X0211",
                    f"`{name}` is no source of models",
                    source.span,
                    "unknown source",
                    helps=did_you_mean(space, MODELS)
                    or (f'sources: {", ".join(f"{n}.NAME(…)" for n in MODELS)}, "folder", "file.pt2", "file.py:function"',),
                )
            )
        else:
            found += _unknown_name(space, rest, source.span)
    elif not isinstance(source, ast.String):
        found.append(Diagnostic("X0211", f"`{format_node(source)}` is no source of models", source.span, "not a source"))
    return found


def _unknown_name(space: str, name: str, span: Span) -> list[Diagnostic]:
    """A name that a source is known not to have, without importing the library behind it."""
    try:
        source = MODELS.find(space, span)
    except NetxformError as error:
        return list(error.diagnostics)
    if source.known is None or name in source.known:
        return []
    title = source.title or space
    helps = did_you_mean(name, source.known) or (f"{title}: {', '.join(source.known)}",)
    return [Diagnostic("X0211", f"{title} has no model `{name}`", span, "unknown model", helps=helps)]


def parse_input(text: str, span: Span) -> Shapes:
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
        if len(part) > 200:
            raise fail(
                "X0406", "an input shape is too long", span, "too many sizes", helps=('write `input="1x3x224x224:f32"`',)
            )
        shape = tuple(int(n) for n in found.group(1).split("x"))
        if 0 in shape:
            message, helps = f"`{part.strip()}` holds no numbers: a size is 0", ("write sizes from 1",)
            raise fail("X0406", message, span, "empty", helps=helps)
        need(4 * math.prod(shape), f"an input of {part.strip()}", span)
        out.append((shape, found.group(2) or "f32"))
    return tuple(out)


def load_model(
    model: ast.Model,
    trust: Trust,
    seed: int = 0,
    bundle: Callable[[Path, bool], nn.Module] | None = None,
    weightless: bool = False,
) -> LoadedModel:
    """The declared model, on the CPU, with its weights. Fresh weights are drawn under `seed`.

    `weightless`: every tensor on the meta device, where it can be made so; else with weights, and `why` says the reason.
    Names, shapes and types of stored weights are compared with the model's all the same. Raises NetxformError X0211
    (unknown), X0807 (missing file), X0808–X0812 (bad weights), X09xx (trust).
    """
    from netxform.graph.copies import tensors_of

    if not weightless:
        return _loaded(model, trust, seed, bundle, False)
    try:
        made = _loaded(model, trust, seed, bundle, True)
    except WeightsNeeded as error:
        return replace(_loaded(model, trust, seed, bundle, False), why=str(error))
    return (
        made if all(t.is_meta for t in tensors_of(made.module)) else replace(made, why="its format gives them with the model")
    )


def _loaded(
    model: ast.Model, trust: Trust, seed: int, bundle: Callable[[Path, bool], nn.Module] | None, weightless: bool
) -> LoadedModel:
    import torch

    options = {o.key: o.value for o in model.options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loaded = _from_source(model, trust, bundle, weightless)
    module, shapes, provenance = loaded
    fresh = tuple(str(text) for text in provenance.pop("warnings", ()))
    weights = options.get("weights")
    taken = Taken(warnings=fresh)
    if weights is not None:
        path = read_path(str(plain(weights)), trust, weights.span)
        taken = load_weights(module, path, trust, weights.span, _asked(options), weightless)
        provenance["weights"] = path.name
    declared = options.get("input")
    if declared is not None:
        shapes = parse_input(str(plain(declared)), declared.span)
    if "bake" in options and plain(options["bake"]) is True:
        from netxform.capture.bake import bake

        module = bake(module)
        provenance["bake"] = True
    check_finite(module, model.span)
    return LoadedModel(module, shapes, format_node(model.source), provenance, taken, _beside(model, trust))


def _beside(model: ast.Model, trust: Trust) -> dict[str, bytes]:
    """The files that belong to the model, as its source knows them."""
    if isinstance(model.source, ast.String):
        where = trust.root / model.source.value
        return of_bundle(where) if (where / "certificate.json").is_file() else {}
    call = _call(model.source)
    found = MODELS.find(call.name.partition(".")[0], call.span)
    return {} if found.beside is None else found.beside(found.checked(call, trust))


def _asked(options: Mapping[str, ast.Expr]) -> AskedWeights:
    """How the weights are to be read."""
    return AskedWeights(**{key: plain(options[key]) for key in _OF_WEIGHTS if key in options})


def _from_source(model: ast.Model, trust: Trust, bundle: Callable[[Path, bool], nn.Module] | None, weightless: bool) -> Loaded:
    source = model.source
    if isinstance(source, ast.String):
        return from_file(Asked(source.value, source.span, trust, bundle, weightless))
    call = _call(source)
    space, _, name = call.name.partition(".")
    found = MODELS.find(space, call.span, "unknown source")
    call = found.checked(call, trust)
    try:
        bare = _bare(found, name, call, weightless)
        return bare if weightless and bare is not None else found.load(name, call)
    except (
        TypeError,
        ValueError,
        AssertionError,
        KeyError,
        IndexError,
        ZeroDivisionError,
        OverflowError,
        RuntimeError,
    ) as error:
        text = (str(error).strip().splitlines() or [""])[0][:300]
        helps = ("look at the names, kinds and ranges of its arguments",)
        raise fail("X0411", f"`{call}` cannot be made: {text}", call.span, "bad arguments", helps=helps) from error
    except OSError as error:
        raise fail(
            "X0813",
            f"the weights of `{call.name}` could not be fetched: {error}",
            call.span,
            "no download",
            helps=('check the connection, or give a local file: `weights="file.safetensors"`',),
        ) from error


def _bare(source: ModelSource, name: str, call: Invocation, weightless: bool) -> Loaded | None:
    """The model without weights, where the source can make it, once it is known that the whole one has room.

    Raises NetxformError X0005 (no room); where it is what is asked for, WeightsNeeded with why it cannot be made.
    """
    if source.bare is None:
        if weightless:
            raise WeightsNeeded("its source knows no other way")
        return None
    try:
        found = source.bare(name, call)
    except (NetxformError, OSError):
        raise
    except Exception as error:  # whatever a library's code does without values
        if source.sure:
            raise
        if not weightless:
            return None
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise (error if isinstance(error, WeightsNeeded) else WeightsNeeded(f"it cannot be made without: {text}")) from None
    if source.sure and any(p.numel() == 0 for p in found[0].parameters()):
        raise ValueError("it has layers without any weights")
    need(sum(t.numel() * t.element_size() for t in (*found[0].parameters(), *found[0].buffers())), f"`{call}`", call.span)
    return found


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
