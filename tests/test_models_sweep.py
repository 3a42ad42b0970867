"""The sweep over other libraries' models: what its cells say, and six fast models through the command itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import benchmarks.machine
from benchmarks import models_sweep
from benchmarks.sweep_row import Row, named
from benchmarks.sweep_rows import rows
from benchmarks.sweep_steps import NotAsked, Subject, Wrong, gap, judged
from netxform.errors import fail

FAST = (
    "timm/test_resnet,timm/test_efficientnet,timm/test_convnext,timm/test_vit,"
    "torchvision/squeezenet1_1,torchvision/shufflenet_v2_x0_5"
)


def row(build: Callable[[], Any], **more: Any) -> Row:
    return Row("own", "model", build, lambda b, n, _: (torch.randn(b, 8),), **more)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def test_there_are_enough_models_of_enough_libraries_each_once() -> None:
    keys = [r.key for r in rows()]
    assert len(keys) == len(set(keys)) >= 150
    assert len({r.library for r in rows()}) >= 12
    assert sum(r.library == "transformers" for r in rows()) >= 35


def test_six_models_are_right_in_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_sweep, "RESULTS", tmp_path)
    monkeypatch.setattr(benchmarks.machine, "RESULTS", tmp_path)
    monkeypatch.chdir(Path(benchmarks.__file__).parent.parent)
    asked = ["run", "--only", FAST, "--steps", "base,freeze,widen,prune", "--result", "six", "--limit-s", "240"]
    models_sweep.main(asked)
    record = (tmp_path / "six.jsonl").read_text()
    assert len(record.splitlines()) == 6
    rows_ = models_sweep.load(tmp_path / "six.jsonl")
    bad = [(key, name, c) for key, cells in rows_.items() for name, c in cells.items() if c["cell"] not in ("ok", "–")]
    assert not bad
    assert json.loads((tmp_path / "six.json").read_text())["cells"]["ok"] >= 50
    assert "| timm/test_vit | ok |" in (tmp_path / "six.md").read_text()
    models_sweep.main(asked)  # what is done is not done again
    assert (tmp_path / "six.jsonl").read_text() == record


def test_a_difference_is_wrong() -> None:
    subject = Subject(row(small))
    with torch.no_grad():
        subject.network.module.get_submodule("0").weight.mul_(2)
    cells = [models_sweep.attempt(subject, name, 60.0)["cell"] for name in ("eval", "batch", "train")]
    assert cells == ["wrong"] * 3


def test_what_is_compared() -> None:
    x = torch.tensor([1.0, float("nan"), float("inf")])
    assert gap({"a": x, "b": [x]}, (x.clone(), x)) == 0.0
    assert gap(torch.tensor([2.0]), torch.tensor([1.0])) == 0.5
    for other in (torch.tensor([1.0, 2.0, float("inf")]), x[:2], x.double()):
        with pytest.raises(Wrong):
            gap(x, other)
    with pytest.raises(Wrong):
        gap(torch.tensor([1]), torch.tensor([2]))


@pytest.mark.parametrize(
    ("error", "cell"),
    [
        (NotAsked("no mask"), "–"),
        (Wrong("1 apart"), "wrong"),
        (fail("X0802", "no", helps=("wrap it",)), "refused+"),
        (fail("X0802", "no"), "refused"),
        (RuntimeError("`if mask.all()` came out as True when this network was captured, and would not here"), "guarded"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "memory"),
        (KeyError("a"), "crash"),
    ],
)
def test_what_a_failure_is_called(error: BaseException, cell: str) -> None:
    assert judged(error)["cell"] == cell


class Ends(nn.Module):
    """Ends its process when it is put into training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def train(self, mode: bool = True) -> Ends:
        if mode and not self.training:
            os._exit(3)
        return super().train(mode)


def test_a_process_that_dies_takes_one_step_with_it() -> None:
    cells = models_sweep.model(row(Ends), ["capture", "train", "permute"], 60.0, 64.0)
    assert (cells["capture"]["cell"], cells["train"]["cell"]) == ("ok", "crash")
    assert cells["permute"]["cell"] in ("ok", "–")


def test_time_is_limited() -> None:
    def slow() -> nn.Module:
        while True:
            pass

    assert models_sweep.model(row(slow), ["capture"], 0.5, 64.0)["capture"]["cell"] == "time"


def test_inputs_by_name_come_by_position() -> None:
    class Keys(nn.Module):
        def forward(self, *, a: Tensor, b: Tensor) -> Tensor:
            return a - b

    assert float(named(Keys(), "b", "a")(torch.tensor(1.0), torch.tensor(3.0))) == 2.0
