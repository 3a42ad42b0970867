"""Targets and inputs from columns of any table: class names, several labels, numbers, masks. The row of a bad value is named.

Columns, Options ─wanted→ Wanted (targets, classes, names)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from netxform.errors import NetxformError, Span, closest, fail
from netxform.limits import need
from netxform.sources.data.names import printable
from netxform.sources.data.options import at
from netxform.sources.data.source import Options
from netxform.syntax import ast

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_WORDS = {"true": 1, "false": 0, "yes": 1, "no": 0}
_TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, **_WORDS}


class Columns(Protocol):
    """Columns by name. `what` is the table in words; `row(i)` says where row i stands (`line 5`)."""

    what: str

    def __len__(self) -> int:
        """The number of rows."""
        ...

    def names(self) -> Sequence[str]:
        """What the columns are called."""
        ...

    def values(self, name: str) -> Sequence[Any]:
        """A column as texts, numbers, truth values, lists, or None where nothing stands."""
        ...

    def row(self, index: int) -> str:
        """Where that row stands."""
        ...

    def array(self, name: str) -> np.ndarray | None:
        """A column of numbers without gaps as (N,), where it lies so; else None."""
        ...

    def classes(self, name: str) -> tuple[str, ...] | None:
        """The names of the classes of a column of class numbers, where the file says them."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Targets y (N, …), the number of classes, and their names (or those of the columns)."""

    y: Tensor | None
    classes: int | None = None
    labels: tuple[str, ...] = ()
    said: str = ""


def column(table: Columns, name: str, span: Span) -> Sequence[Any]:
    """A column. Raises NetxformError X0861 where there is none of that name."""
    known = list(table.names())
    if name not in known:
        near = closest(name, known)
        helps = tuple(f"did you mean `{printable(n)}`?" for n in near)
        listed = ", ".join(f"`{printable(n)}`" for n in known[:20]) + (", …" if len(known) > 20 else "")
        text = f"{table.what} has no column `{printable(name)}`"
        raise fail("X0861", text, span, "no such column", helps=helps or (f"columns: {listed or 'none'}",))
    return table.values(name)


def wanted(table: Columns, options: Options, data: ast.Data) -> Wanted:
    """The targets that the declaration names. Raises NetxformError X0408 (none), X0861 (a value), X0817 (one class alone)."""
    if options.mask is not None:
        return Wanted(None)
    if options.label is not None:
        return _classes(table, options.label, at(data, "label"))
    if options.labels:
        return _several(table, options, at(data, "labels"))
    if options.target:
        return _numbers(table, options.target, at(data, "target"))
    listed = ", ".join(f"`{printable(n)}`" for n in list(table.names())[:20])
    helps = (
        'one class a sample: `label="COLUMN"`; several: `labels=["A", "B"]`',
        'numbers: `target="COLUMN"`; images of masks: `mask="COLUMN"`',
    )
    raise fail("X0408", f"what is to be learnt from {table.what}? Columns: {listed}", data.span, "no target", helps=helps)


def inputs(table: Columns, options: Options, data: ast.Data) -> tuple[Tensor, tuple[str, ...]]:
    """Columns of numbers as x (N, columns) float32; a column of lists (embeddings) as x (N, …). And the columns' names.

    Without `columns`, all that are not said to be something else. Raises NetxformError X0861.
    """
    import torch

    span = at(data, "columns")
    taken = {options.label, options.split, options.mask, *options.labels, *options.target}
    chosen = options.columns or tuple(n for n in table.names() if n not in taken)
    if not chosen:
        helps = ('images: `image="COLUMN"`; numbers: `columns=["A", "B"]`',)
        raise fail("X0408", f"{table.what} has no column that is an input", span, "no input", helps=helps)
    need(4 * len(table) * len(chosen), f"{table.what}, as numbers,", span)
    arrays = [floats(table, n, span, not options.columns) for n in chosen]
    if len(arrays) == 1 and arrays[0].ndim > 1:
        return torch.from_numpy(arrays[0]), chosen
    for name, found in zip(chosen, arrays, strict=True):
        if found.ndim > 1:
            helps = (f'name it alone: `columns=["{printable(name)}"]`',)
            raise fail("X0861", f"column `{printable(name)}` holds lists, others hold numbers", span, "", helps=helps)
    import numpy as np

    return torch.from_numpy(np.stack(arrays, axis=1)), chosen


