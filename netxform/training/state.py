"""How a training stands after an epoch: kept for the best one, saved on disk, and read again by a run that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from netxform.errors import fail
from netxform.language.methods import less_is_better, measured_as
from netxform.language.work import Training
from netxform.training import checkpoint as states
from netxform.training.objective import Objective
from netxform.training.process import Processes
from netxform.training.taps import Student


@dataclass
class Run:
    """A training under way: what it trains, what with, and how it stands."""

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
    still: list[tuple[Tensor, Tensor, list[int]]] = field(default_factory=list["tuple[Tensor, Tensor, list[int]]"])
    epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict[str, float])
    rows: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    best: tuple[float, int, dict[str, Tensor]] | None = None
    stale: int = 0
    points: list[tuple[int, Tensor]] = field(default_factory=list["tuple[int, Tensor]"])
    normal: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # by which the images of the data are normalised
    average: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  # of the weights, where one is asked for

    def __post_init__(self) -> None:
        """Note the buffers of modules that are not trained."""
        trained = set(self.work.training_modules)
        for path, part in self.module.named_modules():
            if path not in trained:
                held = [b for b in part._buffers.values() if b is not None]  # pyright: ignore[reportPrivateUsage]
                self.still += [(b, b.detach().clone(), [b._version]) for b in held]  # pyright: ignore[reportPrivateUsage]


def state_of(run: Run) -> dict[str, Tensor]:
    """Every tensor of the network and of the maps of matched features, by name."""
    held: dict[str, Tensor] = dict(run.module.state_dict(keep_vars=True))
    held |= {n: p for n, p in run.named.items() if n in held}
    held |= {f"adapters.{n}": t for n, t in run.student.adapters.state_dict(keep_vars=True).items()}
    return {n: t.detach() for n, t in held.items()}


def keep_still(run: Run) -> None:
    """Put back what a pass has written into buffers of modules that are not trained."""
    for buffer, value, version in run.still:
        if buffer._version != version[0]:  # pyright: ignore[reportPrivateUsage]
            with torch.no_grad():
                buffer.copy_(value)
            version[0] = buffer._version  # pyright: ignore[reportPrivateUsage]


def remember(run: Run, row: dict[str, float]) -> None:
    """Keep the state of the best epoch, and count the epochs since."""
    metric = measured_as(run.work.keep or "val_loss")
    if metric not in row:
        metric = "train_loss"
    value = row[metric] if less_is_better(metric) else -row[metric]
    if run.best is None or value < run.best[0]:
        state = state_of(run) if run.work.keep is not None else {}
        run.best = (value, int(row["epoch"]), {n: t.clone() for n, t in state.items()})
        run.stale = 0
    else:
        run.stale += 1


@torch.no_grad()
def restore(run: Run, state: Mapping[str, Tensor]) -> None:
    """Put every tensor back."""
    for name, tensor in state_of(run).items():
        tensor.copy_(state[name])


def save(run: Run, place: Path) -> None:
    """The whole state after an epoch."""
    tensors = {f"now.{n}": t for n, t in state_of(run).items()}
    tensors |= {f"best.{n}": t for n, t in (run.best[2] if run.best is not None else {}).items()}
    held = run.optimizer.state_dict()
    for number, entries in held["state"].items():
        tensors |= {f"optimizer.{number}.{k}": v for k, v in entries.items() if isinstance(v, Tensor)}
    for number, group in enumerate(held["param_groups"]):  # some count their steps there
        tensors |= {f"group.{number}.{k}": v for k, v in group.items() if isinstance(v, Tensor)}
    tensors |= {f"point.{epoch}": p for epoch, p in run.points}
    tensors |= {f"average.{n}": t for n, t in run.average.items()}
    facts = {
        "rates": [g["lr"] for g in held["param_groups"]],
        "groups": [{k: v for k, v in g.items() if _plain(v)} for g in held["param_groups"]],
        "plain": {str(n): {k: v for k, v in e.items() if _plain(v)} for n, e in held["state"].items()},
        "steps": run.scheduler.last_epoch,
        "scaler": run.scaler.state_dict(),
        "rows": run.rows,
        "best": None if run.best is None else run.best[:2],
        "stale": run.stale,
    }
    states.write(place, len(run.rows), tensors, facts, run.processes)


def load(run: Run, place: Path) -> None:
    """Go on from a saved state, if there is one."""
    every = [p for g in run.optimizer.param_groups for p in g["params"]]
    now = state_of(run)
    like = {f"{kind}.{n}": t for n, t in now.items() for kind in ("now", "best")}
    like |= {f"optimizer.{i}.{k}": p for i, p in enumerate(every) for k in _STATISTICS}
    found = states.read(place, like, run.processes)
    if found is None:
        return
    tensors, facts = found
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "optimizer": {}, "group": {}, "point": {}, "average": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = tensor
    if set(parts["now"]) != set(now):
        raise fail(
            "X0822", "the state of the interrupted run is of another network", helps=("leave `--resume` out to start anew",)
        )
    restore(run, parts["now"])
    run.average = parts["average"]
    state: dict[int, dict[str, Any]] = {int(n): dict(entries) for n, entries in facts["plain"].items()}
    for name, tensor in parts["optimizer"].items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    groups = run.optimizer.state_dict()["param_groups"]
    for group, rate, more in zip(groups, facts["rates"], facts["groups"], strict=True):
        group |= more
        group["lr"] = rate
    for name, tensor in parts["group"].items():
        number, _, key = name.partition(".")
        groups[int(number)][key] = tensor
    run.optimizer.load_state_dict({"state": state, "param_groups": groups})
    run.scheduler.last_epoch = facts["steps"]
    run.scaler.load_state_dict(facts["scaler"])
    run.points = sorted((int(epoch), p) for epoch, p in parts["point"].items())
    run.rows, run.stale = facts["rows"], facts["stale"]
    run.best = None if facts["best"] is None else (facts["best"][0], facts["best"][1], parts["best"])


def _plain(value: object) -> bool:
    """Whether JSON holds the value as it is: what some optimizers count beside their tensors."""
    return value is None or isinstance(value, bool | int | float | str)


_STATISTICS = (
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "sum",
)  # fmt: skip
