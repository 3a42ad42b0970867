"""The certificate: what was promised and what was measured, statement by statement, as data with JSON both ways.

Certificate ─plain→ dict        Certificate ─dump→ text ─load→ Certificate

The text is strict JSON: a number that is not finite is one of the texts "inf", "-inf", "nan". No torch here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec.structs import replace

from netxform.errors import fail
from netxform.language.laws import Contract, Detail, Evidence, Harm, Real, plain

FORMAT = 3
_NOT_FINITE = ("inf", "-inf", "nan")

if TYPE_CHECKING:
    AnyDetail = Detail
else:
    AnyDetail = Any  # which record it is, the kind of the claim beside it says


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the certificate."""


class MadeRecord(_Record, frozen=True):
    """What was measured of a claim when it was made, and whether it held then."""

    measured: Real
    held: bool


class ClaimRecord(_Record, frozen=True):
    """One claim and its evidence. `measured` is in the unit of `bound`.

    `in_force`: the claim speaks of the network as it is at the end. Else `superseded_by` is the index of the statement that
    changed what it speaks of; `measured` and `held` are then those of the network at the end, and `made` those of when the
    claim was made; or `unmeasured` says why it was not measured again. `digest`: of what it speaks of, as that was when the
    claim was made; `nodes` and `tensors` name it (all there is where both are empty).
    `probes`: how many samples are given, of the data, varied or drawn; `vacuous`: why nothing was shown, it is not held then.
    """

    kind: str
    claim: str
    bound: Real
    measured: Real
    held: bool
    samples: int
    seed: int
    dtype: str
    detail: AnyDetail
    in_force: bool
    tensors: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    digest: str = ""
    superseded_by: int | None = None
    made: MadeRecord | None = None
    unmeasured: str = ""
    probes: str = ""
    vacuous: str = ""

    @classmethod
    def of(cls, e: Evidence, tensors: tuple[str, ...] = (), nodes: tuple[str, ...] = (), digest: str = "") -> ClaimRecord:
        """The record of a claim in force."""
        said = (e.kind, e.claim, e.bound, e.measured, e.held, e.samples, e.seed, e.dtype, e.detail)
        return cls(*said, True, tensors, nodes, digest, probes=e.probes, vacuous=e.vacuous)

    @property
    def kept(self) -> bool:
        """Whether the claim held when it was made."""
        return self.held if self.made is None else self.made.held


class Earlier(Detail, frozen=True):
    """The detail of a claim in a certificate of an earlier format, as it was written there."""

    fields: dict[str, Any]


class StatementRecord(_Record, frozen=True):
    """One statement. `chosen`: what was settled on weights or data, in words. `warnings`: what a reader is told. `nothing`: the
    kinds of claims that would have spoken of nothing, and so were not made. `stage`: the stage that it stands in.
    """

    index: int
    statement: str
    verb: str
    contract: Contract
    claims: tuple[ClaimRecord, ...]
    metrics: dict[str, Real]
    chosen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    nothing: tuple[str, ...] = ()
    stage: str | None = None


class Totals(_Record, frozen=True):
    """The cost of a network: parameters, multiply-adds for one sample, bytes of its tensors."""

    params: int
    macs: int
    bytes: int


class CostRecord(_Record, frozen=True):
    """The cost of the subject and of the result."""

    before: Totals
    after: Totals


class ComparisonRecord(_Record, frozen=True):
    """The spec as written beside its variants: for each the metric of every seed, the mean and its standard error."""

    statement: str
    metric: str
    seeds: tuple[int, ...]
    runs: dict[str, tuple[Real, ...]]
    mean: dict[str, Real]
    standard_error: dict[str, Real]


class ScoreRecord(_Record, frozen=True):
    """A metric as it stood last: its `value`, and the index of the `statement` that measured it.

    `kept`: what it is for the network at the end on those `samples` that travel with the bundle, of the `of` that it was
    measured on; or `unmeasured` says why it is not measured on them. `superseded_by`: the statement that changed the function.
    """

    metric: str
    value: Real
    statement: int
    samples: int = 0
    of: int = 0
    kept: Real | None = None
    superseded_by: int | None = None
    unmeasured: str = ""


class AssertRecord(_Record, frozen=True):
    """An assert that held, and what was seen when it did."""

    index: int
    text: str
    seen: str


class WarningRecord(_Record, frozen=True):
    """A statement that cost something although its contract holds: what became worse, in words and as figures.

    `suggestion`: an `assert` that would have refused it. `made_good`: a later training on the same data brought its metric
    back to within a point of what it was.
    """

    index: int
    statement: str
    about: str
    text: str
    figures: dict[str, Real]
    suggestion: str = ""
    made_good: bool = False

    @classmethod
    def of(cls, index: int, statement: str, harm: Harm) -> WarningRecord:
        """The record of a harm."""
        return cls(index, statement, harm.about, harm.text, harm.figures, harm.suggestion, harm.made_good)


