"""The claim that a network has as many parameters as before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import Case, Kept, Measured
from netxform.graph.network import numbers
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import Claim
from netxform.language.laws import Detail, Evidence


@dataclass(frozen=True, slots=True)
class SameSize(Claim):
    """Claim: the network has as many parameters as before."""

    kind: ClassVar[str] = "demo same size"


class SizeDetail(Detail, frozen=True):
    """How many parameters there were."""

    parameters: int


def _evidence(before: int, after: int) -> Evidence:
    moved = float(abs(after - before))
    return Evidence("as many parameters", 0.0, moved, moved == 0, detail=SizeDetail(before))


def _again(detail: SizeDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    return _evidence(detail.parameters, numbers(kept.network.module))


@measures(SameSize, SizeDetail, again=_again)
def same_size(claim: SameSize, case: Case) -> Measured:
    """Count before and after."""
    return Measured(_evidence(numbers(case.before.module), numbers(case.after.module)))
