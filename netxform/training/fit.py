"""The training loop, on ignite's engine; the same code runs alone and under `torchrun` (DDP).

    Network, Training, DataSet ─fit→ Network, History

What the objective does not name stays as it is: other modules are in eval mode, frozen norms too, and other parameters get
no gradient. Every epoch is seeded by (seed, epoch) alone, so that a run that is resumed ends with the bytes of one that
was not interrupted.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from ignite.engine import Engine, Events
from torch import Tensor, fx, nn
from torch.distributed import is_available, is_initialized

from netxform.core.network import Network
from netxform.core.objective import Training
from netxform.core.surgery import detached
from netxform.errors import fail
from netxform.sources.data import DataSet
from netxform.training.data import Samples, batch_count, batches
from netxform.training.losses import Loss, hits, loss_of
from netxform.training.trajectory import point, probe_samples

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


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
    trained on. `points` is the trajectory, where one was asked for: epoch (0 is before the first step) and point (D).
    """

    rows: tuple[dict[str, float], ...]
    metrics: dict[str, float]
    best: int | None
    stopped: bool
    steps: int
    points: tuple[tuple[int, Tensor], ...] = ()


@dataclass
class _Run:
    module: fx.GraphModule
    work: Training
    loss: Loss
    device: torch.device
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    trained: list[nn.Parameter]
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
    probe: DataSet | None = None,
) -> tuple[Network, History]:
    """Train a copy of the network as `work` says, and return it with its history.

    `probe` is the data that a trajectory is recorded on (`data` where it is None).
    With `checkpoint` the state is saved there after every epoch, and a run that finds one goes on from it.
    Raises NetxformError X0804 (loss no longer finite), X0805 (data does not fit the network), X0806 (device).
    """
    progress = progress or Quiet()
    rank, world = _process()
    copied = detached(network)
    device = device_of(work.device)
    run = _prepare(copied.module.to(device), work, device, len(data.train))
    train_samples, val_samples = data.train, data.val
    per_epoch = batch_count(train_samples, work.batch)
    epochs = work.length if work.unit == "epochs" else math.ceil(work.length / per_epoch)
    total = work.length if work.unit == "steps" else epochs * per_epoch
    model: nn.Module = run.module
    if world > 1:
        model = nn.parallel.DistributedDataParallel(run.module, broadcast_buffers=True)
    sums = {"loss": 0.0, "count": 0.0}

    def step(engine: Engine, batch: tuple[Tensor, Tensor]) -> float:
        x, y = batch[0].to(device, non_blocking=True), batch[1].to(device, non_blocking=True)
        run.optimizer.zero_grad(set_to_none=True)
        with _cast(work, device):
            loss = run.loss(pick(model(x), work.outputs), y)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise fail(
                "X0804",
                f"the training loss is {value} in step {engine.state.iteration}",
                helps=("lower the learning rate, or bound the gradient: `clip=1.0`",),
            )
        run.scaler.scale(loss).backward()
        if work.clip is not None:
            run.scaler.unscale_(run.optimizer)
            nn.utils.clip_grad_norm_(run.trained, work.clip)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.scheduler.step()
        sums["loss"] += value * len(x)
        sums["count"] += len(x)
        return value

    probes = probe_samples(probe or data, work) if work.record is not None else None

    def record(epoch: int) -> None:
        if probes is not None and work.record is not None and epoch % work.record.every == 0:
            run.points.append((epoch, point(run.module, work, probes, lambda y: pick(y, work.outputs), device)))

    engine = Engine(step)
    seed = work.seed

    def begin(engine: Engine) -> None:
        epoch = engine.state.epoch
        torch.manual_seed((seed * 7_919 + epoch) % (2**63))
        sums["loss"] = sums["count"] = 0.0
        source = batches(train_samples, work.batch, shuffle=(seed, epoch), rank=rank, world=world, drop_single=True)
        engine.set_data(source)
        _modes(run.module, work)

    def advance(engine: Engine) -> None:
        progress.step(f"loss {engine.state.output:.3f}")
        if engine.state.iteration >= total:
            engine.terminate()

    def end(engine: Engine) -> None:
        row: dict[str, float] = {"epoch": float(engine.state.epoch), "train_loss": _mean(sums, world)}
        row["lr"] = float(run.scheduler.get_last_lr()[0])
        if len(val_samples):
            seen = evaluate(run.module, val_samples, run.loss, work, device)
            row |= {"val_loss": seen[0], "val_accuracy": seen[1]}
        run.rows.append(row)
        record(len(run.rows))
        _remember(run, row)
        if checkpoint is not None and rank == 0:
            _save(run, checkpoint)
        if work.patience is not None and run.stale >= work.patience:
            engine.terminate()

    engine.add_event_handler(Events.EPOCH_STARTED, begin)
    engine.add_event_handler(Events.ITERATION_COMPLETED, advance)
    engine.add_event_handler(Events.EPOCH_COMPLETED, end)
    if checkpoint is not None and checkpoint.exists():
        _load(run, checkpoint, engine, per_epoch, epochs)
    if not run.points:
        with _seeded():
            record(0)
    progress.start(title, total)
    finished = len(run.rows) >= epochs or (work.patience is not None and run.stale >= work.patience)
    with _seeded(), _deterministic():
        progress.step("resumed", int(run.scheduler.last_epoch))
        try:
            if not finished:
                engine.run([None], max_epochs=epochs, epoch_length=per_epoch)
                if len(run.rows) < engine.state.epoch:  # stopped by steps in the middle of an epoch
                    end(engine)
        except (RuntimeError, ValueError, IndexError) as error:
            raise _misfit(error, data) from error
        finally:
            progress.stop()
    best = None
    if work.keep is not None and run.best is not None:
        best = run.best[1]
        _restore(run.module, run.best[2])
    run.module.eval()
    for parameter in run.module.parameters():
        parameter.grad = None
    metrics = dict(run.rows[(best or len(run.rows)) - 1]) if run.rows else {}
    metrics.pop("epoch", None)
    metrics.pop("lr", None)
    if len(data.test):
        seen = evaluate(run.module, data.test, loss_of(work.loss), work, device)
        metrics |= {"test_loss": seen[0], "test_accuracy": seen[1]}
    home = next((t.device for t in (*network.module.parameters(), *network.module.buffers())), torch.device("cpu"))
    _keep_flags(network.module, run.module)
    run.module.to(home)
    steps = int(run.scheduler.last_epoch)
    history = History(tuple(run.rows), metrics, best, len(run.rows) < epochs, steps, tuple(run.points))
    return copied, history


