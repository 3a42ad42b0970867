"""What an apply comes to: the certificate, and what must travel with it so that anyone can measure its claims again.

Outcome ─certify→ Certificate, Witness
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor

from netxform.compiler.claims.registry import family
from netxform.compiler.evidence import (
    Kept,
    Measured,
    Unmeasurable,
    ends,
    size_of,
    values_at,
)
from netxform.compiler.execute import Outcome
from netxform.compiler.plan import Plan
from netxform.compiler.scores import HeldOut, scores
from netxform.compiler.verdict import Found as Found
from netxform.compiler.verdict import Verdict as Verdict
from netxform.errors import NetxformError
from netxform.graph.cost import Cost
from netxform.language.certificate import (
    FORMAT,
    AssertRecord,
    Certificate,
    ClaimRecord,
    ComparisonRecord,
    CostRecord,
    MadeRecord,
    StatementRecord,
    Totals,
    WarningRecord,
)

Place = tuple[int, int]

# A value that a later statement changed is kept up to this size, to say what it is on what is shipped.
_SUPERSEDED_BYTES = 1_000_000


@dataclass(frozen=True)
class Witness:
    """What claims are measured again on: the probe inputs, the outputs on them, and what each claim keeps beside them.

    `values` (by node) and `references`: by the place of the claim, (statement, claim). `plan`: the plan as plain data;
    `certificate`: the digest of the certificate that all this was written with.
    """

    inputs: tuple[Tensor, ...]
    outputs: Mapping[str, Tensor]
    values: Mapping[Place, Mapping[str, Tensor]]
    references: Mapping[Place, tuple[Tensor, ...]]
    held_out: HeldOut | None = None
    plan: Mapping[str, Any] = field(default_factory=dict[str, Any])
    certificate: str = ""


def certify(
    outcome: Outcome, held_out: HeldOut | None, comparisons: Sequence[ComparisonRecord] = ()
) -> tuple[Certificate, Witness]:
    """What was promised and what was measured, statement by statement. What a later statement has superseded is measured once
    more on the network as it is now, where that can be.
    """
    plan, network, inputs = outcome.plan, outcome.network, outcome.inputs
    data = plan.to_dict()
    items: Any = data["items"]
    now = values_at(network, {*ends(network), *(n for several in outcome.measured for m in several for n in m.values)}, inputs)
    values, references = dict[Place, Mapping[str, Tensor]](), dict[Place, tuple[Tensor, ...]]()
    chosen = _chosen(plan)
    statements: list[StatementRecord] = []
    for i, (entry, measured) in enumerate(zip(outcome.entries, outcome.measured, strict=True)):
        claims: list[ClaimRecord] = []
        stated = Stated(items[entry.index])
        for j, one in enumerate(measured):
            life = outcome.lives.claims[i, j]
            record = ClaimRecord.of(one.evidence, one.tensors, one.nodes, life.digest)
            large = size_of((*one.values.values(), *one.reference)) > _SUPERSEDED_BYTES
            if record.vacuous:
                record = replace(record, in_force=False, unmeasured=f"nothing was shown: {record.vacuous}")
                stated.of(record.kind)
            elif life.superseded_by is not None:
                kept = Kept(network, inputs, one.values, now, one.reference, 0.0, False, stated.of(record.kind))
                record = _superseded(record, life.superseded_by, one, kept, large and not _kernels(one))
            else:
                stated.of(record.kind)
            if not record.unmeasured:
                values[i, j], references[i, j] = one.values, one.reference
            claims.append(record)
        said = (entry.index, entry.text, entry.verb, entry.contract, tuple(claims), entry.metrics)
        settled = (*chosen.get(entry.index, ()), *entry.settled)
        statements.append(StatementRecord(*said, settled, tuple(entry.warnings), entry.nothing, entry.stage))
    certificate = Certificate(
        format=FORMAT,
        subject=plan.subject,
        plan=plan.digest(),
        seed=plan.spec.seed,
        cost=CostRecord(_totals(plan.base), _totals(plan.final)),
        statements=tuple(statements),
        metrics=outcome.metrics,
        comparisons=tuple(comparisons),
        scores=scores(network, held_out, outcome.metrics, outcome.lives, items),
        asserts=tuple(AssertRecord(c.index, c.text, c.seen) for c in plan.checks),
        versions=environment(),
        plan_warnings=plan.warnings,
        notes=tuple(n for n in plan.notes if n not in plan.warnings),
        warnings=tuple(WarningRecord.of(e.index, e.text, h) for e in outcome.entries for h in e.harms),
    )
    outputs = {n: now[n] for n in ends(network) if n in now}
    return certificate, Witness(inputs, outputs, values, references, held_out, data, certificate.digest())


def _superseded(record: ClaimRecord, by: int, one: Measured, kept: Kept, large: bool) -> ClaimRecord:
    """The record of a claim that a later statement superseded: what it comes to on the network as it is now."""
    record = replace(record, in_force=False, superseded_by=by)
    known = family(record.kind).again
    try:
        if isinstance(known, str):
            raise Unmeasurable(known)
        if large:
            raise Unmeasurable("the values before are too large to keep for it")
        found = known(record.detail, record, kept)
    except Unmeasurable as error:
        return replace(record, unmeasured=error.why)
    except (NetxformError, RuntimeError, ValueError, IndexError) as error:
        return replace(record, unmeasured=f"what it speaks of cannot be computed any more ({type(error).__name__})")
    made = MadeRecord(record.measured, record.held)
    return replace(record, measured=found.measured, held=found.held, bound=found.bound, detail=found.detail, made=made)


def _kernels(one: Measured) -> bool:
    return one.evidence.kind == "layer errors"


class Stated:
    """The claims of a statement as the plan states them, given one after the other by their kind."""

    def __init__(self, item: Mapping[str, Any]) -> None:
        self.left = list(item.get("claims", ()))

    def of(self, kind: str) -> Mapping[str, Any]:
        """The next claim of that kind; empty where the plan states none."""
        found = next((c for c in self.left if c.get("kind") == kind), None)
        if found is not None:
            self.left.remove(found)
        return found or {}


def _chosen(plan: Plan) -> dict[int, tuple[str, ...]]:
    """What was settled on weights or data, in words, by statement."""
    return {s.index: tuple(s.choice.values.recorded) for s in plan.steps}


def _totals(of: Cost) -> Totals:
    return Totals(**of.totals())


def environment() -> dict[str, str]:
    """Versions and the kind of machine."""
    names = ("netxform", "torch", "numpy", "scikit-learn", "safetensors")
    out = {n: version(n) for n in names}
    machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return out | {"python": platform.python_version(), "machine": machine, "threads": str(torch.get_num_threads())}
