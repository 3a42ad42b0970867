"""Data sets by name, a file each: three disjoint parts (train, val, test), reproducible by seed.

ast.Data ─load_data→ DataSet
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

from netxform.errors import NOWHERE, Diagnostic, Label, NetxformError, Span, did_you_mean, fail
from netxform.language.values import number, plain
from netxform.sources.data.parts import from_tensors as from_tensors
from netxform.sources.data.source import DATA, Known, Options
from netxform.sources.data.source import DataSet as DataSet
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.syntax.format import format_node

ARGUMENTS = tuple(f.name for f in fields(Options) if f.name != "more")


def check_data_source(data: ast.Data) -> list[Diagnostic]:
    """What the text alone shows to be wrong with a data declaration. Imports nothing."""
    source = data.source
    found: list[Diagnostic] = []
    if not isinstance(source, ast.Call | ast.Path):
        return [Diagnostic("X0212", f"`{format_node(source)}` is no source of data", source.span, "not a source")]
    name = source.name if isinstance(source, ast.Call) else source.text
    if name not in DATA:
        found.append(
            Diagnostic(
                "X0212",
                f"`{name}` is no source of data",
                source.span,
                "unknown source",
                helps=did_you_mean(name, DATA) or (f"sources: {', '.join(DATA)}",),
            )
        )
    if found:
        return found
    try:
        held = DATA.find(name, source.span)
    except NetxformError as error:
        return list(error.diagnostics)
    known = (*(ARGUMENTS if held.takes is None else held.takes), *held.more)
    arguments = source.arguments if isinstance(source, ast.Call) else ()
    if "path" not in known and any(a.key is None for a in arguments):
        span = next(a.span for a in arguments if a.key is None)
        message = f"`{name}` takes no value without a name"
        found.append(Diagnostic("X0411", message, span, "what is it?", helps=(f"options: {', '.join(known)}",)))
    elif sum(a.key is None for a in arguments) > 1:
        span = [a.span for a in arguments if a.key is None][1]
        found.append(Diagnostic("X0411", f"`{name}` takes one file or folder", span, "more than one", helps=("name one",)))
    places: dict[str, Span] = {}
    for key, span in [(a.key or "path", a.span) for a in arguments] + [(o.key, o.span) for o in data.options]:
        if key in places and not found:
            labels = (Label(places[key], "first"),)
            message = f"`{key}` is given twice"
            found.append(Diagnostic("X0407", message, span, "second time", labels, helps=("leave one of them",)))
        places[key] = span
        if key not in known and not (key == "path" and found):
            found.append(
                Diagnostic(
                    "X0404",
                    f"`{name}` has no option `{key}`",
                    span,
                    "unknown",
                    helps=did_you_mean(key, known) or (f"options: {', '.join(known)}",),
                )
            )
    if not found:
        try:
            _options(data)
        except NetxformError as error:
            found += error.diagnostics
    return found


def describe(data: ast.Data) -> Known:
    """The number of classes and the shape of one sample, where the text tells. Imports no library."""
    name, options = _options(data)
    return DATA.find(name, data.span).describe(options)


def _options(data: ast.Data) -> tuple[str, Options]:
    source = cast("ast.Call | ast.Path", data.source)
    given: dict[str, ast.Expr] = {o.key: o.value for o in data.options}
    if isinstance(source, ast.Call):
        given |= {a.key or "path": a.value for a in source.arguments}
    name = source.name if isinstance(source, ast.Call) else source.text
    more = {k: plain(given.pop(k)) for k in DATA.find(name, source.span).more if k in given}
    values = {k: _KINDS[k](v, k) for k, v in given.items()}
    options = Options(**values, more=more)
    classes = given.get("classes")
    if options.classes is not None and classes is not None and len(set(options.classes)) != len(options.classes):
        raise fail("X0406", "`classes` names a class twice", classes.span, "twice", helps=("name each class once",))
    if options.classes is not None and classes is not None and len(options.classes) < 2:
        helps = ("name two at least: `classes=[0, 1]`",)
        raise fail("X0406", "a classification needs two different classes", classes.span, "one class", helps=helps)
    taken = sum(s for s in (options.val, options.test) if s < 1)
    if taken >= 1:
        span = given["val" if "val" in given else "test"].span
        helps = ("leave a share for training: `val=15% test=20%`",)
        raise fail("X0406", f"`val` and `test` take {taken:.0%} of the samples", span, "nothing is left", helps=helps)
    return name, options


def _count(low: int, high: int) -> Callable[[ast.Expr, str], int]:
    def read(expression: ast.Expr, key: str) -> int:
        found = number(expression)
        if not isinstance(found, int) or not low <= found <= high:
            helps = (f"write a whole number from {low} to {high:,}",)
            text = format_node(expression)
            raise fail(
                "X0406", f"`{key}` is a whole number from {low}, not {text}", expression.span, "out of range", helps=helps
            )
        return found

    return read


def _part(expression: ast.Expr, key: str) -> float:
    found = number(expression)
    if not (0 <= found < 1 or (isinstance(found, int) and found > 1)):
        helps = (f"write a share, `{key}=15%`, or how many: `{key}=500`",)
        text = format_node(expression)
        message = f"`{key}` is a share in [0, 1) or a number of samples, not {text}"
        raise fail("X0406", message, expression.span, "out of range", helps=helps)
    return found


def _numbers(expression: ast.Expr, key: str) -> tuple[int, ...]:
    items = expression.items if isinstance(expression, ast.List) else (expression,)
    return tuple(_count(0, 1_000_000)(i, key) for i in items)


def _normal(expression: ast.Expr, key: str) -> tuple[float, ...]:
    items = expression.items if isinstance(expression, ast.List) else (expression,)
    found = tuple(float(number(i)) for i in items)
    if len(found) != 2 or found[1] <= 0:
        helps = ("write the two: `normalize=[0.5, 0.25]`",)
        message = f"`{key}` is a mean and a spread above 0, not {format_node(expression)}"
        raise fail("X0406", message, expression.span, "not a mean and a spread", helps=helps)
    return found


def _text(expression: ast.Expr, key: str) -> str:
    if not isinstance(expression, ast.String) or not expression.value:
        helps = (f'write it in double quotes: `{key}="…"`',)
        raise fail("X0401", f"`{key}` is the name of a file or folder", expression.span, "no text", helps=helps)
    return expression.value


_KINDS: dict[str, Callable[[ast.Expr, str], Any]] = {
    "classes": _numbers,
    "omit": _numbers,
    "per_class": _count(1, 1_000_000_000),
    "train": _count(1, 1_000_000_000_000),
    "val": _part,
    "test": _part,
    "size": _count(1, 8192),
    "channels": _count(1, 4096),
    "normalize": _normal,
    "seed": _count(0, 2**63 - 1),
    "root": _text,
    "path": _text,
    "length": _count(3, 100_000),
    "words": _count(5, 100_000_000),
    "vocabulary": _text,
    "corpus": _text,
}


def load_data(data: ast.Data, trust: Trust, seed: int) -> DataSet:
    """The declared data. The split is a function of the source's own seed; which few samples are drawn, of `seed`.

    Raises NetxformError X0814 (package missing), X0807 (file missing), X0817 (not enough samples).
    """
    name, options = _options(data)
    return DATA.find(name, data.span).load(data, options, trust, seed)


def check_python_data(name: str, value: Any) -> DataSet:
    """Data handed in from Python: a DataSet, or a pair (x, y) of tensors, arrays, or lists of numbers.

    Raises NetxformError X0401 (of another kind), X0406 (class numbers below 0), X0817 (no samples), X0838 (not finite).
    """
    if isinstance(value, DataSet):
        for part in ("train", "val", "test"):
            held = getattr(value, part)
            if not hasattr(held, "__len__") or not hasattr(held, "__getitem__"):
                helps = ("each part is a map-style data set of pairs (x, y), such as a `TensorDataset`",)
                raise fail("X0401", f"data `{name}`: its part `{part}` is a `{type(held).__name__}`", NOWHERE, helps=helps)
        return value
    pair = cast("tuple[Any, ...]", value)
    if not isinstance(value, tuple | list) or len(pair) != 2:
        helps = (f"hand in a pair: `data=(x, y)`, or `data={{'{name}': (x, y)}}`",)
        what = f"{len(pair)} things" if isinstance(value, tuple | list) else f"a `{type(value).__name__}`"
        raise fail("X0401", f"data `{name}`: a DataSet or a pair (x, y) is expected, not {what}", NOWHERE, helps=helps)
    return from_tensors(name, _tensor(pair[0], name, "x"), _tensor(pair[1], name, "y"))


def _tensor(value: Any, name: str, part: str) -> Any:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        if value.is_meta or value.layout is not torch.strided:
            helps = ("hand in a dense tensor with numbers in it",)
            raise fail("X0401", f"data `{name}`: {part} is a tensor without numbers, or a sparse one", NOWHERE, helps=helps)
        return value
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        helps = ("give all samples one shape",)
        raise fail("X0401", f"data `{name}`: {part} is no array: {error}", NOWHERE, helps=helps) from error
    if array.dtype.kind in "US":
        helps = ("number the labels: `names = sorted(set(y)); y = [names.index(n) for n in y]`",) if part == "y" else ()
        helps = helps or ("turn texts into numbers of words first; the source `text(…)` does so",)
        raise fail("X0401", f"data `{name}`: {part} holds texts, not numbers", NOWHERE, helps=helps)
    if array.dtype.kind not in "biufc":
        helps = ("give all samples one shape, and make an array of numbers: `numpy.stack(…)`, `.astype('float32')`",)
        raise fail("X0401", f"data `{name}`: {part} is an array of {array.dtype}, not of numbers", NOWHERE, helps=helps)
    if array.dtype.kind == "f" and part == "x" and not isinstance(value, np.ndarray):
        array = array.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
