"""Who does the work that steps ask for, with what it gathers on the way; and the state that an interrupted run leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from torch import nn

from netxform.compiler.execute import Trained
from netxform.compiler.plan import Plan, Step
from netxform.graph.inputs import Given
from netxform.graph.network import SAMPLES, Network, clone
from netxform.language.trajectory import Trajectory
from netxform.language.work import Fitting, Snapshot, Training
from netxform.pipeline.subject import Prepared, carries
from netxform.sources.data import DataSet, load_data
from netxform.sources.data.given.binding import bind
from netxform.sources.data.given.samples import part_of, size
from netxform.sources.parts import cannot_write
from netxform.training.calibration import Calibration
from netxform.training.data import batches
from netxform.training.estimators import Fitted, fit_estimator
from netxform.training.fit import History, Progress, fit
from netxform.training.process import Processes, wait
from netxform.training.resume import claim


class Executor:
    """Trains, fits classifiers, remembers snapshots (the compiler's `Workers`).

    `keep`: the folder where finished epochs are written, for a run that goes on from them. `variant`: which run of a
    comparison this is. Afterwards: `histories` and `trajectories` of every training, `fitted` classifiers, and `last`, the data
    that was learnt from last.
    """

    def __init__(self, prepared: Prepared, progress: Progress, keep: Path | None = None, variant: str = "spec") -> None:
        self.prepared = prepared
        self.models = prepared.models
        self.seed = prepared.spec.seed
        self.progress = progress
        self.keep = keep
        self.variant = variant
        self.snapshots: dict[str, nn.Module] = {}
        self.histories: list[tuple[str, History]] = []
        self.fitted: list[Fitted] = []
        self.last: DataSet | None = None
        self.trajectories: list[Trajectory] = []
        self.carried = variant in AS_WRITTEN and carries(prepared.spec, prepared.inputs)

    @cached_property
    def data(self) -> dict[str, DataSet]:
        """The data sets, loaded when they are first needed."""
        return load_all(self.prepared)

    def material(self, step: Step) -> Calibration:
        """Calibration data for one statement, in an order of its own."""

        def checkpoint(n: int) -> Path | None:
            return None if self.keep is None else self.keep / f"{self._place(step)}_{n:03d}"

        def told(title: str, history: History) -> None:
            self.histories.append((title, history))

        return Calibration(
            lambda: self.data, self.seed + step.index, self.progress, checkpoint, told, self._weights(step), self.models.trust
        )

    def _place(self, step: Step) -> str:
        """The name of a statement's state: its number among the statements that do something, whatever asserts there are."""
        return f"{[s.index for s in self.prepared.plan.steps].index(step.index):03d}"

    def samples(self) -> Iterator[Given]:
        """The first samples of the training part of every data set, up to eight of each."""
        for data in self.data.values():
            few = part_of(data.train, torch.arange(min(SAMPLES, SAMPLES if (n := size(data.train)) is None else n)))
            x = next((x for x, _ in batches(few, SAMPLES)), None)
            if x is not None and not isinstance(x, dict):
                yield x

    def _weights(self, step: Step) -> Callable[[str], nn.Module]:
        """Further models with their weights, snapshots among them."""
        return lambda name: self.snapshots.get(name) or self.models.source(name, step.span).module

    def train(self, network: Network, work: Training, step: Step) -> Trained:
        """Train; a finished training that a resumed run finds on disk is taken from there."""
        self.last = self.data[work.data]
        checkpoint = None if self.keep is None else self.keep / self._place(step)
        probe = self.data[work.record.data] if work.record is not None else None
        names = work.soft.teachers if work.soft is not None else ()
        teachers = {n: self.snapshots[n] if n in self.snapshots else self.models.module(n, step.span) for n in names}
        trained, history = fit(network, work, self.last, self.progress, checkpoint, step.text, teachers, probe)
        self.histories.append((step.text, history))
        if work.record is not None and history.points:
            epochs, points = zip(*history.points, strict=True)
            found = (self.variant, self.seed, self.carried, step.text, work.record.what, tuple(epochs))
            self.trajectories.append(Trajectory(*found, torch.stack(list(points)), history.rows))
        self.carried = self.variant in AS_WRITTEN  # what trains after this begins with what was learnt here
        told = " ".join(self.prepared.plan.notes)
        said = tuple(f"{work.data}: {s}" for s in self.last.said if s not in told)
        return Trained(trained, history.metrics, history.evidence, history.warnings, (*history.settled, *said))

    def remember(self, network: Network, work: Snapshot) -> None:
        """Keep the network; what is done to it later is done to copies."""
        self.snapshots[work.name] = clone(network).module

    def fit(self, network: Network, work: Fitting, step: Step) -> dict[str, float]:
        """Fit a classifier."""
        self.last = self.data[work.data]
        fitted, metrics = fit_estimator(network, work, self.last)
        self.fitted.append(fitted)
        return metrics

    def finished(self, stage: str | None, index: int, network: Network) -> None:
        """Nothing to do: trainings write their own state."""


AS_WRITTEN = ("spec", "alone")
"""Runs that keep the subject's weights."""


def load_all(prepared: Prepared) -> dict[str, DataSet]:
    """Every data set by name: what was handed in, and what the spec declares."""
    spec, inputs = prepared.spec, prepared.inputs
    data = dict(inputs.data)
    for name, declared in spec.data.items():
        if name not in data:
            data[name] = bind(load_data(declared, inputs.trust, spec.seed, prepared.stated), prepared.network.inputs)
    return data


def keep_folder(out: Path | None, plan: Plan, resume: bool, processes: Processes) -> Path | None:
    """Where an interrupted run leaves its state: beside the output, named after it; for this very plan alone.

    None where nothing is trained or nothing written. Raises NetxformError X0819 where the folder cannot be made, X0842 where
    one is there that is not ours, or not of this plan.
    """
    if out is None or not any(s.choice.trains for s in plan.steps):
        return None
    wait(processes)  # nobody looks before everybody has seen that there is no bundle yet
    keep = kept_beside(out)
    if processes.first:
        try:
            claim(keep, _key(plan), resume)
        except OSError as error:
            raise cannot_write(f"`{out}`", error) from error
    wait(processes)
    return keep


def kept_beside(out: Path) -> Path:
    """The folder of the state of an interrupted run on that output."""
    return out.parent / f".{out.name}.resume"


def _key(plan: Plan) -> str:
    """What the state of a run depends on: all that the plan does. What it asserts may change meanwhile."""
    held = plan.to_dict()
    does = [i for i in cast("list[dict[str, object]]", held["items"]) if "assert" not in i]
    return hashlib.sha256(json.dumps(held | {"items": does}, sort_keys=True).encode()).hexdigest()
