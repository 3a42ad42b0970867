"""The same elements in another shape: views, permutations, dimensions of size 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from netxform.axes.algebra import ONE, Dim, Lock, fresh, lock, regroup, unify, units
from netxform.axes.rules.context import Context, Shape, Typed, Uncovered, axis_of
from netxform.axes.rules.registry import layer, rule


def _reshaped(t: Context, x: Typed) -> Typed:
    made = Typed(_regrouped(x, t.shape, t.at), t.shape, x.dtype)
    if x.source is not None:
        made.source = x.source
        made.axes = _followed(x, made)
    return made


@rule("flatten ravel view_as reshape_as", view=True)
def _flatten(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Neighbouring dimensions become one: no sizes stand in the code."""
    return _reshaped(t, x)


@rule("view reshape _unsafe_view _reshape_alias unflatten", view=True)
def _reshape(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Elements keep their order: dimensions are taken apart and put together."""
    made = _reshaped(t, x)
    numbers: Any = kwargs.get("shape", kwargs.get("size", kwargs.get("sizes")))
    if numbers is None:
        plain: list[Any] = [a for a in args if not isinstance(a, Typed)]
        numbers = plain[0] if plain and isinstance(plain[0], list | tuple) else plain
        if len(plain) == 2 and isinstance(plain[1], list | tuple):  # unflatten(dim, sizes)
            start = axis_of(x, int(cast(int, plain[0])))
            _state_sizes(t, plain[1], made.dims[start : start + len(cast("list[Any]", plain[1]))])
            numbers = ()
    if len(numbers) == len(t.shape):
        _state_sizes(t, numbers, made.dims)
    return made


def _state_sizes(t: Context, numbers: Sequence[Any], dims: Sequence[Dim]) -> None:
    for number, dim in zip(numbers, dims, strict=True):
        if not (isinstance(number, int) and number == -1):
            t.state(number, dim)


def _followed(x: Typed, made: Typed) -> tuple[int | None, ...]:
    """Which dimensions of a view are whole axes of the tensor it is a view of."""
    known = {id(d[0]): x.axes[i] for i, d in enumerate(x.dims) if len(d) == 1}
    return tuple(known.get(id(d[0])) if len(d) == 1 else None for d in made.dims)


def _regrouped(x: Typed, shape: Shape, at: str) -> list[Dim]:
    """Blocks of neighbouring dimensions with equal products, each regrouped by itself."""
    if math.prod(x.shape) != math.prod(shape):
        raise Uncovered("another number of elements")
    out: list[Dim] = []
    i = j = 0
    while j < len(shape) or i < len(x.shape):
        if i < len(x.shape) and j < len(shape) and x.shape[i] == shape[j]:
            out.append(x.dims[i])
            i, j = i + 1, j + 1
            continue
        left, right = i, j
        a = b = 1
        if i < len(x.shape) and ((x.shape[i] == 1 and not units(x.dims[i])) or j == len(shape)):
            i += 1
            continue
        if shape[j] == 1:
            out.append(ONE)
            j += 1
            continue
        while a != b or a == 1:
            if a <= b:
                a *= x.shape[i]
                i += 1
            else:
                b *= shape[j]
                j += 1
            if a == 0 or b == 0:
                raise Uncovered("an empty dimension")
        whole: Dim = tuple(f for d in x.dims[left:i] for f in d)
        parts = regroup(whole, list(shape[right:j]), at)
        if parts is None:
            lock(whole, Lock("shape", at))
            parts = [fresh(n, Lock("shape", at)) for n in shape[right:j]]
        out += parts
    return out


def rearranged(x: Typed, order: Sequence[int | None], t: Context) -> Typed:
    """Dimensions in another order; None is a new one of size 1."""
    dims = [ONE if i is None else x.dims[i] for i in order]
    axes = tuple(None if i is None else x.axes[i] for i in order) if x.source is not None else ()
    return Typed(dims, t.shape, x.dtype, x.source, axes)


@rule("permute permute_copy", view=True)
def _permute(t: Context, x: Typed, *order: Any, dims: Any = None) -> Typed:
    """Another order of dimensions."""
    given = dims if dims is not None else order[0] if len(order) == 1 and isinstance(order[0], list | tuple) else order
    return rearranged(x, [axis_of(x, i) for i in given], t)


@rule("movedim moveaxis", view=True)
def _movedim(t: Context, x: Typed, source: Any, destination: Any) -> Typed:
    """Some dimensions in other places, the others in their order."""
    old, new = ([axis_of(x, i) for i in ([v] if isinstance(v, int) else v)] for v in (source, destination))
    order = [i for i in range(len(x.shape)) if i not in old]
    for place, i in sorted(zip(new, old, strict=True)):
        order.insert(place, i)
    return rearranged(x, order, t)


@rule("transpose swapaxes swapdims transpose_copy", view=True)
def _transpose(t: Context, x: Typed, dim0: int, dim1: int) -> Typed:
    """Two dimensions exchanged."""
    return _exchanged(t, x, axis_of(x, dim0), axis_of(x, dim1))


@rule("t mT mH H adjoint", view=True)
def _transposed(t: Context, x: Typed) -> Typed:
    """The last two dimensions exchanged."""
    return _exchanged(t, x, -2, -1)


@rule("T", view=True)
def _backwards(t: Context, x: Typed) -> Typed:
    """All dimensions in the other order."""
    return rearranged(x, list(reversed(range(len(x.shape)))), t)


def _exchanged(t: Context, x: Typed, a: int, b: int) -> Typed:
    order = list(range(len(x.shape)))
    if len(order) > 1:
        order[a], order[b] = order[b], order[a]
    return rearranged(x, order, t)


@rule("unsqueeze", view=True)
def _unsqueeze(t: Context, x: Typed, dim: int) -> Typed:
    """A new dimension of size 1."""
    order: list[int | None] = list(range(len(x.shape)))
    order.insert(dim % len(t.shape), None)
    return rearranged(x, order, t)


@rule("squeeze", view=True)
def _squeeze(t: Context, x: Typed, dim: Any = None, **kwargs: Any) -> Typed:
    """Dimensions of size 1 left out."""
    chosen = range(len(x.shape)) if dim is None else [axis_of(x, d) for d in ([dim] if isinstance(dim, int) else dim)]
    return rearranged(x, [i for i in range(len(x.shape)) if not (i in chosen and x.shape[i] == 1)], t)


@rule("expand expand_as broadcast_to", view=True)
def _expand(t: Context, x: Typed, *sizes: Any, size: Any = None, **kwargs: Any) -> Typed:
    """Repeated along dimensions of size 1: the same values everywhere, so any axis will do."""
    lead = len(t.shape) - len(x.shape)
    given = size if size is not None else sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    other: Any = sizes[0] if sizes else None
    dims: list[Dim] = []
    for j, n in enumerate(t.shape):
        kept = j >= lead and x.shape[j - lead] == n
        dims.append(x.dims[j - lead] if kept else fresh(n))
        if not kept and isinstance(other, Typed):
            unify(dims[-1], other.dims[j], t.at)
        elif not kept or (len(given) == len(t.shape) and isinstance(given[j], int) and given[j] != -1):
            if len(given) == len(t.shape):
                t.state(given[j], dims[-1])
            else:
                lock(dims[-1], Lock("stack", t.at))
    axes = tuple(x.axes[j - lead] if j >= lead else None for j in range(len(t.shape))) if x.source is not None else ()
    return Typed(dims, t.shape, x.dtype, x.source, axes)


@layer("Flatten")
def _flatten_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    return _flatten(t, input)


@layer("Unflatten")
def _unflatten(t: Context, module: nn.Module, input: Typed) -> Typed:
    start, sizes = cast(Any, module).dim, cast(Any, module).unflattened_size
    if not isinstance(start, int) or not all(isinstance(n, int) for n in sizes):
        raise Uncovered("named sizes")
    made, start = _reshape(t, input), axis_of(input, start)
    for i, number in enumerate(sizes):
        if number != -1:
            t.attribute("unflattened_size", made.dims[start + i], item=i)
    return made
