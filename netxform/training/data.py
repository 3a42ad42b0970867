"""Batches of a data set: in an order that is a function of seed and epoch alone, and the same for any number of processes."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from netxform.errors import NetxformError, fail
from netxform.sources.data.parts import finite

Samples = Dataset[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """This process's share of a global batch: x (n, …), y (n, …), and where its rows stand.

    `places`: the numbers of the samples in the data set; `rows`: their rows in the global batch, whose samples are `chunk`. The
    first `live` rows count; a process whose share is empty is given one row that does not.
    """

    x: Tensor
    y: Tensor
    places: Tensor
    rows: Tensor
    chunk: Tensor
    live: int

    @property
    def total(self) -> int:
        """The size of the global batch."""
        return len(self.chunk)


def order(count: int, seed: int, epoch: int, chances: Tensor | None = None) -> Tensor:
    """A permutation of `count` samples for one epoch; or as many drawn with `chances` (count), some of them several times."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (2**63))
    if chances is not None:
        edges = chances.double().cumsum(0)
        return torch.searchsorted(edges, torch.rand(count, generator=generator, dtype=torch.float64) * edges[-1])
    return torch.randperm(count, generator=generator)


def steps(
    samples: Samples,
    batch: int,
    *,
    shuffle: tuple[int, int] | None = None,
    rank: int = 0,
    world: int = 1,
    drop_single: bool = False,
    accumulate: int = 1,
    chances: Tensor | None = None,
) -> Iterator[tuple[Batch, ...]]:
    """The steps of one pass, each in `accumulate` pieces (or fewer, where there are not enough rows).

    `shuffle` is (seed, epoch), or None for the order of the data; `chances` see `order`. Each piece is cut into `world`
    shares, row i to process
    i mod `world`. `drop_single` leaves out a short last batch of one sample, which BatchNorm may not be able to train on;
    whether it is left out does not depend on the number of processes.
    """
    count = len(cast(Any, samples))
    indices = order(count, *shuffle, chances) if shuffle is not None else torch.arange(count)
    cut = [
        [_share(piece, rank, world) for piece in (chunk.split(-(-len(chunk) // accumulate)) if accumulate > 1 else (chunk,))]
        for chunk in (indices.split(batch) if count else ())
        if not (len(chunk) == 1 and batch > 1 and drop_single and count > 1)
    ]
    if isinstance(samples, TensorDataset):
        x, y = samples.tensors
        for step in cut:
            yield tuple(Batch(x[places], y[places], places, rows, chunk, live) for places, rows, chunk, live in step)
        return
    places_ = [places.tolist() for step in cut for places, *_ in step]
    loaded = iter(DataLoader(samples, batch_sampler=places_, generator=torch.Generator()))  # draws from no other
    for step in cut:
        with _loading(next((p for p, *_ in step), None)):
            pairs = [_pair(next(loaded)) for _ in step]
        yield tuple(Batch(x, y, *rest) for rest, (x, y) in zip(step, pairs, strict=True))


@contextlib.contextmanager
def _loading(places: Tensor | None) -> Generator[None]:
    """While samples are loaded by a data set's own code. Raises NetxformError X0805 for what that raises."""
    try:
        yield
    except NetxformError:
        raise
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0][:200]
        numbers = (
            "" if places is None else f" {', '.join(str(p) for p in places[:4].tolist())}{' …' if len(places) > 4 else ''}"
        )
        raise fail(
            "X0805",
            f"samples{numbers} cannot be loaded: {type(error).__name__}: {text}",
            helps=("each sample is a pair (x, y); all x have one shape, all y too",),
        ) from error


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(cast("list[Any]", batch)) != 2:
        raise ValueError("a sample is no pair (x, y)")
    x, y = cast("list[Any]", batch)
    for name, part in (("x", x), ("y", y)):
        if not isinstance(part, Tensor):
            raise TypeError(f"{name} is no number and no tensor, but a `{type(part).__name__}`")
    return x, y


def _share(chunk: Tensor, rank: int, world: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Samples and rows of one process's share of a batch; one row that does not count, where it has none."""
    if world == 1:
        return chunk, torch.arange(len(chunk)), chunk, len(chunk)
    rows = torch.arange(len(chunk))[rank::world]
    live = len(rows)
    rows = rows if live else torch.zeros(1, dtype=torch.int64)
    return chunk[rows], rows, chunk, live


def shares(samples: Samples, batch: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """This process's shares of all samples, in the order of the data."""
    for (only,) in steps(samples, batch, rank=rank, world=world):
        yield only


def refuse_gaps(pieces: tuple[Batch, ...], step: int) -> None:
    """Raises NetxformError X0838 where the samples of a step are not finite."""
    for piece in pieces:
        finite(piece.x, f"the data of step {step}: x")
        finite(piece.y, f"the data of step {step}: y")


def fetch(samples: Samples, places: Tensor) -> tuple[Tensor, Tensor]:
    """The samples of those numbers, x (n, …) and y (n, …)."""
    if isinstance(samples, TensorDataset):
        return samples.tensors[0][places], samples.tensors[1][places]
    with _loading(places):
        pairs = [samples[i] for i in places.tolist()]
        return torch.stack([p[0] for p in pairs]), torch.as_tensor([p[1] for p in pairs])


def batches(
    samples: Samples,
    batch: int,
    *,
    shuffle: tuple[int, int] | None = None,
    rank: int = 0,
    world: int = 1,
    drop_single: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """As `steps`, but pairs (x, y) of the rows that count; a batch of which this process has none is left out."""
    for (only,) in steps(samples, batch, shuffle=shuffle, rank=rank, world=world, drop_single=drop_single):
        if only.live:
            yield only.x, only.y


def batch_count(samples: Samples, batch: int, drop_single: bool = True) -> int:
    """The number of steps in an epoch."""
    full, rest = divmod(len(cast(Any, samples)), batch)
    return full + (1 if rest > 1 or (rest == 1 and (full == 0 or not drop_single)) else 0)
