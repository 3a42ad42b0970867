"""Claims of the exact contract: values that are equal bit for bit, and a function that is the same in real arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from netxform.compiler.claims.registry import measured_elsewhere, measures
from netxform.compiler.evidence import (
    EXACT,
    Case,
    Kept,
    Measured,
    Tolerance,
    Unmeasurable,
    again_at,
    distance,
    doubled,
    ends,
    half_distance,
    relative,
    results,
    tolerance,
    values_at,
)
from netxform.graph.outputs import outputs
from netxform.graph.surgery import perform
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import AsStored, SameFunction, SameOutputs, SameValue
from netxform.language.laws import Detail, Evidence, Real
from netxform.precision.rounding import HALF

TWIN = "the float64 copy is not in the folder; the network as it is stored has a line of its own"


class Nodes(Detail, frozen=True):
    """The values that were compared, by node."""

    nodes: tuple[str, ...]


class FunctionDetail(Detail, frozen=True):
    """The relative width of the noise that was added. `tolerance`: what bounds the claim where there is no float64 copy."""

    noise: Real = 0.0
    tolerance: Tolerance | None = None


def nodes_again(detail: Nodes, record: ClaimRecord, kept: Kept) -> Evidence:
    """The values at the nodes against those that were kept."""
    if set(detail.nodes) != set(kept.values) or not detail.nodes:
        raise ValueError("the values are not those that were kept")
    pairs = [(kept.now.get(n), kept.values[n]) for n in detail.nodes]
    if not kept.in_force and any(a is None for a, _ in pairs):
        raise Unmeasurable("its value is not computed any more")
    if not kept.in_force:  # whatever its precision is now
        pairs = [(None if a is None else a.to(b.dtype), b) for a, b in pairs]
    worst = max(distance(a, b) for a, b in pairs)
    held, dtype = worst <= kept.slack, dtype_of([kept.values[n] for n in detail.nodes if n in kept.values])
    return Evidence(record.claim, 0.0, 0.0 if held else worst, held, kept.count, record.seed, dtype, detail)


def function_again(detail: FunctionDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """As stored, where that is what it was measured on."""
    if detail.noise:
        gap = relative(again_at(kept, record.nodes), kept.reference)
        return Evidence(record.claim, math.inf, gap, math.isfinite(gap), kept.count, record.seed, record.dtype, detail)
    if detail.tolerance is None:
        raise twin_is_gone(record)
    found = stored_again(detail.tolerance, record, kept)
    return replace(found, detail=FunctionDetail(0.0, found.detail if isinstance(found.detail, Tolerance) else None))


def twin_is_gone(record: ClaimRecord) -> Unmeasurable:
    """What can be said of a claim about a float64 copy: its bound, and that the number is below it."""
    held = record.measured <= EXACT
    said = Evidence(record.claim, EXACT, record.measured, held, record.samples, record.seed, "float64", record.detail)
    return Unmeasurable(TWIN, said)


def stored_again(detail: Tolerance, record: ClaimRecord, kept: Kept) -> Evidence:
    """The outputs of the stored network against those before the change, and the tolerance derived once more."""
    wanted, half = kept.reference, None
    if detail.distance_from_float64 is not None:
        size = len(wanted) // 3
        wanted, own, true = wanted[:size], wanted[size : 2 * size], wanted[2 * size :]
        half = half_distance(own, true, wanted)
    now = again_at(kept, record.nodes)
    gap = relative(now, wanted) if wanted else math.inf
    whole = now if not record.nodes or record.nodes == ends(kept.network) else None
    found = tolerance(kept.network, kept.inputs, record.seed, half, whole)
    return Evidence(record.claim, found.allowed, gap, gap <= found.allowed, kept.count, record.seed, record.dtype, found)


def as_stored(case: Case, wanted: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> Measured:
    """The line of its own beside a claim in real arithmetic: the network as it is stored, within its own rounding."""
    before, half = case.before, None
    reference = wanted
    if any(t.dtype in HALF.values() for t in before.module.parameters()):
        own, true = results(before, case.inputs), results(doubled(before) or before, case.inputs)
        half, reference = half_distance(own, true, wanted), (*wanted, *own, *true)
    detail = tolerance(case.after, case.inputs, case.seed, half, after)
    gap = relative(after, wanted)
    dtype = dtype_of(list(after))
    name = "the same as stored, up to rounding"
    held = gap <= detail.allowed
    said = Evidence(name, detail.allowed, gap, held, case.count, case.seed, dtype, detail, AsStored.kind)
    return Measured(said, reference=reference, nodes=ends(case.after))


def dtype_of(values: list[Tensor]) -> str:
    """The precision of the values, by its name."""
    return str(values[0].dtype).removeprefix("torch.") if values else "float32"


measured_elsewhere(AsStored, Tolerance, where="beside a claim in real arithmetic", again=stored_again)


@measures(SameValue, Nodes, again=nodes_again, probed=True)
def same_value(claim: SameValue, case: Case) -> Measured:
    """The value of the node before and after."""
    return _same(case, [claim.node], "same value, bit for bit")


@measures(SameOutputs, Nodes, again=nodes_again, probed=True)
def same_outputs(claim: SameOutputs, case: Case) -> Measured:
    """The values of the outputs before and after."""
    kept = [n.name for key, n in outputs(case.before.module).items() if claim.names is None or key in claim.names]
    return _same(case, kept, "same outputs, bit for bit")


def _same(case: Case, nodes: list[str], claim: str) -> Measured:
    wanted = values_at(case.before, nodes, case.inputs)
    found = values_at(case.after, nodes, case.inputs)
    worst = max((distance(found.get(n), t) for n, t in wanted.items()), default=0.0)
    detail = Nodes(tuple(sorted(wanted)))
    dtype = dtype_of([wanted[n] for n in detail.nodes])
    evidence = Evidence(claim, 0.0, worst, worst == 0.0, case.count, case.seed, dtype, detail)
    return Measured(evidence, wanted, nodes=detail.nodes, nothing=not wanted)


@measures(SameFunction, FunctionDetail, again=function_again, probed=True)
def same_function(claim: SameFunction, case: Case) -> Measured:
    """The edit made on a float64 copy: 1e-10 is a thousand times the worst rounding seen in a right edit. And the network as
    it is stored, on a line of its own. Where noise was added, or no copy is made, it is measured as stored.
    """
    copied = doubled(case.before)
    wanted, after = results(copied or case.before, case.inputs), results(case.after, case.inputs)
    if claim.noise:
        gap, name = relative(after, wanted), f"same function, up to noise of {claim.noise:g}"
        detail, dtype = FunctionDetail(claim.noise), dtype_of(list(after))
        said = Evidence(name, math.inf, gap, math.isfinite(gap), case.count, case.seed, dtype, detail)
        return Measured(said, reference=wanted, nodes=ends(case.after), found=after)
    stored, name = as_stored(case, wanted, after), "same function"
    if copied is None:
        own = stored.evidence
        assert isinstance(own.detail, Tolerance)
        said = Evidence(
            name, own.bound, own.measured, own.held, case.count, case.seed, own.dtype, FunctionDetail(0.0, own.detail)
        )
        return Measured(said, reference=stored.reference, nodes=stored.nodes, found=after)
    exact = relative(results(perform(copied, case.edit, again=True), case.inputs), wanted)
    said = Evidence(name, EXACT, exact, exact <= EXACT, case.count, case.seed, "float64", FunctionDetail())
    return Measured(said, nodes=ends(case.after), beside=(stored,), found=after)
