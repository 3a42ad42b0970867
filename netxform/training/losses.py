"""Losses: of classes, of values, and of sequences of either."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from netxform.language.methods import LOSSES
from netxform.registry import called

PADDING = -100


class Loss(Protocol):
    """A mean over the batch: `output` (N, C, …), `target` (N, …) → scalar."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss."""
        ...


def class_rows(output: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Class scores as rows (M, C), and their targets (M): a row a sample, or a row an element of a sequence or a map.

    Sequences (N, T, C) with targets (N, T) have their classes last, as language models do; everything else has them in
    dimension 1, as torch does: (N, C), (N, C, T), (N, C, H, W).
    """
    if output.dim() == 2:
        return output, target
    last = output.dim() == 3 and (target is None or target.shape == output.shape[:-1])
    rows = output if last else output.movedim(1, -1)
    return rows.reshape(-1, rows.shape[-1]), None if target is None else target.reshape(-1)


def loss_of(name: str, smoothing: float = 0.0) -> Loss:
    """The loss of that name (`language.methods`), with its labels smoothed."""
    of = called(LOSSES.find(name).of)
    return lambda output, target: of(output, target, smoothing)


def cross_entropy(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Targets are class numbers; −100 marks padding."""
    scores, wanted = class_rows(output, target)
    assert wanted is not None
    return F.cross_entropy(scores, wanted, label_smoothing=smoothing, ignore_index=PADDING)


def bce(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Targets are 0 or 1, in the output's shape."""
    return F.binary_cross_entropy_with_logits(output, like(output, target) * (1 - smoothing) + smoothing / 2)


def mse(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Targets have the output's shape, or are class numbers; nothing is smoothed."""
    return F.mse_loss(output, like(output, target))


def mae(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """As `mse`, of absolute differences."""
    return F.l1_loss(output, like(output, target))


def huber(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """As `mse`, linear beyond a difference of 1."""
    return F.smooth_l1_loss(output, like(output, target))


def like(output: Tensor, target: Tensor) -> Tensor:
    """Targets in the shape and type of the output; class numbers become unit vectors."""
    if not target.dtype.is_floating_point and target.shape != output.shape:
        target = F.one_hot(target, output.shape[-1])
    return target.reshape(output.shape).to(output.dtype)
