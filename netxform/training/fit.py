"""The training loop, on ignite's engine; the same code runs alone and under `torchrun` (DDP, FSDP2).

    Network, Training, DataSet ─fit→ Network, History

What the objective does not name stays as it is: other modules are in eval mode, frozen norms too, and other parameters get
no gradient. Every epoch is seeded by (seed, epoch) alone, so that a run that is resumed ends with the bytes of one that
was not interrupted.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from ignite.engine import Engine, Events
from torch import Tensor, fx, nn

from netxform.errors import NetxformError, fail
from netxform.graph.network import Network, detached
from netxform.language.laws import Evidence
from netxform.language.work import Training
from netxform.sources.data import DataSet
from netxform.training import checkpoint as states
from netxform.training.data import Batch, Samples, batch_count
from netxform.training.data import steps as stream
from netxform.training.evaluate import evaluate, precision, taught_well
from netxform.training.objective import Objective, show, shrink
from netxform.training.optimize import optimizer_of, schedule_of
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
from netxform.training.single import left_out, one_value
from netxform.training.taps import Student
from netxform.training.teachers import Teachers, cache_folder
from netxform.training.trajectory import point


class Progress(Protocol):
    """What a progress display is told."""

    def start(self, title: str, total: int) -> None:
        """A run of `total` steps begins."""
        ...

    def step(self, text: str, advance: int = 1) -> None:
        """Steps are done; `text` says how it stands."""
        ...

    def stop(self) -> None:
        """The run is over."""
        ...


class Quiet:
    """No display."""

    def start(self, title: str, total: int) -> None:
        """Nothing."""

    def step(self, text: str, advance: int = 1) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class History:
    """One row an epoch (`epoch`, `train_loss`, `val_loss`, `val_accuracy`, `lr`), and what came out.

    `best` is the epoch whose weights were kept (None: the last); `metrics` are measured at the end, on data that was not
    trained on. `evidence` and `warnings` are about the teachers. `points` is the trajectory, where one was asked
    for: epoch (0 is before the first step) and point (D).
    """

    rows: tuple[dict[str, float], ...]
    metrics: dict[str, float]
    best: int | None
    stopped: bool
    steps: int
    evidence: tuple[Evidence, ...] = ()
    warnings: tuple[str, ...] = ()
    points: tuple[tuple[int, Tensor], ...] = ()


@dataclass
class _Run:
    module: fx.GraphModule  # the layers that are trained, under their own names
    student: Student
    model: nn.Module  # what a step calls: the student, as several processes and the compiler have it
    named: dict[str, nn.Parameter]
    work: Training
    device: torch.device
    processes: Processes
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    objective: Objective
    moving: dict[str, Tensor]  # of parameters whose zeros are held, which elements are trained
    epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict[str, float])
    rows: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    best: tuple[float, int, dict[str, Tensor]] | None = None
    stale: int = 0
    points: list[tuple[int, Tensor]] = field(default_factory=list["tuple[int, Tensor]"])


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
    processes = join()
    require(work.processes, processes)
    copied = detached(network)
    device = device_of(work.device)
    asked = Teachers(work.soft, teachers or {}, device) if work.soft is not None else None
    run = _prepare(copied.module.to(device), work, device, processes, len(data.train), asked)
    _modes(run.module, work)
    single = one_value(network, run.module)
    per_epoch = batch_count(data.train, work.batch, single)
    epochs = work.length if work.unit == "epochs" else math.ceil(work.length / per_epoch)
    steps = work.length if work.unit == "steps" else epochs * per_epoch
    engine = Engine(lambda engine, batch: _step(run, batch, data.train, engine.state.iteration))

    def begin(engine: Engine) -> None:
        run.epoch = engine.state.epoch
        torch.manual_seed((work.seed * 7_919 + run.epoch) % (2**63))
        run.sums = {"loss": 0.0, "count": 0.0}
        engine.set_data(
            stream(
                data.train,
                work.batch,
                shuffle=(work.seed, run.epoch),
                rank=processes.rank,
                world=processes.world,
                drop_single=single,
                accumulate=work.accumulate,
            )
        )
        _modes(run.module, work)

    def advance(engine: Engine) -> None:
        progress.step(f"loss {engine.state.output:.3f}")
        if engine.state.iteration >= steps:
            engine.terminate()

    def end(engine: Engine) -> None:
        _close_epoch(run, data)
        _record(run, probe or data)
        if checkpoint is not None:
            _save(run, checkpoint)
        if work.patience is not None and run.stale >= work.patience:
            engine.terminate()

    engine.add_event_handler(Events.EPOCH_STARTED, begin)
    engine.add_event_handler(Events.ITERATION_COMPLETED, advance)
    engine.add_event_handler(Events.EPOCH_COMPLETED, end)
    warnings: list[str] = []
    if single and len(data.train) % work.batch == 1 and len(data.train) > work.batch > 1:
        warnings.append(left_out(len(data.train), work.batch))
    with _seeded(), _deterministic():
        try:
            known = _known(run, asked, data, warnings)
            if checkpoint is not None and _load(run, checkpoint):
                engine.load_state_dict({"epoch_length": per_epoch, "max_epochs": epochs, "epoch": len(run.rows)})
            if not run.points:
                _record(run, probe or data)
            finished = len(run.rows) >= epochs or (work.patience is not None and run.stale >= work.patience)
            progress.start(title, steps)
            progress.step("resumed", int(run.scheduler.last_epoch))
            if not finished:
                engine.run([None], max_epochs=epochs, epoch_length=per_epoch)
                if len(run.rows) < run.epoch:  # stopped by steps in the middle of an epoch
                    end(engine)
        except (RuntimeError, ValueError, IndexError) as error:
            raise _misfit(error, data) from error
        finally:
            progress.stop()
    best = None
    if work.keep is not None and run.best is not None:
        best = run.best[1]
        _restore(run, run.best[2])
    metrics = dict(run.rows[(best or len(run.rows)) - 1]) if run.rows else {}
    metrics.pop("epoch", None)
    metrics.pop("lr", None)
    metrics |= known
    if len(data.test):
        found = evaluate(run.student, data.test, work, device, processes)
        metrics |= {f"test_{k}": v for k, v in found.items()}
    _weaker(metrics, work, warnings, "ended")
    _give_back(run, network, copied)
    evidence = asked.evidence() if asked is not None else ()
    count = int(run.scheduler.last_epoch)
    return copied, History(
        tuple(run.rows), metrics, best, len(run.rows) < epochs, count, evidence, tuple(warnings), tuple(run.points)
    )


def _step(run: _Run, pieces: tuple[Batch, ...], samples: Samples, iteration: int) -> float:
    """One step of the optimizer on a global batch; the mean loss over this process's rows."""
    work, world = run.work, run.processes.world
    rows, live = sum(p.total for p in pieces), sum(p.live for p in pieces)
    run.optimizer.zero_grad(set_to_none=True)
    value = 0.0
    for i, piece in enumerate(pieces):
        view = show(piece, work, samples, run.device, (run.epoch, iteration * work.accumulate + i))
        with _nothing if world == 1 else _together(run, piece, i + 1 == len(pieces)):
            with precision(work, run.device) if work.precision != "float32" else _nothing:
                loss = run.objective(run.model(view.x), view, piece)
            # the mean over the global batch, when DDP has averaged over the processes
            weight = piece.live * world / rows
            run.scaler.scale(loss if weight == 1.0 else weight * loss).backward()
        value += float(loss.detach()) * piece.live / max(live, 1)
    if not math.isfinite(value):
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
    if work.schedule == "constant" and run.scheduler.last_epoch >= work.warmup:
        run.scheduler.last_epoch += 1  # the rate stays: computing it again in every step costs more than a small network does
    else:
        run.scheduler.step()
    run.sums["loss"] += value * live
    run.sums["count"] += live
    return value


