"""The loss that curvature and pruning speak of: of one output (N, …), over batches, in float64.

Cross-entropy takes class scores (N, C), or (N, T, C) and (N, C, …) with a class number at every position; the loss of a sample
is then the mean over its positions that count (−100 does not). Squared error and the two-sided cross-entropy of `bce` take
outputs of any shape, and targets as many numbers; the loss of a sample is the mean over them.

Data without labels: the targets are what the network answered before (`Answered`), the loss their mean square distance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from netxform.errors import fail
from netxform.graph.inputs import arguments, count
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.graph.outputs import picked
from netxform.language.material import Material

Batches = Iterable[tuple[Any, Any]]
Loss = Literal["cross_entropy", "mse", "bce"]
IGNORED = -100


def logits(value: Any, output: str | None) -> Tensor:
    """The scored output (N, …) of what the network returns. Raises NetxformError X0319 (which one?), X0823 (a single
    number).
    """
    found = picked(value, output)
    if found.dim() < 1:
        raise fail("X0823", "the output is one number for the whole batch: there is no loss of a sample")
    return found if found.dim() > 1 else found[:, None]


def laid(z: Tensor, y: Any, loss: Loss) -> Tensor:
    """The scores with their classes last: (N, C), or (N, P, C) for P positions; of values and labels (N, as many as there are).

    Raises NetxformError X0351 where the targets do not fit, in their own words.
    """
    if y is None:
        raise fail("X0351", "the data has no labels", label="no loss to be taken", helps=("write `loss=mse`",))
    if loss != "cross_entropy":
        flat = z.reshape(len(z), -1)
        units = not y.dtype.is_floating_point and y.dim() == 1 and flat.shape[1] > 1
        if not units and y.numel() != flat.numel():
            raise _unfit(z, y, loss, ())
        return flat
    if y.dtype.is_floating_point:
        several = y.shape == z.shape and set(y.unique().tolist()) <= {0.0, 1.0}
        helps = ("several labels at once: write `loss=bce`",) if several else ("values: write `loss=mse`",)
        raise _unfit(z, y, loss, helps)
    if z.dim() == 2 and y.shape == z.shape[:1]:
        return z
    if z.dim() == 3 and y.shape == z.shape[:-1]:
        return z
    if z.dim() >= 3 and y.shape == (len(z), *z.shape[2:]):
        return z.movedim(1, -1).reshape(len(z), -1, z.shape[1])
    helps = ("hand in `y.squeeze(1)`",) if y.dim() == 2 and y.shape[1] == 1 else ()
    if y.shape == z.shape:
        helps = ("several labels at once: write `loss=bce`",)
    raise _unfit(z, y, loss, helps)


def _unfit(z: Tensor, y: Tensor, loss: Loss, helps: tuple[str, ...]) -> Exception:
    shapes = [f"({', '.join(['N', *map(str, t.shape[1:])])}{'' if t.dim() > 1 else ','})" for t in (y, z)]
    dtype = str(y.dtype).removeprefix("torch.")
    text = f"targets are {shapes[0]} {dtype}, the network gives {shapes[1]}: no `{loss}` between them"
    return fail("X0351", text, label="does not fit", helps=helps)


def target_of(y: Tensor, z: Tensor, loss: Loss) -> Tensor:
    """The targets of scores as they are `laid`: class numbers (N,) or (N, P), or values (N, C)."""
    if loss == "cross_entropy":
        found = y.reshape(z.shape[:-1]).long()
        counted = found[found != IGNORED]
        if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= z.shape[-1]):
            text = f"labels go from {int(counted.min())} to {int(counted.max())}; the network has {z.shape[-1]} outputs"
            raise fail("X0317", text, label="does not match")
        return found
    if not y.dtype.is_floating_point and y.dim() == 1 and z.shape[1] > 1:
        return F.one_hot(y.long(), z.shape[1]).double()
    return y.double().reshape(z.shape)


def weights_of(target: Tensor) -> Tensor:
    """What each position counts in the loss of its sample: (N,) or (N, P); positions at −100 nothing."""
    kept = (target != IGNORED).double()
    return kept if kept.dim() == 1 else kept / kept.sum(1, keepdim=True).clamp_min(1.0)


def each_loss(z: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """The loss of every sample (N,), of scores as they are `laid`."""
    if loss == "cross_entropy":
        found = F.cross_entropy(z.movedim(-1, 1), target, reduction="none", ignore_index=IGNORED) * weights_of(target).to(
            z.dtype
        )
        return found if found.dim() == 1 else found.sum(1)
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(z, target.to(z.dtype), reduction="none").mean(1)
    return (z - target.to(z.dtype)).square().mean(1)


def chance_of(z: Tensor, loss: Loss) -> Tensor:
    """What the network thinks of each class or label, in float64."""
    return z.double().softmax(-1) if loss == "cross_entropy" else z.double().sigmoid()


def drawn(z: Tensor, target: Tensor | None, loss: Loss, rng: torch.Generator) -> Tensor:
    """A random vector s in the shape of z, in float64, with E[s sᵀ] the second derivative of each sample's loss in its scores.

    Of cross-entropy, label minus p at labels drawn from the network's own p; of squared error, a normal vector.
    """
    width = z.shape[-1]
    if loss == "mse":
        return torch.randn(z.shape, generator=rng, dtype=torch.float64) * (2 / width) ** 0.5
    p = chance_of(z, loss)
    if loss == "bce":
        return (torch.bernoulli(p, generator=rng) - p) / width**0.5
    label = torch.multinomial(p.reshape(-1, width), 1, generator=rng)[:, 0].reshape(p.shape[:-1])
    found = F.one_hot(label, width) - p
    return found if target is None else found * weights_of(target).sqrt()[..., None]


def slope_of(z: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """The gradient of each sample's loss in its scores, in the shape of z, in float64."""
    width = z.shape[-1]
    if loss == "mse":
        return 2 * (z.double() - target) / width
    p = chance_of(z, loss)
    if loss == "bce":
        return (p - target) / width
    return (p - F.one_hot(target.clamp_min(0), width)) * weights_of(target)[..., None]


