"""Losses: of classes, of values, and of sequences of either; those of torch.nn under their names, with their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from netxform.language.methods import IGNORED, Loss
from netxform.language.methods import loss as named_loss
from netxform.registry import called

PADDING = IGNORED
Weights = float | Sequence[float] | None


class Mean(Protocol):
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


def loss_of(loss: Loss | str, smoothing: float = 0.0) -> Mean:
    """The loss (`language.methods`) with its settings, and with its labels smoothed."""
    loss = named_loss(loss) if isinstance(loss, str) else loss
    of, settings = called(loss.kind.of), loss.settings
    return lambda output, target: of(output, target, smoothing, **settings)


def mass_of(loss: Loss, target: Tensor) -> float:
    """The weight of these rows in a mean: how many there are, unless the loss weighs them."""
    if loss.kind.mass is None or target.dtype.is_floating_point:
        return float(len(target))
    return float(called(loss.kind.mass)(target, **loss.settings))


# --- of classes ------------------------------------------------------------------------------------------------------


def cross_entropy(
    output: Tensor,
    target: Tensor,
    smoothing: float,
    weight: Weights = None,
    ignore_index: int = PADDING,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Targets are class numbers, or shares of the classes in the output's shape; `ignore_index` and −100 mark padding."""
    weights, smooth = _weights(weight, output), max(smoothing, label_smoothing)
    if target.dtype.is_floating_point:
        return F.cross_entropy(output, target.to(output.dtype), weights, label_smoothing=smooth)
    scores, wanted = _rows(output, target, ignore_index)
    if wanted is None:
        return 0.0 * scores.sum()
    return F.cross_entropy(scores, wanted, weights, label_smoothing=smooth, ignore_index=PADDING)


def nll(output: Tensor, target: Tensor, smoothing: float, weight: Weights = None, ignore_index: int = PADDING) -> Tensor:
    """As `cross_entropy`, of a network that gives log-probabilities."""
    scores, wanted = _rows(output, target, ignore_index)
    if wanted is None:
        return 0.0 * scores.sum()
    return F.nll_loss(scores, wanted, _weights(weight, output), ignore_index=PADDING)


def focal(
    output: Tensor, target: Tensor, smoothing: float, gamma: float, weight: Weights = None, ignore_index: int = PADDING
) -> Tensor:
    """Cross-entropy, each row times (1 − p)^gamma, with p the probability of its class (Lin et al., 2017)."""
    scores, wanted = _rows(output, target, ignore_index)
    if wanted is None:
        return 0.0 * scores.sum()
    weights = _weights(weight, output)
    kept = wanted != PADDING
    scores, wanted = scores[kept], wanted[kept]
    surprise = F.cross_entropy(scores, wanted, reduction="none")
    share = scores.new_ones(len(wanted)) if weights is None else weights[wanted]
    return (share * (1 - (-surprise).exp()) ** gamma * surprise).sum() / share.sum()


def multi_margin(
    output: Tensor, target: Tensor, smoothing: float, p: int = 1, margin: float = 1.0, weight: Weights = None
) -> Tensor:
    """The margin by which the class's score is above the others (`torch.nn.MultiMarginLoss`)."""
    scores, wanted = _rows(output, target, PADDING)
    if wanted is None:
        return 0.0 * scores.sum()
    kept = wanted != PADDING
    return F.multi_margin_loss(scores[kept], wanted[kept], p, margin, _weights(weight, output))


def class_mass(target: Tensor, weight: Weights = None, ignore_index: int = PADDING, **settings: Any) -> float:
    """The sum of the weights of the classes of the rows that count."""
    wanted = target.reshape(-1)
    kept = wanted[(wanted != PADDING) & (wanted != ignore_index)].long()
    if weight is None:
        return float(len(kept))
    return float(torch.as_tensor(weight, dtype=torch.float64, device=kept.device)[kept].sum())


def rows(target: Tensor, **settings: Any) -> float:
    """The number of rows that count."""
    return float((target != PADDING).sum())


