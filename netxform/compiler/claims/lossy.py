"""Claims of the lossy contract: removal is masking, and what the loss did beside what was predicted."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from netxform.axes.reindex import axes_of
from netxform.compiler.evidence import EXACT, Measured, doubled, relative, results, rounding, tensors_in
from netxform.errors import fail
from netxform.graph.edits import Edit
from netxform.graph.network import Network
from netxform.graph.surgery import perform
from netxform.language.claims import LossChange, MaskedTwin
from netxform.language.laws import Evidence
from netxform.language.verb import Material
from netxform.pruning.gates import gates, masked
from netxform.pruning.loss import mean_loss


def masked_twin(
    before: Network, after: Network, claim: MaskedTwin, edit: Edit, inputs: tuple[Tensor, ...], seed: int
) -> Measured:
    """Removal against masking, on a float64 copy; and the network as it is stored, within its own rounding noise."""
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
    stored = relative(results(after, inputs), wanted)
    allowed = float("inf") if claim.mixes else 10 * max(rounding(after, inputs, seed), 1e-7)
    bound = float("inf") if claim.mixes else EXACT if copied is not None else allowed
    what = "read as zero" if fill is None else "read as their mean"
    name = f"same function as with the removed indices {what}"
    if claim.mixes:
        name = f"difference from the removed indices {what}"
    detail: dict[str, Any] = {"as stored": stored, "allowed as stored": allowed}
    if claim.mixes:
        detail["mixes"] = list(claim.mixes)
    held = exact <= bound and stored <= allowed
    dtype = "float64" if copied is not None else "float32"
    count = inputs[0].shape[0] if inputs and inputs[0].dim() else 0
    return Measured(Evidence(name, bound, exact, held, count, seed, dtype, detail), {}, reference=wanted)


# How many samples of the calibration data a bundle holds, so that the loss can be measured again.
_KEPT, _KEPT_BYTES = 256, 8_000_000


def loss_change(before: Network, after: Network, claim: LossChange, material: Material | None) -> Measured:
    """The mean loss before and after, on the samples that were scored on and on as many others."""
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
    detail: dict[str, Any] = {
        "predicted": claim.predicted,
        "standard error": claim.error,
        "loss before": old[0],
        "loss after": new[0],
        "accuracy before": old[1],
        "accuracy after": new[1],
    }
    if next(iter(material.fresh(claim.data, 1, skip=claim.samples)), None) is not None:
        others, after_others, what = seen(before, True), seen(after, True), material.held_out(claim.data)
        detail |= {f"change on {what}": after_others[0] - others[0], what: others[2]}
    x, y = next(iter(material.batches(claim.data, _KEPT)))
    room = max(1, _KEPT_BYTES // max(1, x[0].numel() * x.element_size()))
    x, y = x[:room], y[:room]
    kept = mean_loss(after, [(x, y)], claim.loss, claim.output)
    detail |= {"loss": claim.loss, "output": claim.output, "loss on the samples kept": kept[0]}
    name = f"change of the mean loss on {old[2]} samples of `{claim.data}`"
    evidence = Evidence(name, float("inf"), new[0] - old[0], bool(new[0] == new[0]), old[2], 0, "float32", detail)
    return Measured(evidence, {}, reference=(x, y))


def masked_twin_again(
    claim: dict[str, Any], reference: tuple[Tensor, ...], network: Network, inputs: tuple[Tensor, ...]
) -> Evidence:
    """The stored network against the masked outputs: the same difference as before where an operation mixes."""
    gap = relative(results(network, inputs), reference)
    name = f"{claim['claim']}, as stored"
    if claim["detail"].get("mixes"):
        now = abs(gap - float(claim["detail"]["as stored"]))
        return Evidence(name, 1e-6, now, now <= 1e-6, claim["samples"], claim["seed"])
    allowed = float(claim["detail"]["allowed as stored"])
    return Evidence(name, allowed, gap, gap <= allowed, claim["samples"], claim["seed"])


def loss_change_again(claim: dict[str, Any], reference: tuple[Tensor, ...], network: Network) -> Evidence:
    """The loss on the samples that travel with the bundle."""
    detail = claim["detail"]
    wanted = float(detail["loss on the samples kept"])
    now, _, count = mean_loss(network, [(reference[0], reference[1])], detail["loss"], detail["output"])
    allowed = 1e-5 * max(abs(wanted), 1.0)  # another machine rounds differently
    return Evidence("loss on the samples kept", allowed, abs(now - wanted), abs(now - wanted) <= allowed, count)
