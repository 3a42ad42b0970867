"""Claims of the lossy contract: removal is masking, and what the loss did beside what was predicted."""

from __future__ import annotations

import math
from typing import Literal

from msgspec.structs import replace
from torch import Tensor

from netxform.axes.reindex import axes_of
from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import EXACT, Case, Kept, Measured, doubled, own_rounding, relative, results, tensors_in
from netxform.errors import fail
from netxform.graph.network import Network
from netxform.graph.surgery import perform
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import LossChange, MaskedTwin
from netxform.language.laws import Detail, Evidence, Real
from netxform.pruning.gates import gates, masked
from netxform.pruning.loss import mean_loss

# How many samples of the calibration data a bundle holds, so that the loss can be measured again.
_KEPT, _KEPT_BYTES = 256, 8_000_000


class TwinDetail(Detail, frozen=True):
    """The difference from the masked network as it is stored, what is allowed there, and what has no such form."""

    as_stored: Real
    allowed_as_stored: Real
    mixes: tuple[str, ...] = ()


class LossDetail(Detail, frozen=True):
    """The mean loss before and after, beside what was predicted of its change, and the loss on the samples that are kept.

    `standard_error`: of the prediction, over samples. The change on new samples is under the name of what they are.
    """

    predicted: Real | None
    standard_error: Real | None
    loss_before: Real
    loss_after: Real
    accuracy_before: Real
    accuracy_after: Real
    loss: Literal["cross_entropy", "mse"]
    output: str | None
    loss_on_the_samples_kept: Real
    change_on_test_samples: Real | None = None
    test_samples: int | None = None
    change_on_validation_samples: Real | None = None
    validation_samples: int | None = None
    change_on_other_training_samples: Real | None = None
    other_training_samples: int | None = None
    # what certificates of format 1 called other training samples
    change_on_other_samples: Real | None = None
    other_samples: int | None = None

    def found(self, measured: float, bound: float) -> str:
        """The change beside what was predicted."""
        beside = "nothing predicted"
        if self.predicted is not None:
            beside = f"predicted {self.predicted:+.3g}" + (f" ± {self.standard_error:.1g}" if self.standard_error else "")
        return f"{measured:+.3g} ({beside}), accuracy {self.accuracy_before:.3f} → {self.accuracy_after:.3f}"


def twin_again(detail: TwinDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The stored network against the masked outputs: the same difference as before where an operation mixes."""
    gap = relative(results(kept.network, kept.inputs), kept.reference)
    name = f"{record.claim}, as stored"
    if detail.mixes:
        now = abs(gap - detail.as_stored)
        return Evidence(name, 1e-6, now, now <= 1e-6, record.samples, record.seed)
    allowed = detail.allowed_as_stored
    return Evidence(name, allowed, gap, gap <= allowed, record.samples, record.seed)


def loss_again(detail: LossDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The loss on the samples that travel with the bundle."""
    wanted, gap, count = detail.loss_on_the_samples_kept, math.inf, 0
    if len(kept.reference) == 2:
        now, _, count = mean_loss(kept.network, [(kept.reference[0], kept.reference[1])], detail.loss, detail.output)
        gap = abs(now - wanted)
    allowed = 1e-5 * max(abs(wanted), 1.0)  # another machine rounds differently
    return Evidence("loss on the samples kept", allowed, gap, gap <= allowed, count)


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
    exact = relative(results(perform(copied, edit) if copied is not None else after, inputs), wanted)
    outputs = results(after, inputs)
    stored = relative(outputs, wanted)
    allowed = float("inf") if claim.mixes else 10 * own_rounding(before, after, inputs, case.seed, wanted)
    bound = float("inf") if claim.mixes else EXACT if copied is not None else allowed
    what = "read as zero" if fill is None else "read as their mean"
    name = f"same function as with the removed indices {what}"
    if claim.mixes:
        name = f"difference from the removed indices {what}"
    held = exact <= bound and stored <= allowed
    dtype = "float64" if copied is not None else "float32"
    evidence = Evidence(name, bound, exact, held, case.count, case.seed, dtype, TwinDetail(stored, allowed, tuple(claim.mixes)))
    return Measured(evidence, reference=wanted, found=outputs)


@measures(LossChange, LossDetail, again=loss_again)
def loss_change(claim: LossChange, case: Case) -> Measured:
    """The mean loss before and after, on the samples that were scored on and on as many others.

    Raises NetxformError X0823 where there is no data.
    """
    before, after, material = case.before, case.after, case.material
    if material is None:
        raise fail("X0823", f"`{claim.data}` is needed to measure the loss")

    def seen(network: Network, new: bool) -> tuple[float, float, int]:
        give = (
            material.fresh(claim.data, claim.samples, skip=claim.samples)
            if new
            else material.batches(claim.data, claim.samples)
        )
        return mean_loss(network, give, claim.loss, claim.output)

    old, new = seen(before, False), seen(after, False)
    x, y = _kept(next(iter(material.batches(claim.data, _KEPT))))
    detail = LossDetail(
        predicted=claim.predicted,
        standard_error=claim.error,
        loss_before=old[0],
        loss_after=new[0],
        accuracy_before=old[1],
        accuracy_after=new[1],
        loss=claim.loss,
        output=claim.output,
        loss_on_the_samples_kept=mean_loss(after, [(x, y)], claim.loss, claim.output)[0],
    )
    if next(iter(material.fresh(claim.data, 1, skip=claim.samples)), None) is not None:
        others, after_others = seen(before, True), seen(after, True)
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
    return Measured(evidence, reference=(x, y))


def _kept(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """As many samples of the batch as there is room for."""
    x, y = batch
    room = max(1, _KEPT_BYTES // max(1, x[0].numel() * x.element_size()))
    return x[:room], y[:room]
