"""Calibration data for verbs that settle their choice on the real network (`core.verb.Material`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from netxform.sources.data import DataSet
from netxform.training.data import batches, order
from netxform.training.fit import Progress
from netxform.training.process import join


class Calibration:
    """Samples of the training part of the data sets, in an order that is a function of the seed, and a progress display.

    `load` gives the data sets by name, when they are first asked for.
    """

    def __init__(self, load: Callable[[], Mapping[str, DataSet]], seed: int, progress: Progress) -> None:
        self._load = load
        self._seed = seed
        self._processes = join()
        self.start, self.step, self.stop = progress.start, progress.step, progress.stop

    def batches(
        self, data: str, samples: int | None = None, *, skip: int = 0, batch: int = 128, shared: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (x, y); the first `skip` samples of the order are left out, and at most `samples` given.

        With `shared` each of several processes is given its share of every batch; sums over the samples are then put
        together by `total`, so that every process goes on with the same numbers.
        """
        rank, world = (self._processes.rank, self._processes.world) if shared else (0, 1)
        part = self._load()[data].train
        chosen = order(len(part), self._seed, 0)[skip : None if samples is None else skip + samples]
        if isinstance(part, TensorDataset):
            yield from batches(TensorDataset(*(t[chosen] for t in part.tensors)), batch, rank=rank, world=world)
        else:
            yield from batches(Subset(part, chosen.tolist()), batch, rank=rank, world=world)

    def total(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """Sums of what every process found on its share, added up in float64; as they are where there is one process."""
        if self._processes.world == 1:
            return sums
        out: list[Tensor] = []
        for found in sums:
            whole = found.detach().double().contiguous().clone()
            torch.distributed.all_reduce(whole)
            out.append(whole.to(found.dtype))
        return tuple(out)
