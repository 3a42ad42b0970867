"""The training loop; the same code runs alone and under `torchrun` (DDP, FSDP2).

    Network, Training, DataSet ─fit→ Network, History

What the objective does not name stays as it is: other modules are in eval mode, frozen norms too, and other parameters get
no gradient. Every epoch is seeded by (seed, epoch) alone, so that a run that is resumed ends with the bytes of one that
was not interrupted.
"""

# Long: one loop, read from the top to the bottom.

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from netxform.errors import NOWHERE, NetxformError, fail
from netxform.graph.inputs import arguments
from netxform.graph.network import Network, detached
from netxform.graph.outputs import shapes_of
from netxform.language.laws import Evidence
from netxform.language.methods import measured_as
from netxform.language.work import Training
from netxform.sources.data import DataSet
from netxform.sources.data.given.samples import mapped, size
from netxform.training import average
from netxform.training.data import Batch, Samples, batch_count, refuse_gaps
from netxform.training.data import steps as stream
from netxform.training.device import deterministic, device_of, seeded
from netxform.training.evaluate import apart, evaluate, precision, taught_well
from netxform.training.objective import Objective, View, show, shrink
from netxform.training.optimize import optimizer_of, schedule_of
from netxform.training.probe import point
from netxform.training.process import (
    Processes,
    join,
    own_layers,
    parallel,
    require,
    share_layers,
    sharing,
    total,
    unsynced,
    whole,
)
from netxform.training.protocol import Epoch
from netxform.training.protocol import Progress as Progress
from netxform.training.protocol import Quiet as Quiet
from netxform.training.single import left_out, one_value
from netxform.training.state import Run, keep_still, load, remember, restore, save
from netxform.training.taps import Student
from netxform.training.targets import chances, check, settled
from netxform.training.teachers import Teachers, cache_folder


@dataclass(frozen=True)
class History:
    """One row an epoch (`epoch`, `train_loss`, `val_loss`, `val_accuracy`, `lr`), and what came out.

    `best` is the epoch whose weights were kept (None: the last); `metrics` are measured at the end, on data that was not
    trained on. `evidence` and `warnings` are about the teachers. `settled`: what was settled on the data, in words. `points`
    is the trajectory, where one was asked for: epoch (0 is before the first step) and point (D).
    """

    rows: tuple[dict[str, float], ...]
    metrics: dict[str, float]
    best: int | None
    stopped: bool
    steps: int
    evidence: tuple[Evidence, ...] = ()
    warnings: tuple[str, ...] = ()
    points: tuple[tuple[int, Tensor], ...] = ()
    settled: tuple[str, ...] = ()


