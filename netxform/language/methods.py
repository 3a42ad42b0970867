"""What training may be told to use, by name: losses, metrics, optimizers, transforms. No torch: what each does is looked up
when it is first used (`registry.called`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from netxform.language.named import REQUIRED, Chosen, Registered, Setting
from netxform.registry import Registry

IGNORED = -100
"""The class number of what no loss and no metric counts: padding."""
Takes = Literal["classes", "units", "values", "counts", "signs"]


@dataclass(frozen=True, slots=True)
class LossKind:
    """`of`: (output (N, C, …), target (N, …), label smoothing, settings as keywords) → the mean over the batch, a scalar.

    `takes`: what the targets are, and are checked for: class numbers (`classes`), 0, 1 or shares for every output (`units`),
    any
    numbers (`values`), numbers from 0 (`counts`), −1 and 1 (`signs`). `soft`: shares of the classes are taken too. `smooth`:
    labels
    may be smoothed. `mass`: (target, settings as keywords) → the total weight of the rows, by which their mean was divided;
    None where every row counts alike.
    """

    of: Callable[..., Any] | str
    takes: Takes = "values"
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    soft: bool = False
    smooth: bool = False
    mass: Callable[..., Any] | str | None = None


Kind = Literal["classes", "labels", "values"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that is made of sums over samples, so that batches and processes add up.

    `count`: (output, target) → sums by name, all of `sums`; for `on="classes"` they are rows of scores (M, C) and class numbers
    (M), −100 where a row does not count; for `on="labels"` scores (M, K) and 0 or 1 for each; for `on="values"` both (N, …)
    float64. `rate`: the sums → the number, None where there is none. `least`: less is better. `asked`: it is measured only
    where `metrics=` or `keep best by` names it.
    """

    on: Kind
    sums: tuple[str, ...]
    count: Callable[..., Any] | str
    rate: Callable[[dict[str, float]], float | None] | str
    least: bool = False
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Library:
    """A metric of torchmetrics, or one that is used like its: `update(scores, targets)`, `compute()`, processes come together.

    `make`: (kind, number of classes, labels or values) → the metric. It is shown probabilities (M, C) and class numbers (M) for
    `classes`, probabilities (M, K) and 0 or 1 for `labels`, both (M, K) for `values`. Measured only where it is asked for.
    """

    on: tuple[Kind, ...]
    make: Callable[[Kind, int], Any] | str
    least: bool = False


@dataclass(frozen=True, slots=True)
class Optimizer:
    """`make`: (parameter groups, settings as keywords) → a torch.optim.Optimizer; `lr`: the rate where none is given; `needs`:
    the package that has it, beside torch.
    """

    make: Callable[..., Any] | str
    lr: float
    needs: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleKind:
    """`share`: (how much of the training is done, in [0, 1], settings) → what the learning rate is multiplied by."""

    share: Callable[..., float] | str
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])


@dataclass(frozen=True, slots=True)
class Augmentation:
    """`apply`: (x (n, …), amount, draw) → x seen anew; `draw(*shape)` gives uniform numbers (n, *shape), `draw.normal(*shape)`
    normal ones, the same for any number of processes. `amount`: where none is given; `most`: the largest that is allowed;
    `moves`: it moves pixels, and maps of targets are moved with them.
    """

    apply: Callable[..., Any] | str
    amount: float
    most: float = float("inf")
    moves: bool = False


@dataclass(frozen=True, slots=True)
class Vision:
    """A transform of torchvision.transforms.v2 by its name there, with its arguments; one sample after the other, each under a
    seed of its own. `moves`: it moves pixels, and maps of targets are moved with them. `colours`: it works on values in [0, 1].
    """

    name: str
    moves: bool = False
    colours: bool = False


LOSSES: Registry[LossKind] = Registry("netxform.losses", "loss", "X0401")
METRICS: Registry[Metric | Library] = Registry("netxform.metrics", "metric", "X0204")
OPTIMIZERS: Registry[Optimizer] = Registry("netxform.optimizers", "optimizer", "X0409")
SCHEDULES: Registry[ScheduleKind] = Registry("netxform.schedules", "schedule", "X0401")
TRANSFORMS: Registry[Augmentation | Vision] = Registry("netxform.transforms", "augmentation", "X0401")

_AT = "netxform.training"
_CLASS_WEIGHT = Setting("weights", low=0.0)
_IGNORE = Setting("whole", IGNORED)
_POSITIVE = 1e-12


def _loss(name: str, takes: Takes, settings: dict[str, Setting] | None = None, **more: Any) -> None:
    LOSSES.register(name)(LossKind(f"{_AT}.losses:{name}", takes, settings or {}, **more))


