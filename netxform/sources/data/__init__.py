"""Data sets by name, a file each: three disjoint parts (train, val, test), reproducible by seed.

ast.Data ─load_data→ DataSet
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

from netxform.errors import NOWHERE, Diagnostic, Label, NetxformError, Span, did_you_mean, fail
from netxform.sources.data.options import options_of
from netxform.sources.data.parts import from_tensors as from_tensors
from netxform.sources.data.source import DATA, Known, Options, Seen
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
            options_of(data)
        except NetxformError as error:
            found += error.diagnostics
    return found


def describe(data: ast.Data) -> Known:
    """The number of classes and the shape of one sample, where the text tells. Imports no library."""
    name, options = options_of(data)
    return DATA.find(name, data.span).describe(options)


def look(data: ast.Data, trust: Trust, seed: int) -> Seen:
    """What is known before anything is decoded: from the text, or from the names and headers of the files that it names.

    Raises NetxformError as `load_data`.
    """
    name, options = options_of(data)
    source = DATA.find(name, data.span)
    if source.look is None:
        return Seen(*source.describe(options))
    return source.look(data, options, trust, seed)


def load_data(data: ast.Data, trust: Trust, seed: int) -> DataSet:
    """The declared data. The split is a function of the source's own seed; which few samples are drawn, of `seed`.

    Raises NetxformError X0814 (package missing), X0807 (file missing), X0817 (not enough samples).
    """
    name, options = options_of(data)
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
