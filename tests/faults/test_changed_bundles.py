"""Changed bundles, a few of each kind (`python -m tests.faults`: thousands): one clean error or a verdict, never a trace."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import netxform as nx
from tests.artifacts.tampering import SPEC, reseal
from tests.faults.__main__ import ROOT
from tests.faults.bundles import ODD, mutated


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "b"
    nx.apply(SPEC, out=folder)
    return folder


def told(folder: Path) -> str:
    """The code of the refusal, or the verdict."""
    try:
        return "held" if nx.verify(folder).held else "broken"
    except nx.NetxformError as error:
        assert error.diagnostics[0].code != "X0004", str(error)
        assert "help: " in str(error)
        return error.diagnostics[0].code


def test_tensors_of_another_type_are_never_held(made: Path, tmp_path: Path) -> None:
    held = load_file(made / "model.safetensors")
    draw = random.Random(0)
    for name in draw.sample(sorted(held), 8):
        for dtype in (torch.float64, torch.float16, torch.int64):
            shutil.copytree(made, tmp_path / "b")
            save_file(held | {name: held[name].to(dtype)}, tmp_path / "b" / "model.safetensors")
            reseal(tmp_path / "b")
            assert held[name].dtype == dtype or told(tmp_path / "b") != "held", (name, dtype)
            shutil.rmtree(tmp_path / "b")


@pytest.mark.parametrize("key", ["items", "base", "seed", "subject", "capture", "params", "format"])
def test_values_of_a_plan_that_are_no_values_are_refused(key: str, made: Path, tmp_path: Path) -> None:
    plan = json.loads((made / "plan.json").read_text())
    for value in (*ODD, [3], [None], [{"claims": 3}], [{"claims": [3]}], [{"statement": 3}], {"params": "x"}):
        shutil.copytree(made, tmp_path / "b")
        (tmp_path / "b" / "plan.json").write_text(json.dumps(plan | {key: value}, indent=1, sort_keys=True) + "\n")
        reseal(tmp_path / "b")
        assert told(tmp_path / "b") != "held" or key in ("capture", "params", "format") or plan[key] == value, value
        shutil.rmtree(tmp_path / "b")


def test_a_few_mutants_and_what_is_said_of_the_rest(made: Path, tmp_path: Path) -> None:
    draw, seen = random.Random(1), set[str]()
    for _ in range(40):
        shutil.copytree(made, tmp_path / "b")
        (tmp_path / "b" / "model.sig").touch()
        mutated(tmp_path / "b", draw)
        seen.add(told(tmp_path / "b"))
        shutil.rmtree(tmp_path / "b")
    assert len(seen) > 2  # the mutations are mutations


def test_the_command_counts_and_writes_its_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults", "data", "--share", "0.01", "--out", str(tmp_path / "t")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    (row,) = json.loads((tmp_path / "t.json").read_text())
    assert row["trials"] == 10 and not row["uncaught"] and row["ended"]
    assert "| damaged data and vectors | 10 | 0 |" in (tmp_path / "t.md").read_text()
