"""How a model is called and what it gives, kept on its graph: names, defaults, annotations, classes of results.

Inside, a graph takes its tensors in order and gives tensors in dicts and tuples. `shown` lets its module be called as the model
was. What is kept stands in `meta` of the output node, as plain data: `signature`, `result` and (in this process) `classes`.
"""

from __future__ import annotations

import ast
import inspect
import keyword
import typing
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import CodeGen

from netxform.graph import results
from netxform.graph.copies import same, structure

_TYPING = ("Any", "Optional", "Union", "List", "Tuple", "Dict", "Sequence", "Mapping", "Literal")
_KNOWN: dict[str, Any] = {"torch": torch, "Tensor": Tensor, "nn": nn} | {n: getattr(typing, n) for n in _TYPING}
_PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "tuple": tuple, "list": list, "dict": dict, "None": None}
_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "any",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_KEYWORD: "rest",
}


def taken(**given):  # pyright: ignore
    """Arguments that the model was captured with. Raises TypeError for one that is missing."""
    for name, value in given.items():
        if value is None:
            raise TypeError(f"`{name}` is missing: this network was captured with it")


def left_out(*defaults, **given):  # pyright: ignore
    """Arguments that the model was captured without. Raises TypeError for one that is given."""
    for i, (name, value) in enumerate(given.items()):
        default = defaults[i] if i < len(defaults) else ()
        if not (value is default or (type(value) is type(default) and value == default)):
            raise TypeError(f"`{name}` is given, and this network was captured without it: it holds what the model does then")


def signature_of(model: nn.Module, inputs: tuple[Any, ...]) -> list[Any] | None:
    """The parameters of `forward` as plain data: [name, kind, default, annotation, whether it is an input]; the last is the
    result. None where inputs are bound to no name of their own.
    """
    try:
        found = inspect.signature(model.forward)
        bound = found.bind(*inputs).arguments
    except (TypeError, ValueError):
        return None
    rows: list[Any] = []
    for name, parameter in found.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            if name in bound:
                return None
            continue
        default = None if parameter.default is inspect.Parameter.empty else _literal(parameter.default)
        row = [name, _KINDS[parameter.kind], default, _annotation(parameter.annotation)]
        rows.append([*row, isinstance(bound.get(name), Tensor)])
    rows.append(["", "result", None, _annotation(found.return_annotation), False])
    return rows


