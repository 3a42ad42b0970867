"""Shapes in words. No torch here."""

from __future__ import annotations

from collections.abc import Iterable


def times(shape: Iterable[int]) -> str:
    """`3 x 8 x 8`; a shape without dimensions is a scalar."""
    return " x ".join(str(n) for n in shape) or "scalar"
