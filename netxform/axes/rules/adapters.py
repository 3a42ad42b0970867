"""Layers of adapters: factors by channel, and lengths of weights."""

from __future__ import annotations

from typing import cast

from torch import nn

from netxform.axes.algebra import Lock, lock, unify
from netxform.axes.rules.context import Context, Typed, need
from netxform.axes.rules.registry import layer
from netxform.graph.layers import Magnitude, Scaled


@layer("Scaled")
def _scaled(t: Context, module: nn.Module, x: Typed) -> Typed:
    """A factor for every channel."""
    weight = need(t, "weight")
    t.touch(x)
    t.touch(weight)
    unify(x.dims[-1 - cast(Scaled, module).after], weight.dims[0], t.at)
    t.attribute("size", weight.dims[0])
    return Typed(list(x.dims), t.shape, x.dtype)


@layer("Magnitude")
def _magnitude(
    t: Context, module: nn.Module, base: Typed, product: Typed, W: Typed, A: Typed, B: Typed, bias: Typed | None = None
) -> Typed:
    """The outputs have lengths: norms over everything else that the weights have, which therefore stays as it is."""
    table = cast(Magnitude, module).table
    weight = need(t, "weight")
    for tensor in (base, product, W, A, B, weight, *((bias,) if bias is not None else ())):
        t.touch(tensor)
    out, others = (W.dims[1], [W.dims[0]]) if table else (W.dims[0], W.dims[1:])
    factors, rank = ([A.dims[0]], A.dims[1]) if table else (A.dims[1:], A.dims[0])
    for ours, theirs in zip(others, factors, strict=True):
        unify(ours, theirs, t.at)
        lock(ours, Lock("lengths", t.at))
    unify(rank, B.dims[1], t.at)
    lock(rank, Lock("lengths", t.at))
    channel = 1 if len(W.shape) > 2 else -1
    for dim in (
        base.dims[channel],
        product.dims[channel],
        B.dims[0],
        *(() if bias is None else (bias.dims[0],)),
        weight.dims[0],
    ):
        unify(out, dim, t.at)
    for ours, theirs in zip(base.dims, product.dims, strict=True):
        unify(ours, theirs, t.at)
    t.attribute("size", weight.dims[0])
    return Typed(list(base.dims), t.shape, base.dtype)