_loss(
    "cross_entropy",
    "classes",
    {"weight": _CLASS_WEIGHT, "ignore_index": _IGNORE, "label_smoothing": Setting(default=0.0, low=0.0, high=1.0)},
    soft=True,
    smooth=True,
    mass=f"{_AT}.losses:class_mass",
)
_loss("nll", "classes", {"weight": _CLASS_WEIGHT, "ignore_index": _IGNORE}, mass=f"{_AT}.losses:class_mass")
_loss(
    "focal",
    "classes",
    {"gamma": Setting(default=REQUIRED, low=0.0, example="2"), "weight": _CLASS_WEIGHT, "ignore_index": _IGNORE},
    mass=f"{_AT}.losses:class_mass",
)
_loss(
    "multi_margin",
    "classes",
    {"p": Setting("whole", 1, 1, 2), "margin": Setting(default=1.0, low=0.0), "weight": _CLASS_WEIGHT},
    mass=f"{_AT}.losses:rows",
)
_loss("bce", "units", {"pos_weight": _CLASS_WEIGHT}, smooth=True)
_loss(
    "sigmoid_focal",
    "units",
    {"gamma": Setting(default=REQUIRED, low=0.0, example="2"), "alpha": Setting(low=0.0, high=1.0)},
)
_loss("multilabel_soft_margin", "units")
_loss("mse", "values")
_loss("mae", "values")
_loss("huber", "values", {"delta": Setting(default=1.0, low=_POSITIVE)})
_loss("smooth_l1", "values", {"beta": Setting(default=1.0, low=0.0)})
_loss("poisson_nll", "counts", {"log_input": Setting("switch", True), "full": Setting("switch", False)})
_loss("soft_margin", "signs")
_loss("hinge_embedding", "signs", {"margin": Setting(default=1.0, low=0.0)})
LOSSES.register("l1")(LOSSES.find("mae"))

METRICS.register("accuracy")(Metric("classes", ("rows", "right"), f"{_AT}.metrics:right", f"{_AT}.metrics:accuracy"))
METRICS.register("mae")(Metric("values", ("values", "absolute"), f"{_AT}.metrics:absolute", f"{_AT}.metrics:mae", least=True))
METRICS.register("r2")(
    Metric("values", ("values", "squared", "sum", "sum2"), f"{_AT}.metrics:moments", f"{_AT}.metrics:explained")
)
METRICS.register("perplexity")(
    Metric("classes", ("tokens", "surprise"), f"{_AT}.metrics:surprise", f"{_AT}.metrics:perplexity", least=True, asked=True)
)
METRICS.register("rmse")(
    Metric("values", ("residuals", "residuals2"), f"{_AT}.metrics:squares", f"{_AT}.metrics:root", least=True, asked=True)
)
for _name, _on, _least in (
    *((f"top{k}", ("classes",), False) for k in (2, 3, 5, 10)),
    *((n, ("classes", "labels"), False) for n in ("f1", "precision", "recall", "specificity", "auroc", "average_precision")),
    *((n, ("classes", "labels"), False) for n in ("f1_micro", "f1_weighted", "iou", "dice", "mcc", "kappa")),
    *((n, ("classes",), False) for n in ("balanced_accuracy",)),
    *((n, ("classes", "labels"), True) for n in ("calibration_error", "hamming")),
    *((n, ("values",), False) for n in ("pearson", "spearman", "explained_variance", "concordance")),
    *((n, ("values",), True) for n in ("mape", "smape", "msle")),
):
    METRICS.register(_name)(Library(_on, f"{_AT}.library:{_name}", _least))  # pyright: ignore[reportArgumentType]

for _name, _class, _lr in (
    ("adamw", "AdamW", 1e-3),
    ("adam", "Adam", 1e-3),
    ("sgd", "SGD", 1e-2),
    ("rmsprop", "RMSprop", 1e-3),
    ("adagrad", "Adagrad", 1e-2),
    ("nadam", "NAdam", 1e-3),
    ("radam", "RAdam", 1e-3),
    ("adamax", "Adamax", 2e-3),
    ("adadelta", "Adadelta", 1.0),
    ("adafactor", "Adafactor", 1e-2),
    ("asgd", "ASGD", 1e-2),
    ("rprop", "Rprop", 1e-2),
):
    OPTIMIZERS.register(_name)(Optimizer(f"torch.optim:{_class}", _lr))
for _name, _class, _lr in (
    ("lion", "Lion", 1e-4),
    ("muon", "Muon", 2e-2),
    ("lamb", "Lamb", 1e-3),
    ("lars", "Lars", 1.0),
    ("adan", "Adan", 1e-3),
    ("adopt", "Adopt", 1e-3),
    ("adabelief", "AdaBelief", 1e-3),
    ("adamp", "AdamP", 1e-3),
    ("sgdp", "SGDP", 1e-2),
    ("mars", "Mars", 3e-3),
    ("nadamw", "NAdamW", 1e-3),
    ("laprop", "LaProp", 4e-4),
    ("madgrad", "MADGRAD", 1e-2),
):
    OPTIMIZERS.register(_name)(Optimizer(f"timm.optim:{_class}", _lr, "timm"))

