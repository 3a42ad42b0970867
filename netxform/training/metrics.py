"""Metrics: sums over the rows of a batch and what is made of them, and those of torchmetrics (`language.methods`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from netxform.language.methods import METRICS, Kind, Library, Loss, Metric, kinds_of
from netxform.language.methods import loss as named_loss
from netxform.registry import called
from netxform.training.library import Counted
from netxform.training.losses import PADDING, class_rows, like
from netxform.training.process import Processes, total

Sums = dict[str, float]


class Measures:
    """The metrics of one output, batch after batch: those that are always measured on targets of this kind, and `asked`."""

    def __init__(self, loss: Loss, asked: Sequence[str] = ()) -> None:
        self.loss, self.asked = loss, tuple(asked)
        self.sums: Sums = {}
        self.counted: dict[str, Counted] = {}

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor) -> None:
        """One batch: output (N, …) as the network gives it, and its targets."""
        kind, scores, wanted = rows_of(output, target, self.loss)
        for key, value in sums_of(kind, scores, wanted, self.asked).items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        for name in self.asked:
            metric = METRICS.find(name)
            if isinstance(metric, Library) and kind in metric.on:
                held = self.counted.setdefault(name, Counted(name, metric, kind, scores))
                held.update(scores, wanted)

    def values(self, processes: Processes) -> dict[str, float]:
        """The metrics over all batches of all processes."""
        found = rates(total(self.sums or empty(self.loss, self.asked), processes))
        for name in self.asked:
            value = self.counted[name].value() if name in self.counted else None
            found |= {} if value is None else {name: value}
        return found


def rows_of(output: Tensor, target: Tensor, loss: Loss) -> tuple[Kind, Tensor, Tensor]:
    """Kind, scores and targets as metrics see them (`Metric.count`)."""
    takes = loss.kind.takes
    whole = not target.dtype.is_floating_point
    numbered = whole and target.dim() == 1 and output.dim() == 2 and output.shape[1] > 1
    if takes == "classes" and not whole:
        scores, _ = class_rows(output)
        return "classes", scores, class_rows(target)[0].argmax(1)
    if takes == "classes" or numbered:
        scores, wanted = class_rows(output, target.long())
        assert wanted is not None
        ignored = loss.settings.get("ignore_index", PADDING)
        return "classes", scores, wanted if ignored == PADDING else wanted.masked_fill(wanted == ignored, PADDING)
    wanted = like(output, target)
    if takes in ("units", "signs"):
        flat = output.dim() == 2
        scores, wanted = (output, wanted) if flat else (output.reshape(-1, 1), wanted.reshape(-1, 1))
        return "labels", scores, (wanted > (0.5 if takes == "units" else 0)).to(scores.dtype)
    return "values", output.double(), wanted.double()


def sums_of(kind: Kind, scores: Tensor, wanted: Tensor, asked: Sequence[str] = ()) -> Sums:
    """The sums over the rows of a batch from which `rates` makes metrics."""
    out: Sums = {}
    for metric in _additive(kind, asked).values():
        out |= called(_counter(metric, kind))(scores, wanted)
    return out


def _counter(metric: Metric, kind: Kind) -> Any:
    return right_labels if metric.on == "classes" and kind == "labels" else metric.count


def _additive(kind: Kind, asked: Sequence[str]) -> dict[str, Metric]:
    found = {n: m for n, m in METRICS.items() if isinstance(m, Metric) and (not m.asked or n in asked)}
    return {n: m for n, m in found.items() if m.on == kind or (n == "accuracy" and kind == "labels")}


@torch.no_grad()
def count(output: Tensor, target: Tensor, loss: Loss | None = None) -> Sums:
    """The sums over a batch of outputs and targets, of classes where the targets look like class numbers."""
    if loss is None:
        numbers = not target.dtype.is_floating_point and output.dim() >= 2 and target.dim() == output.dim() - 1
        loss = named_loss("cross_entropy" if numbers else "mse")
    return sums_of(*rows_of(output, target, loss))


def rates(sums: Sums) -> dict[str, float]:
    """The metrics whose sums are there: `accuracy` for classes; for values `mae` and `r2`."""
    out: dict[str, float] = {}
    for name, metric in METRICS.items():
        if isinstance(metric, Metric) and all(s in sums for s in metric.sums):
            found: float | None = called(metric.rate)(sums)
            out |= {} if found is None else {name: found}
    return out


def empty(loss: Loss, asked: Sequence[str] = ()) -> Sums:
    """The sums of no sample, for the targets that a loss is taken on."""
    return {s: 0.0 for m in _additive(kinds_of(loss)[0], asked).values() for s in m.sums}


# --- of classes ------------------------------------------------------------------------------------------------------


def right(scores: Tensor, wanted: Tensor) -> Sums:
    """Rows that count, and rows whose largest score is at the target."""
    kept = wanted != PADDING
    return {"rows": float(kept.sum()), "right": float(((scores.argmax(1) == wanted) & kept).sum())}


def right_labels(scores: Tensor, wanted: Tensor) -> Sums:
    """Labels, and labels on whose side of 0 the score is."""
    return {"rows": float(wanted.numel()), "right": float(((scores > 0) == (wanted > 0.5)).sum())}


def accuracy(sums: Sums) -> float:
    """The share of rows that are right."""
    return sums["right"] / max(sums["rows"], 1.0)


def surprise(scores: Tensor, wanted: Tensor) -> Sums:
    """Rows that count, and the sum of their −log p."""
    value = F.cross_entropy(scores.double(), wanted, ignore_index=PADDING, reduction="sum")
    return {"tokens": float((wanted != PADDING).sum()), "surprise": float(value)}


def perplexity(sums: Sums) -> float | None:
    """Exp of the mean −log p."""
    return math.exp(min(sums["surprise"] / sums["tokens"], 700.0)) if sums["tokens"] else None


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


def squares(output: Tensor, wanted: Tensor) -> Sums:
    """The number of values, and Σ residual²."""
    return {"residuals": float(output.numel()), "residuals2": float((output - wanted).square().sum())}


def root(sums: Sums) -> float | None:
    """The root of the mean square of the residuals."""
    return math.sqrt(sums["residuals2"] / sums["residuals"]) if sums["residuals"] else None


def explained(sums: Sums) -> float | None:
    """The share of the variance of the targets that is explained; None where they do not vary."""
    n = sums["values"]
    spread = sums["sum2"] - sums["sum"] ** 2 / n if n else 0.0
    return 1 - sums["squared"] / spread if spread > 0 else None