def without_nothing(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[nn.Module, tuple[Any, ...]]:
    """The model as one that takes tensors alone, and the tensors: an argument that is given as None is none of its inputs."""
    if all(t is not None for t in inputs):
        return model, inputs
    try:
        names = list(inspect.signature(model.forward).bind(*inputs).arguments)
    except (TypeError, ValueError):
        return model, inputs
    if len(names) != len(inputs):
        return model, inputs
    given = [n for n, t in zip(names, inputs, strict=True) if t is not None]
    made = structure(model, same)
    space: dict[str, Any] = {"_own": type(model).forward}
    passed = ", ".join(n if t is not None else "None" for n, t in zip(names, inputs, strict=True))
    exec(f"def forward(self, {', '.join(given)}):\n    return _own(self, {passed})", space)  # fx reads the names off the code
    kind = type(model)
    made.__class__ = type(kind.__name__, (kind,), {"forward": space["forward"], "__module__": kind.__module__})
    return made, tuple(t for t in inputs if t is not None)


def _literal(value: Any) -> str:
    text = repr(value)
    if isinstance(value, torch.dtype):
        return text
    try:
        return text if ast.literal_eval(text) == value else "None"
    except (ValueError, SyntaxError, TypeError):
        return "None"


def _annotation(value: Any) -> str | None:
    if value is inspect.Parameter.empty:
        return None
    if value is None or value is type(None):
        return "None"
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    return text.replace("NoneType", "None")


def keep(module: fx.GraphModule, rows: list[Any] | None, description: list[Any] | None, classes: dict[str, type]) -> None:
    """Note on the graph how its model is called and what it gives."""
    end = next(n for n in reversed(module.graph.nodes) if n.op == "output")
    end.meta |= {"signature": rows, "result": description, "classes": classes}


class Spoken(CodeGen):
    """Writes `forward` with the model's own signature and result. What it is told may come from a file: it is checked here."""

    def __init__(
        self, rows: list[Any] | None, description: list[Any] | None, classes: dict[str, type], taken_names: set[str]
    ) -> None:
        """Raises ValueError for what is no signature and no result."""
        super().__init__()
        self.rows, self.description = rows, description
        self.used: dict[str, Any] = {}
        self.classes: dict[str, tuple[str, str, tuple[str, ...]]] = {}  # what it is called → key, kind, fields
        self._called: dict[str, str] = {}
        names = set(taken_names)
        for key, (kind, fields) in results.parts_of(description).items() if description is not None else ():
            cls = classes.get(key) or results.class_for(key, kind, fields)
            called = key.partition(":")[2]
            if cls.__module__.partition(".")[0] == "torch":  # fx knows torch alone by its full name
                self._called[key] = f"{cls.__module__}.{called}"
                continue
            while called in names or called in _KNOWN or called in _PLAIN:
                called += "_"
            names.add(called)
            self._called[key], self.classes[called], self.used[called] = called, (key, kind, fields), cls
        if description is not None:
            results.expression(description, iter(["x"] * results.tensors(description)), self._called.__getitem__)
        self.header = None if rows is None else self._header(rows)

    def __deepcopy__(self, memo: dict[int, Any]) -> Spoken:
        return self  # nothing changes it

    def _header(self, rows: list[Any]) -> tuple[str, str, str]:
        """The parameters, the result's annotation, and the lines that compare what is given with what was captured."""
        texts, inputs, absent, rest = ["self"], list[str](), list[tuple[str, str]](), ""
        starred = positional = False
        result = ""
        for name, kind, default, annotation, is_input in rows:
            typed = "" if annotation is None else self._typed(str(annotation))
            if kind == "result":
                result = f" -> {typed}" if typed else ""
                continue
            if not (isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)):
                raise ValueError(f"`{name}` is no name of an argument")
            if positional and kind != "positional":
                texts.append("/")
            positional = kind == "positional"
            if kind == "keyword" and not starred:
                texts.append("*")
                starred = True
            text = f"**{name}" if kind == "rest" else name
            value = None if default is None else _checked(str(default))
            text += f": {typed}" if typed else ""
            text += "" if value is None else f" = {value}" if typed else f"={value}"
            texts.append(text)
            if kind == "rest":
                rest = f"**{name}"
            elif is_input and value is not None:
                inputs.append(f"{name}={name}")
            elif not is_input:
                absent.append((value or "None", f"{name}={name}"))
        if positional:
            texts.append("/")
        lines = ""
        if inputs:
            self.used["taken"] = taken
            lines += f"\n    taken({', '.join(inputs)})"
        if absent or rest:
            self.used["left_out"] = left_out
            given = [*(d for d, _ in absent), *(g for _, g in absent), *([rest] if rest else [])]
            lines += f"\n    left_out({', '.join(given)})"
        return ", ".join(texts), result, lines

    def _typed(self, text: str) -> str:
        """The annotation as it stands where all its names are known, else as text."""
        for key, called in self._called.items():
            space, _, name = key.partition(":")
            text = text.replace(f"{space}.{name}", name)
            if called == name:
                continue
            text = "".join(called if t == name else t for t in _words(text))
        known = _KNOWN | _PLAIN | {n: self.used[n] for n in self.classes}
        try:
            tree = ast.parse(text, mode="eval")
            names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
            usual = (
                ast.Expression, ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.BinOp, ast.BitOr, ast.Constant,
                ast.Load,
            )  # fmt: skip
            right = names <= set(known) and all(isinstance(n, usual) for n in ast.walk(tree))
            right = right and all(isinstance(n.value, ast.Name | ast.Attribute) and not n.attr.startswith("_")
                                  for n in ast.walk(tree) if isinstance(n, ast.Attribute))  # fmt: skip
            if not right:
                return repr(text)
            eval(compile(tree, "annotation", "eval"), {"__builtins__": {}}, known)
        except Exception:
            return repr(text)
        self.used |= {n: _KNOWN[n] for n in names if n in _TYPING}
        return ast.unparse(_OfTorch().visit(tree))

    def additional_globals(self) -> list[tuple[str, Any]]:
        """What the text speaks of."""
        return list(self.used.items())

    def gen_fn_def(self, free_vars: list[str], maybe_return_annotation: str, *, expanded_def: bool = False) -> str:
        """The first line, and the comparison with what was captured."""
        if self.header is None:
            return super().gen_fn_def(free_vars, maybe_return_annotation, expanded_def=expanded_def)
        parameters, result, lines = self.header
        return f"def forward({parameters}){result}:{lines}"

    def generate_output(self, output_args: Any, *, descs: Any = None, repr_fn: Any = None) -> str:
        """The result, as the model gives it."""
        if self.description is None:
            return super().generate_output(output_args, descs=descs, repr_fn=repr_fn)
        names = iter([(repr_fn or repr)(n) for n in _nodes(output_args)])
        return f"return {results.expression(self.description, names, self._called.__getitem__)}"


