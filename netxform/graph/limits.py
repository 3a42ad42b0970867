"""How much memory there is, and sizes as people write them."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

from netxform.errors import fail

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@lru_cache(maxsize=1)
def memory() -> int:
    """The bytes of memory of this machine, or of the group of processes that this one is limited to; 8 GiB if not known."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (ValueError, OSError, AttributeError):
        found = [8 << 30]
    for file in _LIMITS:
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) > 0:
            found.append(int(text))
    return min(found)


def room(text: str) -> int:
    """`16GB`, `512MiB`, `1000000` → bytes. Raises NetxformError X0403."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?i?)b?", text.strip().lower())
    if found is None or found.group(2) not in _UNITS or float(found.group(1)) == 0:
        raise fail("X0403", f"`{text}` is no size of memory", helps=("write a number and a unit: `--max-memory 16GB`",))
    return int(float(found.group(1)) * _UNITS[found.group(2)])


def sized(count: int) -> str:
    """Bytes for people: `1.5 GB`."""
    for name, unit in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"
