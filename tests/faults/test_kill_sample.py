"""A few real kills; `python -m tests.faults.kills 300` is the long run. In a process of its own, for it forks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_runs_that_are_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    given = [sys.executable, "-m", "tests.faults.kills", "4"]
    made = subprocess.run(given, capture_output=True, text=True, env=environment, timeout=200)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "0 mixtures, 0 lost" in made.stdout