_END = Setting(default=0.0, low=0.0, high=1.0)
_FACTOR = Setting(default=0.1, low=0.0, high=1.0)
for _name, _settings in (
    ("constant", {}),
    ("cosine", {"end": _END}),
    ("linear", {"end": _END}),
    ("onecycle", {"rise": Setting(default=0.3, low=0.01, high=0.99), "end": _END}),
    ("cosine_restarts", {"cycles": Setting("whole", 3, 1), "decay": Setting(default=1.0, low=0.0, high=1.0), "end": _END}),
    ("polynomial", {"power": Setting(default=2.0, low=0.0), "end": _END}),
    ("exponential", {"end": Setting(default=0.01, low=_POSITIVE, high=1.0)}),
    ("steps", {"at": Setting("weights", (0.5, 0.75), 0.0, 1.0), "factor": _FACTOR}),
    ("tanh", {"low": Setting(default=-7.0), "high": Setting(default=3.0), "end": _END}),
):
    SCHEDULES.register(_name)(ScheduleKind(f"{_AT}.schedules:{_name}", _settings))

TRANSFORMS.register("shift")(Augmentation(f"{_AT}.augment:shift", 2.0, moves=True))
TRANSFORMS.register("flip")(Augmentation(f"{_AT}.augment:flip", 0.5, most=1.0, moves=True))
TRANSFORMS.register("noise")(Augmentation(f"{_AT}.augment:noise", 0.1))
TRANSFORMS.register("erase")(Augmentation(f"{_AT}.augment:erase", 0.25, most=1.0))
TRANSFORMS.register("scale")(Augmentation(f"{_AT}.augment:scale", 0.1))
for _name, _moves, _colours in (
    *((n, True, False) for n in ("RandomHorizontalFlip", "RandomVerticalFlip", "RandomRotation", "RandomAffine")),
    *((n, True, False) for n in ("RandomPerspective", "RandomCrop", "RandomResizedCrop", "ElasticTransform")),
    *((n, True, True) for n in ("RandAugment", "TrivialAugmentWide", "AutoAugment")),
    *((n, False, True) for n in ("AugMix", "ColorJitter", "RandomGrayscale", "RandomInvert", "RandomPosterize")),
    *((n, False, True) for n in ("RandomSolarize", "RandomAdjustSharpness", "RandomAutocontrast", "RandomEqualize")),
    *((n, False, True) for n in ("RandomPhotometricDistort", "RandomChannelPermutation")),
    *((n, False, False) for n in ("GaussianBlur", "GaussianNoise", "RandomErasing")),
):
    TRANSFORMS.register(_name)(Vision(_name, _moves, _colours))


@dataclass(frozen=True)
class Loss(Chosen):
    """A loss by name with its settings: `cross_entropy(weight=balanced)`."""

    registry = LOSSES

    @property
    def kind(self) -> LossKind:
        """What the registry knows of it."""
        return LOSSES.find(self.name)


def loss(name: str, **settings: Any) -> Loss:
    """The loss of that name, with its defaults where nothing is said."""
    return Loss(name, {n: s.default for n, s in Loss.known(name).items()} | settings)


@dataclass(frozen=True)
class Schedule(Chosen):
    """A schedule of the learning rate by name with its settings: `cosine_restarts(cycles=3)`."""

    registry = SCHEDULES


class MetricName(Registered):
    """The type of a field that names a metric."""

    registry = METRICS


def kinds_of(loss: Loss) -> tuple[Kind, ...]:
    """What the metrics of a loss may be of; which of them, the targets show."""
    match loss.kind.takes:
        case "classes":
            return ("classes",)
        case "units":
            return ("labels", "classes")
        case "signs":
            return ("labels",)
        case _:
            return ("values", "classes")


def measured_as(metric: str) -> str:
    """The name under which a metric is reported: `val_top1` is `val_accuracy`."""
    return f"{metric.removesuffix('top1')}accuracy" if metric == "top1" or metric.endswith("_top1") else metric


def base_name(metric: str) -> str:
    """`val_f1` → `f1`."""
    return metric.partition("_")[2] if metric.startswith(("train_", "val_", "test_")) else metric


def kept_metrics() -> tuple[str, ...]:
    """What a training reports after every epoch, and the best epoch may be kept by; `top1` is another word for accuracy."""
    return ("val_loss", *(f"val_{m}" for m in _measured()), "train_loss")


def asserted_metrics() -> tuple[str, ...]:
    """What an `assert` may speak of once something is trained; the last three behind a statement whose cost was measured on
    data (`prune`, `factorize`): accuracy and loss of what it made, agreement with what was before.
    """
    named = [f"{part}_{m}" for part in ("val", "test") for m in ("loss", *_measured())]
    return ("train_loss", *named, "teacher_val_accuracy", "accuracy", "loss", "agreement")


def compared_metrics() -> tuple[str, ...]:
    """What runs may be compared by: what is measured on test data."""
    return tuple(f"test_{m}" for m in ("loss", *(n for n in _measured() if n != "top1")))


def less_is_better(metric: str) -> bool:
    """Whether the best epoch by `val_loss`, `val_accuracy`, `train_loss`, … is the lowest."""
    name = base_name(metric)
    return name.endswith("loss") or (name in METRICS and METRICS.find(name).least)


def _measured() -> tuple[str, ...]:
    return tuple(m for n in METRICS for m in ((n, "top1") if n == "accuracy" else (n,)))
