"""Batches of a data set: in an order that is a function of seed and epoch alone, and the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from netxform.errors import fail
from netxform.sources.data.given.samples import (
    Inputs,
    Source,
    Stream,
    Targets,
    leaves,
    loading,
    mapped,
    names,
    rows,
    size,
    source_of,
)
from netxform.sources.data.parts import finite

Samples = Dataset[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """This process's share of a global batch: x (n, …), one tensor or several, y (n, …) or None, and where its rows stand.

    `places`: the numbers of the samples in the data set; `rows`: their rows in the global batch, whose samples are `chunk`. The
    first `live` rows count; a process whose share is empty is given one row that does not.
    """

    x: Any
    y: Any
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
    whether it is left out does not depend on the number of processes. A stream keeps its own order.
    """
    if isinstance(samples, Stream):
        yield from _streamed(samples, batch, rank, world, drop_single, accumulate)
        return
    source = source_of(samples)
    indices = order(len(source), *shuffle, chances) if shuffle is not None else torch.arange(len(source))
    if world == 1 and accumulate == 1:
        yield from _alone(source, indices, batch, drop_single, shuffle or (0, 0))
        return
    cut = [
        [_share(piece, rank, world) for piece in _pieces(chunk, accumulate)]
        for chunk in (indices.split(batch) if len(indices) else ())
        if not (len(chunk) == 1 and batch > 1 and drop_single and len(indices) > 1)
    ]
    loaded = source.batches([places for step in cut for places, *_ in step], shuffle or (0, 0))
    for step in cut:
        with loading(step[0][0].tolist() if step else []):
            pairs = [next(loaded) for _ in step]
        yield tuple(Batch(x, y, *rest) for rest, (x, y) in zip(step, pairs, strict=True))


def _alone(
    source: Source, indices: Tensor, batch: int, drop_single: bool, salt: tuple[int, int]
) -> Iterator[tuple[Batch, ...]]:
    """The steps of one process, a piece each: as of several, with as little as possible between two steps."""
    chunks = indices.split(batch) if len(indices) else ()
    if drop_single and len(chunks) > 1 and batch > 1 and len(chunks[-1]) == 1:
        chunks = chunks[:-1]
    every = torch.arange(batch)
    loaded = source.batches(chunks, salt)
    for chunk in chunks:
        count = len(chunk)
        with loading(chunk):
            x, y = next(loaded)
        yield (Batch(x, y, chunk, every if count == batch else every[:count], chunk, count),)


def _pieces(chunk: Tensor, accumulate: int) -> tuple[Tensor, ...]:
    return chunk.split(-(-len(chunk) // accumulate)) if accumulate > 1 else (chunk,)


def _streamed(
    samples: Stream, batch: int, rank: int, world: int, drop_single: bool, accumulate: int
) -> Iterator[tuple[Batch, ...]]:
    """The steps of a pass through a stream: every process goes through all of it, and keeps its share."""
    begun = 0
    for x, y in samples.batches(batch):
        chunk = torch.arange(begun, begun + rows(x))
        if len(chunk) == 1 and batch > 1 and drop_single and begun:
            return
        step: list[Batch] = []
        for piece in _pieces(chunk, accumulate):
            share = _share(piece, rank, world)
            at = share[0] - begun
            step.append(Batch(mapped(lambda t, a=at: t[a], x), mapped(lambda t, a=at: t[a], y), *share))
        begun += len(chunk)
        yield tuple(step)


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
        for part, held in (("x", piece.x), ("y", piece.y)):
            for key, value in zip(names(held), leaves(held), strict=True):
                finite(value, f"the data of step {step}: {part}" + (f"[{key}]" if key else ""), masks=bool(key))


def fetch(samples: Samples, batch: Batch, places: Tensor) -> tuple[Inputs, Targets]:
    """The samples of those numbers, x (n, …) and y (n, …): of those in the batch, or loaded."""
    if len(batch.places) == batch.total:  # all of them are here
        at = torch.empty(int(batch.places.max()) + 1, dtype=torch.int64)
        at[batch.places] = torch.arange(len(batch.places))
        return mapped(lambda t: t[at[places]], batch.x), mapped(lambda t: t[at[places]], batch.y)
    if isinstance(samples, Stream):
        raise fail("X0404", "samples of a stream are mixed within one process alone", label="with several processes")
    return source_of(samples).take(places)


def batches(
    samples: Samples,
    batch: int,
    *,
    shuffle: tuple[int, int] | None = None,
    rank: int = 0,
    world: int = 1,
    drop_single: bool = False,
) -> Iterator[tuple[Any, Any]]:
    """As `steps`, but pairs (x, y) of the rows that count; a batch of which this process has none is left out."""
    for (only,) in steps(samples, batch, shuffle=shuffle, rank=rank, world=world, drop_single=drop_single):
        if only.live:
            yield only.x, only.y


def batch_count(samples: Samples, batch: int, drop_single: bool = True) -> int | None:
    """The number of steps in an epoch; None for a stream whose length is not known."""
    count = size(samples)
    if count is None:
        return None
    full, rest = divmod(count, batch)
    return full + (1 if rest > 1 or (rest == 1 and (full == 0 or not drop_single)) else 0)
