"""A progress bar, by rich; nothing where the output is no terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """One bar at a time, on standard error."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.task = None

    def start(self, title: str, total: int) -> None:
        """A run of `total` steps begins; 0 where that is not known."""
        self.stop()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=4,
        )
        short = title if len(title) <= 60 else title[:57] + "…"
        self.task = self.bar.add_task(short, total=total or None, note="")
        self.bar.start()

    def step(self, text: str, advance: int = 1) -> None:
        """Steps are done."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=advance, note=text)

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
