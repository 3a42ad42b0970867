"""The rank of a factorization as it is written. No torch here."""

from __future__ import annotations

from typing import Self


class Rank(float):
    """A number, and whether it was written as a share: `1` is one, `1.0` and `100%` are all."""

    share: bool

    def __new__(cls, value: float, share: bool = False) -> Self:
        """The number, with the note."""
        made = super().__new__(cls, value)
        made.share = share
        return made
