"""Losses by name, and the metrics that go with them: classes, values and sequences of either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

_VALUES: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}
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
    """`cross_entropy` (targets are class numbers; −100 marks padding), `bce` (targets 0 or 1, in the output's shape), `mse`,
    `mae`, `huber` (targets have the output's shape, or are class numbers).
    """
    if name == "cross_entropy":

        def classes(output: Tensor, target: Tensor) -> Tensor:
            scores, wanted = class_rows(output, target)
            assert wanted is not None
            return F.cross_entropy(scores, wanted, label_smoothing=smoothing, ignore_index=PADDING)

        return classes
    if name == "bce":
        return lambda output, target: F.binary_cross_entropy_with_logits(
            output, _like(output, target) * (1 - smoothing) + smoothing / 2
        )
    measure = _VALUES[name]
    return lambda output, target: measure(output, _like(output, target))


def _like(output: Tensor, target: Tensor) -> Tensor:
    """Targets in the shape and type of the output; class numbers become unit vectors."""
    if not target.dtype.is_floating_point and target.shape != output.shape:
        target = F.one_hot(target, output.shape[-1])
    return target.reshape(output.shape).to(output.dtype)


# --- metrics ---------------------------------------------------------------------------------------------------------

Sums = dict[str, float]


@torch.no_grad()
def count(output: Tensor, target: Tensor) -> Sums:
    """Sums over the rows of a batch from which `rates` makes metrics: right answers, or moments of the residuals."""
    if not target.dtype.is_floating_point and output.dim() >= 2 and output.dim() in (target.dim() + 1, 2):
        scores, wanted = class_rows(output, target)
        assert wanted is not None
        if wanted.dim() == 1:
            kept = wanted != PADDING
            return {"rows": float(kept.sum()), "right": float(((scores.argmax(1) == wanted) & kept).sum())}
    wanted = _like(output, target).double()
    gap = output.double() - wanted
    sums = {"values": float(gap.numel()), "absolute": float(gap.abs().sum()), "squared": float(gap.square().sum())}
    return sums | {"sum": float(wanted.sum()), "sum2": float(wanted.square().sum())}


def rates(sums: Sums) -> dict[str, float]:
    """`accuracy` for classes; for values `mae` and `r2`, the share of their variance that is explained."""
    if "rows" in sums:
        return {"accuracy": sums["right"] / max(sums["rows"], 1.0)}
    if not sums.get("values"):
        return {}
    n = sums["values"]
    spread = sums["sum2"] - sums["sum"] ** 2 / n
    out = {"mae": sums["absolute"] / n}
    return out | ({"r2": 1 - sums["squared"] / spread} if spread > 0 else {})


@torch.no_grad()
def hits(output: Tensor, target: Tensor) -> int:
    """How many of the N samples have their largest output at the target class; 0 for targets that are no classes."""
    return int(count(output, target).get("right", 0.0))
