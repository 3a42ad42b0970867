"""Attention: heads are an axis, the width of queries and keys another, that of values a third."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from netxform.axes.algebra import Lock, concat, fresh, lock, unify
from netxform.axes.rules.context import Context, Shape, Typed, Uncovered, broadcast, need, several, unknown
from netxform.axes.rules.registry import layer, rule


@rule("scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math")
def _attention(t: Context, query: Typed, key: Typed, value: Typed, attn_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Softmax(q k^T · scale) v: q and k are contracted over their width, keys and values over positions."""
    shape = cast("Shape", t.shape[0] if several(t) else t.shape)
    if any(len(x.shape) != len(shape) for x in (query, key, value)) or query.shape[:-2] != shape[:-2]:
        raise Uncovered("queries that are repeated for several batches of keys")
    for operand in (query, key, value):
        t.touch(operand)
    t.contract(query, len(query.shape) - 1, key, len(key.shape) - 1)
    if kwargs.get("scale") is None and not t.scaled_by_size(query.dims[-1]):
        t.mix(query.dims[-1], "size")
    unify(key.dims[-2], value.dims[-2], t.at)
    t.mix(key.dims[-2], "softmax")
    heads = query.dims[:-2]
    for other in (key, value):
        for i in range(len(shape) - 2):
            n, own = query.shape[i], other.shape[i]
            if n == own:
                unify(heads[i], other.dims[i], t.at)
            elif own != 1 and n % own == 0:  # grouped queries: each head of keys serves several heads of queries
                unify(heads[i], other.dims[i] + fresh(n // own, Lock("stack", t.at)), t.at)
            elif n != 1:
                raise Uncovered("heads of queries and of keys that do not divide")
    made = Typed([*heads, query.dims[-2], value.dims[-1]], shape, query.dtype)
    if isinstance(attn_mask, Typed):
        broadcast(t, [Typed([*heads, query.dims[-2], key.dims[-2]], (*query.shape[:-1], key.shape[-2])), attn_mask],
                   (*shape[:-2], query.shape[-2], key.shape[-2]))  # fmt: skip
    return (made, *[unknown(t, s) for s in t.shape[1:]]) if several(t) else made


@layer("MultiheadAttention Attention")
def _attention_layer(
    t: Context, module: nn.Module, query: Typed, key: Typed, value: Typed, key_padding_mask: Any = None,
    need_weights: bool = True, attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
) -> Any:  # fmt: skip
    """q, k = heads · width, v = heads · value width; the three projections stand one behind the other in one tensor."""
    own = cast(Any, module)
    if own.bias_k is not None or own.add_zero_attn or len(query.shape) != 3:
        raise Uncovered("keys that are added, or an input without a batch")
    heads = fresh(own.num_heads)
    width = fresh(own.head_dim)
    value_width = fresh(getattr(own, "value_dim", own.head_dim))
    rows = [heads + width, heads + width, heads + value_width]
    for operand in (query, key, value):
        t.touch(operand)
    packed = t.tensor("in_proj_weight")
    if packed is not None:
        t.touch(packed)
        unify(packed.dims[0], concat(rows), t.at)
        for operand in (query, key, value):
            t.contract(operand, 2, packed, 1)
    else:
        for name, operand, dim in zip("qkv", (query, key, value), rows, strict=True):
            weight = need(t, f"{name}_proj_weight")
            t.touch(weight)
            unify(weight.dims[0], dim, t.at)
            t.contract(operand, 2, weight, 1)
    bias = t.tensor("in_proj_bias")
    if bias is not None:
        t.touch(bias)
        unify(bias.dims[0], concat(rows), t.at)
    t.inner_product(width)
    weight, shift = need(t, "out_proj.weight"), t.tensor("out_proj.bias")
    t.touch(weight)
    t.contract(Typed([heads + value_width], weight.shape[1:]), 0, weight, 1)
    if shift is not None:
        t.touch(shift)
        unify(weight.dims[0], shift.dims[0], t.at)
    for name, dim in (("num_heads", heads), ("head_dim", width), ("value_dim", value_width), ("embed_dim", weight.dims[0])):
        t.attribute(name, dim)
    batch, first, second = (query.dims[0], query.dims[1], key.dims[1])
    if not own.batch_first:
        batch, first, second = query.dims[1], query.dims[0], key.dims[0]
    t.mix(second, "softmax")
    unify(second, value.dims[1 if own.batch_first else 0], t.at)
    for mask in (key_padding_mask, attn_mask):
        if isinstance(mask, Typed):
            for dim in mask.dims:
                lock(dim, Lock("position", t.at))
    out = Typed([*query.dims[:2], weight.dims[0]], t.shape[0], query.dtype)
    if not need_weights:
        return (out, None)
    if average_attn_weights:
        t.mix(heads, "mean") if 1 in t.read_items() else None
        return (out, Typed([batch, first, second], t.shape[1]))
    return (out, Typed([batch, heads, first, second], t.shape[1]))