class Certificate(_Record, frozen=True):
    """The whole certificate. `plan` is the digest of the plan; `files` and `tensors` are hashes, once it is in a bundle.

    `warnings`: what became worse although every contract holds. `plan_warnings`: what the plan warned of, such as weights that
    were taken in part, or what `train()` loses. `notes`: decisions that the graph holds one branch of, and what else was done.
    """

    format: int
    subject: str
    plan: str
    seed: int
    cost: CostRecord
    statements: tuple[StatementRecord, ...]
    metrics: dict[str, Real]
    comparisons: tuple[ComparisonRecord, ...]
    scores: tuple[ScoreRecord, ...]
    asserts: tuple[AssertRecord, ...]
    versions: dict[str, str]
    files: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    tensors: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    warnings: tuple[WarningRecord, ...] = ()
    plan_warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether every claim held when it was made, and those in force do."""
        return all(c.kept for s in self.statements for c in s.claims)

    def digest(self) -> str:
        """A hash of everything but the hashes of files and tensors: what is written here cannot change without it."""
        bare = replace(self, files=msgspec.UNSET, tensors=msgspec.UNSET)
        return hashlib.sha256(bare.dump().encode()).hexdigest()

    def plain(self) -> dict[str, object]:
        """The certificate as plain data; numbers are numbers, also where they are not finite."""
        return plain(self)

    def dump(self) -> str:
        """The certificate as strict JSON."""
        return written(self.plain())


def written(value: Any) -> str:
    """Plain data as strict JSON."""
    return json.dumps(_written(value), indent=1, sort_keys=True, allow_nan=False) + "\n"


def load(text: str, detail_of: Callable[[str], type[Detail]]) -> Certificate:
    """Read a certificate of a bundle; `detail_of` gives the detail of a kind of claim. Formats 1 and 2 are read as well:
    their claims have a detail `Earlier`.

    Raises NetxformError X0822 (not a certificate), X0827 (of a later format), and what `detail_of` raises.
    """
    try:
        given: Any = json.loads(text)
        edition = given["format"]
        if not isinstance(edition, int) or isinstance(edition, bool):
            raise TypeError("`format` is no number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise fail("X0822", f"the bundle is damaged: its certificate cannot be read: {error}") from error
    if not 1 <= edition <= FORMAT:
        raise fail("X0827", f"the certificate has format {edition}", helps=(f"this version reads 1 to {FORMAT}; update it",))
    try:
        if edition > 1:
            json.loads(text, parse_constant=_refused)
        if edition < FORMAT:
            given = _third(given)
        bare = msgspec.convert(given, Certificate, dec_hook=_number)
        if msgspec.UNSET in (bare.files, bare.tensors):
            raise msgspec.ValidationError("Object missing required field `files` or `tensors`")
        typed = _typed if edition == FORMAT else _earlier
        statements = tuple(replace(s, claims=tuple(typed(c, detail_of) for c in s.claims)) for s in bare.statements)
    except (msgspec.ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise fail("X0822", f"the bundle is damaged: its certificate is not one: {error}") from error
    return replace(bare, statements=statements)


def _typed(claim: ClaimRecord, detail_of: Callable[[str], type[Detail]]) -> ClaimRecord:
    return replace(claim, detail=msgspec.convert(claim.detail, detail_of(claim.kind), dec_hook=_number))


def _number(wanted: type, value: Any) -> Any:
    """A number, or one of the three texts that stand for what is not finite."""
    if wanted is Real and ((isinstance(value, int | float) and not isinstance(value, bool)) or value in _NOT_FINITE):
        return Real(value)
    raise ValueError("Expected a number")


def _written(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else "nan" if value != value else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {k: _written(v) for k, v in cast("dict[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_written(v) for v in cast("list[Any]", value)]
    return value


def _refused(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _third(old: Any) -> Any:
    """Formats 1 and 2 in format 3: no claim says what it speaks of, and what a teacher did had no kind in format 1."""
    statements = [s | {"claims": [c | {"kind": c["kind"] or "teacher"} for c in s["claims"]]} for s in old["statements"]]
    kept = {k: v for k, v in old.items() if k != "held_out"}
    return kept | {"statements": statements, "scores": [], "asserts": []}


def _earlier(claim: ClaimRecord, detail_of: Callable[[str], type[Detail]]) -> ClaimRecord:
    detail_of(claim.kind)
    return replace(claim, detail=Earlier(dict(cast("dict[str, Any]", claim.detail))))
