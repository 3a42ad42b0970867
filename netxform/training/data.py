"""Batches of a data set: in an order that is a function of seed and epoch alone, and the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

Samples = Dataset[Any]


def order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation of `count` samples for one epoch."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (2**63))
    return torch.randperm(count, generator=generator)


def batches(
    samples: Samples,
    batch: int,
    *,
    shuffle: tuple[int, int] | None = None,
    rank: int = 0,
    world: int = 1,
    drop_single: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (x, y). `shuffle` is (seed, epoch), or None for the order of the data.

    The global batch is cut into `world` equal shares, of which this is share `rank`. `drop_single` leaves out a last
    batch of one sample, which BatchNorm cannot train on.
    """
    count = len(cast(Any, samples))
    indices = order(count, *shuffle) if shuffle is not None else torch.arange(count)
    chunks = [chunk[rank::world] for chunk in indices.split(batch)]
    chunks = [c for c in chunks if len(c) > (1 if drop_single and count > 1 else 0)]
    if isinstance(samples, TensorDataset):
        x, y = samples.tensors
        for chunk in chunks:
            yield x[chunk], y[chunk]
        return
    loader: DataLoader[Any] = DataLoader(samples, batch_sampler=[c.tolist() for c in chunks])
    for x, y in loader:
        yield x, y


def batch_count(samples: Samples, batch: int) -> int:
    """The number of steps in an epoch."""
    count = len(cast(Any, samples))
    full, rest = divmod(count, batch)
    return full + (1 if rest > 1 or (rest == 1 and full == 0) else 0)
