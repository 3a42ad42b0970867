"""Calibration data for verbs that settle their choice on the real network (`core.verb.Material`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netxform.errors import Span, fail
from netxform.graph.network import Network
from netxform.language.material import HeldOut
from netxform.language.work import Training
from netxform.sources.data import DataSet
from netxform.sources.data.given.samples import Stream, part_of, size, source_of
from netxform.sources.trust import Trust, read_path
from netxform.training.data import Samples, batches, order
from netxform.training.fit import History, Progress, fit
from netxform.training.process import join


def _others(data: DataSet) -> tuple[HeldOut, Samples]:
    """The part that new samples come from, and what they are called."""
    if size(data.test):
        return "test samples", data.test
    return ("validation samples", data.val) if size(data.val) else ("other training samples", data.train)


UNTOLD = 2**40
"""Samples that a stream is taken to have, where it does not tell."""


class Calibration:
    """Samples of the training part of the data sets, in an order that is a function of the seed, and a progress display.

    `load` gives the data sets by name, when they are first asked for; `checkpoint` names the file of the n-th training, `told`
    is handed its history; `models` gives further models, `trust` says what may be read.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[str, DataSet]],
        seed: int,
        progress: Progress,
        checkpoint: Callable[[int], Path | None] = lambda n: None,
        told: Callable[[str, History], None] = lambda title, history: None,
        models: Callable[[str], nn.Module] | None = None,
        trust: Trust | None = None,
    ) -> None:
        self._load = load
        self._models = models
        self._trust = trust or Trust()
        self._seed = seed
        self._processes = join()
        self._progress = progress
        self._checkpoint = checkpoint
        self._told = told
        self._trained = 0
        self.start, self.step, self.stop = progress.start, progress.step, progress.stop

    def vocabulary(self, data: str) -> tuple[str, ...]:
        """The words of the data set by their number."""
        return self._load()[data].vocabulary

    def model(self, name: str) -> nn.Module:
        """A further model, or a snapshot, with its weights."""
        if self._models is None:
            raise fail("X0302", f"no model is called `{name}`")
        return self._models(name)

    def file(self, text: str, span: Span) -> Path:
        """The file that the spec names."""
        return read_path(text, self._trust, span)

    def batches(
        self, data: str, samples: int | None = None, *, skip: int = 0, batch: int = 128, shared: bool = False
    ) -> Iterator[tuple[Any, Any]]:
        """Batches (x, y); the first `skip` samples of the order are left out, and at most `samples` given.

        With `shared` each of several processes is given its share of every batch; sums over the samples are then put
        together by `total`, so that every process goes on with the same numbers.
        """
        yield from self._of(self._load()[data].train, samples, skip, batch, shared)

    def size(self, data: str) -> int:
        """How many samples the training part has."""
        there = size(self._load()[data].train)
        return UNTOLD if there is None else there

    def held_out(self, data: str) -> HeldOut:
        """What `fresh` gives, in words."""
        return _others(self._load()[data])[0]

    def fresh(self, data: str, samples: int, *, skip: int, batch: int = 128, shared: bool = False) -> Iterator[tuple[Any, Any]]:
        """Batches of samples that nothing is calibrated on; of the training part they are those behind the first `skip`."""
        held = self._load()[data]
        part = _others(held)[1]
        yield from self._of(part, samples, skip if part is held.train else 0, batch, shared)

    def _of(self, part: Samples, samples: int | None, skip: int, batch: int, shared: bool) -> Iterator[tuple[Any, Any]]:
        rank, world = (self._processes.rank, self._processes.world) if shared else (0, 1)
        if isinstance(part, Stream):  # the first samples, in the order in which they come
            most = None if samples is None else skip + samples
            yield from batches(part.changed(skip=skip, most=most, length=None), batch, rank=rank, world=world)
            return
        chosen = order(len(source_of(part)), self._seed, 0)[skip : None if samples is None else skip + samples]
        yield from batches(part_of(part, chosen), batch, rank=rank, world=world)

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

    def train(self, network: Network, work: Training, title: str) -> tuple[Network, dict[str, float]]:
        """Train a copy; a finished training that a resumed run finds on disk is taken from there."""
        checkpoint = self._checkpoint(self._trained)
        self._trained += 1
        trained, history = fit(network, work, self._load()[work.data], self._progress, checkpoint, title)
        self._told(title, history)
        return trained, history.metrics
