"""What training may be told to use, by name: losses, metrics, optimizers, transforms. No torch: what each does is looked up
when it is first used (`registry.called`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from netxform.language.values import Registered
from netxform.registry import Registry


@dataclass(frozen=True, slots=True)
class LossKind:
    """`of`: (output (N, C, …), target (N, …), label smoothing) → the mean over the batch, a scalar.

    `classes`: the targets are class numbers, and are checked against the width of the output.
    """

    of: Callable[..., Any] | str
    classes: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that is made of sums over samples, so that batches and processes add up.

    `count`: (output, target) → sums by name, all of `sums`; for `on="classes"` they are rows of scores (M, C) and class numbers
    (M), −100 where a row does not count; for `on="values"` both (N, …) float64. `rate`: the sums → the number, None where there
    is none. `least`: less is better.
    """

    on: Literal["classes", "values"]
    sums: tuple[str, ...]
    count: Callable[..., Any] | str
    rate: Callable[[dict[str, float]], float | None] | str
    least: bool = False


@dataclass(frozen=True, slots=True)
class Optimizer:
    """`make`: (parameter groups, settings as keywords) → a torch.optim.Optimizer; `lr`: the rate where none is given."""

    make: Callable[..., Any] | str
    lr: float


@dataclass(frozen=True, slots=True)
class Augmentation:
    """`apply`: (x (n, …), amount, draw) → x seen anew; `draw(*shape)` gives uniform numbers (n, *shape), `draw.normal(*shape)`
    normal ones, the same for any number of processes. `amount`: where none is given; `most`: the largest that is allowed.
    """

    apply: Callable[..., Any] | str
    amount: float
    most: float = float("inf")


LOSSES: Registry[LossKind] = Registry("netxform.losses", "loss", "X0401")
METRICS: Registry[Metric] = Registry("netxform.metrics", "metric", "X0204")
OPTIMIZERS: Registry[Optimizer] = Registry("netxform.optimizers", "optimizer", "X0409")
TRANSFORMS: Registry[Augmentation] = Registry("netxform.transforms", "augmentation", "X0401")

_AT = "netxform.training"
LOSSES.register("cross_entropy")(LossKind(f"{_AT}.losses:cross_entropy", classes=True))
LOSSES.register("bce")(LossKind(f"{_AT}.losses:bce"))
LOSSES.register("mse")(LossKind(f"{_AT}.losses:mse"))
LOSSES.register("mae")(LossKind(f"{_AT}.losses:mae"))
LOSSES.register("huber")(LossKind(f"{_AT}.losses:huber"))

METRICS.register("accuracy")(Metric("classes", ("rows", "right"), f"{_AT}.metrics:right", f"{_AT}.metrics:accuracy"))
METRICS.register("mae")(Metric("values", ("values", "absolute"), f"{_AT}.metrics:absolute", f"{_AT}.metrics:mae", least=True))
METRICS.register("r2")(
    Metric("values", ("values", "squared", "sum", "sum2"), f"{_AT}.metrics:moments", f"{_AT}.metrics:explained")
)

for _name, _class, _lr in (
    ("adamw", "AdamW", 1e-3),
    ("adam", "Adam", 1e-3),
    ("sgd", "SGD", 1e-2),
    ("rmsprop", "RMSprop", 1e-3),
    ("adagrad", "Adagrad", 1e-2),
    ("nadam", "NAdam", 1e-3),
    ("radam", "RAdam", 1e-3),
):
    OPTIMIZERS.register(_name)(Optimizer(f"torch.optim:{_class}", _lr))

TRANSFORMS.register("shift")(Augmentation(f"{_AT}.augment:shift", 2.0))
TRANSFORMS.register("flip")(Augmentation(f"{_AT}.augment:flip", 0.5, most=1.0))
TRANSFORMS.register("noise")(Augmentation(f"{_AT}.augment:noise", 0.1))
TRANSFORMS.register("erase")(Augmentation(f"{_AT}.augment:erase", 0.25, most=1.0))
TRANSFORMS.register("scale")(Augmentation(f"{_AT}.augment:scale", 0.1))


class LossName(Registered):
    """The type of a field that names a loss."""

    registry = LOSSES


def kept_metrics() -> tuple[str, ...]:
    """What a training reports after every epoch, and the best epoch may be kept by; `top1` is another word for accuracy."""
    return ("val_loss", *(f"val_{m}" for m in _measured()), "train_loss")


def asserted_metrics() -> tuple[str, ...]:
    """What an `assert` may speak of once something is trained; the last three behind a statement whose cost was measured on
    data (`prune`, `factorize`): accuracy and loss of what it made, agreement with what was before.
    """
    named = [f"{part}_{m}" for part in ("val", "test") for m in ("loss", *_measured())]
    return ("train_loss", *named, "teacher_val_accuracy", "accuracy", "loss", "agreement")


def less_is_better(metric: str) -> bool:
    """Whether the best epoch by `val_loss`, `val_accuracy`, `train_loss`, … is the lowest."""
    name = metric.partition("_")[2] if metric.startswith(("train_", "val_", "test_")) else metric
    return name.endswith("loss") or (name in METRICS and METRICS.find(name).least)


def _measured() -> tuple[str, ...]:
    return tuple(m for n in METRICS for m in ((n, "top1") if n == "accuracy" else (n,)))