def floats(table: Columns, name: str, span: Span, chosen_by_us: bool = False) -> np.ndarray:
    """A column as float32 (N,), or (N, …) for lists of one length. Raises NetxformError X0861, with the row."""
    import numpy as np

    values = column(table, name, span)
    if (whole := table.array(name)) is not None:
        return _finite(table, name, whole.astype(np.float32), span)
    first = next((v for v in values if v is not None), None)
    if isinstance(first, list | tuple):
        return _lists(table, name, values, span)
    out = np.empty(len(values), dtype=np.float64)
    for i, value in enumerate(values):
        found = number_of(value)
        if found is None:
            helps = ("leave such rows out, or fill them",) if _missing(value) else ()
            if chosen_by_us and not _missing(value):
                helps = (f"say which columns are read: `columns=[…]`; or what `{printable(name)}` is: `label=`, `image=`",)
            raise _value(table, name, i, value, "a number", span, helps)
        out[i] = found
    return out.astype(np.float32)


def _finite(table: Columns, name: str, values: np.ndarray, span: Span) -> np.ndarray:
    import numpy as np

    flat = np.isfinite(values).reshape(len(values), -1).all(1)
    if not flat.all():
        at = int(np.flatnonzero(~flat)[0])
        raise fail("X0861", f"column `{printable(name)}`, {table.row(at)}: NaN or infinity, not a number", span, "not finite",
                   helps=("leave such rows out, or fill them",))  # fmt: skip
    return values


def _lists(table: Columns, name: str, values: Sequence[Any], span: Span) -> np.ndarray:
    import numpy as np

    rows: list[np.ndarray] = []
    for i, value in enumerate(values):
        try:
            found = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise _value(table, name, i, value, "a list of numbers", span, ()) from error
        if found.ndim == 0 or (rows and found.shape != rows[0].shape):
            size = f"{list(found.shape)} numbers, others {list(rows[0].shape)}" if rows and found.ndim else "no list"
            text = f"column `{printable(name)}`, {table.row(i)}: {size}"
            raise fail("X0861", text, span, "another length", helps=("give all rows lists of one length",))
        rows.append(found)
    return _finite(table, name, np.stack(rows), span)


