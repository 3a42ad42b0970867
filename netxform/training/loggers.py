"""Listeners that write every epoch down, by the libraries' own writers.

`nx.apply(…, progress=Several(Bar(), TensorBoard("runs")))`. Each is told what `training.protocol.Progress` says; the names in a
log are those of the history (`train_loss`, `val_f1`, …), behind the number of the training where there are several.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netxform.errors import fail
from netxform.training.protocol import Epoch, Progress, Quiet


class Several:
    """What is told goes to each of these, in order."""

    def __init__(self, *listeners: Progress) -> None:
        self.listeners = listeners

    def start(self, title: str, total: int) -> None:
        """A run begins."""
        for one in self.listeners:
            one.start(title, total)

    def step(self, text: str, advance: int = 1) -> None:
        """Steps are done."""
        for one in self.listeners:
            one.step(text, advance)

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is over."""
        for one in self.listeners:
            one.epoch(epoch)

    def stop(self) -> None:
        """The run is over."""
        for one in self.listeners:
            one.stop()


class Scalars(Quiet):
    """The base of the loggers: `write` is given the title of the training, its numbers by name, and the epoch."""

    def __init__(self) -> None:
        self.title, self.number = "", 0
        self._epochs = 0

    def start(self, title: str, total: int) -> None:
        """A run begins."""
        self.title, self._epochs = title, 0

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is over."""
        if not self._epochs:
            self.number += 1
        self._epochs += 1
        prefix = f"{self.number}/" if self.number > 1 else ""
        self.write(self.title, {f"{prefix}{k}": v for k, v in epoch.row.items() if k != "epoch"}, epoch.number)

    def write(self, title: str, row: Mapping[str, float], epoch: int) -> None:
        """Write the numbers of an epoch down."""
        raise NotImplementedError


class CSV(Quiet):
    """A file with a line for every number: statement, epoch, name, value. It is written anew."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.title = Path(path), ""
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerow(("statement", "epoch", "name", "value"))

    def start(self, title: str, total: int) -> None:
        """A run begins."""
        self.title = title

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is over."""
        with self.path.open("a", newline="") as file:
            lines = ((self.title, epoch.number, k, v) for k, v in epoch.row.items() if k != "epoch")
            csv.writer(file).writerows(lines)


class TensorBoard(Scalars):
    """Scalars for TensorBoard, in a folder. Raises NetxformError X0814 where it is not installed."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self._writer = _library("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder))

    def write(self, title: str, row: Mapping[str, float], epoch: int) -> None:
        """Scalars by their names, and the statement as a text."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, epoch)
        if epoch == 1:
            self._writer.add_text("statement", title, self.number)
        self._writer.flush()


class MLflow(Scalars):
    """Metrics of the active run of MLflow. Raises NetxformError X0814 where it is not installed."""

    def __init__(self) -> None:
        super().__init__()
        self._library = _library("mlflow", "mlflow")

    def write(self, title: str, row: Mapping[str, float], epoch: int) -> None:
        """Metrics by their names."""
        self._library.log_metrics(dict(row), step=epoch)


class WandB(Scalars):
    """What `run` (of `wandb.init(…)`) logs, or the active run. Raises NetxformError X0814 where it is not installed."""

    def __init__(self, run: Any = None) -> None:
        super().__init__()
        self._run = run if run is not None else _library("wandb", "wandb")

    def write(self, title: str, row: Mapping[str, float], epoch: int) -> None:
        """Numbers by their names."""
        self._run.log({**row, "epoch": epoch})


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise fail("X0814", f"`{package}` is not installed", helps=(f"pip install {package}",)) from None