def fit(
    network: Network,
    work: Training,
    data: DataSet,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    title: str = "train",
    teachers: Mapping[str, nn.Module] | None = None,
    probe: DataSet | None = None,
) -> tuple[Network, History]:
    """Train a copy of the network as `work` says, and return it with its history.

    `teachers`: what `work.soft` names; `probe`: the data that a trajectory is recorded on (`data` where it is None). With
    `checkpoint` the state is saved there after every epoch, and a run that finds one goes on from it. Raises NetxformError
    X0804 (loss no longer finite), X0805 (data does not fit the network), X0806 (device), X0822 (damaged checkpoint), X0841
    (another number of processes).
    """
    progress = progress or Quiet()
    tell = getattr(progress, "epoch", Quiet().epoch)  # who counts steps alone need not listen to it
    processes = join()
    require(work.processes, processes)
    shapes = shapes_of(network)
    check(work, shapes, data, NOWHERE)
    work, said = settled(work, shapes, data)
    copied = detached(network)
    device = device_of(work.device)
    asked = Teachers(work.soft, teachers or {}, device, data.normal) if work.soft is not None else None
    there = size(data.train)
    run = _prepare(copied.module.to(device), work, device, processes, there, asked)
    run.normal = data.normal
    _modes(run.module, work)
    single = one_value(network, run.module)
    counted = batch_count(data.train, work.batch, single)
    per_epoch = counted if counted is not None else work.length if work.unit == "steps" else 1
    epochs = work.length if work.unit == "epochs" else math.ceil(work.length / max(1, per_epoch))
    steps = work.length if work.unit == "steps" else epochs * per_epoch if counted is not None else None
    warnings: list[str] = []
    if single and there is not None and there % work.batch == 1 and there > work.batch > 1:
        warnings.append(left_out(there, work.batch))
    with seeded(), deterministic():
        try:
            if not per_epoch:
                raise ValueError("there is no sample to train on")
            known = _known(run, asked, data, warnings)
            if checkpoint is not None:
                load(run, checkpoint)
            average.begin(run)
            if not run.points:
                _record(run, probe or data)
            progress.start(title, steps if steps is not None else epochs)
            progress.step("resumed", int(run.scheduler.last_epoch) if steps is not None else len(run.rows))
            iteration = len(run.rows) * per_epoch if counted is not None else int(run.scheduler.last_epoch)
            drawn = chances(data, work)
            began, before = time.monotonic(), len(run.rows)
            while len(run.rows) < epochs and not (work.patience is not None and run.stale >= work.patience):
                begun = iteration
                for pieces in _open_epoch(run, data, single, drawn):
                    iteration += 1
                    loss = _step(run, pieces, data.train, iteration)
                    progress.step(f"loss {loss:.3f}", int(steps is not None))
                    if work.ema is not None:
                        average.follow(run, iteration)
                    if steps is not None and iteration >= steps:
                        break
                if iteration == begun:
                    raise ValueError("its stream gave no sample: it is to begin anew with every epoch")
                if steps is None:
                    progress.step(f"epoch {run.epoch}")
                with average.shown(run):
                    _close_epoch(run, data)
                    _record(run, probe or data)
                if checkpoint is not None:
                    save(run, checkpoint)
                tell(_told(run, epochs, before, began))
        except (RuntimeError, ValueError, IndexError) as error:
            raise _misfit(error, data) from error
        finally:
            progress.stop()
    best = None
    average.put(run, run.average)
    if work.keep is not None and run.best is not None:
        best = run.best[1]
        restore(run, run.best[2])
    metrics = dict(run.rows[(best or len(run.rows)) - 1]) if run.rows else {}
    metrics.pop("epoch", None)
    metrics.pop("lr", None)
    metrics |= known
    if size(data.test) and data.labelled:
        found = evaluate(run.student, data.test, work, device, processes)
        metrics |= {f"test_{k}": v for k, v in found.items()}
    keep_still(run)
    if not size(data.test) and not size(data.val) and data.labelled:
        warnings.append("there is no sample that was not trained on: nothing says how good the network is")
    _weaker(metrics, work, warnings, "ended")
    _give_back(run, network, copied)
    evidence = asked.evidence() if asked is not None else ()
    count = int(run.scheduler.last_epoch)
    return copied, History(
        tuple(run.rows), metrics, best, len(run.rows) < epochs, count, evidence, tuple(warnings), tuple(run.points), said
    )


def _open_epoch(run: Run, data: DataSet, drop_single: bool, drawn: Tensor | None) -> Iterator[tuple[Batch, ...]]:
    """The batches of the next epoch; random numbers and modes as they are at its start."""
    work = run.work
    run.epoch = len(run.rows) + 1
    drawn_from = (work.seed * 7_919 + run.epoch) % (2**63)
    torch.default_generator.manual_seed(drawn_from)
    if run.device.type != "cpu":  # for accelerators that are not used, `manual_seed` notes where it was called from: slow
        torch.manual_seed(drawn_from)
    run.sums = {"loss": 0.0, "count": 0.0}
    _modes(run.module, work)
    return stream(
        data.train,
        work.batch,
        shuffle=(work.seed, run.epoch),
        rank=run.processes.rank,
        world=run.processes.world,
        drop_single=drop_single,
        accumulate=work.accumulate,
        chances=drawn,
    )


