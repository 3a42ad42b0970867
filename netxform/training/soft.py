"""Losses against teachers. z (M, C) are the student's logits, v the teachers', T the temperature; means over the M rows.

Every loss is zero, with zero gradient, where z = v + a constant for each row, and all but `mse` see no such constant. The
soft ones carry T², so that their gradient keeps its size as T grows: for T → ∞ that of `kd` tends to (z − v)/C, centred.

Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015 (kd, ce, logit_mse); Huang et al., "Knowledge
distillation from a stronger teacher", 2022 (dist); Zhao et al., "Decoupled knowledge distillation", 2022 (dkd); Zagoruyko,
Komodakis, "Paying more attention to attention", 2017; Romero et al., "FitNets", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def ensemble(logits: Sequence[Tensor], mix: Sequence[float], mean: str, temperature: float) -> Tensor:
    """The logits v of the weighted mean of several teachers, such that softmax(v/T) is that mean.

    `arithmetic` averages probabilities at temperature T, `geometric` averages logits (and renormalises).
    """
    if len(logits) == 1:
        return logits[0]
    if mean == "geometric":
        return torch.stack([w * v for w, v in zip(mix, logits, strict=True)]).sum(0)
    parts = [F.log_softmax(v / temperature, 1) + torch.tensor(w).log() for w, v in zip(mix, logits, strict=True) if w > 0]
    return temperature * torch.stack(parts).logsumexp(0)


def shared_classes(
    classes: Sequence[int | None], rows: Tensor, known: Sequence[Tensor], target: Tensor | None
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Scores of the classes that student and teachers know, in the student's order: rows (M, C) of the student, and those of
    each teacher by the number that `classes` gives to every class of the student. Targets (M) are numbered anew, −100 for the
    others.
    """
    mine = [i for i, c in enumerate(classes) if c is not None]
    theirs = [c for c in classes if c is not None]
    if target is not None:
        number = torch.full((len(classes),), -100, dtype=torch.int64, device=target.device)
        number[torch.tensor(mine)] = torch.arange(len(mine), device=target.device)
        target = torch.where(target >= 0, number[target.clamp_min(0)], target)
    return rows[:, mine], [v[:, theirs] for v in known], target


def soft_loss(name: str, z: Tensor, v: Tensor, temperature: float, target: Tensor | None = None) -> Tensor:
    """The soft loss of that name. `target` (M): class numbers, which `dkd` needs."""
    match name:
        case "kd":
            log_p, log_q = F.log_softmax(v / temperature, 1), F.log_softmax(z / temperature, 1)
            return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        case "ce":
            p = F.softmax(v / temperature, 1)
            return -(temperature**2) * (p * F.log_softmax(z / temperature, 1)).sum(1).mean()
        case "logit_mse":
            gap = z - v
            return 0.5 * (gap - gap.mean(1, keepdim=True)).square().mean(1).mean()
        case "mse":
            return F.mse_loss(z, v)
        case "dist":
            p, q = F.softmax(v / temperature, 1), F.softmax(z / temperature, 1)
            return temperature**2 * (_unlike(q, p) + _unlike(q.T, p.T))
        case "dkd":
            assert target is not None
            return _decoupled(z / temperature, v / temperature, target) * temperature**2
        case _:
            raise ValueError(f"no soft loss `{name}`")


def _unlike(a: Tensor, b: Tensor) -> Tensor:
    """1 − Pearson's correlation of each row, averaged."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (1 - F.cosine_similarity(a, b, dim=1, eps=1e-8)).mean()


def _decoupled(z: Tensor, v: Tensor, target: Tensor, alpha: float = 1.0, beta: float = 8.0) -> Tensor:
    """KL of the target's share, and KL among the other classes with a weight of its own."""
    at = F.one_hot(target, z.shape[1]).bool()
    log_q, log_p = F.log_softmax(z, 1), F.log_softmax(v, 1)
    rest_q, rest_p = (t.masked_fill(at, -torch.inf).logsumexp(1) for t in (log_q, log_p))
    pair_q = torch.stack([log_q[at], rest_q], 1)
    pair_p = torch.stack([log_p[at], rest_p], 1)
    shared = F.kl_div(pair_q, pair_p, reduction="batchmean", log_target=True)
    others_q, others_p = (F.log_softmax(t[~at].view(len(t), -1), 1) for t in (z, v))
    return alpha * shared + beta * F.kl_div(others_q, others_p, reduction="batchmean", log_target=True)


# --- features --------------------------------------------------------------------------------------------------------


def feature_loss(student: Tensor, teacher: Tensor, via: str) -> Tensor:
    """Mean squared difference of two maps or vectors; with `attention`, of their normed attention maps.

    Maps (N, C, H, W) of different size are first averaged to the smaller one.
    """
    if student.dim() == 4:
        size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
        student, teacher = (t if tuple(t.shape[2:]) == size else F.adaptive_avg_pool2d(t, size) for t in (student, teacher))
    if via != "attention":
        return F.mse_loss(student, teacher)
    a, b = (F.normalize(t.square().mean(1).flatten(1), dim=1) for t in (student, teacher))
    return (a - b).square().sum(1).mean()
