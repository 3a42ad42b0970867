"""Contracts and the evidence for them: what a verb promises, what was measured, and whether it held. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, cast

import msgspec

if TYPE_CHECKING:
    Real = float
else:

    class Real(float):
        """A number of the certificate, infinite and NaN among them: JSON has no word for those, so they are texts there."""


class Contract(StrEnum):
    """What a statement promises about the function that the network computes."""

    EXACT = "exact"
    BOUNDED = "bounded"
    LOSSY = "lossy"
    TRAINING = "training"
    NONE = "none"


def plain(value: Any) -> Any:
    """Records as plain data: dicts, lists, texts and numbers, also such as are not finite."""
    return _lists(msgspec.to_builtins(value, enc_hook=float))


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lists(v) for k, v in cast("dict[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_lists(v) for v in cast("list[Any]", value)]
    return value


def _spaced(name: str) -> str:
    return name.replace("_", " ")


class Detail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename=_spaced):
    """What belongs to a measurement beside its number: a frozen record for each kind of claim, empty where there is nothing.

    A field `as_stored` is called `as stored` in the certificate, and `detail["as stored"]` reads it. What has its default is
    left out there. Numbers that may be infinite are declared as `Real`.
    """

    # whether a report shows the number and its bound also where the claim held
    sized: ClassVar[bool] = False

    def plain(self) -> dict[str, object]:
        """The record as plain data, under the names that the certificate uses."""
        return plain(self)

    def __contains__(self, key: object) -> bool:
        return key in self.plain()

    def __getitem__(self, key: str) -> Any:
        return self.plain()[key]

    def found(self, measured: float, bound: float) -> str:
        """The measured number for a reader, beside its bound where there is one."""
        return f"{measured:.3g}" + ("" if bound == float("inf") else f", allowed {bound:.3g}")

    def harms(self, measured: float) -> tuple[Harm, ...]:
        """What a reader is warned of although the claim holds."""
        return ()

    def metrics_after(self) -> dict[str, float]:
        """What was measured on the way of the network as it is now, and an `assert` may ask for, by name."""
        return {}

    def metrics_before(self) -> dict[str, float]:
        """Metrics of the network before the statement, under the names that a training gives them (`test_accuracy`)."""
        return {}


class Harm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a statement cost although its contract holds: in words, with the figures that say so.

    `about`: what became worse. `suggestion`: an `assert` that would refuse it. `made_good`: a later training on the same data
    brought its metric back to within a point of what it was before.
    """

    about: str
    text: str
    figures: dict[str, Real]
    suggestion: str
    made_good: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured claim. `measured` is in the unit of `bound`; `held` is the verdict.

    `samples` inputs were measured on in `dtype`; `probes` says how many of them are given, of the data, varied or drawn (under
    `seed`), where the claim is about the network's values. `vacuous`: why the measurement shows nothing; such a claim is not
    held. `detail` says what else belongs to the measurement; `kind` is that of the claim.
    """

    claim: str
    bound: float
    measured: float
    held: bool
    samples: int = 0
    seed: int = 0
    dtype: str = "float32"
    detail: Detail = field(default_factory=Detail)
    kind: str = ""
    probes: str = ""
    vacuous: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one statement when it is done. `nothing`: kinds of claims that would have spoken of nothing. `settled`:
    what training settled on the data, in words.
    """

    index: int
    text: str
    verb: str
    contract: Contract
    evidence: tuple[Evidence, ...]
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    changed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    harms: tuple[Harm, ...] = ()
    nothing: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()
    stage: str | None = None

    @property
    def held(self) -> bool:
        """Whether every claim of the statement held."""
        return all(e.held for e in self.evidence)
