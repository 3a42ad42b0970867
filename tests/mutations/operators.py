"""Small changes of operators and numbers, by cosmic-ray, on one module at a time: how many of them do its tests notice?

    python -m tests.mutations.operators MODULE … [--since REF] [--sample 40] [--seconds 300]

MODULE is a file below `netxform/` with tests in `FITTING`, as `linalg/gram.py`; without one, every such file. `--since REF`
changes only lines that differ from that commit. Of all changes a sample is tried, the same one every time. What survives is
printed with its line: either its law has no test, or the change changes nothing.
"""

from __future__ import annotations

import argparse
import ast
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tests.mutations.__main__ import Run, copies
from tests.mutations.defect import ROOT
from tests.mutations.nursery import Nursery

CLAIMS = tuple(f"tests/compiler/test_{n}.py" for n in ("claim_laws", "claims", "measured_again", "statistics"))
FITTING: dict[str, tuple[str, ...]] = {
    "axes/index_maps.py": ("tests/axes/test_index_map_laws.py", "tests/verbs/test_widen_laws.py"),
    "axes/roles.py": ("tests/axes/test_roles.py", "tests/axes/test_axes.py"),
    "compiler/claims/bounded.py": CLAIMS,
    "compiler/claims/exact.py": CLAIMS,
    "compiler/claims/lossy.py": CLAIMS,
    "compiler/claims/stored.py": CLAIMS,
    "linalg/gram.py": ("tests/linalg/test_gram_laws.py", "tests/linalg/test_svd.py"),
    "linalg/operator_norms.py": ("tests/linalg/test_operator_norms.py",),
    "pruning/ranking.py": ("tests/pruning/test_choice_laws.py", "tests/pruning/test_score_laws.py"),
    "pruning/compensate.py": ("tests/pruning/test_compensation.py",),
    "pruning/spread.py": ("tests/pruning/test_prediction.py::test_the_error_is_that_of_a_mean",),
    "factorization/allocate.py": ("tests/factorization/test_allocate.py",),
    "factorization/rank_curves.py": ("tests/factorization/test_table_laws.py",),
    "factorization/geometry.py": ("tests/factorization/test_geometry_laws.py",),
    "training/augment.py": ("tests/training/test_loop_laws.py", "tests/training/test_objectives.py"),
    "training/optimize.py": ("tests/training/test_loop_laws.py",),
}
# one change of each kind: others of cosmic-ray's are as likely to be noticed, and only take longer
OPERATORS = """AddNot NumberReplacer ReplaceAndWithOr ReplaceOrWithAnd ReplaceTrueWithFalse ReplaceFalseWithTrue
    ReplaceBreakWithContinue ZeroIterationForLoop ReplaceUnaryOperator_Delete_USub ReplaceUnaryOperator_Delete_Not
    ReplaceBinaryOperator_Add_Sub ReplaceBinaryOperator_Sub_Add ReplaceBinaryOperator_Mul_Div ReplaceBinaryOperator_Div_Mul
    ReplaceBinaryOperator_FloorDiv_Mul ReplaceBinaryOperator_Mod_FloorDiv ReplaceBinaryOperator_Pow_Mul
    ReplaceComparisonOperator_Lt_LtE ReplaceComparisonOperator_Lt_GtE ReplaceComparisonOperator_LtE_Lt
    ReplaceComparisonOperator_Gt_GtE ReplaceComparisonOperator_GtE_Gt ReplaceComparisonOperator_Eq_NotEq
    ReplaceComparisonOperator_NotEq_Eq ReplaceComparisonOperator_Is_IsNot ReplaceComparisonOperator_IsNot_Is""".split()


@dataclass(frozen=True)
class Change:
    """A file of `netxform/` with one change: its text, and the line that changed as it is and as it was."""

    file: str
    text: str
    line: int
    was: str
    now: str


def changes(file: str, lines: set[int] | None, sample: int) -> tuple[list[Change], int]:
    """A sample of the changes of the file in the lines that are given (all, where none are), and how many there are.

    Needs cosmic-ray.
    """
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    text = (ROOT / "netxform" / file).read_text()
    old, nodes = text.split("\n"), list(ast_nodes(get_ast(text)))
    every: list[tuple[Any, int]] = []
    for name in OPERATORS:
        operator: Any = get_operator(f"core/{name}")()
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        every += [(operator, i) for i, ((line, _), _) in enumerate(places) if lines is None or line in lines]
    found: list[Change] = []
    for operator, count in random.Random(file).sample(every, min(sample, len(every))):
        made = mutate_code(text, operator, count)
        new = made.split("\n") if made is not None else old
        at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), None)
        form = at is not None and old[at].strip().startswith("@dataclass")  # how a record is made is no law
        if made is not None and at is not None and not form and ast.dump(ast.parse(made)) != ast.dump(ast.parse(text)):
            found.append(Change(file, made, at + 1, old[at].strip(), new[at].strip()))
    return found, len(every)


def changed_since(file: str, ref: str) -> set[int]:
    """The numbers of the lines that differ from that commit."""
    command = ["git", "diff", "-U0", ref, "--", f"netxform/{file}"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    out: set[int] = set()
    for head in (line for line in said.split("\n") if line.startswith("@@")):
        start, _, count = head.split("+")[1].split(" ")[0].partition(",")
        out |= set(range(int(start), int(start) + int(count or 1)))
    return out


def noticed(change: Change, folder: Path, run: Run, tests: tuple[str, ...]) -> bool:
    """Whether the tests fail, in whatever way: code that cannot run is noticed too."""
    path = folder / "netxform" / change.file
    text = path.read_text()
    path.write_text(change.text)
    try:
        return run(tests, 120)[0] != 0
    finally:
        path.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations.operators", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--since", help="only lines that differ from this commit")
    parser.add_argument("--sample", type=int, default=40, help="so many changes of each file")
    parser.add_argument("--seconds", type=float, default=300, help="begin nothing new after that")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    files = [m.removeprefix("netxform/") for m in options.modules] or sorted(FITTING)
    unknown = [f for f in files if f not in FITTING]
    if unknown:
        print(f"no tests are named for {', '.join(unknown)}: add them to FITTING")
        return 1
    with tempfile.TemporaryDirectory() as held, ExitStack() as stack:
        places: SimpleQueue[tuple[Path, Run]] = SimpleQueue()
        for folder in copies(Path(held), options.jobs):
            made = Nursery(folder)
            stack.callback(made.close)
            places.put((folder, made.run))
        end, rates = time.monotonic() + options.seconds, []

        def tried(change: Change) -> bool | None:
            if time.monotonic() > end:
                return None
            folder, run = place = places.get()
            try:
                return noticed(change, folder, run, FITTING[change.file])
            finally:
                places.put(place)

        with ThreadPoolExecutor(options.jobs) as pool:
            for file in files:
                lines = changed_since(file, options.since) if options.since else None
                some, every = changes(file, lines, options.sample)
                found = list(pool.map(tried, some))
                killed, done = found.count(True), len(found) - found.count(None)
                rates.append((killed, done))
                print(f"{file}: {killed} of {done} noticed, of {every}", flush=True)
                for change, how in zip(some, found, strict=True):
                    if how is False:
                        print(f"  SURVIVED {file}:{change.line}  {change.was}  →  {change.now}", flush=True)
    print(f"{sum(k for k, _ in rates)} of {sum(n for _, n in rates)} noticed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
