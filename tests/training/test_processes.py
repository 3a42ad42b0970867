"""Several processes compute what one does; another number than asked for is refused; a killed run goes on to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import netxform as nx
from netxform import cli
from netxform.training.data import steps
from tests.training.processes_worker import main

ROOT = Path(__file__).parent.parent.parent
WORKER = "tests.training.processes_worker"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NETXFORM_CACHE": ""}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NETXFORM_CACHE", "")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def launch(count: int, *command: str) -> None:
    """The module in `count` processes under torchrun, on a free port."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
    subprocess.run([*run, *command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, timeout=300, check=True)


def test_several_processes_compute_what_one_does(tmp_path: Path) -> None:
    launch(3, WORKER, str(tmp_path / "three.json"))
    main(str(tmp_path / "one.json"))
    found, alone = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("three", "one"))
    assert found.keys() == alone.keys()
    for name, wanted in alone.items():
        for tensor, value in wanted["state"].items():
            a, b = (torch.tensor(v, dtype=torch.float64) for v in (value, found[name]["state"][tensor]))
            # float64: only the order of sums differs, over 15 steps (measured: 1e-15)
            assert (a - b).abs().max() <= 1e-12, (name, tensor)
        assert found[name]["kinds"] == wanted["kinds"]
        for metric, value in wanted["metrics"].items():
            assert found[name]["metrics"][metric] == pytest.approx(value, abs=1e-10), (name, metric)


SPEC = """model net = zoo.smallcnn(width=4) input="1x1x8x8"
data d = sklearn.digits(train=200)
stage s { train ** for 6epochs on d using sgd(lr=0.05) schedule=cosine; keep best by val_loss }
snapshot teacher
distill from teacher for 4epochs on d augment=shift(1)
"""


def test_the_certificate_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.xform").write_text(SPEC)
    nx.apply(tmp_path / "a.xform", out=tmp_path / "1")
    launch(2, "netxform", "apply", str(tmp_path / "a.xform"), "-o", str(tmp_path / "2"), "--processes", "2", "--json")
    first, second = (json.loads((tmp_path / n / "certificate.json").read_text()) for n in "12")
    assert first["plan"] == second["plan"]
    for a, b in zip(first["statements"], second["statements"], strict=True):
        assert [(c["claim"], c["held"]) for c in a["claims"]] == [(c["claim"], c["held"]) for c in b["claims"]]
        for metric, value in a["metrics"].items():
            # float32: rounding grows over some hundred steps; one sample of the 360 of the test part is 0.003
            assert b["metrics"][metric] == pytest.approx(value, abs=2e-2), metric


def test_another_number_of_processes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.xform").write_text(SPEC)
    assert cli.main(["apply", str(tmp_path / "a.xform"), "-o", str(tmp_path / "b"), "--processes", "2"]) == 1
    assert "X0841" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.xform").write_text(SPEC)
    command = [sys.executable, "-m", "netxform", "apply", str(tmp_path / "a.xform"), "--quiet", "-o"]
    nx.apply(tmp_path / "a.xform", out=tmp_path / "whole")
    state = tmp_path / ".b.resume"
    for number in range(1):  # killed as soon as it got a little further, wherever it is then
        before = {p.name for p in state.glob("*")} if state.exists() else set()
        run = subprocess.Popen([*command, str(tmp_path / "b"), "--resume"], cwd=ROOT, env=ENVIRONMENT)
        deadline = time.monotonic() + 60
        while run.poll() is None and time.monotonic() < deadline:
            now = {p.name for p in state.glob("00*")} if state.exists() else set()
            if now - before:
                time.sleep(0.01 * number)
                break
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert not (tmp_path / "b").exists()
    nx.apply(tmp_path / "a.xform", out=tmp_path / "b", resume=True)
    for name in ("model.safetensors", "curves.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not state.exists()


@pytest.mark.parametrize("count", [1, 2, 7, 13])
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_every_row_is_in_one_share(count: int, world: int, accumulate: int) -> None:
    data = torch.utils.data.TensorDataset(torch.arange(count), torch.arange(count))
    every = [
        list(steps(data, 5, shuffle=(1, 1), rank=r, world=world, accumulate=accumulate, drop_single=True)) for r in range(world)
    ]
    whole = list(steps(data, 5, shuffle=(1, 1), drop_single=True))
    assert {len(e) for e in every} == {len(whole)}
    for one, shares in zip(whole, zip(*every, strict=True), strict=True):
        assert len({len(s) for s in shares}) == 1
        rows = [row for share in shares for p in share for row in p.x[: p.live].tolist()]
        assert sorted(rows) == sorted(one[0].x.tolist())
