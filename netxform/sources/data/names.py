"""Many names in little room: one text and where each begins. Processes share it without copying it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class Names:
    """Names by number."""

    __slots__ = ("_edges", "_text")

    def __init__(self, names: Iterable[str]) -> None:
        import numpy as np

        parts = [n.encode("utf-8", "surrogateescape") for n in names]
        self._text = b"".join(parts)
        self._edges: np.ndarray = np.concatenate([[0], np.cumsum([len(p) for p in parts], dtype=np.int64)])

    def __len__(self) -> int:
        return len(self._edges) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._text[int(self._edges[index]) : int(self._edges[index + 1])].decode("utf-8", "surrogateescape")


_LONG = 160


def printable(text: str) -> str:
    """A name as it can be shown in one line: what is no sign is escaped, the middle of a long one is left out."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return shown if len(shown) <= _LONG else f"{shown[: _LONG // 2]}…{shown[-_LONG // 2 :]}"
