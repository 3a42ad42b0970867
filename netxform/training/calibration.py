"""Calibration data for verbs that settle their choice on the real network (`core.verb.Material`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from netxform.core.network import Network
from netxform.core.objective import Training
from netxform.sources.data import DataSet
from netxform.training.data import batches, order
from netxform.training.fit import History, Progress, fit


class Calibration:
    """Samples of the training part of the data sets, in an order that is a function of the seed, and a progress display.

    `load` gives the data sets by name, when they are first asked for; `checkpoint` names the file of the n-th training.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[str, DataSet]],
        seed: int,
        progress: Progress,
        checkpoint: Callable[[int], Path | None] = lambda n: None,
        told: Callable[[str, History], None] = lambda title, history: None,
    ) -> None:
        self._load = load
        self._seed = seed
        self._progress = progress
        self._checkpoint = checkpoint
        self._told = told
        self._trained = 0
        self.start, self.step, self.stop = progress.start, progress.step, progress.stop

    def batches(
        self, data: str, samples: int | None = None, *, skip: int = 0, batch: int = 128
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (x, y); the first `skip` samples of the order are left out, and at most `samples` given."""
        part = self._load()[data].train
        chosen = order(len(part), self._seed, 0)[skip : None if samples is None else skip + samples]
        if isinstance(part, TensorDataset):
            yield from batches(TensorDataset(*(t[chosen] for t in part.tensors)), batch)
        else:
            yield from batches(Subset(part, chosen.tolist()), batch)

    def train(self, network: Network, work: Training, title: str) -> tuple[Network, dict[str, float]]:
        """Train a copy; a finished training that a resumed run finds on disk is taken from there."""
        checkpoint = self._checkpoint(self._trained)
        self._trained += 1
        trained, history = fit(network, work, self._load()[work.data], self._progress, checkpoint, title)
        self._told(title, history)
        return trained, history.metrics
