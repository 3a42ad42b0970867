"""A file of rules as another package would bring it: one for an operation, one for a layer."""

from __future__ import annotations

from torch import nn

from netxform.axes.rules.context import Context, Typed
from netxform.axes.rules.registry import layer, rule


@rule("i0")
def _bessel(t: Context, x: Typed) -> Typed:
    """Element by element."""
    t.touch(x)
    return Typed(list(x.dims), x.shape)


@layer("Wobbly")
def _wobbly(t: Context, module: nn.Module, x: Typed) -> Typed:
    """Element by element, whatever its control flow."""
    t.touch(x)
    return Typed(list(x.dims), x.shape)
