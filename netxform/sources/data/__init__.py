"""Data sets by name, a file each: three disjoint parts (train, val, test), reproducible by seed.

ast.Data ─load_data→ DataSet
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

from netxform.errors import NOWHERE, Diagnostic, NetxformError, did_you_mean, fail
from netxform.language.values import plain
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
    more: tuple[str, ...] = ()
    if name in DATA:
        try:
            more = DATA.find(name, source.span).more
        except NetxformError as error:
            found += error.diagnostics
    given = [(a.key, a.span) for a in source.arguments if a.key] if isinstance(source, ast.Call) else []
    given += [(o.key, o.span) for o in data.options]
    for key, span in given:
        if key not in (*ARGUMENTS, *more):
            found.append(
                Diagnostic(
                    "X0404",
                    f"a data set has no option `{key}`",
                    span,
                    "unknown",
                    helps=did_you_mean(key, (*ARGUMENTS, *more)) or (f"options: {', '.join((*ARGUMENTS, *more))}",),
                )
            )
    return found


def describe(data: ast.Data) -> Known:
    """The number of classes and the shape of one sample, where the text tells. Imports no library."""
    name, options = _options(data)
    return DATA.find(name, data.span).describe(options)


def _options(data: ast.Data) -> tuple[str, Options]:
    source = cast("ast.Call | ast.Path", data.source)
    values: dict[str, Any] = {o.key: plain(o.value) for o in data.options}
    if isinstance(source, ast.Call):
        for argument in source.arguments:
            values[argument.key or "path"] = plain(argument.value)
    for key in ("classes", "omit", "normalize"):
        if key in values and not isinstance(values[key], tuple):
            values[key] = (values[key],)
    name = source.name if isinstance(source, ast.Call) else source.text
    more = {k: values.pop(k) for k in DATA.find(name, source.span).more if k in values}
    options = Options(**values, more=more)
    if options.per_class is not None and (not isinstance(cast(Any, options.per_class), int) or options.per_class < 1):
        raise fail("X0406", f"`per_class` is a whole number from 1, not {options.per_class}", data.span, "per_class")
    for key in ("val", "test"):
        share = getattr(options, key)
        if not (0 <= share < 1 or (isinstance(share, int) and share > 1)):
            raise fail("X0406", f"`{key}` is a share in [0, 1) or a number of samples, not {share}", data.span, key)
    if options.classes is not None and len(set(options.classes)) < 2:
        raise fail("X0406", "a classification needs two different classes", data.span, "classes")
    return name, options


def load_data(data: ast.Data, trust: Trust, seed: int) -> DataSet:
    """The declared data. The split is a function of the source's own seed; which few samples are drawn, of `seed`.

    Raises NetxformError X0814 (package missing), X0807 (file missing), X0817 (not enough samples).
    """
    name, options = _options(data)
    return DATA.find(name, data.span).load(data, options, trust, seed)


def check_python_data(name: str, value: Any) -> DataSet:
    """Data handed in from Python: a DataSet, or a pair (x, y) of tensors."""
    import torch

    if isinstance(value, DataSet):
        return value
    if isinstance(value, tuple) and len(cast("tuple[Any, ...]", value)) == 2:
        x, y = cast("tuple[Any, Any]", value)
        return from_tensors(name, torch.as_tensor(x), torch.as_tensor(y))
    raise fail("X0401", f"data `{name}`: expected a DataSet or a pair (x, y)", NOWHERE)
