"""Tensors that are born in the graph."""

from __future__ import annotations

from typing import Any, cast

from netxform.axes.algebra import ONE, Lock, concat, fresh, lock
from netxform.axes.rules.context import Context, Typed, locked
from netxform.axes.rules.registry import rule


@rule("zeros ones full empty new_zeros new_ones new_full new_empty empty_permuted")
def _uniform(t: Context, *args: Any, **kwargs: Any) -> Typed:
    """The same value everywhere: any axis will do, and the size must follow."""
    made = Typed([fresh(n) for n in t.shape], t.shape)
    sizes = [a for a in args if not isinstance(a, Typed)]
    given = kwargs.get("size", sizes[0] if sizes and isinstance(sizes[0], list | tuple) else sizes)
    if isinstance(given, list | tuple) and len(cast("list[Any]", given)) >= len(t.shape):
        for number, dim in zip(cast("list[Any]", given), made.dims, strict=False):
            t.state(number, dim)
    else:
        lock(concat(made.dims) if made.dims else ONE, Lock("constant", t.at))
    return made


@rule("zeros_like ones_like full_like empty_like")
def _like(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """The same value everywhere, as large as the operand."""
    return Typed(list(x.dims), x.shape, x.dtype)


@rule(
    "arange eye scalar_tensor tensor linspace rand randn randint rand_like randn_like tril_indices triu_indices device _assert"
)
def _constant(t: Context, *args: Any, **kwargs: Any) -> Any:
    """Values that depend on the position."""
    return locked(t.shape, "constant", t.at) if isinstance(t.shape, tuple) else None


@rule("meshgrid")
def _meshgrid(t: Context, *tensors: Any, **kwargs: Any) -> Any:
    """Coordinates."""
    return tuple(locked(s, "constant", t.at) for s in t.shape)
