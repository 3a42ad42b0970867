"""How much memory may be used: the machine's, or what `--max-memory` says, and sizes as people write them.

Asked before anything large is made. No torch.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator
from contextvars import ContextVar
from pathlib import Path

from netxform.errors import NOWHERE, Span, fail

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_ALLOWED: ContextVar[int | None] = ContextVar("allowed", default=None)


def machine() -> int:
    """The memory of this machine, or of the container that this runs in, in bytes."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        found = 1 << 34
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found = min(found, int(Path(name).read_text()))
    return found


def allowed() -> int:
    """The bytes that may be used at once."""
    return _ALLOWED.get() or machine()


@contextlib.contextmanager
def memory(size: int | None) -> Generator[None]:
    """Within, at most so many bytes may be used; None: the machine's."""
    token = _ALLOWED.set(size)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def need(size: int, what: str, span: Span = NOWHERE, *helps: str) -> None:
    """Raises NetxformError X0005 where `what` needs more bytes than may be used."""
    most = allowed()
    if size > most:
        set_ = _ALLOWED.get() is not None
        raise fail(
            "X0005",
            f"{what} needs {words(size)}; {words(most)} may be used",
            span,
            "too large",
            notes=("the limit is that of `--max-memory`" if set_ else "the limit is the memory of this machine",),
            helps=(*helps, "make it smaller, or allow more: `--max-memory 64GiB`"),
        )


def words(size: int) -> str:
    """Bytes as people write them."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the loop returns")


def room(text: str) -> int:
    """`16GB`, `512MiB`, `1000000` → bytes. Raises NetxformError X0403."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?i?)b?", text.strip().lower())
    if found is None or found.group(2) not in _UNITS or float(found.group(1)) == 0:
        raise fail("X0403", f"`{text}` is no size of memory", helps=("write a number and a unit: `--max-memory 16GB`",))
    return int(float(found.group(1)) * _UNITS[found.group(2)])
