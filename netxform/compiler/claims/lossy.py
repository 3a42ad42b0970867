"""Claims of the lossy contract: removal is masking, and what the loss did beside what was predicted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace as replace_evidence
from typing import Literal

import torch
from msgspec.structs import replace
from torch import Tensor

from netxform.axes.reindex import axes_of
from netxform.compiler.claims.exact import as_stored, dtype_of, stored_again, twin_is_gone
from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import (
    EXACT,
    KEPT_BYTES,
    Case,
    Kept,
    Measured,
    Tolerance,
    Unmeasurable,
    again_at,
    doubled,
    ends,
    relative,
    results,
    size_of,
    tensors_in,
)
from netxform.compiler.harms import accuracy_fell, beyond_prediction, loss_rose
from netxform.errors import fail
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.graph.surgery import perform
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import LossChange, MaskedTwin
from netxform.language.laws import Detail, Evidence, Harm, Real
from netxform.pruning.gates import gates, masked
from netxform.pruning.loss import logits, losses, mean_loss

# samples are given in batches of this size (`language.material.Material`)
_BATCH = 128


class TwinDetail(Detail, frozen=True):
    """What has no such form. `tolerance`: what bounds the claim where there is no float64 copy."""

    mixes: tuple[str, ...] = ()
    tolerance: Tolerance | None = None


class LossDetail(Detail, frozen=True):
    """The mean loss before and after, beside what was predicted of its change. The samples that are in the folder: of those
    that it is about, so many are `kept`, and the change on these; of the new ones, `new_kept`.

    `standard_error`: of the prediction, over samples. `chosen_on`: how many other samples the choice was made on. The change
    on new samples, that nothing was chosen on, is under the name of what they are; so is the accuracy there.
    """

    predicted: Real | None
    standard_error: Real | None
    loss_before: Real
    loss_after: Real
    accuracy_before: Real
    accuracy_after: Real
    loss: Literal["cross_entropy", "mse"]
    output: str | None
    kept: int
    change_on_the_samples_kept: Real
    change_on_test_samples: Real | None = None
    test_samples: int | None = None
    change_on_validation_samples: Real | None = None
    validation_samples: int | None = None
    change_on_other_training_samples: Real | None = None
    other_training_samples: int | None = None
    new_kept: int = 0
    samples: int | None = None
    chosen_on: int | None = None
    accuracy_before_on_new_samples: Real | None = None
    accuracy_after_on_new_samples: Real | None = None
    classes: bool = True

    def found(self, measured: float, bound: float) -> str:
        """The change beside what was predicted."""
        beside = "nothing predicted"
        if self.predicted is not None:
            beside = f"predicted {self.predicted:+.3g}" + (f" ± {self.standard_error:.1g}" if self.standard_error else "")
        if not self.classes:
            return f"{measured:+.3g} ({beside})"
        return f"{measured:+.3g} ({beside}), accuracy {self.accuracy_before:.3f} → {self.accuracy_after:.3f}"

    def _new(self) -> tuple[str, int] | None:
        """What the new samples are, and how many."""
        for what, count in (
            ("test", self.test_samples),
            ("validation", self.validation_samples),
            ("other training", self.other_training_samples),
        ):
            if count is not None:
                return f"{what} samples", count
        return None

    def harms(self, measured: float) -> tuple[Harm, ...]:
        """Accuracy that fell by more than a point, on new samples where there are some; a loss far above the prediction."""
        new, count = self._new() or ("samples", self.samples or 0)
        found: tuple[Harm, ...] = ()
        if self.classes:
            before, after = self.accuracy_before, self.accuracy_after
            if self.accuracy_before_on_new_samples is not None and self.accuracy_after_on_new_samples is not None:
                before, after = self.accuracy_before_on_new_samples, self.accuracy_after_on_new_samples
            found = accuracy_fell(before, after, count, new)
        else:
            found = loss_rose(self.loss_before, self.loss_after, self.samples or 0, "samples")
        if self.predicted is None:
            return found
        shares = self.loss == "cross_entropy"
        given = (self.predicted, self.standard_error, self.loss_before, self.loss_after, self.samples or 0, shares)
        return found + beyond_prediction(*given)

    def metrics_after(self) -> dict[str, float]:
        """`accuracy`, on new samples where there are some, and `loss`, on those that the change was measured on."""
        accuracy = self.accuracy_after_on_new_samples
        found = {"accuracy": self.accuracy_after if accuracy is None else accuracy} if self.classes else {}
        return found | {"loss": self.loss_after}

    def metrics_before(self) -> dict[str, float]:
        """The accuracy on test or validation samples."""
        part = "test" if self.test_samples else "val" if self.validation_samples else None
        accuracy = self.accuracy_before_on_new_samples
        return {} if part is None or accuracy is None or not self.classes else {f"{part}_accuracy": accuracy}


def twin_again(detail: TwinDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The stored network against the masked outputs, where it is as stored that it was measured."""
    if detail.mixes:
        gap = relative(again_at(kept, record.nodes), kept.reference)
        return Evidence(record.claim, math.inf, gap, math.isfinite(gap), kept.count, record.seed, record.dtype, detail)
    if detail.tolerance is None:
        raise twin_is_gone(record)
    found = stored_again(detail.tolerance, record, kept)
    own = found.detail if isinstance(found.detail, Tolerance) else None
    return replace_evidence(found, detail=TwinDetail(detail.mixes, own))


