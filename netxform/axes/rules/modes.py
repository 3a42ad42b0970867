"""Values that depend on the mode: one in training, another in eval mode."""

from __future__ import annotations

from typing import Any

from netxform.axes.algebra import unify
from netxform.axes.rules.context import Context, Typed
from netxform.axes.rules.registry import rule


@rule("pick")
def pick(t: Context, training: Any, trained: Any, evaluated: Any) -> Any:
    """The one in training, the other in eval mode: they are of one type."""
    if isinstance(trained, Typed) and isinstance(evaluated, Typed):
        t.touch(trained)
        for ours, theirs in zip(evaluated.dims, trained.dims, strict=True):
            unify(ours, theirs, t.at)
    return evaluated
