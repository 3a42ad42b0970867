"""What a rule is given and what it gives back: typed values, numbers that know their place, and the context that it may ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from netxform.axes.algebra import ONE, Dim, Lock, fresh, lock, unify

Shape = tuple[int, ...]


@dataclass(slots=True)
class Typed:
    """A tensor as the analysis sees it: a type for every dimension.

    `source` and `axes` say which tensor of the module this is a view of, and which of its axes each dimension is.
    """

    dims: list[Dim]
    shape: Shape
    dtype: Any = None
    source: str | None = None
    axes: tuple[int | None, ...] = ()


@dataclass(slots=True)
class Positions(Typed):
    """Positions along a dimension, as values: whoever reads them locks it."""

    of: Dim = field(default=ONE)


class Int(int):
    """An int argument that knows where it stands in the graph (`path`) or which dimensions it was computed from (`dims`)."""

    path: tuple[Any, ...] | None = None
    dims: tuple[Dim, ...] = ()


class Real(float):
    """A float that was computed from the sizes of dimensions."""

    dims: tuple[Dim, ...] = ()


class Uncovered(Exception):
    """The rule does not cover this use of the operation, and says why. Nothing else that a rule raises is caught."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Context(Protocol):
    """What a rule may ask for while it runs.

    `at`: where it runs, for locks. `shape`: of the result; a list or tuple of shapes where there are several results.
    `inside`: whether the operation is part of code that is kept whole.
    """

    at: str
    shape: Any
    inside: bool

    def state(self, number: Any, *dims: Dim) -> None:
        """The number in the code is the sum of the sizes of these dimensions, and must follow them."""
        ...

    def state_split(self, axis: int, parts: list[Dim]) -> None:
        """A dimension is cut by one number into these parts."""
        ...

    def drop_last_statement(self) -> tuple[Dim, ...] | None:
        """Take back what was stated last, if it has no place in the code: its dimensions."""
        ...

    def contract(self, left: Typed, i: int, right: Typed, j: int) -> None:
        """Dimension i of `left` and j of `right` are the same and are summed over."""
        ...

    def inner_product(self, dim: Dim) -> None:
        """Two activations are summed over this dimension inside the layer."""
        ...

    def mix(self, dim: Dim, kind: str) -> None:
        """Something is computed across the dimension."""
        ...

    def touch(self, tensor: Typed) -> None:
        """The values of a tensor of the module are used here, and are not contracted away elsewhere."""
        ...

    def scaled_by_size(self, dim: Dim) -> bool:
        """The result depends on the size of `dim` through a default scale; whether that can be written out."""
        ...

    def tensor(self, name: str) -> Typed | None:
        """The layer's parameter or buffer of that name, or None."""
        ...

    def attribute(self, name: str, *dims: Dim, item: int | None = None) -> None:
        """The layer's attribute (its number `item`, where it holds several) is the sum of the sizes of these dimensions."""
        ...

    def read_items(self) -> set[int]:
        """Which of several results somebody reads."""
        ...


def locked(shape: Shape, kind: str, at: str = "", dtype: Any = None) -> Typed:
    """A value whose dimensions are all locked for one reason."""
    return Typed([fresh(n, Lock(kind, at)) for n in shape], shape, dtype)


def unknown(t: Context, shape: Any) -> Typed | None:
    """A result that nobody is meant to use, locked; None where it is no tensor."""
    return locked(shape, "unknown", t.at) if isinstance(shape, tuple) else None


def alike(x: Typed) -> Typed:
    """Another value of the same type."""
    return Typed(list(x.dims), x.shape, x.dtype)


def same(t: Context, x: Typed, dims: list[Dim] | None = None) -> Typed:
    """The result, of the operand's type or of these dimensions."""
    return Typed(list(dims if dims is not None else x.dims), t.shape, x.dtype)


def axis_of(x: Typed, dim: int) -> int:
    """The number of a dimension, counted from the front."""
    return dim % len(x.shape) if x.shape else 0


def several(t: Context) -> bool:
    """Whether the operation has several results."""
    return isinstance(t.shape, list) or (bool(t.shape) and not isinstance(t.shape[0], int))


def broadcast(t: Context, operands: Sequence[Typed], shape: Shape) -> Typed:
    """Operands of which each element meets the elements at the same place; sizes that broadcast stay apart."""
    out: list[Dim | None] = [None] * len(shape)
    for operand in operands:
        t.touch(operand)
        lead = len(shape) - len(operand.shape)
        for i, n in enumerate(operand.shape):
            if n != shape[lead + i]:
                if n == 1:
                    lock(operand.dims[i], Lock("one", t.at))
                continue
            known = out[lead + i]
            if known is None:
                out[lead + i] = operand.dims[i]
            else:
                unify(known, operand.dims[i], t.at)
    dims = [d if d is not None else fresh(n) for d, n in zip(out, shape, strict=True)]
    return Typed(dims, shape, operands[0].dtype if operands else None)


def need(t: Context, name: str) -> Typed:
    """The layer's tensor of that name. Raises Uncovered where it has none."""
    found = t.tensor(name)
    if found is None:
        raise Uncovered(f"the layer has no tensor `{name}`")
    return found
