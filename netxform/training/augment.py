"""Augmentation and mixup on tensors: random numbers are drawn for the global batch, and each process takes those of its rows.

So the views do not depend on the number of processes, and student and teacher see the same ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from netxform.graph.layer_spec import Invocation
from netxform.language.work import AUGMENTATIONS
from netxform.training.data import Batch

Draw = Callable[..., Tensor]


def augment(x: Tensor, calls: tuple[Invocation, ...], batch: Batch, generator: torch.Generator) -> Tensor:
    """X (n, …) seen anew; `shift(2)` pixels at most, `flip(0.5)` left to right, `noise(0.1)`, `erase(0.25)` of the side,
    `scale(0.1)` in brightness.
    """

    def draw(*shape: int) -> Tensor:
        return torch.rand((batch.total, *shape), generator=generator)[batch.rows].to(x.device)

    for call in calls:
        amount = float(call.arguments[0]) if call.arguments else AUGMENTATIONS[call.name]
        match call.name:
            case "shift":
                x = _shift(x, int(amount), draw)
            case "flip":
                x = torch.where(_column(draw() < amount, x), x.flip(-1), x)
            case "noise":
                normal = torch.randn((batch.total, *x.shape[1:]), generator=generator)[batch.rows]
                x = x + amount * normal.to(x)
            case "scale":
                x = x * _column(1 + amount * (2 * draw() - 1), x)
            case _:
                x = _erase(x, amount, draw)
    return x


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.dim() - 1)).to(torch.bool if values.dtype == torch.bool else x.dtype)


def _shift(x: Tensor, most: int, draw: Draw) -> Tensor:
    """Each image moved by whole pixels, zeros coming in."""
    n, c, h, w = x.shape
    padded = F.pad(x, (most, most, most, most))
    at = (draw(2) * (2 * most + 1)).long()
    rows = (at[:, :1] + torch.arange(h, device=x.device)).view(n, 1, h, 1)
    columns = (at[:, 1:] + torch.arange(w, device=x.device)).view(n, 1, 1, w)
    places = torch.arange(n, device=x.device).view(n, 1, 1, 1)
    return padded[places, torch.arange(c, device=x.device).view(1, c, 1, 1), rows, columns]


def _erase(x: Tensor, share: float, draw: Draw) -> Tensor:
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
