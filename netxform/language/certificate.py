"""The certificate: what was promised and what was measured, statement by statement, as data with JSON both ways.

Certificate ─plain→ dict        Certificate ─dump→ text ─load→ Certificate

The text is strict JSON: a number that is not finite is one of the texts "inf", "-inf", "nan". No torch here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec.structs import replace

from netxform.errors import fail
from netxform.language.laws import Contract, Detail, Evidence, Harm, Real, plain

FORMAT = 2
_NOT_FINITE = ("inf", "-inf", "nan")

if TYPE_CHECKING:
    AnyDetail = Detail
else:
    AnyDetail = Any  # which record it is, the kind of the claim beside it says


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the certificate."""


class ClaimRecord(_Record, frozen=True):
    """One claim and its evidence. `measured` is in the unit of `bound`.

    `in_force`: the claim speaks of the network as it is at the end, and can be measured again; `tensors`: what it speaks of
    by name, if it does.
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

    @classmethod
    def of(cls, e: Evidence, tensors: tuple[str, ...]) -> ClaimRecord:
        """The record of a claim in force."""
        return cls(e.kind, e.claim, e.bound, e.measured, e.held, e.samples, e.seed, e.dtype, e.detail, True, tensors)


class StatementRecord(_Record, frozen=True):
    """One statement. `chosen`: what was settled on weights or data, in words. `warnings`: what a reader is told. `stage`: the
    stage that it stands in.
    """

    index: int
    statement: str
    verb: str
    contract: Contract
    claims: tuple[ClaimRecord, ...]
    metrics: dict[str, Real]
    chosen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
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


class HeldOutRecord(_Record, frozen=True):
    """How many of the samples that travel with a bundle the network has right."""

    samples: int
    right: int


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
    were taken in part.
    """

    format: int
    subject: str
    plan: str
    seed: int
    cost: CostRecord
    statements: tuple[StatementRecord, ...]
    metrics: dict[str, Real]
    comparisons: tuple[ComparisonRecord, ...]
    held_out: HeldOutRecord | None
    versions: dict[str, str]
    files: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    tensors: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    warnings: tuple[WarningRecord, ...] = ()
    plan_warnings: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether every claim held."""
        return all(c.held for s in self.statements for c in s.claims)

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
    """Read a certificate of a bundle; `detail_of` gives the detail of a kind of claim. Format 1 is read as well.

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
        if edition == 1:
            given = _second(given)
        else:
            json.loads(text, parse_constant=_refused)
        bare = msgspec.convert(given, Certificate, dec_hook=_number)
        if msgspec.UNSET in (bare.files, bare.tensors):
            raise msgspec.ValidationError("Object missing required field `files` or `tensors`")
        statements = tuple(replace(s, claims=tuple(_typed(c, detail_of) for c in s.claims)) for s in bare.statements)
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


def _second(first: Any) -> Any:
    """Format 1 in format 2: there, numbers could be the words Infinity and NaN, and what a teacher did had no kind."""
    statements = [s | {"claims": [c | {"kind": c["kind"] or "teacher"} for c in s["claims"]]} for s in first["statements"]]
    return first | {"format": FORMAT, "statements": statements}
