"""Rows that are looked up by number."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from netxform.axes.algebra import Lock, fresh, lock
from netxform.axes.rules.context import Context, Typed, need
from netxform.axes.rules.registry import layer, rule


def lookup(t: Context, weight: Typed, numbers: Typed) -> Typed:
    """Rows by number: the rows are locked, their elements are not."""
    t.touch(weight)
    lock(weight.dims[0], Lock("lookup", t.at))
    return Typed([*numbers.dims, weight.dims[1]], t.shape, weight.dtype)


@rule("embedding")
def _embedding(t: Context, a: Typed, b: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Functional and ATen forms differ in the order of their arguments."""
    return lookup(t, a, b) if len(a.shape) == 2 and (*b.shape, a.shape[1]) == t.shape and _is_float(a) else lookup(t, b, a)


def _is_float(x: Typed) -> bool:
    return x.dtype is None or bool(getattr(x.dtype, "is_floating_point", True))


@layer("Embedding")
def _embedding_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    weight = need(t, "weight")
    made = lookup(t, weight, input)
    if cast(nn.Embedding, module).max_norm is not None:
        lock(weight.dims[1], Lock("renorm", t.at))
    t.attribute("embedding_dim", weight.dims[1])
    return made


@layer("EmbeddingBag")
def _embedding_bag(t: Context, module: nn.Module, input: Typed, *args: Any, **kwargs: Any) -> Typed:
    weight = need(t, "weight")
    t.touch(weight)
    lock(weight.dims[0], Lock("lookup", t.at))
    if cast(nn.EmbeddingBag, module).max_norm is not None:
        lock(weight.dims[1], Lock("renorm", t.at))
    t.attribute("embedding_dim", weight.dims[1])
    return Typed([fresh(t.shape[0], Lock("input", t.at)), weight.dims[1]], t.shape, weight.dtype)
