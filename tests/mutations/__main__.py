"""Puts each defect of the table into a copy of the checkout and runs the tests that must notice.

    python -m tests.mutations [NAME …] [--share 1/8 --turn N] [--jobs 2]

A NAME is that of a defect, or where its file lies: `pruning/`, `linalg/gram.py`. `--share 1/8 --turn 3` takes every eighth defect, beginning with the fourth: a rotating sample. First the named tests are run on
the code as it is; they must pass there. Exit code 1 where a defect survives or cannot be put in.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutations.defect import ROOT, Defect
from tests.mutations.table import DEFECTS

LIMIT_S = 600


def copied(folder: Path) -> Path:
    """A copy of what the checkout needs to run its tests."""
    for name in ("netxform", "grammar", "tests", "specs", "benchmarks", "docs"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.bundle", "results"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def ran(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """The exit code of pytest in the copy, and the end of what it says."""
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return 1, "out of time"
    return done.returncode, "\n".join(done.stdout.strip().split("\n")[-3:])


def verdict(defect: Defect, folder: Path) -> tuple[bool, str]:
    """Whether the tests noticed the defect, and how."""
    problem = defect.problem(folder)
    if problem is not None:
        return False, problem
    path = folder / defect.path
    text = path.read_text()
    path.write_text(text.replace(defect.old, defect.new))
    try:
        code, said = ran(folder, defect.tests)
    finally:
        path.write_text(text)
    if code == 0:
        return False, "survived: every test passed"
    return (True, said) if code == 1 else (False, f"pytest ended with {code}: {said}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--share", default="1/1", help="such a part of the table, as 1/8")
    parser.add_argument("--turn", type=int, default=0, help="which part")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    every = int(options.share.partition("/")[2] or 1)
    chosen = [d for i, d in enumerate(DEFECTS) if i % every == options.turn % every]
    if options.names:
        chosen = [d for d in DEFECTS if d.name in options.names or d.file.startswith(tuple(options.names))]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as held:
        folders: SimpleQueue[Path] = SimpleQueue()
        for i in range(options.jobs):
            (Path(held) / str(i)).mkdir()
            folders.put(copied(Path(held) / str(i)))
        clean = folders.get()
        code, said = ran(clean, sorted({t for d in chosen for t in d.tests}))
        folders.put(clean)
        if code:
            print(f"the tests fail on the code as it is:\n{said}")
            return 1

        def judged(defect: Defect) -> tuple[bool, str]:
            folder = folders.get()
            try:
                return verdict(defect, folder)
            finally:
                folders.put(folder)

        survivors = 0
        with ThreadPoolExecutor(options.jobs) as pool:
            for defect, (killed, how) in zip(chosen, pool.map(judged, chosen), strict=True):
                survivors += not killed
                print(f"{'killed  ' if killed else 'SURVIVED'} {defect.name}" + ("" if killed else f": {how}"), flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} defects killed in {time.perf_counter() - start:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
