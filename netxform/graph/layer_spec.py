"""Layers and other things by name, as data: what a spec says of them before anything is made. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from netxform.errors import NOWHERE, Span

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Invocation:
    """`adamw(lr=1e-3)`, `Linear(auto, 10)`, `random_forest(500)`: a name with plain values."""

    name: str
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict[str, Any])
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        parts = [repr(a) if a != AUTO else AUTO for a in self.arguments]
        parts += [f"{k}={v!r}" if v != AUTO else f"{k}={AUTO}" for k, v in self.keywords.items()]
        return f"{self.name}({', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class Layer:
    """One line of a block of layers: `out = Linear(auto, 10)`."""

    name: str
    make: Invocation
