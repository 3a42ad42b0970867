"""Claims of the exact contract: values that are equal bit for bit, and a function that is the same in real arithmetic."""

from __future__ import annotations

from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import (
    EXACT,
    Case,
    Kept,
    Measured,
    distance,
    doubled,
    own_rounding,
    relative,
    results,
    values_at,
)
from netxform.graph.outputs import outputs
from netxform.graph.surgery import perform
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import SameFunction, SameOutputs, SameValue
from netxform.language.laws import Detail, Evidence, Real


class Nodes(Detail, frozen=True):
    """The values that were compared, by node."""

    nodes: tuple[str, ...]


class AsStored(Detail, frozen=True):
    """The relative change of the outputs in the network's own precision, and what rounding allows there."""

    as_stored: Real
    allowed_as_stored: Real


def nodes_again(detail: Nodes, record: ClaimRecord, kept: Kept) -> Evidence:
    """The values at the nodes against those that were kept."""
    worst = max((distance(kept.now.get(n), kept.values.get(n)) for n in detail.nodes), default=0.0)
    held = worst <= kept.slack
    return Evidence(record.claim, kept.slack, worst, held, record.samples, record.seed, record.dtype)


def function_again(detail: AsStored, record: ClaimRecord, kept: Kept) -> Evidence:
    """The outputs of the stored network against those before the change."""
    gap, allowed = relative(results(kept.network, kept.inputs), kept.reference), detail.allowed_as_stored
    return Evidence(f"{record.claim}, as stored", allowed, gap, gap <= allowed, record.samples, record.seed)


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
    dtype = str(next(iter(wanted.values())).dtype).removeprefix("torch.") if wanted else "float32"
    detail = Nodes(tuple(sorted(wanted)))
    return Measured(Evidence(claim, 0.0, worst, worst == 0.0, case.count, case.seed, dtype, detail), wanted)


@measures(SameFunction, AsStored, again=function_again, probed=True)
def same_function(claim: SameFunction, case: Case) -> Measured:
    """The edit made on a float64 copy: 1e-10 is a thousand times the worst rounding seen in a right edit. And the network as
    it is stored: ten times its own rounding noise, which is what permuting its free axes changes.
    """
    before, after, inputs, noise = case.before, case.after, case.inputs, claim.noise
    copied = doubled(before)
    wanted = results(copied or before, inputs)
    found = results(after, inputs)
    stored = relative(found, wanted)
    own = own_rounding(before, after, inputs, case.seed, wanted)
    allowed = float("inf") if noise else 10 * own
    exact = relative(results(perform(copied, case.edit), inputs), wanted) if copied is not None else stored
    bound = float("inf") if noise else EXACT if copied is not None else allowed
    name = "same function" + (f", up to noise of {noise:g}" if noise else "")
    held = exact <= bound and stored <= allowed
    dtype = "float64" if copied is not None else "float32"
    evidence = Evidence(name, bound, exact, held, case.count, case.seed, dtype, AsStored(stored, allowed))
    return Measured(evidence, reference=wanted, found=found)