def number_of(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, bool | int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _numbers(table: Columns, names: Sequence[str], span: Span) -> Wanted:
    import numpy as np
    import torch

    arrays = [floats(table, n, span) for n in names]
    if len(arrays) == 1:
        return Wanted(torch.from_numpy(arrays[0]), None, tuple(names), f"`{printable(names[0])}` is learnt")
    for name, found in zip(names, arrays, strict=True):
        if found.ndim > 1:
            raise fail("X0861", f"column `{printable(name)}` holds lists, others hold numbers", span, "",
                       helps=(f'name it alone: `target="{printable(name)}"`',))  # fmt: skip
    return Wanted(torch.from_numpy(np.stack(arrays, axis=1)), None, tuple(names), f"{len(names)} numbers are learnt")


def _classes(table: Columns, name: str, span: Span) -> Wanted:
    import torch

    values = column(table, name, span)
    known = table.classes(name)
    found: list[Any] = []
    for i, value in enumerate(values):
        if _missing(value) or isinstance(value, list | tuple | dict | bytes):
            what = "`labels=` takes lists" if isinstance(value, list | tuple) else "leave such rows out"
            raise _value(table, name, i, value, "a class", span, (what,))
        if isinstance(value, float) and not value.is_integer():
            raise _value(table, name, i, value, "a class", span, (f'a number to be learnt: `target="{printable(name)}"`',))
        found.append(value.strip() if isinstance(value, str) else int(value))
    if known is not None:
        bad = next((i for i, v in enumerate(found) if not isinstance(v, int) or not 0 <= v < len(known)), None)
        if bad is not None:
            raise _value(table, name, bad, found[bad], f"one of the {len(known)} classes", span, ("leave such rows out",))
        return Wanted(torch.tensor(found, dtype=torch.int64), len(known), known, _told(known))
    distinct = set(found)
    if {type(v) for v in distinct} == {int, str}:
        distinct, found = {str(v) for v in distinct}, [str(v) for v in found]
    order = sorted(distinct, key=_by_number if all(_whole(v) for v in distinct) else str)
    if len(order) < 2:
        text = f"column `{printable(name)}` holds one class alone" + (f": `{printable(str(order[0]))}`" if order else "")
        raise fail("X0817", text, span, "nothing to tell apart", helps=("there are two classes at least to be told apart",))
    if len(order) > 1000 and len(order) > len(found) // 2:
        helps = (f'numbers: `target="{printable(name)}"`', "or name the column of the classes")
        text = f"column `{printable(name)}` holds {len(order):,} different values in {len(found):,} rows: no classes"
        raise fail("X0861", text, span, "too many", helps=helps)
    number = {v: i for i, v in enumerate(order)}
    labels = tuple(str(v) for v in order)
    return Wanted(torch.tensor([number[v] for v in found], dtype=torch.int64), len(order), labels, _told(labels))


def _told(labels: tuple[str, ...]) -> str:
    listed = ", ".join(f"`{printable(n)}`" for n in labels[:10]) + (", …" if len(labels) > 10 else "")
    return f"{len(labels):,} classes ({listed})"


def _several(table: Columns, options: Options, span: Span) -> Wanted:
    """Several labels a sample, as y (N, labels) of 0 and 1 float32: a column each, or one column of lists of labels."""
    import numpy as np
    import torch

    if len(options.labels) > 1:
        y = np.empty((len(table), len(options.labels)), dtype=np.float32)
        for j, name in enumerate(options.labels):
            for i, value in enumerate(column(table, name, span)):
                held = _TRUTH.get(str(value).strip().lower()) if not _missing(value) else None
                if held is None:
                    raise _value(table, name, i, value, "0 or 1", span, ())
                y[i, j] = held
        return Wanted(torch.from_numpy(y), None, options.labels, f"{len(options.labels)} labels a sample, each 0 or 1")
    name = next(iter(options.labels))
    values = column(table, name, span)
    known = table.classes(name)
    rows: list[list[str]] = []
    for i, value in enumerate(values):
        if isinstance(value, str):
            if options.separator is None:
                helps = (f'say what stands between them: `labels="{printable(name)}" separator="|"`', "one each: `label=`")
                raise _value(table, name, i, value, "a list of labels", span, helps)
            rows.append([t.strip() for t in value.split(options.separator) if t.strip()])
        elif value is None or isinstance(value, list | tuple):
            rows.append([known[v] if known is not None and isinstance(v, int) and 0 <= v < len(known) else str(v)
                         for v in value or ()])  # fmt: skip
        else:
            raise _value(table, name, i, value, "a list of labels", span, ('one class a sample: `label="…"`',))
    order = known or tuple(sorted({t for r in rows for t in r}))
    if not order:
        raise fail("X0817", f"column `{printable(name)}` holds no label", span, "nothing to learn", helps=("look at it",))
    number = {t: i for i, t in enumerate(order)}
    y = np.zeros((len(rows), len(order)), dtype=np.float32)
    for i, row in enumerate(rows):
        for text in row:
            if text not in number:
                raise _value(table, name, i, text, f"one of the {len(order)} labels", span, ())
            y[i, number[text]] = 1
    return Wanted(torch.from_numpy(y), None, tuple(order), f"{len(order)} labels, several a sample")


def parts_of(table: Columns, name: str, span: Span) -> dict[str, np.ndarray]:
    """The rows of each part, by a column that says `train`, `val` or `test`. Raises NetxformError X0861."""
    import numpy as np

    words = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
             "test": "test", "testing": "test"}  # fmt: skip
    found: list[str] = []
    for i, value in enumerate(column(table, name, span)):
        part = words.get(str(value).strip().lower())
        if part is None:
            raise _value(table, name, i, value, "train, val or test", span, ())
        found.append(part)
    array = np.array(found)
    out = {p: np.flatnonzero(array == p) for p in ("train", "val", "test") if (array == p).any()}
    if "train" not in out:
        raise fail("X0817", f"column `{printable(name)}` says `train` in no row", span, "nothing to train on",
                   helps=("leave `split=` out: the parts are then cut by seed",))  # fmt: skip
    return out


def texts(table: Columns, name: str, span: Span) -> list[str]:
    """A column of file names. Raises NetxformError X0861, with the row."""
    out: list[str] = []
    for i, value in enumerate(column(table, name, span)):
        if not isinstance(value, str) or not value.strip():
            raise _value(table, name, i, value, "the name of a file", span, ())
        out.append(value)
    return out


def _value(table: Columns, name: str, index: int, value: Any, want: str, span: Span, helps: tuple[str, ...]) -> NetxformError:
    shown = "nothing" if value is None or value == "" else f"`{printable(str(value))[:60]}`"
    text = f"column `{printable(name)}`, {table.row(index)}: {shown} is not {want}"
    return fail("X0861", text, span, "a bad value", helps=helps or ("mend the row, or leave it out",))


def _missing(value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in ("", "nan")


def _whole(value: Any) -> bool:
    text = str(value)
    return isinstance(value, int) or (text.isascii() and len(text) < 20 and text.removeprefix("-").isdigit())


def _by_number(value: Any) -> tuple[int, str]:
    return int(value), str(value)
