"""What `verify` found: every claim ends in one of four states, and the last line counts them. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from netxform.language.certificate import written
from netxform.language.laws import Evidence, plain

State = Literal["measured again", "superseded", "compared by digest", "not measurable"]


@dataclass(frozen=True, slots=True)
class Found:
    """One claim: whose it is, how it ended, and the evidence as `verify` has it. `why`: what is wrong with it, why it is not
    measurable, or by what it was superseded.
    """

    what: str
    state: State
    evidence: Evidence
    why: str = ""
    superseded_by: int | None = None

    @property
    def held(self) -> bool:
        """Whether the certificate says the truth here, as far as can be seen."""
        return self.evidence.held


@dataclass(frozen=True)
class Verdict:
    """What `verify` found, claim by claim. `notes`: what holds of all of them."""

    claims: tuple[Found, ...]
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[tuple[str, Evidence], ...]:
        """What was looked at, and the evidence."""
        return tuple((c.what, c.evidence) for c in self.claims)

    @property
    def held(self) -> bool:
        """Whether every claim held."""
        return all(c.held for c in self.claims)

    @property
    def counts(self) -> dict[State, int]:
        """How many claims ended in each state."""
        return {state: sum(c.state == state for c in self.claims) for state in get_args(State)}

    def summary(self) -> str:
        """The last line."""
        broken = sum(not c.held for c in self.claims)
        said = ", ".join(f"{n} {state}" for state, n in self.counts.items()) + " from the folder alone"
        return f"{said}; {broken} broken" if broken else said

    def plain(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "held": self.held,
            "counts": dict(self.counts),
            "notes": list(self.notes),
            "claims": [
                {"what": c.what, "state": c.state, "why": c.why, "superseded by": c.superseded_by, **plain(c.evidence)}
                for c in self.claims
            ],
        }

    def dump(self) -> str:
        """The same as strict JSON."""
        return written(self.plain())


def differences(record: Any, found: Any, relative: float, absolute: float, path: str = "") -> list[str]:
    """Every number, text and list that is written otherwise than it was found: `path: written, found`.

    Numbers may differ by `relative` of the larger one, or by `absolute`. What has no value on either side is not there.
    """
    if isinstance(record, dict) and isinstance(found, dict):
        keys = sorted(str(k) for k in {*record, *found})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        each = (differences(record.get(k), found.get(k), relative, absolute, f"{path}.{k}" if path else k) for k in keys)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        return [line for lines in each for line in lines]
    if isinstance(record, list) and isinstance(found, list) and len(record) == len(found):  # pyright: ignore[reportUnknownArgumentType]
        pairs = enumerate(zip(record, found, strict=True))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return [line for i, (a, b) in pairs for line in differences(a, b, relative, absolute, f"{path}.{i}")]
    if isinstance(record, float) or isinstance(found, float):
        same = isinstance(record, float | int) and isinstance(found, float | int) and close(record, found, relative, absolute)
    else:
        same = type(record) is type(found) and record == found  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return [] if same else [f"{path}: written {_short(record)}, found {_short(found)}"]


def close(a: float, b: float, relative: float, absolute: float) -> bool:
    """Whether two numbers are the same up to that; infinite and NaN ones are where they are alike."""
    if a == b or (a != a and b != b):
        return True
    return math.isfinite(a) and math.isfinite(b) and abs(a - b) <= max(absolute, relative * max(abs(a), abs(b)))


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
