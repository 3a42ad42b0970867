"""What training is asked for, as data. Verbs make these; `training/` interprets them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from netxform.core.values import Invocation

Direction = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are optimised with settings of their own (discriminative learning rates)."""

    parameters: tuple[str, ...]
    settings: dict[str, float]


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
    `batch` is the global batch, over all processes. `clip` bounds the 2-norm of the whole gradient.
    """

    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    training_modules: tuple[str, ...]
    data: str
    length: int
    unit: Literal["epochs", "steps"]
    optimizer: Invocation
    loss: str
    batch: int
    seed: int
    outputs: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    schedule: Literal["constant", "cosine", "linear", "onecycle"] = "constant"
    warmup: int = 0
    clip: float | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    keep: str | None = None
    patience: int | None = None
    label_smoothing: float = 0.0
    record: Recording | None = None


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
    """

    variants: tuple[Literal["scratch", "random"], ...]
    seeds: int
    metric: str


Work: TypeAlias = Training | Fitting | Comparison
