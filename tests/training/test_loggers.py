"""What is written down is the history, whoever writes."""

from __future__ import annotations

import csv
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netxform as nx
from netxform.training.loggers import CSV, MLflow, Several, TensorBoard, WandB

X, Y = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
TEXT = "train ** for 2epochs metrics=f1\ntrain ** for 1epochs"


class Written:
    """A writer, a library and a run at once: it keeps what it is given."""

    def __init__(self, *where: object) -> None:
        self.rows: dict[tuple[str, int], float] = {}

    def add_scalar(self, name: str, value: float, epoch: int) -> None:
        self.rows[name, epoch] = value

    def add_text(self, *given: object) -> None: ...

    def flush(self) -> None: ...

    def log_metrics(self, row: dict[str, float], step: int) -> None:
        self.rows |= {(k, step): v for k, v in row.items()}

    def log(self, row: dict[str, float]) -> None:
        step = int(row["epoch"])
        self.rows |= {(k, step): v for k, v in row.items() if k != "epoch"}


def test_loggers_write_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, flow, run = Written(), Written(), Written()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=lambda folder: board))
    monkeypatch.setitem(sys.modules, "mlflow", flow)
    listeners: Any = Several(CSV(tmp_path / "log.csv"), TensorBoard(tmp_path), MLflow(), WandB(run))
    torch.manual_seed(0)
    result = nx.apply(TEXT, model=nn.Sequential(nn.Linear(4, 2)), example_inputs=X[:1], data=(X, Y), progress=listeners)
    wanted = {
        (f"{'' if i == 0 else f'{i + 1}/'}{name}", int(row["epoch"])): value
        for i, (_, history) in enumerate(result.histories)
        for row in history.rows
        for name, value in row.items()
        if name != "epoch"
    }
    assert len(wanted) > 10 and board.rows == flow.rows == run.rows == wanted
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(wanted)
    assert [float(r["value"]) for r in rows] == list(wanted.values())
    assert {r["statement"] for r in rows} == {"train ** for 2epochs metrics=f1", "train ** for 1epochs"}


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(nx.NetxformError, match="pip install mlflow"):
        MLflow()
