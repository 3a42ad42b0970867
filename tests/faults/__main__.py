"""The counts behind docs/reliability.md and docs/security.md, as one command: `python -m tests.faults`.

    python -m tests.faults [KIND …] [--share 1.0] [--seed 0] [--jobs 1] [--out benchmarks/results/faults]

Each kind runs in processes of its own, of a few hundred trials each with a seed of their own. The table goes to OUT.md and
OUT.json; a share of the trials is a quick look, and writes nothing unless OUT is named.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults import bundles, evil, kills
from tests.faults.watch import COUNTED, MOST_BYTES, MOST_SECONDS, Row

ROOT = Path(__file__).parents[2]
OUT = ROOT / "benchmarks" / "results" / "faults"


def killed(count: int, seed: int, folder: Path) -> Row:
    """Runs that are killed at random moments."""
    begun = time.monotonic()
    made = kills.run(count, folder, seed)
    row = Row("runs killed at random", made.kills, lost=len(made.wrong), ended=made.seen)
    print("\n".join(made.wrong), file=sys.stderr)
    return dataclasses.replace(row, seconds=round(time.monotonic() - begun, 1))


def tested(kind: str, *tests: str) -> Callable[[int, int, Path], Row]:
    """A table of tests, of which each fails for what is counted here as uncaught."""

    def run(count: int, seed: int, folder: Path) -> Row:
        begun = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(folder / "t"), *tests]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
        counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|error)", said)}
        failed = counts.get("failed", 0) + counts.get("error", 0)
        if failed or not counts:
            print(said[-5000:], file=sys.stderr)
        passed = counts.get("passed", 0)
        row = Row(kind, passed + failed, uncaught=failed, seconds=round(time.monotonic() - begun, 1))
        row.ended["as the table says"] = passed
        return row

    return run


_AT = "tests/faults"
KINDS: dict[str, tuple[int, Callable[[int, int, Path], Row]]] = {
    "flips": (2000, bundles.flips),
    "mutants": (3000, bundles.mutants),
    "kills": (300, killed),
    "data": (1000, bundles.data),
    "evil": (100, evil.evil),
    "bombs": (40, evil.bombs),
    "crash-points": (1, tested("crash points, full disks", f"{_AT}/test_fault_crash_points.py", f"{_AT}/test_fault_runs.py")),
    "mistakes": (300, tested("mistakes of users", f"{_AT}/test_mistakes.py", "tests/verbs/test_nothing_and_all.py")),
}


PART = 250
"""The most trials of one process."""


def parts(kind: str, share: float, seed: int) -> list[tuple[str, int, int]]:
    """The kind in parts: how many trials each, and its seed."""
    whole = max(1, int(share * KINDS[kind][0]))
    count = -(-whole // PART) if kind in ("flips", "mutants", "data") else 1
    sizes = [whole // count + (i < whole % count) for i in range(count)]
    return [(kind, size, 1000 * seed + i) for i, size in enumerate(sizes)]


def one(kind: str, count: int, seed: int) -> Row:
    """So many trials of the kind, in this process."""
    _, run = KINDS[kind]
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_STATE_HOME"] = f"{place}/state"
        folder = Path(place) / "work"
        folder.mkdir()
        return run(count, seed, folder)


def apart(kind: str, count: int, seed: int) -> Row:
    """A part of a kind in a process of its own, whose death is one more that is counted."""
    command = [sys.executable, "-m", "tests.faults", kind, "--child", str(count), "--seed", str(seed)]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    found = [line for line in ran.stdout.splitlines() if line.startswith("ROW ")]
    row = Row(**json.loads(found[0][4:])) if found else Row(kind, uncaught=1)
    row.ended = Counter(row.ended)
    print(f"{row.kind}: {row.trials} trials, {row.bad()} wrong, {row.seconds:.0f} s", flush=True)
    return row


def joined(rows: list[Row]) -> list[Row]:
    """One row a kind: the sums over its parts."""
    out: dict[str, Row] = {}
    for row in rows:
        known = out.setdefault(row.kind, Row(row.kind))
        for name in ("trials", "seconds", *COUNTED):
            setattr(known, name, getattr(known, name) + getattr(row, name))
        known.ended += row.ended
    return list(out.values())


def table(rows: list[Row], seed: int) -> str:
    """The rows as Markdown."""
    head = ["kind", "trials", *COUNTED, "seconds", "how they ended"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        ended = ", ".join(f"{what} {number}" for what, number in row.ended.most_common(9))
        cells = [row.kind, row.trials, *(getattr(row, n) for n in COUNTED), f"{row.seconds:.0f}", ended]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    total = sum(r.bad() for r in rows)
    said = (
        "# Faults, hostile files, wrong use\n\nWritten by `python -m tests.faults`; each trial gives data or one clean error.\n"
        "*code*: a marker of a payload appeared; *outside*: something was written outside of the trial's folder; *slow*: more "
        f"than {MOST_SECONDS} s of the processor; *large*: more than {MOST_BYTES >> 30} GiB beyond what was held before; "
        "*lost*: other bytes than before, or none. Kills, crash points and mistakes are counted by their own tables.\n"
    )
    return f"{said}\n" + "\n".join(lines) + f"\n\nSeed {seed}. In all {sum(r.trials for r in rows):,} trials; {total} wrong.\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--share", type=float, default=1.0, help="of the trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="kinds at once")
    parser.add_argument("--out", type=Path, help="without a suffix")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [k for k in options.kinds if k not in KINDS]:
        parser.error(f"no kind is called {unknown[0]}: {', '.join(KINDS)}")
    if options.child is not None:
        print("ROW", json.dumps(one(options.kinds[0], options.child, options.seed).plain()))
        return 0
    with ThreadPoolExecutor(options.jobs) as pool:
        several = [p for kind in options.kinds or KINDS for p in parts(kind, options.share, options.seed)]
        rows = joined(list(pool.map(lambda part: apart(*part), several)))
    whole = options.share == 1.0 and not options.kinds
    out = options.out or (OUT if whole else None)
    if out is not None:
        out.with_suffix(".md").write_text(table(rows, options.seed))
        out.with_suffix(".json").write_text(json.dumps([r.plain() for r in rows], indent=1) + "\n")
    else:
        print(table(rows, options.seed))
    return 1 if any(r.bad() for r in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