def _rows(output: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor | None]:
    """Rows, and class numbers with −100 for what is left out; None where all of them are."""
    scores, wanted = class_rows(output, target.long())
    assert wanted is not None
    if ignore_index != PADDING:
        wanted = wanted.masked_fill(wanted == ignore_index, PADDING)
    return scores, wanted if wanted.numel() and int(wanted.max()) > PADDING else None


def _weights(weight: Weights | str, like_: Tensor) -> Tensor | None:
    return None if weight is None else torch.as_tensor(weight, dtype=like_.dtype, device=like_.device)


# --- of single outputs -----------------------------------------------------------------------------------------------


def bce(output: Tensor, target: Tensor, smoothing: float, pos_weight: Weights = None) -> Tensor:
    """Targets are 0, 1 or shares, in the output's shape; class numbers for several outputs are unit vectors."""
    wanted = like(output, target) * (1 - smoothing) + smoothing / 2
    weight = _weights(pos_weight, output)
    if weight is not None and weight.dim() == 1 and output.dim() > 3:  # maps have their labels in dimension 1
        weight = weight.view(-1, *[1] * (output.dim() - 2))
    return F.binary_cross_entropy_with_logits(output, wanted, pos_weight=weight)


def sigmoid_focal(output: Tensor, target: Tensor, smoothing: float, gamma: float, alpha: float | None = None) -> Tensor:
    """As `bce`, each value times (1 − p)^gamma, and times alpha for ones and 1 − alpha for zeros (Lin et al., 2017)."""
    wanted = like(output, target)
    p = output.sigmoid()
    hit = p * wanted + (1 - p) * (1 - wanted)
    value = F.binary_cross_entropy_with_logits(output, wanted, reduction="none") * (1 - hit) ** gamma
    return (value if alpha is None else value * (alpha * wanted + (1 - alpha) * (1 - wanted))).mean()


def multilabel_soft_margin(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """As `bce`, for several labels (`torch.nn.MultiLabelSoftMarginLoss`)."""
    return F.multilabel_soft_margin_loss(output, like(output, target))


def soft_margin(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Targets are −1 and 1: the mean of log(1 + exp(−y z))."""
    return F.soft_margin_loss(output, like(output, target))


def hinge_embedding(output: Tensor, target: Tensor, smoothing: float, margin: float = 1.0) -> Tensor:
    """The output is a distance; targets are 1 for what is alike, −1 for what is not."""
    return F.hinge_embedding_loss(output, like(output, target), margin)


# --- of values -------------------------------------------------------------------------------------------------------


def mse(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Targets have the output's shape, or are class numbers; nothing is smoothed."""
    return F.mse_loss(output, like(output, target))


def mae(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """As `mse`, of absolute differences."""
    return F.l1_loss(output, like(output, target))


def huber(output: Tensor, target: Tensor, smoothing: float, delta: float = 1.0) -> Tensor:
    """As `mse`, linear beyond a difference of delta."""
    return F.huber_loss(output, like(output, target), delta=delta)


def smooth_l1(output: Tensor, target: Tensor, smoothing: float, beta: float = 1.0) -> Tensor:
    """As `huber`, divided by beta."""
    return F.smooth_l1_loss(output, like(output, target), beta=beta)


def poisson_nll(output: Tensor, target: Tensor, smoothing: float, log_input: bool = True, full: bool = False) -> Tensor:
    """Targets are counts; the output is the logarithm of their rate (`torch.nn.PoissonNLLLoss`)."""
    return F.poisson_nll_loss(output, like(output, target), log_input, full)


def like(output: Tensor, target: Tensor) -> Tensor:
    """Targets in the shape and type of the output; class numbers for several outputs become unit vectors."""
    numbers = not target.dtype.is_floating_point and target.dim() == output.dim() - 1 and output.shape[-1] > 1
    if numbers and target.numel() != output.numel():
        target = F.one_hot(target.long(), output.shape[-1])
    return target.reshape(output.shape).to(output.dtype)
