"""Metrics: sums over the rows of a batch, and what is made of them (`language.methods.Metric`)."""

from __future__ import annotations

import torch
from torch import Tensor

from netxform.language.methods import LOSSES, METRICS, Metric
from netxform.registry import called
from netxform.training.losses import PADDING, class_rows, like

Sums = dict[str, float]


def metrics_of(on: str) -> dict[str, Metric]:
    """The metrics of classes, or of values, by name."""
    return {n: m for n, m in METRICS.items() if m.on == on}


@torch.no_grad()
def count(output: Tensor, target: Tensor) -> Sums:
    """Sums over the rows of a batch from which `rates` makes metrics: right answers, or moments of the residuals."""
    if not target.dtype.is_floating_point and output.dim() >= 2 and output.dim() in (target.dim() + 1, 2):
        scores, wanted = class_rows(output, target)
        assert wanted is not None
        if wanted.dim() == 1:
            return _sums("classes", scores, wanted)
    return _sums("values", output.double(), like(output, target).double())


def _sums(on: str, output: Tensor, target: Tensor) -> Sums:
    out: Sums = {}
    for metric in metrics_of(on).values():
        out |= called(metric.count)(output, target)
    return out


def rates(sums: Sums) -> dict[str, float]:
    """The metrics whose sums are there: `accuracy` for classes; for values `mae` and `r2`."""
    out: dict[str, float] = {}
    for name, metric in METRICS.items():
        if all(s in sums for s in metric.sums):
            found: float | None = called(metric.rate)(sums)
            out |= {} if found is None else {name: found}
    return out


def empty(loss: str) -> Sums:
    """The sums of no sample, for the targets that a loss is taken on."""
    on = "classes" if LOSSES.find(loss).classes else "values"
    return {s: 0.0 for m in metrics_of(on).values() for s in m.sums}


@torch.no_grad()
def hits(output: Tensor, target: Tensor) -> int:
    """How many of the N samples have their largest output at the target class; 0 for targets that are no classes."""
    return int(count(output, target).get("right", 0.0))


# --- of classes ------------------------------------------------------------------------------------------------------


def right(scores: Tensor, wanted: Tensor) -> Sums:
    """Rows that count, and rows whose largest score is at the target."""
    kept = wanted != PADDING
    return {"rows": float(kept.sum()), "right": float(((scores.argmax(1) == wanted) & kept).sum())}


def accuracy(sums: Sums) -> float:
    """The share of rows that are right."""
    return sums["right"] / max(sums["rows"], 1.0)


# --- of values -------------------------------------------------------------------------------------------------------


def absolute(output: Tensor, wanted: Tensor) -> Sums:
    """The number of values, and Σ |residual|."""
    return {"values": float(output.numel()), "absolute": float((output - wanted).abs().sum())}


def mae(sums: Sums) -> float | None:
    """The mean absolute residual."""
    return sums["absolute"] / sums["values"] if sums["values"] else None


def moments(output: Tensor, wanted: Tensor) -> Sums:
    """The number of values, Σ residual², Σ y and Σ y²."""
    squared = float((output - wanted).square().sum())
    y = {"sum": float(wanted.sum()), "sum2": float(wanted.square().sum())}
    return {"values": float(output.numel()), "squared": squared} | y


def explained(sums: Sums) -> float | None:
    """The share of the variance of the targets that is explained; None where they do not vary."""
    n = sums["values"]
    spread = sums["sum2"] - sums["sum"] ** 2 / n if n else 0.0
    return 1 - sums["squared"] / spread if spread > 0 else None
