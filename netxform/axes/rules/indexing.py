"""Reading and writing by index: slices keep a run, numbers lock what they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from netxform.axes.algebra import ONE, Dim, Lock, fresh, lock, size, unify
from netxform.axes.rules.context import Context, Shape, Typed, Uncovered, axis_of
from netxform.axes.rules.pieces import piece
from netxform.axes.rules.registry import rule


@rule("getitem")
def _getitem(t: Context, x: Typed, index: Any) -> Typed:
    """Slices keep a run, numbers and tensors of numbers lock what they read."""
    dims = indexed(t, x, index)
    if [size(d) for d in dims] != list(t.shape):
        raise Uncovered("an index whose result has another shape than expected")
    return Typed(dims, t.shape, x.dtype)


def indexed(t: Context, x: Typed, index: Any) -> list[Dim]:
    """The types of `x[index]`."""
    items = list(cast("tuple[Any, ...]", index)) if isinstance(index, tuple) else [index]
    used = sum(1 for i in items if i is not None and i is not Ellipsis)
    if not any(i is Ellipsis for i in items):
        items.append(Ellipsis)
    where = next(k for k, i in enumerate(items) if i is Ellipsis)
    items[where : where + 1] = [slice(None)] * (len(x.shape) - used)
    t.touch(x)
    out: list[Dim] = []
    axis, place = 0, None
    shapes: list[Shape] = []
    apart = False
    for item in items:
        if item is None:
            out.append(ONE)
            continue
        if isinstance(item, slice):
            out.append(piece(t, x, axis, item.start, item.stop, item.step))
        elif isinstance(item, bool):
            raise Uncovered("indexed by a truth value")
        elif isinstance(item, int):
            lock(x.dims[axis], Lock("position", t.at))
        elif isinstance(item, Typed | list):
            lock(x.dims[axis], Lock("position", t.at))
            if isinstance(item, Typed):
                if str(item.dtype) in ("torch.bool", "torch.uint8", "None"):
                    raise Uncovered("indexed by truth values")
                for dim in item.dims:
                    lock(dim, Lock("position", t.at))
                shapes.append(item.shape)
            else:
                shapes.append((len(cast("list[Any]", item)),))
            apart = apart or (place is not None and place != len(out))
            place = len(out) if place is None else place
        else:
            raise Uncovered(f"indexed by {type(item).__name__}")
        axis += 1
    if shapes:
        if apart:
            raise Uncovered("indexed by several tensors, apart from one another")
        longest = max(len(s) for s in shapes)
        made = [max(s[k - longest + len(s)] if k - longest + len(s) >= 0 else 1 for s in shapes) for k in range(longest)]
        assert place is not None
        out[place:place] = [fresh(n, Lock("position", t.at)) for n in made]
    return out


@rule("setitem")
def _setitem(t: Context, x: Typed, index: Any, value: Any) -> None:
    """What is written has the type of the place that it is written to."""
    if isinstance(index, Typed) and str(index.dtype) == "torch.bool" and not isinstance(value, Typed):
        t.touch(x)
        for a, b in zip(x.dims, index.dims, strict=False):  # a mask says element by element where the number goes
            unify(a, b, t.at)
        return
    dims = indexed(t, x, index)
    if isinstance(value, Typed):
        t.touch(value)
        own = [d for d in value.dims if size(d) > 1]
        for a, b in zip(reversed([d for d in dims if size(d) > 1]), reversed(own), strict=False):
            unify(a, b, t.at) if size(a) == size(b) else (lock(a, Lock("shape", t.at)), lock(b, Lock("shape", t.at)))


@rule("index")
def _index(t: Context, x: Typed, indices: Sequence[Any]) -> Typed:
    """The ATen form of indexing by tensors."""
    return _getitem(t, x, tuple(slice(None) if i is None else i for i in indices))


@rule("index_select gather take_along_dim")
def _index_select(t: Context, x: Typed, dim: int, index: Typed, **kwargs: Any) -> Typed:
    """Positions are read from a tensor."""
    t.touch(x)
    if len(index.shape) != 1:
        raise Uncovered("indexed by a tensor of several dimensions")
    i = axis_of(x, dim)
    lock(x.dims[i], Lock("position", t.at))
    for d in index.dims:
        lock(d, Lock("position", t.at))
    dims = list(x.dims)
    dims[i] = fresh(t.shape[i], Lock("position", t.at))
    return Typed(dims, t.shape, x.dtype)
