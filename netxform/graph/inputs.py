"""What a network is called with: one tensor, or a tuple with one tensor an argument. Samples are in front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor

from netxform.errors import fail

Given: TypeAlias = "Tensor | tuple[Tensor, ...]"


def arguments(x: Given) -> tuple[Tensor, ...]:
    """The arguments in order. Raises NetxformError X0318 for fields that could not be given to the network's arguments."""
    if isinstance(x, dict):
        held = ", ".join(cast("dict[str, Tensor]", x))
        raise fail("X0318", f"the fields of the data ({held}) are not the arguments of the network", label="does not fit")
    return (x,) if isinstance(x, Tensor) else x


def count(x: Given) -> int:
    """How many samples there are."""
    return len(arguments(x)[0])


def some(x: Given, chosen: slice | Tensor) -> Given:
    """Some of the samples."""
    return x[chosen] if isinstance(x, Tensor) else tuple(t[chosen] for t in x)


def joined(several: Sequence[Given]) -> Given:
    """Batches as one."""
    if isinstance(several[0], Tensor):
        return torch.cat(cast("list[Tensor]", several))
    return tuple(torch.cat(parts) for parts in zip(*map(arguments, several), strict=True))
