"""The loss that curvature and pruning speak of: of one output (N, C), over batches, in float64."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from netxform.errors import fail
from netxform.graph.meta import evaluating
from netxform.graph.network import Network

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Literal["cross_entropy", "mse"]


def target_of(y: Tensor, z: Tensor, loss: Loss) -> Tensor:
    """The targets as the loss takes them: class numbers (N,), or values (N, C). Raises NetxformError X0823."""
    if loss == "cross_entropy":
        if y.dtype.is_floating_point or y.shape != z.shape[:1]:
            raise fail("X0823", f"cross-entropy needs one class number a sample, and the targets are {tuple(y.shape)}")
        return y
    if not y.dtype.is_floating_point:
        return F.one_hot(y, z.shape[1]).double()
    return y.double().reshape(z.shape)


def squared(z: Tensor, target: Tensor) -> Tensor:
    """The mean square of every sample: (N,)."""
    return (z.double() - target).square().mean(1)


def logits(value: Any, output: str | None) -> Tensor:
    """The scored output (N, C) of what the network returns. Raises NetxformError X0823."""
    if isinstance(value, dict):
        if output is None and len(value) == 1:
            output = next(iter(value))
        if output not in value:
            raise fail(
                "X0319", "the network has several outputs", helps=(f"write `output=` one of {', '.join(map(str, value))}",)
            )
        value = value[output]
    if not isinstance(value, Tensor) or value.dim() != 2:
        raise fail("X0823", "curvature is defined here for one output of shape (samples, classes)")
    return value


def losses(z: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, int]:
    """The loss of every sample (N,) in float64, and how many have their class right. Raises NetxformError X0823."""
    z = z.double()
    target = target_of(y, z, loss)
    each = F.cross_entropy(z, target, reduction="none") if loss == "cross_entropy" else squared(z, target)
    return each, 0 if y.dtype.is_floating_point else int((z.argmax(1) == y).sum())


def mean_loss(network: Network, batches: Batches, loss: Loss, output: str | None = None) -> tuple[float, float, int]:
    """The mean loss in eval mode, the share of right classes, and the number of samples."""
    total, right, count = 0.0, 0, 0
    with torch.no_grad(), evaluating(network.module):
        for x, y in batches:
            each, hits = losses(logits(network.module(x), output), y, loss)
            total += float(each.sum())
            right += hits
            count += len(x)
    if not count:
        raise fail("X0823", "there is no sample to measure the loss on")
    return total / count, right / count, count


_LEARNT = 0.25  # of the entropy of the labels (of the variance of the targets): below it, little has been learnt


def little_learnt(network: Network, batches: Batches, loss: Loss, output: str | None = None) -> str | None:
    """In words, where the network is hardly better than the best constant answer: then derivatives of the loss are those of
    guessing. The constant answer is the share of each class (the mean of the targets); None where a quarter of it is gone.
    """
    held = list(batches)
    if not held:
        return None
    now, right, count = mean_loss(network, held, loss, output)
    with torch.no_grad(), evaluating(network.module):
        z = logits(network.module(held[0][0]), output)
    target = torch.cat([target_of(y, z.new_empty(len(y), z.shape[1]), loss) for _, y in held])
    if loss == "cross_entropy":
        shares = torch.bincount(target).double() / count
        shares = shares[shares > 0]
        base = float(-(shares * shares.log()).sum())
    else:
        base = float((target.double() - target.double().mean(0)).square().mean())
    if now <= (1 - _LEARNT) * base:
        return None
    said = f", with {right:.0%} of {count} samples right" if not held[0][1].dtype.is_floating_point else ""
    return (
        f"the network has hardly learnt these data: its loss is {now:.3g}{said}, and one answer for all has {base:.3g}; "
        "scores by the loss mean little"
    )