_nothing = contextlib.nullcontext()


@contextlib.contextmanager
def _together(run: _Run, piece: Batch, last: bool) -> Generator[None]:
    """While one of several processes computes its share of a piece."""
    with sharing(piece, run.processes), unsynced(run.model, last):
        yield


def _close_epoch(run: _Run, data: DataSet) -> None:
    sums = total(run.sums, run.processes)
    row: dict[str, float] = {"epoch": float(run.epoch), "train_loss": sums["loss"] / max(sums["count"], 1.0)}
    row["lr"] = float(run.scheduler.get_last_lr()[0])
    if len(data.val):
        found = evaluate(run.student, data.val, run.work, run.device, run.processes)
        row |= {f"val_{k}": v for k, v in found.items()}
    run.rows.append(row)
    _remember(run, row)


def _record(run: _Run, probe: DataSet) -> None:
    """A point of the trajectory, where one is due."""
    if run.work.record is None or len(run.rows) % run.work.record.every:
        return
    weights = {n: whole(run.named[n].detach()) for n in run.work.parameters} if run.work.record.what == "weights" else {}
    run.points.append((len(run.rows), point(run.student, run.work, probe, weights, run.device)))


# --- teachers --------------------------------------------------------------------------------------------------------


def _known(run: _Run, asked: Teachers | None, data: DataSet, warnings: list[str]) -> dict[str, float]:
    """What the teachers know, and what the student knows at the start; a weak teacher is warned of."""
    if asked is None or run.work.soft is None:
        return {}
    if run.work.soft.hard < 1:
        asked.remember(data.train, run.work, cache_folder(), run.processes)
    if not len(data.val):
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
    module: fx.GraphModule, work: Training, device: torch.device, processes: Processes, count: int, asked: Teachers | None
) -> _Run:
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
    per_epoch = max(1, math.ceil(count / work.batch))
    steps = work.length if work.unit == "steps" else work.length * per_epoch
    scaler = torch.amp.GradScaler(device.type, enabled=work.precision == "float16" and device.type == "cuda")
    if work.compile:
        model = cast(nn.Module, torch.compile(model))
    schedule = schedule_of(work, optimizer, steps)
    moving = {n: named[n].detach() != 0 for n in work.held}
    objective = Objective(work, asked)
    return _Run(module, student, model, named, work, device, processes, optimizer, schedule, scaler, objective, moving)


