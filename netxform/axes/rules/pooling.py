"""Neighbours read together: pooling, resampling, padding that copies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from netxform.axes.algebra import Lock, fresh, lock
from netxform.axes.rules.context import Context, Shape, Typed, Uncovered, several
from netxform.axes.rules.registry import layer, rule


def pool(t: Context, x: Typed, count: int) -> Any:
    """Neighbours along the last `count` dimensions are read together; channels stay."""
    t.touch(x)
    for dim in x.dims[len(x.dims) - count :]:
        lock(dim, Lock("spatial", t.at))

    def made(shape: Shape) -> Typed:
        kept = list(x.dims[: len(x.dims) - count])
        return Typed([*kept, *[fresh(n, Lock("spatial", t.at)) for n in shape[len(kept) :]]], shape, x.dtype)

    if several(t):
        return tuple(made(s) for s in t.shape)
    return made(t.shape)


def _names(n: int) -> Iterator[str]:
    """The operations that read neighbours along `n` dimensions."""
    for kind in "max_pool avg_pool adaptive_avg_pool adaptive_max_pool lp_pool _adaptive_avg_pool".split():
        yield from (f"{kind}{n}d", f"{kind}{n}d_with_indices", f"{kind}{n}d_with_mask")
    for mode in ("nearest", {1: "linear", 2: "bilinear", 3: "trilinear"}[n], *(["bicubic"] if n == 2 else [])):
        yield from (f"upsample_{mode}{n}d", f"_upsample_{mode}{n}d_aa", f"_upsample_{mode}-exact{n}d")
    yield from (f"_upsample_nearest_exact{n}d", f"reflection_pad{n}d", f"replication_pad{n}d")


_KINDS = (
    "MaxPool AvgPool AdaptiveAvgPool AdaptiveMaxPool LPPool FractionalMaxPool ReflectionPad ReplicationPad CircularPad ZeroPad"
)


def _over(n: int) -> None:
    @rule(" ".join(_names(n)))
    def _(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Any:
        return pool(t, x, n)

    @layer(" ".join(f"{kind}{n}d" for kind in (*_KINDS.split(), "ConstantPad")))
    def _(t: Context, module: nn.Module, x: Typed) -> Any:
        return pool(t, x, n)


for _n in (1, 2, 3):
    _over(_n)


@rule("interpolate upsample grid_sample")
def _interpolate(t: Context, input: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Everything behind the channels is resampled."""
    for other in (*args, *kwargs.values()):
        if isinstance(other, Typed):
            raise Uncovered("resampled at places that a tensor gives")
    return pool(t, input, len(input.shape) - 2)


@layer("Upsample UpsamplingNearest2d UpsamplingBilinear2d")
def _upsample(t: Context, module: nn.Module, input: Typed) -> Any:
    return pool(t, input, len(input.shape) - 2)
