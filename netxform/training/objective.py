"""The loss of one step: labels, teachers, features and penalties put together as the objective says.

Training ─Objective→ (output, target, …) → scalar
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from netxform.errors import fail
from netxform.graph.outputs import picked
from netxform.language.work import Penalty, Term, Training
from netxform.sources.data.given.samples import leaves, mapped, names
from netxform.training.augment import Normal, augmented, cut, is_map, partners
from netxform.training.data import Batch, Samples, fetch
from netxform.training.losses import PADDING, class_rows, loss_of, mass_of
from netxform.training.soft import ensemble, feature_loss, shared_classes, soft_loss
from netxform.training.teachers import Teachers


@dataclass(frozen=True, slots=True)
class View:
    """A batch as it is shown: x (n, …), targets, and with mixup the share of `y` and the targets of the partners.

    `asked_anew`: teachers answer it, whatever they answered to samples of that number.
    """

    x: Any
    y: Any
    share: float = 1.0
    other: Any = None
    asked_anew: bool = False


def show(
    batch: Batch, work: Training, samples: Samples, device: torch.device, step: tuple[int, int], normal: Normal = None
) -> View:
    """The batch on its device, augmented and mixed under (seed, epoch, step) alone; `normal` see `augmented`."""
    x, y = batch.x, batch.y
    if device.type != "cpu":
        x, y = (mapped(lambda t: t.to(device, non_blocking=True), part) for part in (x, y))
    if not work.augment and not work.mixup and not work.cutmix:
        return View(x, y)
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        what = "several inputs" if not isinstance(x, Tensor) else "no labels" if y is None else "several targets"
        raise fail("X0404", f"`augment`, `mixup` and `cutmix` take one input and one target; these samples have {what}")
    generator = torch.Generator().manual_seed((work.seed * 15_485_863 + step[0] * 32_452_843 + step[1]) % (2**63))
    share, other = 1.0, None
    if work.mixup or work.cutmix:
        share, places = partners(batch, work.mixup or work.cutmix, generator)
        more, other = (t.to(device) for t in cast("tuple[Tensor, Tensor]", fetch(samples, batch, places)))
        if work.mixup:
            x = share * x + (1 - share) * more
        else:
            x, share, (rows, columns) = cut(x, more, work.cutmix, generator)
            if is_map(x, y):  # each pixel has the target of the image that it is from
                y = y.clone()
                y[..., rows, columns] = other[..., rows, columns]
                share, other = 1.0, None
    x, found = augmented(x, (y,) if other is None else (y, other), work.augment, batch, generator, normal)
    return View(x, found[0], share, found[1] if other is not None else None)


def pick(output: Any, name: str | None) -> Tensor:
    """The output that a loss is taken on: the only one, or that of the name or place, as `output=` states it."""
    return output if isinstance(output, Tensor) else picked(output, name)


def full(value: Tensor) -> Tensor:
    """A value in float32 at least: losses are not taken in half precision."""
    return value if value.dtype == torch.float64 else value.float()


def terms_of(work: Training) -> tuple[Term, ...]:
    """The loss head by head: as stated, or the one loss on the one output."""
    return work.terms or (Term(work.outputs[0] if work.outputs else None, work.loss),)


def column(target: Any, index: int | str | None) -> Tensor:
    """Column `index` of the targets (N, columns, …), the one of that name or place where there are several, or all of it.

    Raises NetxformError X0351 where there are several and none is named, or none of that name.
    """
    if isinstance(target, Tensor):
        if isinstance(index, str):
            raise fail("X0351", f"the targets have no names, and `target={index}` is asked for", label="which?")
        return target if index is None else target[:, index]
    if target is None:
        raise fail("X0351", "the data has no labels", label="none to learn from")
    known = names(target)
    if index is None and len(known) == 1:
        return leaves(target)[0]
    if str(index) not in known:
        helps = (f"say which: `head NAME target={known[0]}`",)
        raise fail("X0351", f"the data has several targets: {', '.join(known)}", label="which?", helps=helps)
    return leaves(target)[known.index(str(index))]


class Objective:
    """The loss of the objective. `labels` is its part on the labels, which is also what is measured on other data."""

    def __init__(self, work: Training, teachers: Teachers | None = None) -> None:
        self.work = work
        self.teachers = teachers
        self.terms = [(t, loss_of(t.loss, work.label_smoothing)) for t in terms_of(work)]
        self.plain = [(t, loss_of(t.loss)) for t in terms_of(work)]
        self.values = [p for p in work.penalties for _ in p.nodes]
        self.weighed = any(t.loss.kind.mass is not None for t, _ in self.terms)

    def labels(self, output: Any, target: Any, shares: Sequence[float] | None = None) -> Tensor:
        """The weighted sum of the heads' losses, each times its share where it is a part of a larger batch."""
        losses = [loss(full(pick(output, t.output)), column(target, t.target)) for t, loss in self.terms]
        losses = [v if t.weight == 1 else t.weight * v for v, (t, _) in zip(losses, self.terms, strict=True)]
        if shares is not None:
            losses = [s * value for s, value in zip(shares, losses, strict=True)]
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def measured(self, output: Any, target: Any) -> list[tuple[float, float]]:
        """For each head the sum of its loss over the rows, without smoothing, and what it is divided by for their mean."""
        found: list[tuple[float, float]] = []
        for term, loss in self.plain:
            wanted = column(target, term.target)
            mass = mass_of(term.loss, wanted)
            found.append((float(loss(full(pick(output, term.output)), wanted)) * mass, mass))
        return found

    def masses(self, target: Any) -> list[float]:
        """For each head, what its sum over these rows is divided by."""
        return [mass_of(t.loss, column(target, t.target)) for t, _ in self.terms]

    def __call__(
        self,
        given: tuple[Any, tuple[Tensor, ...], tuple[Tensor, ...]],
        view: View,
        batch: Batch,
        shares: Sequence[float] | None = None,
        others: Sequence[float] | None = None,
    ) -> Tensor:
        """The whole loss, but for penalties on parameters (see `shrink`). `given` is what the student gives; `shares` and, for
        the targets of the partners, `others`: of each head, see `labels`.
        """
        output, matched, values = given
        soft = self.work.soft
        total: Tensor | None = None
        if soft is None or soft.hard > 0:
            total = self.labels(output, view.y, shares)
            if view.other is not None:
                total = view.share * total + (1 - view.share) * self.labels(output, view.other, others)
            total = total if soft is None else soft.hard * total
        if soft is not None and self.teachers is not None and (soft.hard < 1 or soft.matches):
            from_teachers = self._taught(output, matched, view, batch)
            total = from_teachers if total is None else total + from_teachers
        assert total is not None
        for penalty, value in zip(self.values, values, strict=True):
            total = total + penalty.weight * size(value, penalty.norm)
        return total

    def _taught(self, output: Any, matched: tuple[Tensor, ...], view: View, batch: Batch) -> Tensor:
        soft, teachers = self.work.soft, self.teachers
        assert soft is not None and teachers is not None
        answers, values = teachers.answers(view.x, batch.places if view.other is None and not view.asked_anew else None)
        total: Tensor | None = None
        if soft.hard < 1:
            name = self.work.outputs[0] if self.work.outputs else None
            z = full(pick(output, name))
            if soft.loss == "mse":
                v = torch.stack([w * full(a) for w, a in zip(soft.mix, answers, strict=True)]).sum(0)
                found = soft_loss("mse", z, v, 1.0)
            else:
                # the labels tell where the classes are, as they do for the hard loss
                wanted = None
                if view.y is not None:
                    wanted = column(view.y, next((t.target for t, _ in self.terms if t.output == name), None))
                target = wanted if wanted is not None and wanted.dim() == z.dim() - 1 else None
                rows, target = class_rows(z, target)
                known = [class_rows(full(a), wanted if target is not None else None)[0] for a in answers]
                if soft.classes:
                    rows, known, target = shared_classes(soft.classes, rows, known, target)
                v = ensemble(known, soft.mix, soft.mean, soft.temperature)
                if soft.loss == "dkd" and target is not None and bool((target == PADDING).any()):
                    kept = target != PADDING
                    rows, v, target = rows[kept], v[kept], target[kept]
                found = soft_loss(soft.loss, rows, v, soft.temperature, target)
            total = (1 - soft.hard) * found
        taken = {n: iter(v) for n, v in values.items()}
        for match, value in zip(soft.matches, matched, strict=True):
            gap = match.weight * feature_loss(full(value), full(next(taken[match.teacher])), match.via)
            total = gap if total is None else total + gap
        assert total is not None
        return total


def size(value: Tensor, norm: str) -> Tensor:
    """The norm of a value, summed over its units, averaged over samples and positions. Sequences have their units last."""
    each = value.abs() if norm == "l1" else 0.5 * value.square()
    return each.sum(-1 if value.dim() == 3 else 1).mean() if value.dim() > 1 else each.mean()


@torch.no_grad()
def shrink(penalties: tuple[Penalty, ...], named: dict[str, nn.Parameter]) -> None:
    """Add the gradients of the penalties on parameters; they are the same in every process."""
    for penalty in penalties:
        for name in penalty.parameters:
            parameter = named[name]
            if parameter.grad is not None:
                direction = parameter.sign() if penalty.norm == "l1" else parameter
                parameter.grad.add_(direction, alpha=penalty.weight)
