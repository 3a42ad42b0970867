"""What a verb settles on the twin, and what the compiler may know of it without knowing the verb. No torch here.

A verb declares its values as a frozen dataclass of its own; the plan writes them under their keys, a reader is shown their
lines, and nobody but the verb asks for one of them by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from netxform.language.work import Training, Work

if TYPE_CHECKING:
    from torch import Tensor


# what is said of a field of a verb's values: `field(metadata=HIDDEN | IF_KNOWN)`
HIDDEN: dict[str, object] = {"shown": False}
"""A reader of the plan does not see it."""
IF_KNOWN: dict[str, object] = {"if_known": True}
"""Where it is None, the plan does not mention it."""
AS_TEXT: dict[str, object] = {"text": True}
"""The plan holds it as a text."""


def named(key: str) -> dict[str, object]:
    """Its key in the plan, where that is not the field's name with spaces."""
    return {"key": key}


@dataclass(frozen=True)
class Values:
    """What a verb chose, as plain data: the base of every verb's own dataclass, and enough for a verb that chooses nothing."""

    def entries(self) -> dict[str, object]:
        """Every value by its key, as the plan keeps and hashes it."""
        return {k: v for k, v, _ in self._entries()}

    def lines(self) -> tuple[str, ...]:
        """What a reader of the plan is told, line by line: unless a verb says it better, all that is shown, in one line."""
        told = [f"{k} {_text(v)}" for k, v, shown in self._entries() if shown and v not in (0.0, None)]
        return (", ".join(told),) if told else ()

    @property
    def recorded(self) -> tuple[str, ...]:
        """What was chosen on weights or data, in words that the certificate keeps."""
        return ()

    @property
    def trains(self) -> bool:
        """Whether something is trained on the way to these values."""
        return False

    def _entries(self) -> list[tuple[str, object, bool]]:
        out: list[tuple[str, object, bool]] = []
        for one in dataclasses.fields(self):
            held: object = getattr(self, one.name)
            how = one.metadata
            if held is None and how.get("if_known"):
                continue
            name = str(how.get("key", one.name.replace("_", " ")))
            out.append((name, str(held) if how.get("text") else held, bool(how.get("shown", True))))
        return out


def _text(value_: object) -> str:
    """A value in words: texts one behind the other, other lists in brackets."""
    if isinstance(value_, list | tuple):
        items = list(cast("Sequence[object]", value_))
        return ", ".join(map(str, items)) if all(isinstance(v, str) for v in items) else str(items)
    return str(value_)


@dataclass(frozen=True)
class Part:
    """So many of so many."""

    count: int
    of: int

    def __str__(self) -> str:
        return f"{self.count} of {self.of}"


V = TypeVar("V", bound=Values, covariant=True)
W = TypeVar("W", bound=Values)


@dataclass(frozen=True)
class Choice(Generic[V]):
    """What `resolve` settled: shown in the plan, kept in the lock, enough for a replay without weights or data.

    `values`: what was chosen, in the verb's own dataclass. `targets`: modules or tensors concerned. `origins`: for each value
    that the spec did not state, where it came from. `defines`: selections that later statements may name. `removed`: modules
    that are gone afterwards. `work`: what training or fitting is asked for. `warnings`: what a reader of the plan should
    know. `provisional`: what the twin could not decide, in words, where something is left open; a choice that was settled on
    weights and data leaves nothing open. `tensors`: what was computed while settling, by the new tensor's name; the plan
    keeps their names alone. `metrics`: what was measured of the final network while settling.
    """

    values: V
    targets: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict[str, str])
    defines: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    removed: tuple[str, ...] = ()
    work: Work | None = None
    warnings: tuple[str, ...] = ()
    provisional: str = ""
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"], compare=False, repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict[str, float], compare=False)

    @property
    def trains(self) -> bool:
        """Whether something is trained when the statement is carried out: as its work, or on the way to its values."""
        return isinstance(self.work, Training) or self.values.trains

    def settled(
        self,
        values: W,
        tensors: Mapping[str, Tensor] | None = None,
        metrics: Mapping[str, float] | None = None,
        warnings: Sequence[str] = (),
    ) -> Choice[W]:
        """The choice made final: these values, nothing left open, and what is to be said beside what was said before."""
        said = (*self.warnings, *warnings)
        return Choice(
            values, self.targets, self.origins, self.defines, self.removed, self.work, said, "", tensors or {}, metrics or {}
        )
