"""Runs that are killed at random moments: `python -m tests.faults.kills 300`. The suite does a few.

A run (fresh, over an old bundle, or going on from one that was killed) gets SIGKILL after a random time, some of them twice or
more. After each the output is the old bundle, the new one, or none where none was: byte for byte. Then `resume` finishes with
the bytes of a run that nobody interrupted, and nothing is left beside it.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import netxform as nx
from tests.faults.faulty import beside, held

OLD = 'model net = zoo.mlp(width=2) input="1x1x28x28"\nfreeze **'
NEW = """
model net = zoo.smallcnn() input="1x1x8x8"
data d = sklearn.digits(train=96)
train ** for 4epochs on d
features at layer4
attach random_forest(3)
"""


def child(work: Callable[[], None], log: Path) -> int:
    """Start the work in a process of its own; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            work()
        code = 0
    except BaseException:
        log.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def finish(work: Callable[[], None], log: Path) -> None:
    """Do the work in a process of its own. Raises AssertionError where it fails."""
    _, status = os.waitpid(child(work, log), 0)
    assert status == 0, log.read_text() if log.exists() else f"status {status}"


def prepared() -> None:
    """What every run imports, once; nothing is trained here, for trained processes do not fork well."""
    import skops.io  # noqa: F401
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.utils import all_estimators

    load_digits()
    all_estimators(type_filter="classifier")
    RandomForestClassifier(1).fit([[0.0], [1.0]], [0, 1])
    nx.plan(NEW)


class Trials:
    """`wrong`: what did not hold, in words. `seen`: how often what was found after a kill."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw = folder, random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.kills = 0
        prepared()
        self.log = folder / "log"
        finish(lambda: _apply(OLD, folder / "old" / "b"), self.log)
        before = time.monotonic()
        finish(lambda: _apply(NEW, folder / "new" / "b"), self.log)
        self.length = time.monotonic() - before
        self.old, self.new = held(folder / "old" / "b"), held(folder / "new" / "b")

    def one(self, number: int) -> None:
        """One trial, with one kill or several."""
        kind = ("fresh", "overwrite", "resume")[number % 3]
        place = self.folder / f"t{number}"
        place.mkdir()
        out = place / "b"
        if kind == "overwrite":
            shutil.copytree(self.folder / "old" / "b", out)
        before = held(out)
        for turn in range(self.draw.randint(2, 4) if kind == "resume" else 1):
            if held(out) == self.new:
                break
            self.kill(lambda again=turn > 0: _apply(NEW, out, again))
            now = held(out)
            left = beside(place) - {"b"}
            what = "new" if now == self.new else "as before" if now == before else "MIXED"
            state = " with state" if ".b.resume" in left else ""
            part = " with a part" if any(n.endswith(".part") for n in left) else ""
            self.seen[f"{kind}: {what}{state}{part}"] += 1
            if what == "MIXED":
                self.wrong.append(f"trial {number}: a mixture after a kill")
        try:
            finish(lambda: _apply(NEW, out, True), self.log)
        except AssertionError as error:
            self.wrong.append(f"trial {number} ({kind}): {error}")
            return
        if held(out) != self.new:
            self.wrong.append(f"trial {number} ({kind}): other bytes than without a kill")
        if beside(place) != {"b"}:
            self.wrong.append(f"trial {number} ({kind}): left behind: {sorted(beside(place))}")
        shutil.rmtree(place)

    def kill(self, work: Callable[[], None]) -> None:
        """Start the work and kill it; half of the time near the end, where the bundle is written."""
        pid = child(work, self.log)
        part = self.draw.uniform(0.7, 1.1) if self.draw.random() < 0.5 else self.draw.uniform(0.0, 1.0)
        end = time.monotonic() + part * self.length
        while time.monotonic() < end:
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self.kills += os.WIFSIGNALED(status)
        self.seen["ended before the kill"] += not os.WIFSIGNALED(status)
        self.length *= 1.02 if os.WIFSIGNALED(status) else 0.95


def _apply(spec: str, out: Path, resume: bool = False) -> None:
    nx.apply(spec, out=out, overwrite=out.exists(), resume=resume)


def run(count: int, folder: Path, seed: int = 0, seconds: float = float("inf")) -> Trials:
    """Trials until that many runs were killed, or that many seconds have gone."""
    begun = time.monotonic()
    trials = Trials(folder, seed)
    number = 0
    while trials.kills < count and time.monotonic() - begun < seconds:
        trials.one(number)
        number += 1
    return trials


def main() -> int:
    """The long run."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        made = run(count, Path(folder), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(f"{made.kills} runs killed")
    for what, times in sorted(made.seen.items()):
        print(f"{times:6d}  {what}")
    print("\n".join(made.wrong) or "0 mixtures, 0 lost, 0 left behind, 0 with other bytes")
    return 1 if made.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
