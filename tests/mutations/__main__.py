"""Puts each defect of the table into a copy of the checkout and runs the tests that must notice.

    python -m tests.mutations [NAME …] [--share 1/8 --turn N] [--jobs 2]

A NAME is that of a defect, or where its file lies: `pruning/`, `linalg/gram.py`. `--share 1/8 --turn 3` takes every eighth
defect, beginning with the fourth: a rotating sample. First the named tests are run on the code as it is; they must pass there.
Exit code 1 where a defect survives or cannot be put in.
"""

from __future__ import annotations

import argparse
import compileall
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue

from tests.mutations.defect import ROOT, Defect
from tests.mutations.nursery import Nursery
from tests.mutations.table import DEFECTS

Run = Callable[..., tuple[int, str]]  # `Nursery.run`
WHOLE_S = 3600


def copied(folder: Path) -> Path:
    """A copy of what the checkout needs to run its tests, with bytecode that counts only while the text is the same."""
    for name in ("netxform", "grammar", "tests", "specs", "benchmarks", "docs"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.bundle", "results"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    compileall.compile_dir(folder / "netxform", quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return folder


def copies(place: Path, count: int) -> list[Path]:
    """So many copies, in folders of their own."""
    folders = [place / str(i) for i in range(count)]
    folders[0].mkdir()
    copied(folders[0])
    for folder in folders[1:]:
        shutil.copytree(folders[0], folder)
    return folders


def verdict(defect: Defect, folder: Path, run: Run) -> tuple[bool, str]:
    """Whether the tests noticed the defect, and how."""
    problem = defect.problem(folder)
    if problem is not None:
        return False, problem
    path = folder / defect.path
    text = path.read_text()
    path.write_text(text.replace(defect.old, defect.new))
    try:
        code, said = run(defect.tests)
    finally:
        path.write_text(text)
    if code == 0:
        return False, "survived: every test passed"
    return (True, said) if code == 1 else (False, f"pytest ended with {code}: {said}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=(__doc__ or "").split("\n")[0])
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
    with tempfile.TemporaryDirectory() as held, ExitStack() as stack:
        places: SimpleQueue[tuple[Path, Run]] = SimpleQueue()
        for folder in copies(Path(held), options.jobs):
            made = Nursery(folder)
            stack.callback(made.close)
            places.put((folder, made.run))

        def judged(defect: Defect) -> tuple[bool, str]:
            folder, run = place = places.get()
            try:
                return verdict(defect, folder, run)
            finally:
                places.put(place)

        def clean(tests: list[str]) -> tuple[int, str]:
            _, run = place = places.get()
            try:
                return run(tests, WHOLE_S) if tests else (0, "")
            finally:
                places.put(place)

        with ThreadPoolExecutor(options.jobs) as pool:
            named = sorted({t for d in chosen for t in d.tests})
            for code, said in pool.map(clean, [named[i :: options.jobs] for i in range(options.jobs)]):
                if code:
                    print(f"the tests fail on the code as it is:\n{said}")
                    return 1
            print(f"{len(named)} tests pass on the code as it is, in {time.perf_counter() - start:.0f} s", flush=True)
            survivors = 0
            for defect, (killed, how) in zip(chosen, pool.map(judged, chosen), strict=True):
                survivors += not killed
                print(f"{'killed  ' if killed else 'SURVIVED'} {defect.name}" + ("" if killed else f": {how}"), flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} defects killed in {time.perf_counter() - start:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
