"""The Plan: what will be done, settled on the weightless twin, as data that can be shown, saved and compared."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, TypeAlias, cast

from netxform.compiler.check import Spec
from netxform.errors import Span
from netxform.graph.cost import Cost
from netxform.graph.edits import Edit
from netxform.graph.network import Network
from netxform.language.choice import Choice, Values
from netxform.language.claims import Claim
from netxform.language.laws import Contract, Evidence
from netxform.language.verb import Transform
from netxform.syntax import ast


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of the plan: its choice, its Edit, its claims, and the cost of the network around it.

    `estimated`: a choice here or before it is provisional, so that the cost is an estimate. `measured`: what a deep plan
    has measured of its claims. `twin`: the weightless network behind the statement.
    """

    index: int
    text: str
    verb: str
    contract: Contract
    transform: Transform
    choice: Choice[Values]
    edit: Edit
    claims: tuple[Claim, ...]
    before: Cost
    after: Cost
    span: Span
    stage: str | None = None
    estimated: bool = False
    measured: tuple[Evidence, ...] = ()
    twin: Network | None = field(default=None, repr=False, compare=False)

    @property
    def idle(self) -> bool:
        """Whether a statement that should change the function turned out to change nothing."""
        made = self.edit.operations or self.edit.tensors or self.choice.work is not None
        return self.contract in (Contract.BOUNDED, Contract.LOSSY) and not made and not self.choice.provisional

    @property
    def made(self) -> tuple[Claim, ...]:
        """The claims, without those that speak of nothing."""
        return () if self.idle else tuple(c for c in self.claims if not c.nothing)


@dataclass(frozen=True, slots=True)
class Check:
    """An `assert` at its place. `held` is None where only applying can decide."""

    index: int
    condition: ast.Condition
    message: str | None
    text: str
    held: bool | None
    seen: str
    span: Span
    stage: str | None = None


PlanItem: TypeAlias = Step | Check


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole plan. `base` is the cost of the subject as it came; `subject` says what it is."""

    spec: Spec
    subject: str
    front_end: str
    items: tuple[PlanItem, ...]
    base: Cost
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """The statements that are verbs."""
        return tuple(i for i in self.items if isinstance(i, Step))

    @property
    def checks(self) -> tuple[Check, ...]:
        """The asserts."""
        return tuple(i for i in self.items if isinstance(i, Check))

    @property
    def final(self) -> Cost:
        """The cost of the network at the end."""
        return self.steps[-1].after if self.steps else self.base

    def to_dict(self) -> dict[str, object]:
        """The plan as plain data, the form that is saved and hashed."""
        return {
            "format": 2,
            "subject": self.subject,
            "capture": self.front_end,
            "seed": self.spec.seed,
            "params": {n: [_data(p.value), p.origin] for n, p in self.spec.params.items()},
            "base": _data(self.base_totals),
            "items": [_item(i) for i in self.items],
        }

    @property
    def base_totals(self) -> dict[str, int]:
        """Parameters, MACs and bytes of the subject."""
        return self.base.totals()

    def digest(self) -> str:
        """A hash of everything that the plan settles."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def _item(item: PlanItem) -> dict[str, object]:
    if isinstance(item, Check):
        return {"assert": item.text, "held": item.held}
    return {
        "statement": item.text,
        "verb": item.verb,
        "contract": item.contract.value,
        "stage": item.stage,
        "targets": list(item.choice.targets),
        "values": _data(item.choice.values.entries()),
        "provisional": item.choice.provisional,
        "tensors": sorted(item.choice.tensors),
        "estimated": item.estimated,
        "origins": dict(item.choice.origins),
        "removed": list(item.choice.removed),
        "work": _data(item.choice.work),
        "claims": [claim_data(c) for c in item.made],
        "before": item.before.totals(),
        "after": item.after.totals(),
    }


def claim_data(claim: Claim) -> dict[str, Any]:
    """A claim as plain data, with its kind."""
    return {"kind": claim.kind, **_data(claim)}


def _data(value: Any) -> Any:
    """Plain JSON data of nested dataclasses; places in the text are left out."""
    if isinstance(value, Span):
        return None
    if is_dataclass(value) and not isinstance(value, type):
        return {k: _data(v) for k, v in asdict(value).items() if k not in ("span", "comments", "trailing")}
    if isinstance(value, dict):
        return {str(k): _data(v) for k, v in cast("dict[Any, Any]", value).items() if k != "span"}
    if isinstance(value, list | tuple):
        return [_data(v) for v in cast("list[Any]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