def losses(z: Tensor, y: Any, loss: Loss) -> tuple[Tensor, float]:
    """The loss of every sample (N,) in float64, and how many have their class right, positions counted by their shares."""
    z = laid(z, y, loss).double()
    target = target_of(y, z, loss)
    each = each_loss(z, target, loss)
    if loss == "cross_entropy":
        return each, float(((z.argmax(-1) == target).double() * weights_of(target)).sum())
    if loss == "bce":
        return each, float(((z > 0) == (target > 0.5)).double().mean(1).sum())
    numbered = not y.dtype.is_floating_point and y.dim() == 1 and z.shape[1] > 1
    return each, float((z.argmax(1) == y).sum()) if numbered else 0.0


def has_classes(y: Tensor, loss: Loss) -> bool:
    """Whether it can be said how many are right."""
    return loss == "bce" or not y.dtype.is_floating_point


def mean_loss(network: Network, batches: Batches, loss: Loss, output: str | None = None) -> tuple[float, float, int]:
    """The mean loss in eval mode, the share of right classes, and the number of samples."""
    total, right, seen = 0.0, 0.0, 0
    with torch.no_grad(), evaluating(network.module):
        for x, y in batches:
            each, hits = losses(logits(network.module(*arguments(x)), output), y, loss)
            total += float(each.sum())
            right += hits
            seen += count(x)
    if not seen:
        raise fail("X0823", "there is no sample to measure the loss on")
    return total / seen, right / seen, seen


class Answered:
    """Data and models for a statement, where targets that are missing are what the network answered before the statement."""

    def __init__(self, material: Material, network: Network, output: str | None) -> None:
        self._material, self._network, self._output = material, network, output

    def batches(self, *given: Any, **more: Any) -> Iterator[tuple[Any, Any]]:
        """As of the material, with a target each."""
        return self._filled(self._material.batches(*given, **more))

    def fresh(self, *given: Any, **more: Any) -> Iterator[tuple[Any, Any]]:
        """As of the material, with a target each."""
        return self._filled(self._material.fresh(*given, **more))

    def _filled(self, batches: Batches) -> Iterator[tuple[Any, Any]]:
        for x, y in batches:
            if y is None:
                with torch.no_grad(), evaluating(self._network.module):
                    y = logits(self._network.module(*arguments(x)), self._output).detach()
            yield x, y

    def __getattr__(self, name: str) -> Any:
        return getattr(self._material, name)


def answered(material: Material, network: Network, output: str | None) -> Material:
    """The material as `Answered`."""
    return cast(Material, Answered(material, network, output))


_LEARNT = 0.25  # of the entropy of the labels (of the variance of the targets): below it, little has been learnt


def little_learnt(network: Network, batches: Batches, loss: Loss, output: str | None = None) -> str | None:
    """In words, where the network is hardly better than the best constant answer: then derivatives of the loss are those of
    guessing. The constant answer is the share of each class (the mean of the targets); None where a quarter of it is gone.
    """
    held = list(batches)
    if not held:
        return None
    now, right, seen = mean_loss(network, held, loss, output)
    with torch.no_grad(), evaluating(network.module):
        z = logits(network.module(*arguments(held[0][0])), output)
    first = laid(z, held[0][1], loss)
    target = torch.cat([target_of(y, first.new_empty(count(x), *first.shape[1:]), loss) for x, y in held])
    if loss == "cross_entropy":
        shares = torch.bincount(target[target != IGNORED]).double()
        shares = shares[shares > 0] / shares.sum()
        base = float(-(shares * shares.log()).sum())
    elif loss == "bce":
        p = target.double().mean(0).clamp(1e-12, 1 - 1e-12)
        base = float(-(p * p.log() + (1 - p) * (1 - p).log()).mean())
    else:
        base = float((target.double() - target.double().mean(0)).square().mean())
    if now <= (1 - _LEARNT) * base:
        return None
    said = f", with {right:.0%} of {seen} samples right" if has_classes(held[0][1], loss) else ""
    return (
        f"the network has hardly learnt these data: its loss is {now:.3g}{said}, and one answer for all has {base:.3g}; "
        "scores by the loss mean little"
    )
