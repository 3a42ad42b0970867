"""Killed and resumed: with workers, several inputs, random transforms and an average of weights, the same bytes come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import netxform as nx

Y = torch.arange(48) % 3


class Pictures(Dataset[Any]):
    """Samples of two inputs that are drawn anew each time."""

    targets = Y

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> Any:
        return {"left": torch.randn(4) + Y[index], "right": torch.rand(3), "labels": int(Y[index])}


class Two(nn.Module):
    """Two inputs, a norm with statistics, dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.n = nn.Linear(4, 8), nn.Linear(3, 8), nn.BatchNorm1d(16)
        self.drop, self.h = nn.Dropout(0.2), nn.Linear(16, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.h(self.drop(torch.relu(self.n(torch.cat([self.a(left), self.b(right)], 1)))))


class Stop:
    """A display that stops the run after so many epochs."""

    def __init__(self, after: int) -> None:
        self.after, self.seen = after, 0

    def start(self, title: str, total: int) -> None:
        """Nothing."""

    def step(self, text: str, count: int = 1) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""

    def epoch(self, epoch: Any) -> None:
        """One more."""
        self.seen += 1
        if self.seen == self.after:
            raise KeyboardInterrupt


TEXT = "train ** for 4epochs on data batch=8 ema=0.9 using adamw(lr=1e-2) patience=9"


@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_was_killed_ends_with_the_same_bytes(after: int, tmp_path: Path) -> None:
    def run(out: Path, workers: int, **more: Any) -> Any:
        return nx.apply(TEXT, model=Two(), data=nx.dataset(Pictures(), workers=workers), out=out, **more)

    whole = run(tmp_path / "whole", 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 2, progress=Stop(after))
    again = run(tmp_path / "cut", 0, resume=True)
    for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert whole.metrics == again.metrics
