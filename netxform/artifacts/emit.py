"""A network as a standalone, readable Python module that needs torch and safetensors alone."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any, cast

import torch
from torch import fx, nn

from netxform.artifacts.construct import OWN, class_of
from netxform.artifacts.graph import to_json
from netxform.errors import fail
from netxform.graph import guards, results
from netxform.graph.network import Network
from netxform.graph.signature import Spoken, left_out, spoken, taken
from netxform.graph.tensors import DTYPES, held

_HEAD = '''"""{title}

Written by netxform; needs torch and safetensors alone.

    import model
    net = model.load()      # reads model.safetensors beside this file; eval mode
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import {names}nn
{extra}

def group(children):
    """Modules under one name; what they compute stands in `forward` below."""
    made = nn.Module()
    for name, child in children.items():
        made.add_module(name, child)
    return made

'''
_TAIL = '''

# further names of one and the same tensor
TIED = {ties}
# parameters that are not to be trained
FROZEN = {frozen}


def load(path=None):
    """The model with its weights, in eval mode. Every tensor must be there, with its shape."""
    tensors = load_file(path or Path(__file__).with_name("model.safetensors"))
    with torch.device("meta"):
        model = {name}()
    wanted = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    missing, unknown = set(wanted) - set(tensors) - set(TIED), set(tensors) - set(wanted)
    if missing or unknown:
        raise KeyError(f"missing: {{sorted(missing)}}; unknown: {{sorted(unknown)}}")
    made = {{}}
    for name, old in wanted.items():
        first = TIED.get(name, name)
        if first not in made:
            tensor = tensors[first].clone()  # aligned in memory as PyTorch aligns
            if tensor.shape != old.shape:
                raise ValueError(f"{{first}}: {{tuple(tensor.shape)}}, not {{tuple(old.shape)}}")
            trained = tensor.is_floating_point() and first not in FROZEN
            made[first] = nn.Parameter(tensor, requires_grad=trained) if isinstance(old, nn.Parameter) else tensor
        owner, _, last = name.rpartition(".")
        part = model.get_submodule(owner)
        (part._parameters if isinstance(old, nn.Parameter) else part._buffers)[last] = made[first]
    return model.eval()
'''

_TRAIN = '''    def train(self, mode=True):
        """As of every module; what the model that this was captured from does in training besides is not here."""
        lost = [
{lost}        ]
        for text in lost if mode else []:
            warnings.warn(text, stacklevel=2)
        return super().train(mode)