class _OfTorch(ast.NodeTransformer):
    """Names of torch by their full name."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        torch_ = ast.Name("torch", ast.Load())
        return ast.Attribute(torch_, node.id, ast.Load()) if node.id in ("Tensor", "nn") else node


def _words(text: str) -> Iterator[str]:
    word = ""
    for c in text:
        if c.isalnum() or c in "_.":
            word += c
            continue
        yield word
        yield c
        word = ""
    yield word


def _checked(text: str) -> str:
    """A default value as text. Raises ValueError for one that is no plain value."""
    if text.startswith("torch.") and isinstance(getattr(torch, text.removeprefix("torch."), None), torch.dtype):
        return text
    try:
        return repr(ast.literal_eval(text))
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"`{text}` is no default value") from error


def _nodes(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(value, lambda n: found.append(n) or n)
    return found


def spoken(module: fx.GraphModule) -> Spoken | None:
    """What writes `forward` as the model had it; None where that is how a graph is called anyway.

    Raises ValueError for notes on the graph that are damaged.
    """
    end = next(n for n in reversed(module.graph.nodes) if n.op == "output")
    rows, description = end.meta.get("signature"), end.meta.get("result")
    places = [str(n.target) for n in module.graph.nodes if n.op == "placeholder"]
    if rows is not None and [r[0] for r in rows if r[4]] != places:
        rows = None
    if description is not None and results.tensors(description) != len(_nodes(end.args[0])):
        description = None
    if rows is not None and all(r[3] is None and (r[1] == "result" or (r[4] and r[2] is None and r[1] == "any")) for r in rows):
        rows = None
    if rows is None and description is None:
        return None
    names = {n.name for n in module.graph.nodes} | {str(n.target) for n in module.graph.nodes if n.op == "placeholder"}
    return Spoken(rows, description, end.meta.get("classes") or {}, names)


class Shown(fx.GraphModule):
    """A graph module that is called as its model was, also when it is pickled and read again."""

    def __reduce__(self) -> tuple[Any, ...]:
        end = next(n for n in reversed(self.graph.nodes) if n.op == "output")
        held = {k: end.meta.get(k) for k in ("signature", "result", "classes")}
        plain = _plainly(cast(fx.GraphModule, self))
        try:
            made = fx.GraphModule.__reduce__(plain)
        finally:
            shown(plain)
        return _again, (made, held)


def _again(made: tuple[Any, ...], held: dict[str, Any]) -> fx.GraphModule:
    module = cast(fx.GraphModule, made[0](*made[1]))
    keep(module, held["signature"], held["result"], held["classes"])
    return shown(module)


def shown(module: fx.GraphModule) -> fx.GraphModule:
    """The module itself, from now on called as its model was."""
    found = spoken(module)
    if found is not None:
        if not isinstance(module, Shown):
            type(module).__bases__ = (Shown,)
        module.graph.set_codegen(found)
        module.recompile()
    return module


def _plainly(module: fx.GraphModule) -> fx.GraphModule:
    module.graph.set_codegen(CodeGen())
    module.recompile()
    return module


def inner(module: fx.GraphModule) -> fx.GraphModule:
    """The module itself, from now on called as a graph is: tensors in their order."""
    return _plainly(module) if isinstance(module.graph._codegen, Spoken) else module  # pyright: ignore[reportPrivateUsage]
