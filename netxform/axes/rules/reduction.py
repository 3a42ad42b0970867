"""Reductions and what is normalised along one dimension: it is mixed, the rest keeps its type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import nn

from netxform.axes.algebra import ONE
from netxform.axes.rules.context import Context, Positions, Shape, Typed, Uncovered, alike, axis_of, several
from netxform.axes.rules.pointwise import pointwise
from netxform.axes.rules.registry import layer, rule

_KINDS = {
    "mean": "mean", "sum": "sum", "amax": "extremum", "amin": "extremum", "prod": "product", "var": "variance",
    "std": "variance", "var_mean": "variance", "std_mean": "variance", "norm": "norm", "vector_norm": "norm",
    "linalg_vector_norm": "norm", "logsumexp": "softmax", "any": "extremum", "all": "extremum", "nansum": "sum",
    "nanmean": "mean", "aminmax": "extremum",
}  # fmt: skip


def _reduction(name: str, kind: str) -> None:
    @rule(name)
    def _(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Any:
        return reduce(t, x, kind, args[1:] if "norm" in name else args, kwargs)


for _name, _kind in _KINDS.items():
    _reduction(_name, _kind)


def _asked(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The dimension or dimensions that a call names, or None."""
    over = kwargs.get("dim", kwargs.get("axis", args[0] if args else None))
    if over is not None and not isinstance(over, int | list | tuple):
        raise Uncovered("the dimension is no number")
    return None if isinstance(over, bool) else over


def reduce(t: Context, x: Typed, kind: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What is reduced is mixed; the rest keeps its type."""
    over = _asked(args, kwargs)
    t.touch(x)
    axes = list(range(len(x.shape))) if over is None else [axis_of(x, d) for d in ([over] if isinstance(over, int) else over)]
    if over is not None and not isinstance(over, int) and not axes:
        axes = list(range(len(x.shape)))
    for i in axes:
        t.mix(x.dims[i], kind)

    def made(shape: Shape) -> Typed:
        if len(shape) == len(x.shape):
            return Typed([ONE if i in axes else d for i, d in enumerate(x.dims)], shape, x.dtype)
        return Typed([d for i, d in enumerate(x.dims) if i not in axes], shape, x.dtype)

    return tuple(made(s) for s in t.shape) if several(t) else made(t.shape)


@rule("max min")
def _extremum(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Any:
    """Of two tensors: elementwise. Of one: a reduction; which position it was is locked where it is read."""
    others = [a for a in (*args, *kwargs.values()) if isinstance(a, Typed)]
    if others:
        return pointwise(t, x, *others)
    made = reduce(t, x, "extremum", args, kwargs)
    if isinstance(made, tuple):
        axis = axis_of(x, _asked(args, kwargs) or 0)
        return (made[0], Positions(made[1].dims, made[1].shape, None, None, (), x.dims[axis]))
    return made


@rule("softmax _softmax _safe_softmax log_softmax _log_softmax softmin")
def _softmax(t: Context, x: Typed, dim: Any = -1, *args: Any, **kwargs: Any) -> Typed:
    """Normalised along one dimension."""
    if not isinstance(dim, int):
        raise Uncovered("no dimension is named")
    t.touch(x)
    t.mix(x.dims[axis_of(x, dim)], "softmax")
    return alike(x)


@rule("gumbel_softmax")
def _gumbel_softmax(t: Context, x: Typed, tau: Any = 1, hard: Any = False, eps: Any = None, dim: Any = -1) -> Typed:
    """A softmax of the sum with noise."""
    return _softmax(t, x, dim)


@rule("normalize")
def _normalize(t: Context, x: Typed, p: Any = 2.0, dim: int = 1, *args: Any, **kwargs: Any) -> Typed:
    """Divided by a norm along one dimension."""
    if not isinstance(dim, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Uncovered("several dimensions normalised together")
    t.touch(x)
    t.mix(x.dims[axis_of(x, dim)], "norm")
    return alike(x)


@layer("Softmax LogSoftmax Softmin")
def _softmax_layer(t: Context, module: nn.Module, x: Typed) -> Typed:
    dim = cast(Any, module).dim
    if dim is None:
        raise Uncovered("no dimension is named")
    return _softmax(t, x, dim)


@layer("Softmax2d")
def _softmax2d(t: Context, module: nn.Module, x: Typed) -> Typed:
    return _softmax(t, x, -3)
