"""Layers that PyTorch lacks and that captured networks need. Each class stands alone: its source is written into the
standalone module of an artifact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): in training, drop the whole branch with probability `p`, a sample or a batch."""

    def __init__(self, p: float, mode: str = "row", scale: bool = True) -> None:
        super().__init__()
        self.p = p
        self.mode = mode
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """X (N, …) → the same shape."""
        if not self.training or self.p == 0.0:
            return x
        shape = [x.shape[0] if self.mode == "row" else 1] + [1] * (x.dim() - 1)
        keep = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.p)
        if self.scale and self.p < 1.0:
            keep = keep / (1.0 - self.p)
        return x * keep

    def extra_repr(self) -> str:
        """The settings."""
        return f"p={self.p}, mode={self.mode!r}"


class BatchNormAct2d(nn.BatchNorm2d):
    """BatchNorm with a dropout and an activation behind it, under one name (timm keeps the three in one module)."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """Input (N, C, H, W) → the same shape."""
        return self.act(self.drop(super().forward(input)))


class FrozenBatchNormAct2d(BatchNormAct2d):
    """`BatchNormAct2d` that is always in eval mode."""

    def train(self, mode: bool = True) -> FrozenBatchNormAct2d:
        """Stay in eval mode, whatever `mode` says."""
        super().train(False)
        return self
