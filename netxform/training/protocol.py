"""What is told of a training while it runs: to a display, a log, or an object of your own.

`nx.apply(…, progress=THING)` tells THING: any object with the four methods of `Progress`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch that is over: `number` of `of`.

    `row`: `train_loss`, `lr` and, where there is validation data, `val_loss` and every metric (`val_accuracy`, …), as in the
    history. `by`: the metric that decides which epoch is the best, `best` that epoch so far. `left`: seconds to the last epoch.
    """

    number: int
    of: int
    row: Mapping[str, float]
    by: str
    best: int | None
    left: float

    def line(self, width: int = 80) -> str:
        """The epoch in one line of at most `width` characters; what matters least is left out first."""
        row = self.row
        parts = [(0, f"epoch {self.number:>{len(str(self.of))}}/{self.of}"), (1, f"loss {row['train_loss']:.4g}")]
        parts += [(1, f"val loss {row['val_loss']:.4g}")] if "val_loss" in row else []
        shown = [k for k in row if k.startswith("val_") and k != "val_loss"]
        shown.sort(key=lambda k: k != self.by)
        parts += [(3 + i, f"{k.removeprefix('val_').replace('_', ' ')} {row[k]:.4g}") for i, k in enumerate(shown)]
        parts += [(2, f"best {self.best}")] if self.best is not None else []
        parts += [(99, f"lr {row['lr']:.2g}")] if "lr" in row else []
        if self.number < self.of:
            minutes, seconds = divmod(round(self.left), 60)
            parts.append((98, f"{minutes}:{seconds:02} left"))
        while len(parts) > 1 and len("  ".join(t for _, t in parts)) > width:
            parts.remove(max(parts, key=lambda p: p[0]))
        return "  ".join(text for _, text in parts)[:width]


class Progress(Protocol):
    """What is told of a run: `start`, then `step` after every step and `epoch` after every epoch, then `stop`."""

    def start(self, title: str, total: int) -> None:
        """A run of `total` steps begins; 0 where that is not known. `title`: the statement."""
        ...

    def step(self, text: str, advance: int = 1) -> None:
        """Steps are done; `text` says how it stands."""
        ...

    def epoch(self, epoch: Epoch) -> None:
        """An epoch of a training is over, and was measured."""
        ...

    def stop(self) -> None:
        """The run is over."""
        ...


class Quiet:
    """No display; a base for objects that listen to a part of it."""

    def start(self, title: str, total: int) -> None:
        """Nothing."""

    def step(self, text: str, advance: int = 1) -> None:
        """Nothing."""

    def epoch(self, epoch: Epoch) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""
