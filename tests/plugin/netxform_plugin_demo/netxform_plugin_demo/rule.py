"""What `torch.sinc` does to axes: every element by itself."""

from __future__ import annotations

from netxform.axes.rules.context import Context, Typed
from netxform.axes.rules.pieces import same
from netxform.axes.rules.registry import rule


@rule("sinc")
def sinc(t: Context, x: Typed) -> Typed:
    """Element by element."""
    return same(t, x)