def loss_again(detail: LossDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The losses on the samples that travel with the bundle: of the network before from its outputs there, which are kept.

    Raises Unmeasurable where not all samples are there.
    """
    given = list(kept.reference)
    if len(given) < 3 or any(t.shape[0] != detail.kept for t in given[:3]):
        return Evidence(record.claim, math.inf, math.inf, False, record.samples, 0, "float32", detail)
    x, y, z = given[:3]
    old, new = _of_logits(z, y, detail.loss), mean_loss(kept.network, _batches(x, y), detail.loss, detail.output)
    stated = kept.claim or {"predicted": detail.predicted, "error": detail.standard_error}
    found = replace(
        detail, predicted=stated["predicted"], standard_error=stated["error"], change_on_the_samples_kept=new[0] - old[0]
    )
    whole = detail.kept == record.samples
    measured = record.measured
    if whole:
        measured = new[0] - old[0]
        found = replace(found, loss_before=old[0], loss_after=new[0], accuracy_before=old[1], accuracy_after=new[1])
    what = next((n for n in NEW if getattr(detail, NEW[n]) is not None), None)
    if what is not None and len(given) == 6 and detail.new_kept == getattr(detail, NEW[what]):
        x, y, z = given[3:]
        old, new = _of_logits(z, y, detail.loss), mean_loss(kept.network, _batches(x, y), detail.loss, detail.output)
        found = replace(found, **{f"change_on_{NEW[what]}": new[0] - old[0], NEW[what]: len(x)})
    held = math.isfinite(new[0])
    said = Evidence(record.claim, math.inf, measured, held, record.samples, 0, "float32", found)
    if not whole:
        raise Unmeasurable(
            f"{detail.kept:,} of {record.samples:,} samples are in the folder: the change is measured on these", said
        )
    return said


NEW = {"test samples": "test_samples", "validation samples": "validation_samples"}
NEW["other training samples"] = "other_training_samples"


def _batches(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(_BATCH), y.split(_BATCH), strict=True))


def _of_logits(z: Tensor, y: Tensor, loss: Literal["cross_entropy", "mse"]) -> tuple[float, float]:
    """The mean loss and the share of right classes, of outputs."""
    total, right = 0.0, 0
    for some, targets in _batches(z, y):
        each, hits = losses(some, targets, loss)
        total, right = total + float(each.sum()), right + hits
    return total / len(z), right / len(z)


@measures(MaskedTwin, TwinDetail, again=twin_again, probed=True)
def masked_twin(claim: MaskedTwin, case: Case) -> Measured:
    """Removal against masking, on a float64 copy; and the network as it is stored, within its own rounding noise."""
    before, after, edit, inputs = case.before, case.after, case.edit, case.inputs
    named = {a.name: a.atom for a in axes_of(before)}
    positions = {name: index for name, index in claim.removed}
    fill = {(operand, axis): edit.tensors[name] for operand, axis, name in claim.means} or None
    copied = doubled(before)
    base = copied or before
    twins = {a.name: a.atom for a in axes_of(base)} if copied is not None else named
    given = tuple(t.to(i.dtype) for t, i in zip(inputs, base.inputs, strict=True))
    found = masked(base, gates(base), {twins[n]: list(i) for n, i in positions.items()}, given, fill)
    wanted = tuple(t for t in tensors_in(found) if t.is_floating_point())
    now, nodes = results(after, inputs), ends(after)
    what = "read as zero" if fill is None else "read as their mean"
    if claim.mixes:
        gap, name, detail = relative(now, wanted), f"difference from the removed indices {what}", TwinDetail(tuple(claim.mixes))
        said = Evidence(name, math.inf, gap, math.isfinite(gap), case.count, case.seed, dtype_of(list(now)), detail)
        return Measured(said, reference=wanted, nodes=nodes, found=now)
    name = f"same function as with the removed indices {what}"
    stored = as_stored(case, wanted, now)
    if copied is None:
        own = stored.evidence
        assert isinstance(own.detail, Tolerance)
        said = replace_evidence(own, claim=name, detail=TwinDetail((), own.detail), kind="")
        return Measured(said, reference=stored.reference, nodes=nodes, found=now)
    exact = relative(results(perform(copied, edit, again=True), inputs), wanted)
    said = Evidence(name, EXACT, exact, exact <= EXACT, case.count, case.seed, "float64", TwinDetail())
    return Measured(said, nodes=nodes, beside=(stored,), found=now)


@measures(LossChange, LossDetail, again=loss_again)
def loss_change(claim: LossChange, case: Case) -> Measured:
    """The mean loss before and after: on the samples that it was predicted on, which chose nothing, and on new ones.

    Raises NetxformError X0823 where there is no data.
    """
    before, after, material = case.before, case.after, case.material
    if material is None:
        raise fail("X0823", f"`{claim.data}` is needed to measure the loss")

    def seen(network: Network, new: bool) -> tuple[float, float, int]:
        give = (
            material.fresh(claim.data, claim.samples, skip=claim.skip + claim.samples)
            if new
            else material.batches(claim.data, claim.samples, skip=claim.skip)
        )
        return mean_loss(network, give, claim.loss, claim.output)

    old, new = seen(before, False), seen(after, False)
    kept = _kept(before, material.batches(claim.data, claim.samples, skip=claim.skip), claim)
    change = mean_loss(after, _batches(*kept[:2]), claim.loss, claim.output)[0] - _of_logits(kept[2], kept[1], claim.loss)[0]
    detail = LossDetail(
        predicted=claim.predicted,
        standard_error=claim.error,
        loss_before=old[0],
        loss_after=new[0],
        accuracy_before=old[1],
        accuracy_after=new[1],
        loss=claim.loss,
        output=claim.output,
        kept=len(kept[0]),
        change_on_the_samples_kept=change,
        samples=old[2],
        chosen_on=claim.skip or None,
        classes=not kept[1].dtype.is_floating_point,
    )
    if next(iter(material.fresh(claim.data, 1, skip=claim.skip + claim.samples)), None) is not None:
        others, after_others = seen(before, True), seen(after, True)
        fields = {"accuracy_before_on_new_samples": others[1], "accuracy_after_on_new_samples": after_others[1]}
        fresh = _kept(before, material.fresh(claim.data, claim.samples, skip=claim.skip + claim.samples), claim)
        kept, detail = (*kept, *fresh), replace(detail, new_kept=len(fresh[0]), **fields)
        change, count = after_others[0] - others[0], others[2]
        match material.held_out(claim.data):
            case "test samples":
                detail = replace(detail, change_on_test_samples=change, test_samples=count)
            case "validation samples":
                detail = replace(detail, change_on_validation_samples=change, validation_samples=count)
            case "other training samples":
                detail = replace(detail, change_on_other_training_samples=change, other_training_samples=count)
    name = f"change of the mean loss on {old[2]} samples of `{claim.data}`"
    evidence = Evidence(name, math.inf, new[0] - old[0], bool(new[0] == new[0]), old[2], 0, "float32", detail)
    return Measured(evidence, reference=kept, nodes=ends(after))


def _kept(network: Network, batches: Iterable[tuple[Tensor, Tensor]], claim: LossChange) -> tuple[Tensor, Tensor, Tensor]:
    """As many samples as there is room for, their targets, and what the network gives for them."""
    xs, ys, zs, room = list[Tensor](), list[Tensor](), list[Tensor](), KEPT_BYTES
    for x, y in batches:
        count = min(len(x), room // max(1, x[0].numel() * x.element_size()))
        if not count and xs:
            break
        count = max(count, 1)
        with torch.no_grad(), evaluating(network.module):
            zs.append(logits(network.module(x), claim.output)[:count])
        xs.append(x[:count])
        ys.append(y[:count])
        room -= size_of([xs[-1]])
        if count < len(x):
            break
    return torch.cat(xs), torch.cat(ys), torch.cat(zs)
