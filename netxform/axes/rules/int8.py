"""Layers whose weights are stored as int8."""

from __future__ import annotations

from torch import nn

from netxform.axes.algebra import Lock, lock, unify
from netxform.axes.rules.context import Context, Typed, need
from netxform.axes.rules.registry import layer


@layer("Int8Linear Int8Embedding")
def _int8(t: Context, module: nn.Module, input: Typed) -> Typed:
    """The steps belong to the rows as they are: what is gathered or scaled here would have to be quantized again."""
    weight, scale, bias = need(t, "weight"), need(t, "scale"), t.tensor("bias")
    for tensor in (input, weight, scale, *((bias,) if bias is not None else ())):
        t.touch(tensor)
    for dim in weight.dims:
        lock(dim, Lock("int8", t.at))
    unify(scale.dims[0], weight.dims[0], t.at)
    if bias is not None:
        unify(bias.dims[0], weight.dims[0], t.at)
    if "Embedding" in type(module).__name__:
        return Typed([*input.dims, weight.dims[1]], t.shape, scale.dtype)
    unify(input.dims[-1], weight.dims[1], t.at)
    return Typed([*input.dims[:-1], weight.dims[0]], t.shape, scale.dtype)