def _step(run: Run, pieces: tuple[Batch, ...], samples: Samples, iteration: int) -> float:
    """One step of the optimizer on a global batch; the mean loss over this process's rows."""
    work, world = run.work, run.processes.world
    rows, live = sum(p.total for p in pieces), sum(p.live for p in pieces)
    run.optimizer.zero_grad(set_to_none=True)
    value = 0.0
    parted = run.objective.weighed and (world > 1 or len(pieces) > 1)
    ahead = [_view(run, p, samples, iteration, i) for i, p in enumerate(pieces)] if parted and work.mixed else None
    shares = _shares(run, pieces, [p.y for p in pieces], rows) if parted else None
    others = _shares(run, pieces, [v.other for v in ahead], rows) if ahead is not None else None
    for i, piece in enumerate(pieces):
        view = _view(run, piece, samples, iteration, i) if ahead is None else ahead[i]
        with _nothing if world == 1 else _together(run, piece, i + 1 == len(pieces)):
            with precision(work, run.device) if work.precision != "float32" else _nothing:
                loss = run.objective(
                    run.model(*arguments(view.x)), view, piece, shares[i] if shares else None, others[i] if others else None
                )
            # the mean over the global batch, when DDP has averaged over the processes
            weight = piece.live * world / rows
            run.scaler.scale(loss if weight == 1.0 else weight * loss).backward()
        value += float(loss.detach()) * piece.live / max(live, 1)
    if not math.isfinite(value):
        refuse_gaps(pieces, iteration)
        raise fail(
            "X0804",
            f"the training loss is {value} in step {iteration}",
            helps=("lower the learning rate, or bound the gradient: `clip=1.0`",),
        )
    if work.clip is not None or work.penalties:
        run.scaler.unscale_(run.optimizer)
        shrink(work.penalties, run.named)
    for name, moving in run.moving.items():  # without a gradient no optimizer moves a zero: its decay and momentum are zero too
        grad = run.named[name].grad
        if grad is not None:
            grad.mul_(moving)
    if work.clip is not None:
        nn.utils.clip_grad_norm_([p for g in run.optimizer.param_groups for p in g["params"]], work.clip)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    keep_still(run)
    if work.schedule.name == "constant" and run.scheduler.last_epoch >= work.warmup:
        run.scheduler.last_epoch += 1  # the rate stays: computing it again in every step costs more than a small network does
    else:
        run.scheduler.step()
    run.sums["loss"] += value * live
    run.sums["count"] += live
    return value


def _view(run: Run, piece: Batch, samples: Samples, iteration: int, number: int) -> View:
    return show(piece, run.work, samples, run.device, (run.epoch, iteration * run.work.accumulate + number), run.normal)


def _shares(run: Run, pieces: tuple[Batch, ...], targets: Sequence[Any], rows: int) -> list[list[float]]:
    """For each piece and head, by what its mean is multiplied beside the share of its rows, where rows weigh differently."""
    masses = [
        run.objective.masses(mapped(lambda v, n=p.live: v[:n], t)) if t is not None else [0.0]
        for p, t in zip(pieces, targets, strict=True)
    ]
    whole = total({str(i): sum(m) for i, m in enumerate(zip(*masses, strict=True))}, run.processes)
    return [
        [m * rows / ((whole[str(i)] or 1.0) * max(p.live, 1)) for i, m in enumerate(of)]
        for p, of in zip(pieces, masses, strict=True)
    ]


_nothing = contextlib.nullcontext()


@contextlib.contextmanager
def _together(run: Run, piece: Batch, last: bool) -> Generator[None]:
    """While one of several processes computes its share of a piece."""
    with sharing(piece, run.processes), unsynced(run.model, last):
        yield


def _close_epoch(run: Run, data: DataSet) -> None:
    sums = total(run.sums, run.processes)
    row: dict[str, float] = {"epoch": float(run.epoch), "train_loss": sums["loss"] / max(sums["count"], 1.0)}
    row["lr"] = float(run.scheduler.get_last_lr()[0])
    if size(data.val) and data.labelled:
        found = evaluate(run.student, data.val, run.work, run.device, run.processes)
        row |= {f"val_{k}": v for k, v in found.items()}
    elif size(data.val):
        row["val_loss"] = apart(run.student, data.val, run.objective, run.device, run.processes)
    run.rows.append(row)
    remember(run, row)


def _told(run: Run, epochs: int, before: int, began: float) -> Epoch:
    done = len(run.rows)
    left = (time.monotonic() - began) / (done - before) * max(0, epochs - done)
    by = measured_as(run.work.keep or "val_loss")
    return Epoch(done, epochs, run.rows[-1], by, run.best[1] if run.best is not None else None, left)


def _record(run: Run, probe: DataSet) -> None:
    """A point of the trajectory, where one is due."""
    if run.work.record is None or len(run.rows) % run.work.record.every:
        return
    weights = {n: whole(run.named[n].detach()) for n in run.work.parameters} if run.work.record.what == "weights" else {}
    run.points.append((len(run.rows), point(run.student, run.work, probe, weights, run.device)))


# --- teachers --------------------------------------------------------------------------------------------------------


