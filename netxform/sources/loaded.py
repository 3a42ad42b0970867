"""A model as a source or a file gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import nn

# of each input the shape and the name of its dtype
Shapes: TypeAlias = tuple[tuple[tuple[int, ...], str], ...]
# the module, its inputs (None: not known), and where it came from
Loaded: TypeAlias = "tuple[nn.Module, Shapes | None, dict[str, Any]]"


class WeightsNeeded(Exception):
    """The model cannot be made without its weights: why, in words."""
