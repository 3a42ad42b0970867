"""A process that has imported what is slow to import, and nothing of this code: every run of tests is a fork of it.

Nursery(folder) ─run(tests)→ pytest's exit code, and the end of what it says
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LIMIT_S = 300
# what the tests import from elsewhere; what is not installed is passed over
SLOW = """torch torch.fx torch.utils.data torch.utils.flop_counter torch.distributed.checkpoint torch.export numpy scipy.stats
    scipy.optimize scipy.sparse scipy.fft tensorly sklearn.metrics sklearn.datasets networkx lark msgspec safetensors.torch
    platformdirs pytest"""


def environment(folder: Path) -> dict[str, str]:
    """In which the tests of a copy run: its own code first, one thread, and no new bytecode beside it."""
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


class Nursery:
    """The process; it ends with `close`. `slow`: what it imports, by name."""

    def __init__(self, folder: Path, slow: str = SLOW) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutations.nursery", *slow.split()],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, tests: Sequence[str], limit: float = LIMIT_S) -> tuple[int, str]:
        """The exit code of pytest on these tests, and the end of what it says; 1 where it took more seconds than `limit`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([list(tests), limit]) + "\n")
        self._process.stdin.flush()
        code, said = json.loads(self._process.stdout.readline())
        return int(code), str(said)

    def close(self) -> None:
        """End the process."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


OPTIONS = ("-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist")


def _run(tests: list[str], limit: float) -> tuple[int, str]:
    # no example is made smaller: it counts that there is one
    profile = ("--hypothesis-profile", "failing") if Path("tests/conftest.py").exists() else ()
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os.close(0)
            code = 3
            try:
                import pytest

                code = int(pytest.main([*OPTIONS, *profile, *tests]))
            finally:
                os._exit(code)
        end, status = time.monotonic() + limit, None
        while status is None and time.monotonic() < end:
            done, found = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(found) if done else time.sleep(0.05)
        if status is None:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 1, "out of time"
        said.seek(0)
        return status, "\n".join(said.read().strip().split("\n")[-3:])


def _serve() -> None:
    for name in sys.argv[1:]:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    assert "netxform" not in sys.modules
    answer = os.fdopen(os.dup(1), "w")  # what tests print goes elsewhere
    for line in sys.stdin:
        print(json.dumps(_run(*json.loads(line))), file=answer, flush=True)


if __name__ == "__main__":
    _serve()