def _known(run: Run, asked: Teachers | None, data: DataSet, warnings: list[str]) -> dict[str, float]:
    """What the teachers know, and what the student knows at the start; a weak teacher is warned of."""
    if asked is None or run.work.soft is None:
        return {}
    if run.work.soft.hard < 1:
        asked.remember(data.train, run.work, cache_folder(), run.processes)
    if not size(data.val) or not data.labelled:
        return {}
    found = taught_well(asked, data.val, run.work)
    several = len(asked.given) > 1
    out = {f"teacher_{n}_val_accuracy": a for n, a in found.items() if n and several}
    if "" in found:
        out["teacher_val_accuracy"] = found[""]
        start = evaluate(run.student, data.val, run.work, run.device, run.processes)
        _weaker(out | {f"val_{k}": v for k, v in start.items()}, run.work, warnings, "began")
    return out


def _weaker(metrics: dict[str, float], work: Training, warnings: list[str], when: str) -> None:
    teacher, student = metrics.get("teacher_val_accuracy"), metrics.get("val_accuracy")
    if work.soft is None or teacher is None or student is None or warnings:
        return
    told = work.soft.baseline
    if told is not None and teacher < told:
        warnings.append(f"the teacher (val accuracy {teacher:.3f}) is weaker than the student alone ({told:.3f}, as stated)")
    elif teacher < student:
        warnings.append(
            f"the teacher (val accuracy {teacher:.3f}) is weaker than the student, which {when} at {student:.3f}: "
            "it may do better alone (`compare to alone`)"
        )


# --- before and after ------------------------------------------------------------------------------------------------


def _prepare(
    module: fx.GraphModule,
    work: Training,
    device: torch.device,
    processes: Processes,
    count: int | None,
    asked: Teachers | None,
) -> Run:
    if work.strategy == "fsdp" and processes.world > 1:  # sharding changes classes and parameters for good
        module = copy.deepcopy(module)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    chosen = {id(parameters[n]) for n in work.parameters}
    for parameter in parameters.values():
        parameter.requires_grad_(id(parameter) in chosen)
    share_layers(module, processes)
    student = Student(module, work, whole=processes.world == 1).to(device)
    model = parallel(student, work.strategy, processes)
    named = parameters | dict(student.body.named_parameters(remove_duplicate=False))
    optimizer = optimizer_of(work, named, list(student.adapters.parameters()))
    if count is None and work.unit == "epochs" and work.schedule.name != "constant":
        helps = ("say how many steps: `for 1000steps`", "or leave `schedule` out")
        raise fail("X0404", f"`{work.schedule.name}` needs the number of steps, and a stream does not tell", helps=helps)
    per_epoch = max(1, math.ceil((count or 1) / work.batch))
    steps = work.length if work.unit == "steps" else work.length * per_epoch
    scaler = torch.amp.GradScaler(device.type, enabled=work.precision == "float16" and device.type == "cuda")
    if work.compile:
        model = cast(nn.Module, torch.compile(model))
    schedule = schedule_of(work, optimizer, steps)
    moving = {n: named[n].detach() != 0 for n in work.held}
    objective = Objective(work, asked)
    return Run(module, student, model, named, work, device, processes, optimizer, schedule, scaler, objective, moving)


def _give_back(run: Run, before: Network, copied: Network) -> None:
    """The trained tensors as plain layers, where and with what flags the network had them."""
    if run.module is copied.module:
        own_layers(run.module)
    else:
        trained = run.named | dict(run.module.named_buffers(remove_duplicate=False))
        trained |= dict(run.student.body.named_buffers(remove_duplicate=False))
        with torch.no_grad():
            for name, tensor in (*copied.module.named_parameters(), *copied.module.named_buffers()):
                tensor.copy_(whole(trained[name].detach()))
    module = copied.module
    module.eval()
    flags = {n: p.requires_grad for n, p in before.module.named_parameters(remove_duplicate=False)}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        parameter.grad = None
        parameter.requires_grad_(flags[name])
    module.to(next((t.device for t in (*before.module.parameters(), *before.module.buffers())), torch.device("cpu")))


def _modes(module: fx.GraphModule, work: Training) -> None:
    """`train()` mode for the modules that are trained, and for nothing else; frozen norms stay frozen."""
    module.eval()
    for name in work.training_modules:
        part = module.get_submodule(name)
        if not type(part).__name__.startswith("Frozen"):
            part.training = True


def _misfit(error: Exception, data: DataSet) -> Exception:
    if isinstance(error, NetxformError):
        return error
    return fail(
        "X0805",
        f"the data `{data.name}` does not fit the network: {str(error).strip().splitlines()[0]}",
        helps=("compare the data's shape and classes with the model's input and head in the plan",),
    )
