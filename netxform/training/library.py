"""Metrics of torchmetrics by name, each for class numbers, for labels that hold or do not, or for values.

Averages over classes and labels are plain (macro) unless the name says otherwise; classes that occur neither in the targets nor
in the answers are left out. On maps every pixel is a row.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from netxform.errors import fail
from netxform.language.methods import Kind, Library
from netxform.registry import called


class Counted:
    """A metric under way: shown batch after batch, and asked for its value at the end."""

    def __init__(self, name: str, metric: Library, kind: Kind, scores: Tensor) -> None:
        self.name, self.kind = name, kind
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.metric: Any = called(metric.make)(kind, scores.shape[1] if scores.dim() > 1 else 1)
        if hasattr(self.metric, "to"):
            self.metric = self.metric.to(scores.device)

    def update(self, scores: Tensor, wanted: Tensor) -> None:
        """Rows of scores and their targets; rows of −100 are left out."""
        if self.kind == "classes":
            kept = wanted >= 0
            scores, wanted = scores[kept].softmax(1), wanted[kept]
        elif self.kind == "labels":
            scores, wanted = scores.sigmoid(), wanted.long()
        else:
            scores, wanted = scores.reshape(len(scores), -1), wanted.reshape(len(wanted), -1)
        if len(scores):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.metric.update(scores, wanted)

    def value(self) -> float | None:
        """The value over all batches of all processes; None where it is not defined."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self.metric.compute()
        number = float(torch.as_tensor(found).double().mean())
        return number if math.isfinite(number) else None


def _classification(name: str, kind: Kind, count: int, **settings: Any) -> Any:
    import torchmetrics.classification as library

    settings = {k: v for k, v in settings.items() if v is not None}
    if kind == "classes":
        return getattr(library, f"Multiclass{name}")(num_classes=count, **settings)
    if count == 1:
        settings = {k: v for k, v in settings.items() if k not in ("average", "top_k")}
        binary: Any = getattr(library, f"Binary{name}")(**settings)
        return _Flat(binary)
    return getattr(library, f"Multilabel{name}")(num_labels=count, **settings)


class _Flat:
    """A metric of one label, shown (M, 1)."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    def to(self, device: torch.device) -> _Flat:
        self._metric = self._metric.to(device)
        return self

    def update(self, scores: Tensor, wanted: Tensor) -> None:
        self._metric.update(scores.reshape(-1), wanted.reshape(-1))

    def compute(self) -> Any:
        return self._metric.compute()


def f1(kind: Kind, count: int) -> Any:
    """The F1 score, averaged over classes or labels."""
    return _classification("F1Score", kind, count, average="macro")


def f1_micro(kind: Kind, count: int) -> Any:
    """The F1 score over all rows and labels at once."""
    return _classification("F1Score", kind, count, average="micro")


def f1_weighted(kind: Kind, count: int) -> Any:
    """The F1 score, classes or labels weighted by how often they occur."""
    return _classification("F1Score", kind, count, average="weighted")


def dice(kind: Kind, count: int) -> Any:
    """The Dice coefficient of each class or label over all rows (on maps: pixels), averaged: the F1 score by its other name."""
    return f1(kind, count)


def precision(kind: Kind, count: int) -> Any:
    """Precision, averaged over classes or labels."""
    return _classification("Precision", kind, count, average="macro")


def recall(kind: Kind, count: int) -> Any:
    """Recall, averaged over classes or labels."""
    return _classification("Recall", kind, count, average="macro")


def balanced_accuracy(kind: Kind, count: int) -> Any:
    """The mean over classes of the share of their rows that are right: recall by its other name."""
    return recall(kind, count)


def specificity(kind: Kind, count: int) -> Any:
    """The share of what is not the class that is not called so, averaged."""
    return _classification("Specificity", kind, count, average="macro")


def auroc(kind: Kind, count: int) -> Any:
    """The area under the receiver operating characteristic, one class against the rest, averaged."""
    return _classification("AUROC", kind, count, average="macro")


def average_precision(kind: Kind, count: int) -> Any:
    """The area under the curve of precision over recall, averaged (mAP)."""
    return _classification("AveragePrecision", kind, count, average="macro")


def iou(kind: Kind, count: int) -> Any:
    """Intersection over union (Jaccard index) of each class or label, averaged."""
    return _classification("JaccardIndex", kind, count, average="macro")


def mcc(kind: Kind, count: int) -> Any:
    """Matthews' correlation coefficient."""
    return _classification("MatthewsCorrCoef", kind, count)


def kappa(kind: Kind, count: int) -> Any:
    """Cohen's κ."""
    return _single("CohenKappa", kind, count)


def calibration_error(kind: Kind, count: int) -> Any:
    """The expected calibration error, in 15 bins."""
    return _single("CalibrationError", kind, count)


def _single(name: str, kind: Kind, count: int) -> Any:
    if kind == "labels" and count > 1:
        raise fail("X0204", f"`{name}` is of classes or of one label, not of {count} labels")
    return _classification(name, kind, count)


def hamming(kind: Kind, count: int) -> Any:
    """The share of rows, or of labels, that are wrong."""
    return _classification("HammingDistance", kind, count, average="micro")


def _top(k: int, kind: Kind, count: int) -> Any:
    if k >= count:
        raise fail("X0204", f"`top{k}` of {count} classes is always 1", helps=("write `accuracy`",))
    return _classification("Accuracy", kind, count, average="micro", top_k=k)


def top2(kind: Kind, count: int) -> Any:
    """The share of rows whose class is among the 2 largest scores."""
    return _top(2, kind, count)


def top3(kind: Kind, count: int) -> Any:
    """The share of rows whose class is among the 3 largest scores."""
    return _top(3, kind, count)


def top5(kind: Kind, count: int) -> Any:
    """The share of rows whose class is among the 5 largest scores."""
    return _top(5, kind, count)


def top10(kind: Kind, count: int) -> Any:
    """The share of rows whose class is among the 10 largest scores."""
    return _top(10, kind, count)


def _regression(name: str, count: int, **settings: Any) -> Any:
    import torchmetrics

    made: Any = getattr(torchmetrics, name)(**settings)
    return _Flat(made) if count == 1 else made


def pearson(kind: Kind, count: int) -> Any:
    """Pearson's correlation, averaged over outputs."""
    return _regression("PearsonCorrCoef", count, num_outputs=count)


def spearman(kind: Kind, count: int) -> Any:
    """Spearman's rank correlation, averaged over outputs."""
    return _regression("SpearmanCorrCoef", count, num_outputs=count)


def concordance(kind: Kind, count: int) -> Any:
    """Lin's concordance correlation, averaged over outputs."""
    return _regression("ConcordanceCorrCoef", count, num_outputs=count)


def explained_variance(kind: Kind, count: int) -> Any:
    """The share of the variance that is explained, averaged over outputs."""
    return _regression("ExplainedVariance", count)


def mape(kind: Kind, count: int) -> Any:
    """The mean absolute error in parts of the target."""
    return _regression("MeanAbsolutePercentageError", count)


def smape(kind: Kind, count: int) -> Any:
    """The mean absolute error in parts of the mean of target and answer."""
    return _regression("SymmetricMeanAbsolutePercentageError", count)


def msle(kind: Kind, count: int) -> Any:
    """The mean square of the difference of log(1 + value)."""
    return _regression("MeanSquaredLogError", count)
