"""A line for every epoch, and below it a progress bar, by rich; plain lines alone where the output is no terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from netxform.training.protocol import Epoch

_TITLE = 24


class Bar:
    """One bar at a time, on standard error (or `console`); what was said of epochs stays."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bar: Progress | None = None
        self.task = None
        self.title = ""

    def start(self, title: str, total: int) -> None:
        """A run of `total` steps begins; 0 where that is not known."""
        self.stop()
        self.title = " ".join(title.split())
        if not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            refresh_per_second=4,
        )
        self.task = self.bar.add_task(escape(_cut(self.title, _TITLE)), total=total or None, note="")
        self.bar.start()

    def step(self, text: str, advance: int = 1) -> None:
        """Steps are done."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=advance, note=_cut(text, 14))

    def epoch(self, epoch: Epoch) -> None:
        """A line that stays; before the first, what is trained."""
        width = self.console.width if self.console.is_terminal else 120
        if self.title:
            self._say(_cut(self.title, width))
            self.title = ""
        self._say(f"  {epoch.line(width - 2)}")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
