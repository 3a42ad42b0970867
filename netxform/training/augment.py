"""Augmentation and mixup on tensors: random numbers are drawn for the global batch, and each process takes those of its rows.

So the views do not depend on the number of processes, and student and teacher see the same ones.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from netxform.graph.layer_spec import Invocation
from netxform.language.methods import TRANSFORMS
from netxform.registry import called
from netxform.training.data import Batch


class Draw:
    """Random numbers for the rows of this share, drawn for the whole global batch: uniform, or normal ones."""

    def __init__(self, batch: Batch, generator: torch.Generator, device: torch.device) -> None:
        self._batch, self._generator, self._device = batch, generator, device

    def __call__(self, *shape: int) -> Tensor:
        """Uniform in [0, 1): (n, *shape)."""
        return torch.rand((self._batch.total, *shape), generator=self._generator)[self._batch.rows].to(self._device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal: (n, *shape)."""
        return torch.randn((self._batch.total, *shape), generator=self._generator)[self._batch.rows].to(self._device)


def augment(x: Tensor, calls: tuple[Invocation, ...], batch: Batch, generator: torch.Generator) -> Tensor:
    """X (n, …) seen anew; `shift(2)` pixels at most, `flip(0.5)` left to right, `noise(0.1)`, `erase(0.25)` of the side,
    `scale(0.1)` in brightness.
    """
    draw = Draw(batch, generator, x.device)
    for call in calls:
        known = TRANSFORMS.find(call.name, call.span)
        x = called(known.apply)(x, float(call.arguments[0]) if call.arguments else known.amount, draw)
    return x


def flip(x: Tensor, share: float, draw: Draw) -> Tensor:
    """That share of the images left to right."""
    return torch.where(_column(draw() < share, x), x.flip(-1), x)


def noise(x: Tensor, amount: float, draw: Draw) -> Tensor:
    """Normal noise of that standard deviation on every value."""
    return x + amount * draw.normal(*x.shape[1:]).to(x)


def scale(x: Tensor, amount: float, draw: Draw) -> Tensor:
    """Each sample times a number in 1 ± amount."""
    return x * _column(1 + amount * (2 * draw() - 1), x)


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.dim() - 1)).to(torch.bool if values.dtype == torch.bool else x.dtype)


def shift(x: Tensor, amount: float, draw: Draw) -> Tensor:
    """Each image moved by whole pixels, zeros coming in."""
    most = int(amount)
    n, c, h, w = x.shape
    padded = F.pad(x, (most, most, most, most))
    at = (draw(2) * (2 * most + 1)).long()
    rows = (at[:, :1] + torch.arange(h, device=x.device)).view(n, 1, h, 1)
    columns = (at[:, 1:] + torch.arange(w, device=x.device)).view(n, 1, 1, w)
    places = torch.arange(n, device=x.device).view(n, 1, 1, 1)
    return padded[places, torch.arange(c, device=x.device).view(1, c, 1, 1), rows, columns]


def erase(x: Tensor, share: float, draw: Draw) -> Tensor:
    """A square of that share of the side set to zero (DeVries, Taylor, "Cutout", 2017)."""
    n, _, h, w = x.shape
    at = draw(2)
    rows = (torch.arange(h, device=x.device) - at[:, :1] * h).abs() < share * h / 2
    columns = (torch.arange(w, device=x.device) - at[:, 1:] * w).abs() < share * w / 2
    return x.masked_fill((rows[:, :, None] & columns[:, None, :]).view(n, 1, h, w), 0.0)


def partners(batch: Batch, alpha: float, generator: torch.Generator) -> tuple[float, Tensor]:
    """λ ~ Beta(α, α), and for each row of this share the number of the sample that it is mixed with.

    Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization", 2018.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    return share, batch.chunk[torch.randperm(batch.total, generator=generator)[batch.rows]]
