"""Metrics on data that is not trained on, each process on its share."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netxform.graph.inputs import arguments
from netxform.graph.meta import evaluating
from netxform.language.work import Training
from netxform.sources.data.given.samples import mapped
from netxform.training.data import Samples, shares
from netxform.training.losses import class_rows
from netxform.training.metrics import Measures
from netxform.training.objective import Objective, View, column, full, pick, terms_of
from netxform.training.process import Processes, total
from netxform.training.soft import ensemble
from netxform.training.teachers import Teachers

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def precision(work: Training, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The arithmetic of the objective."""
    if work.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[work.precision])


@torch.no_grad()
def evaluate(
    model: nn.Module, samples: Samples, work: Training, device: torch.device, processes: Processes
) -> dict[str, float]:
    """`loss`, and `accuracy` or `mae` and `r2`, and what is asked for, in eval mode; with several heads each by
    `HEAD_accuracy`.

    `model` gives the output first (see `taps.Student`). Its modes are as before afterwards.
    """
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    objective = Objective(work)
    terms = terms_of(work)
    every = [Measures(t.loss, work.metrics) for t in terms]
    sums = {f"{i}.{part}": 0.0 for i in range(len(terms)) for part in ("loss", "mass")}
    for batch in shares(samples, max(work.batch, 256), rank=processes.rank, world=processes.world):
        with precision(work, device):
            output = model(*(t.to(device) for t in arguments(batch.x)))[0]
        if not batch.live:
            continue
        target = mapped(lambda t: t.to(device), batch.y)
        for i, (loss, mass) in enumerate(objective.measured(output, target)):
            sums[f"{i}.loss"] += loss
            sums[f"{i}.mass"] += mass
        for held, term in zip(every, terms, strict=True):
            held.update(full(pick(output, term.output)), column(target, term.target))
    for part, mode in modes:
        part.training = mode
    sums = total(sums, processes)
    losses = [t.weight * sums[f"{i}.loss"] / (sums[f"{i}.mass"] or 1.0) for i, t in enumerate(terms)]
    found = [e.values(processes) for e in every]
    out = {"loss": sum(losses[1:], losses[0]), **found[0]}
    if len(terms) > 1:
        out |= {f"{t.output}_{k}": v for t, rate in zip(terms, found, strict=True) for k, v in rate.items()}
    return out


@torch.no_grad()
def apart(model: nn.Module, samples: Samples, objective: Objective, device: torch.device, processes: Processes) -> float:
    """The mean loss against the teachers, in eval mode: what is measured where there are no labels."""
    sums = {"loss": 0.0, "count": 0.0}
    with evaluating(model):
        for batch in shares(samples, max(objective.work.batch, 256), rank=processes.rank, world=processes.world):
            x = mapped(lambda t: t.to(device), batch.x)
            with precision(objective.work, device):
                given = model(*arguments(x))
            if batch.live:
                value = objective(given, View(x, None, asked_anew=True), batch)
                sums["loss"] += float(value) * batch.live
                sums["count"] += batch.live
    sums = total(sums, processes)
    return sums["loss"] / max(sums["count"], 1.0)


@torch.no_grad()
def taught_well(teachers: Teachers, samples: Samples, work: Training) -> dict[str, float]:
    """The accuracy of every teacher and of all together, on the samples; nothing where the targets are no classes."""
    right: dict[str, float] = {}
    rows = 0.0
    soft = teachers.soft
    for batch in shares(samples, 256):
        answers, _ = teachers.answers(mapped(lambda t: t.to(teachers.device), batch.x))
        target = column(mapped(lambda t: t.to(teachers.device), batch.y), terms_of(work)[0].target)
        if target.dtype.is_floating_point or soft.loss == "mse":
            return {}
        if soft.classes:
            answers = [_as_student(class_rows(full(a))[0], soft.classes) for a in answers]
        together = ensemble([class_rows(full(a))[0] for a in answers], soft.mix, soft.mean, soft.temperature)
        _, wanted = class_rows(answers[0], target)
        assert wanted is not None
        for name, answer in (*zip(soft.teachers, answers, strict=True), ("", together)):
            scores = answer if name == "" else class_rows(answer)[0]
            right[name] = right.get(name, 0.0) + float((scores.argmax(1) == wanted).sum())
        rows += len(wanted)
    return {n: r / rows for n, r in right.items()} if rows else {}


def _as_student(rows: Tensor, classes: Sequence[int | None]) -> Tensor:
    """A teacher's scores (M, classes of the student): very low for classes that it does not know."""
    lowest = rows.new_full((len(rows),), -1e30)
    return torch.stack([lowest if c is None else rows[:, c] for c in classes], 1)
