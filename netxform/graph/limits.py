"""How much memory there is, and sizes as people write them."""

from __future__ import annotations

import re

from netxform.errors import fail
from netxform.limits import allowed as memory

__all__ = ["memory", "room", "sized"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


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
