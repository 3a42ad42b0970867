"""Losses by name, and the metrics that go with them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Loss(Protocol):
    """A mean over the batch: `output` (N, C, …), `target` (N, …) → scalar."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss."""
        ...


def loss_of(name: str, smoothing: float = 0.0) -> Loss:
    """`cross_entropy` (targets are class numbers) or `mse` (targets have the output's shape, or are class numbers)."""
    if name == "cross_entropy":
        return lambda output, target: F.cross_entropy(output, target, label_smoothing=smoothing)

    def squared(output: Tensor, target: Tensor) -> Tensor:
        if not target.dtype.is_floating_point:
            target = F.one_hot(target, output.shape[-1]).to(output.dtype)
        return F.mse_loss(output, target.reshape(output.shape).to(output.dtype))

    return squared


@torch.no_grad()
def hits(output: Tensor, target: Tensor) -> float:
    """How many of the N samples have their largest output at the target class; 0 for targets that are no classes.

    A sample with several targets (words) counts by the share of them that is right; targets of −100 are left out.
    """
    if target.dtype.is_floating_point or output.dim() < 2:
        return 0
    right = output.argmax(1) == target
    if target.dim() == 1:
        return int(right.sum())
    counted = target != -100
    return float(right.sum() / counted.sum().clamp(min=1)) * len(target)
