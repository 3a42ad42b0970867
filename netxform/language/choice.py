"""What a verb settles on the twin, and what the compiler may know of it without knowing the verb. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Choice:
    """What `resolve` settled: shown in the plan, kept in the lock, enough for a replay without weights or data.

    `targets`: modules or tensors concerned. `values`: what was chosen, as plain data. `origins`: for each value that
    the spec did not state, where it came from. `defines`: selections that later statements may name. `removed`: modules
    that are gone afterwards. `work`: what training or fitting is asked for (see `objective`). `warnings`: what a
    reader of the plan should know. `provisional`: what the twin could not decide, in words, where something is left open;
    a choice that was settled on weights and data leaves nothing open. `tensors`: what was computed while settling, by the
    new tensor's name; the plan keeps their names alone. `metrics`: what was measured of the final network while settling.
    """

    targets: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    origins: dict[str, str] = field(default_factory=dict[str, str])
    defines: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    removed: tuple[str, ...] = ()
    work: Any = None
    warnings: tuple[str, ...] = ()
    provisional: str = ""
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"], compare=False, repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict[str, float], compare=False)

    @property
    def trains(self) -> bool:
        """Whether something is trained when the statement is carried out: as its work, or between rounds."""
        from netxform.language.work import Training

        return isinstance(self.work, Training) or bool(self.values.get("recover"))
