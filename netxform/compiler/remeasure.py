"""What an apply comes to: the certificate, and what must travel with it so that anyone can measure its claims again.

Outcome ─certify→ Certificate, Witness        Network, Certificate, Witness ─verify→ Verdict
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor

from netxform.compiler.claims.registry import family
from netxform.compiler.evidence import Kept, Measured, distance, tensor_hash, tensors, values_at
from netxform.compiler.execute import Outcome
from netxform.compiler.plan import Plan
from netxform.graph.cost import Cost
from netxform.graph.network import Network
from netxform.graph.outputs import outputs
from netxform.language.certificate import (
    FORMAT,
    Certificate,
    ClaimRecord,
    ComparisonRecord,
    CostRecord,
    HeldOutRecord,
    StatementRecord,
    Totals,
    WarningRecord,
    written,
)
from netxform.language.laws import Evidence, plain

_HELD_OUT_BYTES = 8_000_000


@dataclass(frozen=True)
class HeldOut:
    """Test samples that travel with the bundle, so that its accuracy can be measured again."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Witness:
    """What claims are measured again on: the probe inputs, values by node, and what a claim keeps beside them.

    `references`: by the place of the claim, (statement, claim).
    """

    inputs: tuple[Tensor, ...]
    values: Mapping[str, Tensor]
    references: Mapping[tuple[int, int], tuple[Tensor, ...]]
    held_out: HeldOut | None = None


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: one line a claim, and whether all held."""

    lines: tuple[tuple[str, Evidence], ...]

    @property
    def held(self) -> bool:
        """Whether every claim held."""
        return all(e.held for _, e in self.lines)

    def dump(self) -> str:
        """The lines as strict JSON."""
        return written([{"what": what, **plain(evidence)} for what, evidence in self.lines])


def certify(
    outcome: Outcome, held_out: HeldOut | None, comparisons: Sequence[ComparisonRecord] = ()
) -> tuple[Certificate, Witness]:
    """What was promised and what was measured, statement by statement; which claims are in force, and what these need."""
    plan, network, inputs = outcome.plan, outcome.network, outcome.inputs
    ends = {n.name for n in outputs(network.module).values()}
    now = values_at(network, ends.union(*(m.values for several in outcome.measured for m in several)), inputs)
    wanted, references = set(ends), dict[tuple[int, int], tuple[Tensor, ...]]()
    chosen = _chosen(plan)
    statements: list[StatementRecord] = []
    for i, (entry, measured) in enumerate(zip(outcome.entries, outcome.measured, strict=True)):
        claims: list[ClaimRecord] = []
        for j, one in enumerate(measured):
            record = ClaimRecord.of(one.evidence, one.tensors)
            if not _in_force(record, one, Kept(network, inputs, one.values, now, one.reference)):
                record = replace(record, in_force=False, tensors=())
            else:
                wanted |= set(one.values)
                if one.reference:
                    references[i, j] = one.reference
            claims.append(record)
        said = (entry.index, entry.text, entry.verb, entry.contract)
        settled = (*chosen.get(entry.index, ()), *entry.settled)
        statements.append(StatementRecord(*said, tuple(claims), entry.metrics, settled, tuple(entry.warnings), entry.stage))
    certificate = Certificate(
        format=FORMAT,
        subject=plan.subject,
        plan=plan.digest(),
        seed=plan.spec.seed,
        cost=CostRecord(_totals(plan.base), _totals(plan.final)),
        statements=tuple(statements),
        metrics=outcome.metrics,
        comparisons=tuple(comparisons),
        held_out=_score(network, held_out),
        versions=environment(),
        plan_warnings=plan.warnings,
        warnings=tuple(WarningRecord.of(e.index, e.text, h) for e in outcome.entries for h in e.harms),
    )
    return certificate, Witness(inputs, {n: t for n, t in now.items() if n in wanted}, references, held_out)


def _chosen(plan: Plan) -> dict[int, tuple[str, ...]]:
    """What was settled on weights or data, in words, by statement."""
    return {s.index: tuple(s.choice.values.recorded) for s in plan.steps}


def _totals(cost: Cost) -> Totals:
    return Totals(**cost.totals())


def _in_force(record: ClaimRecord, one: Measured, kept: Kept) -> bool:
    """Whether the claim speaks of the network as it is now. A claim of which nothing was kept does not."""
    known = family(record.kind)
    if isinstance(known.again, str):
        return False
    if known.stands is not None:
        return known.stands(record.detail, kept.network)
    return bool(one.values or one.reference or one.tensors) and known.again(record.detail, record, kept).held


def environment() -> dict[str, str]:
    """Versions and the kind of machine."""
    names = ("netxform", "torch", "numpy", "scikit-learn", "safetensors")
    out = {n: version(n) for n in names}
    return out | {"python": platform.python_version(), "machine": platform.machine(), "threads": str(torch.get_num_threads())}


def held_out_of(network: Network, data: Any) -> HeldOut | None:
    """Up to 256 test samples of the data that was trained on last, as many as fit into 8 MB."""
    if data is None or not len(data.test):
        return None
    x0, y0 = data.test[0]
    if torch.as_tensor(y0).dim():
        return None
    count = min(256, len(data.test), max(1, _HELD_OUT_BYTES // max(1, x0.numel() * x0.element_size())))
    pairs = [data.test[i] for i in range(count)]
    return HeldOut(torch.stack([p[0] for p in pairs]), torch.stack([torch.as_tensor(p[1]) for p in pairs]))


@torch.no_grad()
def _score(network: Network, held: HeldOut | None) -> HeldOutRecord | None:
    if held is None:
        return None
    result: Any = network.module.eval()(held.x)
    if not isinstance(result, Tensor) or result.dim() != 2 or held.y.dim() != 1 or held.y.dtype.is_floating_point:
        return None
    return HeldOutRecord(len(held.y), int((result.argmax(1) == held.y).sum()))


def verify(network: Network, certificate: Certificate, witness: Witness) -> Verdict:
    """Measure every claim that is in force again."""
    stored, inputs = witness.values, witness.inputs
    ends = [n.name for n in outputs(network.module).values()]
    now = values_at(network, stored, inputs)
    current = tensors(network.module)
    hashes = certificate.tensors or {}
    wrong = [n for n, h in hashes.items() if n not in current or tensor_hash(current[n]) != h]
    lines = [("weights", Evidence("every tensor has the certified bits", 0.0, float(len(wrong)), not wrong))]
    worst = max((distance(now.get(n), stored.get(n)) for n in ends), default=0.0)
    count = inputs[0].shape[0] if inputs else 0
    # another machine may round differently: the outputs are compared within float32 rounding of the certified ones
    scale = max((float(stored[n].abs().max()) for n in ends if n in stored), default=1.0)
    slack = 0.0 if certificate.versions == environment() else 1e-5 * max(scale, 1.0)
    lines.append(("outputs", Evidence("outputs on the probe inputs", slack, worst, worst <= slack, count)))
    for i, statement in enumerate(certificate.statements):
        for j, claim in enumerate(statement.claims):
            if claim.in_force:
                kept = Kept(network, inputs, stored, now, witness.references.get((i, j), ()), slack)
                lines.append((statement.statement, _again(claim, kept)))
    if certificate.held_out is not None and witness.held_out is not None:
        lines.append(("accuracy", _held_out(certificate.held_out, _score(network, witness.held_out), slack)))
    return Verdict(tuple(lines))


def _again(claim: ClaimRecord, kept: Kept) -> Evidence:
    known = family(claim.kind)
    if isinstance(known.again, str):  # no apply says that such a claim is in force
        return Evidence(f"{claim.claim}: {known.again}", 0.0, float("inf"), False, kind=claim.kind)
    return known.again(claim.detail, claim, kept)


def _held_out(then: HeldOutRecord, now: HeldOutRecord | None, slack: float) -> Evidence:
    gap = abs((now.right if now is not None else 0) - then.right)
    allowed = 0.0 if slack == 0.0 else 0.01 * then.samples
    text = f"held-out samples right: {then.right} of {then.samples}"
    return Evidence(text, allowed, float(gap), gap <= allowed, then.samples)
