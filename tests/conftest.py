"""Options of the test run: `--fuzz 10000` tries that many texts, `--captures 2000 --seed 7` that many modules of that seed."""

from __future__ import annotations

import os
import tempfile

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

# what an interrupted run notes of its folder goes here, in the tests' own processes and in those that they start
_STATE = tempfile.TemporaryDirectory(prefix="netxform-state-")
os.environ["XDG_STATE_HOME"] = _STATE.name

os.fsync = lambda fd: None  # no test waits for the disk; that the calls are made is a test of its own

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
# where it counts that a test fails, and not on how small an example
settings.register_profile("failing", settings.get_profile("default"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=600, help="how many random and mutated texts the parser is tried on")
    parser.addoption("--captures", type=int, default=200, help="how many generated modules are captured")
    parser.addoption("--seed", type=int, default=0, help="what the generated modules are drawn from")


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--fuzz"))


@pytest.fixture(autouse=True)
def same_seed() -> None:
    torch.manual_seed(0)
