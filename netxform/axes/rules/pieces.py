"""Dimensions taken apart and put together: concatenation, slices, splits, copies, rolls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from netxform.axes.algebra import ONE, Dim, Lock, concat, fresh, is_locked, lock, mirrored, normal, regroup, split, unify
from netxform.axes.rules.context import Context, Int, Typed, Uncovered, axis_of, same
from netxform.axes.rules.registry import rule
from netxform.axes.rules.shape import rearranged


@rule("cat concat concatenate")
def _cat(t: Context, tensors: Sequence[Typed], dim: int = 0, axis: int | None = None, **kwargs: Any) -> Typed:
    """Segments along one dimension; the others are the same."""
    given = [x for x in tensors if x.shape != (0,)]
    if not given:
        raise Uncovered("nothing but empty tensors")
    i = axis_of(given[0], dim if axis is None else axis)
    for x in given:
        t.touch(x)
        for k in range(len(x.shape)):
            if k != i and x is not given[0]:
                unify(given[0].dims[k], x.dims[k], t.at)
    dims = list(given[0].dims)
    dims[i] = concat([x.dims[i] for x in given])
    return Typed(dims, t.shape, given[0].dtype)


@rule("stack")
def _stack(t: Context, tensors: Sequence[Typed], dim: int = 0) -> Typed:
    """Several of a kind under a new dimension."""
    for x in tensors:
        t.touch(x)
        for a, b in zip(tensors[0].dims, x.dims, strict=True):
            unify(a, b, t.at)
    dims = list(tensors[0].dims)
    dims.insert(dim % len(t.shape), fresh(len(tensors), Lock("stack", t.at)))
    return Typed(dims, t.shape, tensors[0].dtype)


@rule("repeat tile")
def _repeat(t: Context, x: Typed, *repeats: Any, **kwargs: Any) -> Typed:
    """Whole copies one behind the other."""
    t.touch(x)
    times = repeats[0] if len(repeats) == 1 and isinstance(repeats[0], list | tuple) else repeats
    if kwargs or len(times) != len(t.shape):
        raise Uncovered("the number of copies is not given for every dimension")
    lead = len(times) - len(x.shape)
    dims = [fresh(int(n), Lock("stack", t.at)) + (x.dims[j - lead] if j >= lead else ONE) for j, n in enumerate(times)]
    return Typed(dims, t.shape, x.dtype)


@rule("repeat_interleave")
def _repeat_interleave(t: Context, x: Typed, repeats: Any, dim: int | None = None, **kwargs: Any) -> Typed:
    """Every element several times."""
    if not isinstance(repeats, int) or dim is None:
        raise Uncovered("repeats that are a tensor, or no dimension")
    t.touch(x)
    dims = list(x.dims)
    dims[axis_of(x, dim)] = dims[axis_of(x, dim)] + fresh(repeats, Lock("stack", t.at))
    return Typed(dims, t.shape, x.dtype)


@rule("pad constant_pad_nd")
def _pad(t: Context, x: Typed, pad: Any, mode: Any = "constant", value: Any = None, **kwargs: Any) -> Typed:
    """New segments of one value in front and behind; other modes copy neighbours."""
    if not isinstance(pad, list | tuple) or not all(isinstance(n, int) for n in cast("list[Any]", pad)):
        raise Uncovered("padding that is no list of numbers")
    t.touch(x)
    dims = list(x.dims)
    for k in range(len(pad) // 2):
        i = len(x.shape) - 1 - k
        front, back = int(pad[2 * k]), int(pad[2 * k + 1])
        if front == 0 and back == 0:
            continue
        if front < 0 or back < 0 or (isinstance(mode, str) and mode != "constant") or is_locked(dims[i]):
            lock(dims[i], Lock("position", t.at))
            dims[i] = fresh(t.shape[i], Lock("position", t.at))
            continue
        edge = [fresh(n, Lock("constant", t.at)) for n in (front, back)]
        dims[i] = concat([p for p, n in ((edge[0], front), (dims[i], 1), (edge[1], back)) if n])
    return Typed(dims, t.shape, x.dtype)


@rule("slice", view=True)
def _slice(t: Context, x: Typed, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> Typed:
    """A run of one dimension."""
    i = axis_of(x, dim)
    return _replaced(t, x, i, piece(t, x, i, start, end, step))


@rule("narrow", view=True)
def _narrow(t: Context, x: Typed, dim: int, start: Any, length: Any) -> Typed:
    """A run of one dimension, by start and length."""
    i = axis_of(x, dim)
    if not isinstance(start, int) or not isinstance(length, int):
        raise Uncovered("a bound that is a tensor")
    made = piece(t, x, i, int(start), start + length)
    if not is_locked(x.dims[i]):
        t.state(length, made)
        if start:
            parts = split(x.dims[i], [int(start)], t.at)
            t.state(start, *(parts[:1] if parts else []))
    return _replaced(t, x, i, made)


@rule("split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk unsafe_split_with_sizes", view=True)
def _split(t: Context, x: Typed, sizes: Any = None, dim: int = 0, **kwargs: Any) -> Any:
    """Runs of one dimension; their sizes in the code must follow."""
    given = next(
        (
            kwargs[k]
            for k in ("split_size_or_sections", "split_size", "split_sizes", "chunks", "sections", "indices_or_sections")
            if k in kwargs
        ),
        sizes,
    )
    i = axis_of(x, kwargs.get("dim", dim))
    lengths = [s[i] for s in t.shape]
    cuts = [sum(lengths[: k + 1]) for k in range(len(lengths) - 1)]
    parts = split(x.dims[i], cuts, t.at) if all(lengths) and sum(lengths) == x.shape[i] else None
    if parts is None:
        lock(x.dims[i], Lock("position", t.at))
        parts = [fresh(n, Lock("position", t.at)) for n in lengths]
    elif isinstance(given, list | tuple):
        for number, part in zip(cast("list[Any]", given), parts, strict=False):
            t.state(number, part)
    else:
        t.state_split(i, parts)
    made: list[Typed] = []
    for part, shape in zip(parts, t.shape, strict=True):
        dims = list(x.dims)
        dims[i] = part
        axes = tuple(None if k == i else a for k, a in enumerate(x.axes))
        made.append(Typed(dims, shape, x.dtype, x.source, axes))
    return tuple(made)


@rule("unbind", view=True)
def _unbind(t: Context, x: Typed, dim: int = 0) -> Any:
    """Every position by itself: the dimension is locked."""
    i = axis_of(x, dim)
    lock(x.dims[i], Lock("position", t.at))
    order = [k for k in range(len(x.shape)) if k != i]
    return tuple(Typed([x.dims[k] for k in order], s, x.dtype, x.source, tuple(x.axes[k] for k in order) if x.source else ())
                 for s in t.shape)  # fmt: skip


@rule("select select_copy", view=True)
def _select(t: Context, x: Typed, dim: int, index: Any) -> Typed:
    """One position: the dimension is locked."""
    i = axis_of(x, dim)
    lock(x.dims[i], Lock("position", t.at))
    return rearranged(x, [k for k in range(len(x.shape)) if k != i], t)


@rule("flip fliplr flipud")
def _flip(t: Context, x: Typed, *dims: Any, **kwargs: Any) -> Typed:
    """Read backwards."""
    t.touch(x)
    given = kwargs.get("dims", dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims)
    axes = {axis_of(x, d) for d in ([given] if isinstance(given, int) else given)}
    if not axes:
        raise Uncovered("no dimension is named")
    return same(t, x, [mirrored(normal(d)) if i in axes else d for i, d in enumerate(x.dims)])


@rule("roll")
def _roll(t: Context, x: Typed, shifts: Any, dims: Any = None) -> Typed:
    """The end is put in front."""
    t.touch(x)
    if dims is None:
        raise Uncovered("rolled as if it were flat")
    steps, axes = (
        ([shifts], [dims]) if isinstance(shifts, int) else (list(shifts), [dims] if isinstance(dims, int) else list(dims))
    )
    out = list(x.dims)
    for step, axis in zip(steps, axes, strict=True):
        i = axis_of(x, axis)
        n = x.shape[i]
        k = int(step) % n
        if k == 0:
            continue
        if is_locked(out[i]):
            out[i] = fresh(n, Lock("position", t.at))
            continue
        parts = split(out[i], [n - k], t.at)
        if parts is None or not -n < int(step) < n:
            lock(out[i], Lock("position", t.at))
            out[i] = fresh(n, Lock("position", t.at))
        else:
            _state_bound(t, step, parts[1:], parts[:1])
            out[i] = concat([parts[1], parts[0]])
    return Typed(out, t.shape, x.dtype)


def piece(t: Context, x: Typed, i: int, start: Any, stop: Any, step: Any = 1) -> Dim:
    """The type of a slice of dimension i. Bounds in the code must follow the segments before and inside."""
    if any(b is not None and not isinstance(b, int) for b in (start, stop, step)):
        raise Uncovered("a bound that is a tensor")
    n = x.shape[i]
    first, last, stride = slice(
        None if start is None else int(start), None if stop is None else int(stop), int(step or 1)
    ).indices(n)
    count = len(range(first, last, stride))
    if count == n:
        if isinstance(stop, int) and 0 < stop < 1 << 40:
            t.state(stop, x.dims[i])
        return x.dims[i]
    varying = any(isinstance(b, Int) and b.dims and all(is_locked(d) for d in b.dims) for b in (start, stop))
    if varying or (t.inside and x.source is not None):  # what is read depends on the input, or cannot be told to
        lock(x.dims[i], Lock("position", t.at))
    if is_locked(x.dims[i]) or count == 0:
        return fresh(count, Lock("position", t.at))
    if stride != 1:
        parts = regroup(x.dims[i], [n // stride, stride], t.at) if n % stride == 0 and count == n // stride else None
        if parts is None:
            lock(x.dims[i], Lock("position", t.at))
            return fresh(count, Lock("position", t.at))
        lock(parts[1], Lock("position", t.at))
        if isinstance(stop, int) and stop >= 0 and stop < 1 << 40:
            lock(x.dims[i], Lock("position", t.at))
        return parts[0]
    cuts = [c for c in (first, last) if 0 < c < n]
    parts = split(x.dims[i], cuts, t.at)
    if parts is None:
        lock(x.dims[i], Lock("position", t.at))
        return fresh(count, Lock("position", t.at))
    taken = parts[1] if first > 0 else parts[0]
    before, after = parts[:1] if first > 0 else [], parts[-1:] if last < n else []
    if isinstance(start, int) and first > 0:
        _state_bound(t, start, before, [taken, *after])
    if isinstance(stop, int) and last < n:
        _state_bound(t, stop, [*before, taken], after)
    return taken


def _state_bound(t: Context, number: Any, ahead: list[Dim], behind: list[Dim]) -> None:
    if number >= 0:
        t.state(number, *ahead)
    else:
        t.state(_negated(number), *behind)


def _negated(number: int) -> int:
    """A bound counted from the end, as a positive number that remembers to be written with a minus."""
    made = Int(-number)
    if isinstance(number, Int):
        made.path = (*number.path, "-") if number.path is not None else None
        made.dims = number.dims
    return made


def _replaced(t: Context, x: Typed, i: int, dim: Dim) -> Typed:
    dims = list(x.dims)
    whole = dims[i] is dim
    dims[i] = dim
    axes = tuple(a if k != i or whole else None for k, a in enumerate(x.axes))
    return Typed(dims, t.shape, x.dtype, x.source, axes)