'''


def emit(network: Network) -> str:
    """The source. The same network gives the same text.

    Raises NetxformError X0820 for what cannot stand in such a file.
    """
    source = source_of(network)
    _prove(source, _name(type(network.module).__name__), network.module)
    return source


def _name(text: str) -> str:
    name = re.sub(r"\W", "_", text) or "Model"
    return "Model" if name in ("GraphModule", "nn", "torch", "Path", "group", "load") else name


def source_of(network: Network) -> str:
    """The source, and nothing of it run: what a file that came with a graph is compared with."""
    held = to_json(network)
    module, name = network.module, _name(str(held["name"]))
    said = spoken(module)
    body, forward_globals = _forward(module, said)
    own = sorted({e["class"] for e in held["modules"] if e.get("own")})
    extra = _imports({k: v for k, v in forward_globals.items() if re.search(rf"\b{re.escape(k)}\b", body)})
    for space in ("operator", "math"):
        if re.search(rf"(?<![.\w]){space}\.", body):
            extra = f"import {space}\n{extra}"
    if re.search(r"^\s+require\(", body, flags=re.M):
        first, _, rest = inspect.getsource(guards.require).partition("\n")
        extra += (
            "\n\n" + re.sub(r": [\w.]+(?=[,)])| -> \w+", "", first) + "\n" + re.sub(r"  # pyright.*", "", rest).rstrip() + "\n"
        )
    extra += _called_as(said) if said is not None else ""
    for cls in _with_bases(own):
        extra += "\n\n" + inspect.getsource(OWN[cls]).rstrip().replace(") -> " + cls, ")") + "\n"
    title = f"{name}: {sum(p.numel() for p in module.parameters()):,} parameters."
    out = [_HEAD.format(title=title, extra=extra, names="Tensor, " if own else "")]
    out.append(f"\nclass {name}(nn.Module):\n    def __init__(self):\n        super().__init__()")
    out += _tree(held)
    out.append("")
    if network.lost:
        out.append(_TRAIN.format(lost="".join(f"            {str(one)!r},\n" for one in network.lost)))
        extra_ = "import warnings\n"
        out[0] = out[0].replace("from pathlib", extra_ + "from pathlib", 1)
    out.append(body)
    tail = _TAIL.format(ties=_pretty(held["ties"]), frozen=_pretty(sorted(held["frozen"])), name=name)
    return "\n".join(out) + tail


def _called_as(said: Spoken) -> str:
    """What a `forward` needs that is called as the model was, and gives what the model gave."""
    typing_ = sorted({n for n, v in said.used.items() if getattr(v, "__module__", "") == "typing"})
    kinds = {kind for _, kind, _ in said.classes.values()}
    typing_ += ["NamedTuple"] if "named" in kinds else []
    typing_ += ["Any"] if kinds & {"named", "data"} and "Any" not in typing_ else []
    text = ""
    if "data" in kinds:
        text += "from dataclasses import dataclass\n"
    if "mapping" in kinds:
        text += "from collections import OrderedDict\n"
    if typing_:
        text += f"from typing import {', '.join(sorted(typing_))}\n"
    for function in (taken, left_out):
        if function.__name__ in said.used:
            text += "\n\n" + re.sub(r"  # pyright.*", "", inspect.getsource(function)).rstrip() + "\n"
    if "mapping" in kinds:
        text += "\n\n" + re.sub(r"  # pyright.*", "", inspect.getsource(results.Fields)).rstrip() + "\n"
    for called, (key, kind, fields) in said.classes.items():
        text += results.source_of(key, kind, fields, called)
    return text


def _with_bases(names: list[str]) -> list[str]:
    out: list[str] = []
    for name in names:
        for base in reversed(OWN[name].__mro__):
            if base.__name__ in OWN and base.__name__ not in out:
                out.append(base.__name__)
    return out


def _tree(held: dict[str, Any]) -> list[str]:
    """The module hierarchy as nested calls, then the tensors that hang on containers."""
    made: dict[str, str] = {}
    children: dict[str, list[str]] = {}
    opened: list[str] = []
    for entry in held["modules"]:
        path = entry["path"]
        children.setdefault(path.rpartition(".")[0], []).append(path)
        if entry["class"] is not None:
            made[path] = _call(entry)
    kinds = {e["path"]: e["class"] for e in held["modules"]}

    def show(path: str, indent: str) -> str:
        if kinds[path] is not None:
            if children.get(path):
                opened.append(path)
            return made[path]
        inner = children.get(path, [])
        if not inner:
            return "group({})"
        rows = [f'{indent}    "{c.rpartition(".")[2]}": {show(c, indent + "    ")},' for c in inner]
        return "group({\n" + "\n".join(rows) + f"\n{indent}}})"

    lines: list[str] = []
    for path in children.get("", []):
        text = show(path, "        ")
        lines.append(f"        self.{path} = {text}" if path.isidentifier() else f'        self.add_module("{path}", {text})')
    for path in opened:
        for child in children[path]:
            lines.append(
                f'        self.get_submodule("{path}").add_module("{child.rpartition(".")[2]}", {show(child, "        ")})'
            )
    for entry in held["tensors"]:
        owner, _, last = entry["path"].rpartition(".")
        place = f'self.get_submodule("{owner}")' if owner else "self"
        empty = f"torch.empty({tuple(entry['shape'])}, dtype={DTYPES[entry['dtype']]})"
        if entry["kind"] == "parameter":
            dtype = DTYPES[entry["dtype"]]
            grad = "" if dtype.is_floating_point or dtype.is_complex else ", requires_grad=False"
            lines.append(f'        {place}.register_parameter("{last}", nn.Parameter({empty}{grad}))')
        else:
            more = "" if entry["persistent"] else ", persistent=False"
            lines.append(f'        {place}.register_buffer("{last}", {empty}{more})')
    return lines


def _call(entry: dict[str, Any]) -> str:
    from netxform.artifacts.graph import decode_plain

    arguments: dict[str, object] = decode_plain(entry["arguments"])
    own = bool(entry.get("own"))
    order = list(inspect.signature(class_of(entry["class"], own).__init__).parameters)[1:]
    parts: list[str] = []
    positional = True
    for i, key in enumerate(order):
        if key not in arguments:
            positional = False
            continue
        value = _literal(arguments[key])
        parts.append(value if positional and i < 2 else f"{key}={value}")
    parts += [f"{k}={_literal(v)}" for k, v in arguments.items() if k not in order]
    return f"{'' if own else 'nn.'}{entry['class']}({', '.join(parts)})"


def _literal(value: Any) -> str:
    if isinstance(value, float) and value != value:
        return 'float("nan")'
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    return repr(value)


_OURS = "netxform_graph_guards_"


def _plainly(line: str) -> str:
    """A line that calls a function of `guards` as one would write it by hand."""
    statement = ast.parse(line.strip()).body[0]
    call = cast(ast.Call, cast(ast.Assign, statement).value)
    texts = [ast.unparse(a) for a in call.args]
    named = [ast.unparse(k) for k in call.keywords]
    start = line[: len(line) - len(line.lstrip())] + ast.unparse(cast(ast.Assign, statement).targets[0]) + " = "
    match cast(ast.Name, call.func).id.removeprefix(_OURS):
        case "require":
            return f"{line[: len(line) - len(line.lstrip())]}require({', '.join(texts)})"
        case "number":
            return f"{start}{texts[0]}.item()"
        case "pick":
            return f"{start}{texts[1]} if {texts[0]} else {texts[2]}"
        case _:
            function = ast.literal_eval(call.args[1])
            return f"{start}{function}({', '.join(texts[2:] + named)}) if {texts[0]} else None"


def _forward(module: fx.GraphModule, said: Spoken | None) -> tuple[str, dict[str, object]]:
    """The source of `forward` as fx writes it, called as `said`, and the globals that it needs."""
    usual = module.graph._codegen  # pyright: ignore[reportPrivateUsage]
    module.graph.set_codegen(said or usual)
    try:
        code = module.graph.python_code("self")
    finally:
        module.graph.set_codegen(usual)
    at = code.src.index("def forward")
    source = code.src[at:].rstrip()
    # fx frees values as it goes (`x = None`); for a reader that is noise
    source = re.sub(r";  (\w+ = )+None", "", source)
    source = re.sub(r"[ \t]+# .*$", "", source, flags=re.M)
    source = "\n".join(_plainly(line) if _OURS in line else line for line in source.split("\n"))
    if said is not None and said.header is not None:
        return "\n".join("    " + line if line.strip() else "" for line in source.split("\n")), {
            n: v for n, v in code.globals.items() if n not in said.used
        }
    source = (
        re.sub(r"(\w+) : (?:torch\.Tensor|Tensor|[\w.\[\], ]+?)(?=[,)=])", r"\1", source.split("\n")[0])
        + "\n"
        + "\n".join(source.split("\n")[1:])
    )
    source = re.sub(r"\) -> .*:$", "):", source.split("\n")[0]) + "\n" + "\n".join(source.split("\n")[1:])
    needed = {n: v for n, v in code.globals.items() if said is None or n not in said.used}
    return "\n".join("    " + line if line.strip() else "" for line in source.split("\n")), needed


def _imports(needed: dict[str, object]) -> str:
    lines: list[str] = []
    for name, value in sorted(needed.items()):
        if value is torch or name in ("torch", "fx_pytree", "pytree", "NoneType"):
            continue
        if value is torch.device or value is torch.Size:
            lines.append(f"from torch import {name}")
        elif isinstance(value, float):
            lines.append(f'{name} = float("{value}")')
        elif callable(value):
            module, own = getattr(value, "__module__", None), getattr(value, "__name__", name)
            if module is None or not (module.startswith(("torch.", "_operator", "math")) or module == "torch"):
                if module not in (None, "builtins", guards.__name__):
                    raise fail("X0820", f"`{module}.{own}` cannot stand in a standalone file")
                continue
            module = "operator" if module == "_operator" else module
            lines.append(f"from {module} import {own}" + (f" as {name}" if own != name else ""))
        elif isinstance(value, torch.dtype):
            continue
    return "\n".join(lines) + ("\n" if lines else "")


def _pretty(value: Any) -> str:
    if not value:
        return "{}"
    if isinstance(value, dict):
        rows = [f"    {k!r}: {v!r}," for k, v in cast("dict[str, str]", value).items()]
    else:
        rows = [f"    {v!r}," for v in value]
    return "{\n" + "\n".join(rows) + "\n}"


def _prove(source: str, name: str, module: nn.Module) -> None:
    """Build the emitted class on the meta device: the same names and shapes, or nothing is written."""
    space: dict[str, Any] = {"__file__": "model.py", "__name__": "netxform_emitted"}
    try:
        exec(compile(source, "model.py", "exec", dont_inherit=True), space)
        with torch.device("meta"):
            again = cast(nn.Module, space[name]())
    except Exception as error:
        raise fail("X0820", f"the standalone module could not be written: {type(error).__name__}: {error}") from error

    def names(of: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
        return sorted((n, tuple(t.shape)) for n, t in held(of).items())

    if names(again) != names(module):
        wrong = sorted(set(names(again)) ^ set(names(module)))[:4]
        raise fail("X0820", f"the standalone module would hold other tensors: {wrong}")
