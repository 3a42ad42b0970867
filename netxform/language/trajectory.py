"""The way of a training through function space or weight space, as data: recorded by `training/`, stored and drawn above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

SKETCH = 4096


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One training of one run. `points` (E, D) float32: a row for each of the `epochs` (0 is before the first step).

    `what`: of `outputs`, a row holds the outputs for all probe samples, one behind the other; of `weights`, the trained
    parameters. `variant` is "spec", or how the run differs from it; `pretrained`: the run began with something learnt before.
    `rows` are the learning curves of the training.
    """

    variant: str
    seed: int
    pretrained: bool
    statement: str
    what: Literal["outputs", "weights"]
    epochs: tuple[int, ...]
    points: Tensor
    rows: tuple[dict[str, float], ...] = ()


def sketch(values: Tensor, size: int = SKETCH) -> Tensor:
    """Numbers (D) as at most `size` numbers, distances kept in expectation: one linear map for all vectors of a length.

    Count sketch (Charikar, Chen, Farach-Colton, 2002): each number goes, with a random sign, to one of `size` sums.
    """
    import torch

    count = values.numel()
    if count <= size:
        return values.flatten()
    generator = torch.Generator().manual_seed(count)
    place = torch.randint(size, (count,), generator=generator)
    sign = torch.randint(2, (count,), generator=generator).to(values.dtype) * 2 - 1
    return torch.zeros(size, dtype=values.dtype).index_add_(0, place, values.flatten() * sign)
