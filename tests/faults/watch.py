"""What is counted of every trial: how it ended, how long it took, how much it held, what it wrote, whether its marker is there.

A trial gives data or raises NetxformError; all else is *uncaught*. *Code*: a marker that only its payload makes. *Outside*: a
file that was opened for writing, made, moved or removed outside of the trial's own folder. *Slow*: more than ten seconds of the
processor. *Large*: more than one GiB beyond what was held before the first trial. *Lost*: what was there and is not, or other
bytes than before.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from netxform.errors import NetxformError
from tests.faults.faulty import CHANGES

MOST_SECONDS, MOST_BYTES = 10, 1 << 30
COUNTED = ("uncaught", "code", "outside", "slow", "large", "lost")


@dataclass
class Row:
    """One kind of trials: how many, how they ended in words, and what must be zero."""

    kind: str
    trials: int = 0
    uncaught: int = 0
    code: int = 0
    outside: int = 0
    slow: int = 0
    large: int = 0
    lost: int = 0
    seconds: float = 0.0
    ended: Counter[str] = field(default_factory=Counter[str])

    def bad(self) -> int:
        """How much of it must not be."""
        return sum(getattr(self, name) for name in COUNTED)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"ended": dict(self.ended.most_common())}


class Watch:
    """Trials of one kind, in one process. `folder`: where they may write; the marker of every payload lies beside it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.row = Row(kind)
        self.folder = folder.resolve()
        self.marker = self.folder.parent / f"marker-{folder.name}"
        self._allowed = (str(self.folder), "/dev", str(Path.home() / ".cache"), os.environ.get("XDG_STATE_HOME", "/nowhere"))
        self._watching = False
        self._strange: list[str] = []
        self._begun = time.monotonic()
        sys.addaudithook(self._hook)

    def limit(self) -> None:
        """From now on one GiB more than now can be held."""
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MOST_BYTES, resource.RLIM_INFINITY))

    def trial(self, name: str, work: Callable[[], str | None]) -> str:
        """Do it and count. `work` gives how it ended (`read`, where it says nothing); "lost…" is counted as lost."""
        before, self._strange = time.process_time(), []
        self._watching = True
        try:
            ended = work() or "read"
        except NetxformError as error:
            ended = error.diagnostics[0].code
            if ended == "X0004":
                self._found("uncaught", name, str(error))
            elif not str(error).count("help: "):
                self._found("uncaught", name, f"no repair is named: {error}")
        except MemoryError:
            ended = "memory"
            self._found("large", name, traceback.format_exc())
        except (Exception, SystemExit):
            ended = "uncaught"
            self._found("uncaught", name, traceback.format_exc())
        finally:
            self._watching = False
        self.row.trials += 1
        self.row.ended[ended] += 1
        if ended.startswith("lost"):
            self._found("lost", name, ended)
        if time.process_time() - before > MOST_SECONDS:
            self._found("slow", name, f"{time.process_time() - before:.0f} s")
        if self._strange:
            self._found("outside", name, "\n".join(self._strange[:5]))
        if self.marker.exists():
            self._found("code", name, "its payload ran")
            self.marker.unlink()
        return ended

    def done(self) -> Row:
        """The counts."""
        self.row.seconds = round(time.monotonic() - self._begun, 1)
        return self.row

    def _found(self, what: str, name: str, text: str) -> None:
        setattr(self.row, what, getattr(self.row, what) + 1)
        print(f"{what}: {self.row.kind}, {name}\n{text}", file=sys.stderr, flush=True)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._watching or event not in ("open", *CHANGES):
            return
        writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if event == "open" else True
        if not writes or isinstance(args[0], int):
            return
        text = os.fsdecode(args[0])
        if event in ("os.remove", "os.rmdir") and isinstance(args[-1], int) and args[-1] >= 0:  # named from an open folder
            text = os.path.join(os.path.realpath(f"/proc/self/fd/{args[-1]}"), text)
        place = os.path.realpath(text)
        own = place.startswith(tempfile.gettempdir()) and Path(place).name.startswith(("tmp", "torch", "pymp"))
        if not own and not place.startswith(self._allowed) and "__pycache__" not in place and place != str(self.marker):
            self._strange.append(f"{event} {text}")


@contextlib.contextmanager
def inside(folder: Path) -> Any:
    """Within that folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