def _give_back(run: _Run, before: Network, copied: Network) -> None:
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


def device_of(name: str) -> torch.device:
    """`auto` is the accelerator, if there is one, else the CPU. Raises NetxformError X0806."""
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found if found is not None and found.type == "cuda" else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        message = str(error).split("\n")[0]
        raise fail("X0806", f"device `{name}` cannot be used: {message}", helps=("write `device=cpu`",)) from None


def _modes(module: fx.GraphModule, work: Training) -> None:
    """`train()` mode for the modules that are trained, and for nothing else; frozen norms stay frozen."""
    module.eval()
    for name in work.training_modules:
        part = module.get_submodule(name)
        if not type(part).__name__.startswith("Frozen"):
            part.training = True


def _state(run: _Run) -> dict[str, Tensor]:
    """Every tensor of the network and of the maps of matched features, by name."""
    held: dict[str, Tensor] = dict(run.module.state_dict(keep_vars=True))
    held |= {n: p for n, p in run.named.items() if n in held}
    held |= {f"adapters.{n}": t for n, t in run.student.adapters.state_dict(keep_vars=True).items()}
    return {n: t.detach() for n, t in held.items()}


def _remember(run: _Run, row: dict[str, float]) -> None:
    metric = (run.work.keep or "val_loss").replace("top1", "accuracy")
    if metric not in row:
        metric = "train_loss"
    value = row[metric] if metric.endswith(("loss", "mae")) else -row[metric]
    if run.best is None or value < run.best[0]:
        state = _state(run) if run.work.keep is not None else {}
        run.best = (value, int(row["epoch"]), {n: t.clone() for n, t in state.items()})
        run.stale = 0
    else:
        run.stale += 1


@torch.no_grad()
def _restore(run: _Run, state: Mapping[str, Tensor]) -> None:
    for name, tensor in _state(run).items():
        tensor.copy_(state[name])


def _save(run: _Run, place: Path) -> None:
    """The whole state after an epoch."""
    tensors = {f"now.{n}": t for n, t in _state(run).items()}
    tensors |= {f"best.{n}": t for n, t in (run.best[2] if run.best is not None else {}).items()}
    held = run.optimizer.state_dict()
    for number, entries in held["state"].items():
        tensors |= {f"optimizer.{number}.{k}": v for k, v in entries.items() if isinstance(v, Tensor)}
    tensors |= {f"point.{epoch}": p for epoch, p in run.points}
    facts = {
        "rates": [g["lr"] for g in held["param_groups"]],
        "steps": run.scheduler.last_epoch,
        "scaler": run.scaler.state_dict(),
        "rows": run.rows,
        "best": None if run.best is None else run.best[:2],
        "stale": run.stale,
    }
    states.write(place, len(run.rows), tensors, facts, run.processes)


def _load(run: _Run, place: Path) -> bool:
    """Go on from a saved state, if there is one."""
    every = [p for g in run.optimizer.param_groups for p in g["params"]]
    now = _state(run)
    like = {f"{kind}.{n}": t for n, t in now.items() for kind in ("now", "best")}
    like |= {f"optimizer.{i}.{k}": p for i, p in enumerate(every) for k in _STATISTICS}
    found = states.read(place, like, run.processes)
    if found is None:
        return False
    tensors, facts = found
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "optimizer": {}, "point": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = tensor
    _restore(run, parts["now"])
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in parts["optimizer"].items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    groups = run.optimizer.state_dict()["param_groups"]
    for group, rate in zip(groups, facts["rates"], strict=True):
        group["lr"] = rate
    run.optimizer.load_state_dict({"state": state, "param_groups": groups})
    run.scheduler.last_epoch = facts["steps"]
    run.scaler.load_state_dict(facts["scaler"])
    run.points = sorted((int(epoch), p) for epoch, p in parts["point"].items())
    run.rows, run.stale = facts["rows"], facts["stale"]
    run.best = None if facts["best"] is None else (facts["best"][0], facts["best"][1], parts["best"])
    return True


_STATISTICS = (
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "sum",
)  # fmt: skip


@contextlib.contextmanager
def _seeded() -> Generator[None]:
    """Leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


@contextlib.contextmanager
def _deterministic() -> Generator[None]:
    """Same bytes out on the same machine. New memory need not be filled for that: nothing here reads what it did not write."""
    filler: Any = torch.utils.deterministic
    before, filling = torch.are_deterministic_algorithms_enabled(), filler.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    filler.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        filler.fill_uninitialized_memory = filling


def _misfit(error: Exception, data: DataSet) -> Exception:
    if isinstance(error, NetxformError):
        return error
    return fail(
        "X0805",
        f"the data `{data.name}` does not fit the network: {str(error).strip().splitlines()[0]}",
        helps=("compare the data's shape and classes with the model's input and head in the plan",),
    )
