"""Contracts and the evidence for them: what a verb promises, what was measured, and whether it held."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Contract(StrEnum):
    """What a statement promises about the function that the network computes."""

    EXACT = "exact"
    BOUNDED = "bounded"
    LOSSY = "lossy"
    TRAINING = "training"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured claim. `measured` is in the unit of `bound`; `held` is the verdict.

    `samples` inputs were drawn under `seed` in `dtype`; `detail` names what else belongs to the measurement.
    """

    claim: str
    bound: float
    measured: float
    held: bool
    samples: int = 0
    seed: int = 0
    dtype: str = "float32"
    detail: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Entry:
    """What the certificate says of one statement."""

    index: int
    text: str
    verb: str
    contract: Contract
    evidence: tuple[Evidence, ...]
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    changed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether every claim of the statement held."""
        return all(e.held for e in self.evidence)