def pick(output: Any, names: tuple[str, ...]) -> Tensor:
    """The output that the loss is taken on: the only one, or the named one of a dictionary."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict) and names:
        return cast("dict[str, Tensor]", output)[names[0]]
    raise fail("X0319", "the network has several outputs", helps=("say which one is trained: `output=NAME`",))


@torch.no_grad()
def evaluate(module: nn.Module, samples: Samples, loss: Loss, work: Training, device: torch.device) -> tuple[float, float]:
    """Mean loss and accuracy (share of hits) in eval mode. The module's modes are as before afterwards."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    total, right, count = 0.0, 0.0, 0
    for x, y in batches(samples, max(work.batch, 256)):
        with _cast(work, device):
            output = pick(module(x.to(device)), work.outputs).float()
        target = y.to(device)
        total += float(loss(output, target)) * len(x)
        right += hits(output, target)
        count += len(x)
    for part, mode in modes.items():
        part.training = mode
    return total / max(count, 1), right / max(count, 1)


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


def _process() -> tuple[int, int]:
    """This process's number and how many there are; joins the group that `torchrun` announced."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and is_available() and not is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if is_available() and is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _prepare(module: fx.GraphModule, work: Training, device: torch.device, count: int) -> _Run:
    named = dict(module.named_parameters(remove_duplicate=False))
    chosen = {id(named[n]) for n in work.parameters}
    for parameter in named.values():
        parameter.requires_grad_(id(parameter) in chosen)
    trained = list({id(named[n]): named[n] for n in work.parameters}.values())
    grouped = {n for g in work.groups for n in g.parameters}
    rest = list({id(named[n]): named[n] for n in work.parameters if n not in grouped}.values())
    groups: list[dict[str, Any]] = [{"params": rest}] if rest else []
    groups += [{"params": [named[n] for n in g.parameters], **g.settings} for g in work.groups]
    optimizer = _optimizer(work, groups)
    per_epoch = max(1, math.ceil(count / work.batch))
    total = work.length if work.unit == "steps" else work.length * per_epoch
    scaler = torch.amp.GradScaler(device.type, enabled=work.precision == "float16" and device.type == "cuda")
    loss = loss_of(work.loss, work.label_smoothing)
    return _Run(module, work, loss, device, optimizer, _schedule(work, optimizer, total), scaler, trained)


def _optimizer(work: Training, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    classes: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "sgd": torch.optim.SGD,
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
        "nadam": torch.optim.NAdam,
        "radam": torch.optim.RAdam,
    }
    try:
        return classes[work.optimizer.name](groups, **work.optimizer.keywords)
    except (TypeError, ValueError) as error:
        raise fail("X0409", f"`{work.optimizer}`: {error}", work.optimizer.span, "bad settings") from None


def _schedule(work: Training, optimizer: torch.optim.Optimizer, total: int) -> torch.optim.lr_scheduler.LRScheduler:
    warmup = work.warmup

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        match work.schedule:
            case "constant":
                return 1.0
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * done))
            case "linear":
                return 1 - done
            case "onecycle":
                return done / 0.3 if done < 0.3 else 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _modes(module: fx.GraphModule, work: Training) -> None:
    """`train()` mode for the modules that are trained, and for nothing else; frozen norms stay frozen."""
    module.eval()
    for name in work.training_modules:
        part = module.get_submodule(name)
        if not type(part).__name__.startswith("Frozen"):
            part.training = True


def _remember(run: _Run, row: dict[str, float]) -> None:
    metric = (run.work.keep or "val_loss").replace("top1", "accuracy")
    if metric not in row:
        metric = "train_loss"
    value = row[metric] if metric.endswith("loss") else -row[metric]
    if run.best is None or value < run.best[0]:
        state = run.module.state_dict() if run.work.keep is not None else {}
        run.best = (value, int(row["epoch"]), {n: t.detach().clone() for n, t in state.items()})
        run.stale = 0
    else:
        run.stale += 1


def _restore(module: nn.Module, state: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(state[name])


def _keep_flags(before: nn.Module, after: nn.Module) -> None:
    """Give every parameter the `requires_grad` that it had before the training."""
    flags = {n: p.requires_grad for n, p in before.named_parameters(remove_duplicate=False)}
    for name, parameter in after.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(flags[name])


def _save(run: _Run, path: Path) -> None:
    """The whole state after an epoch, written beside and then moved into place."""
    state: dict[str, Any] = {
        "module": run.module.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": {"last_epoch": run.scheduler.last_epoch},
        "scaler": run.scaler.state_dict(),
        "rows": run.rows,
        "best": run.best,
        "stale": run.stale,
        "points": run.points,
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def _load(run: _Run, path: Path, engine: Engine, per_epoch: int, epochs: int) -> None:
    state = torch.load(path, map_location=run.device, weights_only=True)
    run.module.load_state_dict(state["module"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scheduler.last_epoch = state["scheduler"]["last_epoch"]
    run.scaler.load_state_dict(state["scaler"])
    run.rows, run.best, run.stale = state["rows"], state["best"], state["stale"]
    run.points = [(int(e), p.cpu()) for e, p in state["points"]]
    engine.load_state_dict({"epoch_length": per_epoch, "max_epochs": epochs, "epoch": len(run.rows)})


def _mean(sums: dict[str, float], world: int) -> float:
    if world > 1:
        both = torch.tensor([sums["loss"], sums["count"]], dtype=torch.float64)
        torch.distributed.all_reduce(both)
        return float(both[0] / both[1].clamp(min=1))
    return sums["loss"] / max(sums["count"], 1)


def _cast(work: Training, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if work.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[work.precision])


@contextlib.contextmanager
def _seeded() -> Generator[None]:
    """Leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


@contextlib.contextmanager
def _deterministic() -> Generator[None]:
    """Same bytes out on the same machine."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _misfit(error: Exception, data: DataSet) -> Exception:
    from netxform.errors import NetxformError

    if isinstance(error, NetxformError):
        return error
    return fail(
        "X0805",
        f"the data `{data.name}` does not fit the network: {str(error).strip().splitlines()[0]}",
        helps=("compare the data's shape and classes with the model's input and head in the plan",),
    )
