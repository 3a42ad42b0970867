"""What training is asked for, as data. Verbs make these; `training/` interprets them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from netxform.graph.layer_spec import Invocation
from netxform.language.methods import Loss, Schedule


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are optimised with settings of their own (discriminative learning rates)."""

    parameters: tuple[str, ...]
    settings: dict[str, float]


SOFT_LOSSES = ("kd", "ce", "logit_mse", "dist", "dkd", "mse")


@dataclass(frozen=True, slots=True)
class Term:
    """One head's share of the loss: `weight` times `loss` between the output and column `target` of the targets (or the one
    of that name).

    `output`: the name in a dictionary of outputs, None for the only one; `target` None takes the targets whole.
    """

    output: str | None
    loss: Loss
    target: int | str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Penalty:
    """A term on values of the graph (`nodes`) or on parameters: `weight` times their 1-norm, or half their squared 2-norm.

    On values the norm is summed over the units and averaged over the samples, and over the positions of a map: a unit of a
    convolution counts as one of a dense layer does, whatever the batch or the size of the image.
    """

    norm: Literal["l1", "l2"]
    weight: float
    nodes: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """A value of the student (`node`) drawn towards one of a teacher: as it is, through a trained map, or by attention."""

    node: str
    teacher: str
    teacher_node: str
    via: Literal["none", "conv1x1", "linear", "attention"]
    weight: float
    sizes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sight:
    """How a teacher is shown images: in another `size` (H, W), and normalised by its own `mean` and `std`, a channel each."""

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Soft:
    """The teachers' part of the loss: (1 − hard) · soft loss against the mean of the teachers + hard · loss on the labels.

    `mix` weighs the teachers and sums to 1. `mean`: arithmetic averages probabilities, geometric averages logits. `digests`
    of the teachers are not known before weights are read, and so are no part of this. `outputs`: which output of each teacher
    teaches, `sights`: how each is shown the samples; `classes`: for every class of the student its number with the teachers,
    None for one that they do not know.
    """

    teachers: tuple[str, ...]
    mix: tuple[float, ...]
    mean: Literal["arithmetic", "geometric"]
    temperature: float
    hard: float
    loss: str
    matches: tuple[Match, ...] = ()
    cache: bool = True
    baseline: float | None = None
    outputs: tuple[str | None, ...] = ()
    sights: tuple[Sight, ...] = ()
    classes: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """Record a trajectory while training: a point of `what` every so many epochs, on `samples` samples of a part of `data`."""

    what: Literal["outputs", "weights"]
    data: str
    part: Literal["test", "val", "train"]
    samples: int
    every: int


@dataclass(frozen=True, slots=True)
class Training:
    """Minimise `loss` over `data` by changing `parameters` (and the running statistics in `buffers`) alone.

    `length` counts `unit`s. `groups` are disjoint; parameters in none of them use the optimizer's own settings.
    `keep` names the metric whose best epoch is kept; `patience` counts epochs without improvement before stopping.
    `batch` is the global batch, over all processes; it is taken in `accumulate` pieces. `clip` bounds the 2-norm of the whole
    gradient. `terms`: the loss head by head; empty for the one loss on the one output. `mixup` is the parameter of the Beta
    distribution. `processes`: how many there must be; None takes what there is. `held`: parameters whose elements that are zero
    at the start stay zero. `metrics`: what is measured beside the metrics that always are. `draw`: every sample once an epoch,
    or as many, drawn so that classes come equally often. `ema`: the share of the average of the weights that a step keeps.
    """

    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    training_modules: tuple[str, ...]
    data: str
    length: int
    unit: Literal["epochs", "steps"]
    optimizer: Invocation
    loss: Loss
    batch: int
    seed: int
    outputs: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    schedule: Schedule = field(default_factory=lambda: Schedule("constant"))
    warmup: int = 0
    clip: float | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    keep: str | None = None
    patience: int | None = None
    label_smoothing: float = 0.0
    record: Recording | None = None
    terms: tuple[Term, ...] = ()
    penalties: tuple[Penalty, ...] = ()
    augment: tuple[Invocation, ...] = ()
    mixup: float = 0.0
    accumulate: int = 1
    compile: bool = False
    strategy: Literal["ddp", "fsdp"] = "ddp"
    processes: int | None = None
    soft: Soft | None = None
    held: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    draw: Literal["shuffled", "balanced"] = "shuffled"
    ema: float | None = None
    cutmix: float = 0.0

    @property
    def mixed(self) -> bool:
        """Whether samples are shown with a partner in them."""
        return bool(self.mixup or self.cutmix)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Remember the network as it is, under a name that later statements may use as a model."""

    name: str


@dataclass(frozen=True, slots=True)
class Fitting:
    """Fit a scikit-learn classifier to the network's (flat) output on the training part of `data`."""

    name: str
    estimator: Invocation
    data: str
    seed: int
    batch: int = 256
    settings: dict[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Run the whole spec again for each seed beside a variant of it, and report both.

    `scratch`: fresh weights, nothing frozen, all parameters trained; `random`: fresh weights, the spec otherwise as
    written. Training on other data, before the first change of structure (the pre-training), is left out of both.
    `alone`: the spec as written, but without its teachers: the labels alone.
    """

    variants: tuple[Literal["scratch", "random", "alone"], ...]
    seeds: int
    metric: str


Work: TypeAlias = Training | Fitting | Comparison | Snapshot
