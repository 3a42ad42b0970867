"""How far a mean over samples may be from the mean over all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def standard_error(totals_N: Tensor, total_of: Callable[..., tuple[Tensor, ...]] = lambda *sums: sums) -> float | None:
    """Of the mean of one number a sample; `total_of` adds up over processes. None for fewer than two samples."""
    n, mean = (float(t) for t in total_of(torch.tensor(float(len(totals_N))).double(), totals_N.double().sum()))
    if n < 2:
        return None
    (squares,) = total_of((totals_N.double() - mean / n).square().sum())
    return (float(squares) / (n - 1) / n) ** 0.5
