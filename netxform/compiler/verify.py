"""A bundle looked at again: every claim is measured, compared by digest, superseded, or said not to be measurable and why.

Network, Certificate, Witness ─verify→ Verdict
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from netxform.compiler.claims.registry import family
from netxform.compiler.conditions import judge
from netxform.compiler.evidence import Kept, Unmeasurable, distance, ends, tensor_hash, tensors, tolerance, values_at
from netxform.compiler.remeasure import Place, Stated, Witness, environment
from netxform.compiler.scores import CLOSE, score
from netxform.compiler.standing import Hashes, digest_of, stands
from netxform.compiler.verdict import Found, State, Verdict, close, differences
from netxform.errors import NetxformError
from netxform.graph.cost import Cost, cost
from netxform.graph.network import Network
from netxform.language.certificate import (
    FORMAT,
    AssertRecord,
    Certificate,
    ClaimRecord,
    Earlier,
    ScoreRecord,
    StatementRecord,
    Totals,
)
from netxform.language.laws import Detail, Evidence, plain
from netxform.syntax import ast
from netxform.syntax.parse import parse

# On the same machine numbers come out the same, up to the order in which a library adds them up.
_SAME, _OTHER = 1e-9, 1e-3


@dataclass(frozen=True)
class _Look:
    """What every claim is looked at with. `relative`: by how much of itself a number may be another."""

    network: Network
    certificate: Certificate
    witness: Witness
    now: Mapping[str, Tensor]
    hashes: Mapping[str, str]
    slack: float
    relative: float
    items: list[dict[str, Any]]


def verify(network: Network, certificate: Certificate, witness: Witness) -> Verdict:
    """Look at every claim again: each is measured, compared by digest, superseded, or said not to be measurable and why."""
    asked = {*witness.outputs, *(n for several in witness.values.values() for n in several)}
    now = values_at(network, asked, witness.inputs)
    same = certificate.versions == environment()
    scale = max((float(t.abs().max()) for t in witness.outputs.values() if t.numel() and not t.is_complex()), default=1.0)
    allowed = 0.0 if same else tolerance(network, witness.inputs, certificate.seed).allowed
    slack, relative = (0.0, _SAME) if same else (allowed * max(scale, 1.0), _OTHER)
    items = list(witness.plan.get("items", ()))
    look = _Look(network, certificate, witness, now, Hashes().of(network), slack, relative, items)
    lines = [_weights(look), _outputs(look)]
    notes = ["the same machine and versions as when it was made: equal bits are asked for"]
    if not same:
        here = environment()
        others = ", ".join(f"{n} {here.get(n)} (made with {v})" for n, v in certificate.versions.items() if here.get(n) != v)
        notes = [f"another machine or versions than when it was made: outputs may differ by {slack:.2g}, from rounding", others]
    if certificate.format < FORMAT:
        why = f"a certificate of format {certificate.format} does not say what its claims are about; apply the spec again"
        for s in certificate.statements:
            lines += [Found(s.statement, "not measurable", _as_written(c), why) for c in s.claims]
        return Verdict(tuple(lines), tuple(notes))
    lines += [f for i, s in enumerate(certificate.statements) for f in _statement(look, i, s)]
    lines += [_cost(look), *(_score(look, s) for s in certificate.scores), *(_assert(look, a) for a in certificate.asserts)]
    lines += [_plan(look), _whole(look)]
    for c in certificate.comparisons:
        evidence = Evidence(f"{c.metric} of {len(c.seeds)} seeds", math.inf, 0.0, True)
        lines.append(Found(c.statement, "not measurable", evidence, "the runs beside this one are not in the folder"))
    return Verdict(tuple(lines), tuple(notes))


def _weights(look: _Look) -> Found:
    """Every tensor has the certified bits, none is missing, none too many, and none holds NaN."""
    current = tensors(look.network.module)
    hashes = look.certificate.tensors or {}
    wrong = [n for n, h in hashes.items() if n not in current or tensor_hash(current[n]) != h]
    known = {look.hashes[n] for n in hashes if n in look.hashes}
    wrong += [n for n, h in look.hashes.items() if n not in hashes and h not in known]
    absent = [n for n, t in current.items() if t.is_floating_point() and bool(t.isnan().any())]
    why = f"holds NaN: {', '.join(absent[:4])}" if absent else f"other bits: {', '.join(wrong[:4])}" if wrong else ""
    count = float(len({*wrong, *absent}))
    return Found("weights", "compared by digest", Evidence("every tensor has the certified bits", 0.0, count, not count), why)


def _outputs(look: _Look) -> Found:
    """The outputs on the probe inputs are those that were kept."""
    names, stored = ends(look.network), look.witness.outputs
    worst = max((distance(look.now.get(n), stored.get(n)) for n in names), default=math.inf)
    inputs = look.witness.inputs
    count = inputs[0].shape[0] if inputs and inputs[0].dim() else 0
    evidence = Evidence("outputs on the probe inputs", look.slack, worst, worst <= look.slack, count)
    return Found("outputs", "measured again", evidence)


def _statement(look: _Look, i: int, statement: StatementRecord) -> list[Found]:
    item = look.items[statement.index] if 0 <= statement.index < len(look.items) else {}
    stated = Stated(item)
    out = [_claim(look, (i, j), statement, c, stated.of(c.kind)) for j, c in enumerate(statement.claims)]
    said = {"statement": statement.statement, "verb": statement.verb, "contract": statement.contract.value}
    wrong = differences(said, {k: item.get(k) for k in said}, 0.0, 0.0)
    missing = [c["kind"] for c in stated.left if c["kind"] not in statement.nothing]
    wrong += [f"the claim `{k}` of the plan is not in the certificate" for k in missing]
    if wrong:
        evidence = Evidence("the statement is that of the plan", 0.0, float(len(wrong)), False)
        out.append(Found(statement.statement, "compared by digest", evidence, "; ".join(wrong)))
    return out


def _claim(look: _Look, place: Place, statement: StatementRecord, record: ClaimRecord, stated: Mapping[str, Any]) -> Found:
    """One claim, in one of the four states; broken where what is written is not what is found."""
    witness, known = look.witness, family(record.kind)
    says = stands(record.kind, record.detail, look.network)
    if says is None:
        says = digest_of(look.network, record.nodes, record.tensors, look.hashes) == record.digest
    wrong = _life(record, statement, says, len(look.items))
    if record.kind not in ("as stored", "teacher") and not stated and look.items:
        wrong.append("the plan states no such claim")
    values, reference = witness.values.get(place, {}), witness.references.get(place, ())
    kept = Kept(look.network, witness.inputs, values, look.now, reference, look.slack, record.in_force, stated)
    state: State = "compared by digest" if known.by_digest else "measured again"
    why, found = "", _as_written(record)
    try:
        if isinstance(known.again, str):
            raise Unmeasurable(known.again)
        if record.unmeasured:
            raise Unmeasurable(record.unmeasured)
        found = known.again(record.detail, record, kept)
    except Unmeasurable as error:
        why, state = error.why, "not measurable"
        found = error.evidence or found
    except (NetxformError, RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
        wrong.append(f"it cannot be measured: {type(error).__name__}")
    told, seen = _figures(record), _figures(found)
    if type(found.detail) is Detail:  # of a claim that measures its number again and nothing beside it
        del told["detail"], seen["detail"]
    wrong += differences(told, seen, max(look.relative, known.repeats), _least(record, look))
    if record.in_force:
        wrong += [] if found.held and record.held else ["it does not hold"]
    if record.in_force and math.isfinite(record.bound) and record.held != (record.measured <= record.bound):
        wrong.append("its verdict is not what its numbers say")
    if not record.in_force and not record.vacuous:
        state = "superseded"
        why = f"by statement {(record.superseded_by or 0) + 1}" + (f"; {why}" if why else "")
    good = not wrong
    evidence = Evidence(record.claim, found.bound, found.measured, good, found.samples, found.seed, found.dtype, found.detail)
    evidence = _named(evidence, record.kind)
    return Found(statement.statement, state, evidence, why if good else "; ".join(wrong), record.superseded_by)


def _named(evidence: Evidence, kind: str) -> Evidence:
    said = (evidence.claim, evidence.bound, evidence.measured, evidence.held, evidence.samples, evidence.seed, evidence.dtype)
    return Evidence(*said, evidence.detail, kind)


def _life(record: ClaimRecord, statement: StatementRecord, standing: bool, count: int) -> list[str]:
    """What is wrong with what the record says of its state."""
    wrong: list[str] = []
    if record.vacuous:  # nothing was shown: it speaks of nothing, and nothing supersedes it
        whole = not record.in_force and record.superseded_by is None and bool(record.unmeasured) and not record.held
        return [] if whole else ["nothing was shown, and it says more"]
    if record.in_force and not standing:
        wrong.append("what it speaks of has other bits now")
    if not record.in_force and standing:
        wrong.append("it is called superseded, and what it speaks of is as it was")
    by = record.superseded_by
    if record.in_force != (by is None) or (by is not None and not statement.index < by < count):
        wrong.append("it does not say what superseded it")
    if not record.in_force and (record.made is None) != bool(record.unmeasured):
        wrong.append("it does not say what became of it")
    return wrong


def _least(record: ClaimRecord, look: _Look) -> float:
    """Below this, numbers are equal: nothing on the same machine, else what rounding is allowed to be."""
    return look.slack if look.slack == 0.0 or math.isinf(record.bound) else max(look.slack, 1e-5)


def _figures(of: ClaimRecord | Evidence) -> dict[str, Any]:
    """What is compared of a claim."""
    names = ("claim", "bound", "measured", "held", "samples", "seed", "dtype")
    return {n: getattr(of, n) for n in names} | {"detail": plain(of.detail)}


def _as_written(record: ClaimRecord) -> Evidence:
    said = (record.claim, record.bound, record.measured, record.held, record.samples, record.seed, record.dtype)
    return Evidence(*said, record.detail if not isinstance(record.detail, Earlier) else Earlier({}), record.kind)


def _cost(look: _Look) -> Found:
    """Parameters, multiply-adds and bytes counted again; what they were before is compared with the plan."""
    found = Totals(**cost(look.network).totals())
    wrong = differences(plain(look.certificate.cost.after), plain(found), 0.0, 0.0, "after")
    wrong += differences(plain(look.certificate.cost.before), look.witness.plan.get("base"), 0.0, 0.0, "before")
    text = f"{found.params:,} parameters, {found.macs:,} MACs, {found.bytes:,} bytes"
    return Found("cost", "measured again", Evidence(text, 0.0, float(len(wrong)), not wrong), "; ".join(wrong))


def _score(look: _Look, record: ScoreRecord) -> Found:
    """A metric on the samples that are kept."""
    item = look.items[record.statement] if 0 <= record.statement < len(look.items) else {}
    found = score(look.network, look.witness.held_out, record.metric, item)
    wrong: list[str] = []
    by_index = {s.index: s for s in look.certificate.statements}
    own = by_index[record.statement].metrics.get(record.metric) if record.statement in by_index else None
    if own != record.value or look.certificate.metrics.get(record.metric) != record.value:
        wrong.append("the statement, the metrics and this line do not say the same number")
    state: State = "measured again"
    why, measured = "", record.value
    if record.kept is not None and not isinstance(found, str):
        measured = found
        if not close(record.kept, found, look.relative, CLOSE):
            wrong.append(f"on the {record.samples:,} samples kept: written {record.kept:.6g}, found {found:.6g}")
        part = look.witness.held_out.parts[record.metric.partition("_")[0]] if look.witness.held_out is not None else None
        if part is None or (record.samples, record.of) != (len(part.y), part.of):
            wrong.append("it does not speak of the samples that are kept")
        if record.superseded_by is None:
            wrong += _agrees(record, found)
            if record.samples < record.of:
                state, why = (
                    "not measurable",
                    f"{record.samples:,} of {record.of:,} samples are in the folder; on these {found:.4g}",
                )
    else:
        state, why = "not measurable", record.unmeasured or (found if isinstance(found, str) else "")
        if record.kept is not None or not record.unmeasured:
            wrong.append("the samples that it speaks of are not there")
    if record.superseded_by is not None:
        state, why = "superseded", f"by statement {record.superseded_by + 1}" + (f"; {why}" if why else "")
    evidence = Evidence(f"{record.metric.replace('_', ' ')} {record.value:.4g}", math.inf, measured, not wrong, record.samples)
    return Found("metric", state, evidence, "; ".join(wrong) or why, record.superseded_by)


def _agrees(record: ScoreRecord, found: float) -> list[str]:
    """Whether the value can be that of all samples when it is `found` on those that are kept."""
    if record.samples == record.of:
        fine = close(record.value, found, 0.0, CLOSE * max(1.0, abs(found)))
        return [] if fine else [f"written {record.value:.6g}, found {found:.6g}"]
    if not record.metric.endswith("accuracy"):
        return []
    right, left = found * record.samples, record.of - record.samples
    low, high = right / record.of, (right + left) / record.of
    fine = low - CLOSE <= record.value <= high + CLOSE
    return [] if fine else [f"written {record.value:.6g}, and it can only be from {low:.4g} to {high:.4g}"]


def _assert(look: _Look, record: AssertRecord) -> Found:
    """An assert judged again, on what was counted and measured again."""
    items, certificate = look.items, look.certificate
    mine = items[record.index] if 0 <= record.index < len(items) else {}
    wrong = [] if mine.get("assert") == record.text and mine.get("held") else ["the plan has no such assert that held"]
    if mine.get("assert") == record.text and mine.get("held") is False:
        wrong = ["it did not hold when the spec was applied"]
    base, now = Cost(**plain(certificate.cost.before)), cost(look.network)
    costs = [i["after"] for i in items[: record.index] if "after" in i]
    there = costs[-1] if costs else now.totals()
    later = next((k for k, i in enumerate(items) if k > record.index and i.get("after", there) != there), None)
    again = {s.metric: s for s in certificate.scores}
    metrics = {n: s.value for n, s in again.items() if s.kept is not None and s.samples == s.of and s.superseded_by is None}
    state: State = "measured again"
    why, held = "", None
    try:
        (statement,) = parse(record.text).statements
        assert isinstance(statement, ast.Assert)
        held, _ = judge(statement.condition, now, base, metrics)
        if held is None:
            held, _ = judge(statement.condition, now, base, certificate.metrics)
            missing = [
                s
                for n, s in again.items()
                if n not in metrics and n.partition("_")[2] and n in record.text.replace("top1", "accuracy")
            ]
            reason = next((s.unmeasured or "not all of its samples are in the folder" for s in missing), "")
            state, why = "not measurable", reason or "what it speaks of stood so in the middle of the spec"
            held = True if held is None else held
    except (NetxformError, ValueError, AssertionError):
        wrong.append("it is no assert")
    if later is not None:
        state, why = "superseded", f"by statement {later + 1}; it {'holds' if held else 'does not hold'} of what is shipped"
    elif held is False:
        wrong.append("it does not hold of what is shipped")
    evidence = Evidence(record.seen or record.text, 0.0, float(len(wrong)), not wrong)
    return Found(record.text, state, evidence, "; ".join(wrong) or why, later)


def _plan(look: _Look) -> Found:
    """The plan in the folder is the one that the certificate speaks of, and lists the same statements and asserts."""
    certificate, plan = look.certificate, look.witness.plan
    text = json.dumps(plan, sort_keys=True)
    wrong = [] if hashlib.sha256(text.encode()).hexdigest() == certificate.plan else ["its digest is another one"]
    wrong += differences(
        {"subject": certificate.subject, "seed": certificate.seed}, {k: plan.get(k) for k in ("subject", "seed")}, 0, 0
    )
    steps = [k for k, i in enumerate(look.items) if "statement" in i]
    checks = [k for k, i in enumerate(look.items) if "assert" in i]
    if [s.index for s in certificate.statements] != steps or [a.index for a in certificate.asserts] != checks:
        wrong.append("the certificate does not list its statements and asserts")
    if {s.metric for s in certificate.scores} != set(certificate.metrics):
        wrong.append("the certificate does not list its metrics")
    evidence = Evidence("the plan is the certified one", 0.0, float(len(wrong)), not wrong)
    return Found("plan", "compared by digest", evidence, "; ".join(wrong))


def _whole(look: _Look) -> Found:
    """The certificate is the one that the evidence was written with."""
    same = look.certificate.digest() == look.witness.certificate
    evidence = Evidence("the certificate is the one that the evidence belongs to", 0.0, 0.0 if same else 1.0, same)
    return Found("certificate", "compared by digest", evidence, "" if same else "it was changed after it was written")
