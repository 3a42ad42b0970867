"""Things of a registry by name, as values: a bare name, or a name with settings, `focal(gamma=2)`. No torch, no syntax."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

from netxform.registry import Registry


class Registered(str):
    """The type of a field that names a thing of a registry; the value is a plain text."""

    registry: ClassVar[Registry[Any]]


REQUIRED: Any = object()
"""The default of a setting that must be given."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a thing that has a name: `number`, `whole` (a number), `switch`, or `weights` (`balanced`, a number or a
    list).

    `default` is None where nothing is said, or `REQUIRED`; numbers, and each of the weights, lie in [low, high].
    """

    kind: Literal["number", "whole", "switch", "weights"] = "number"
    default: Any = None
    low: float = -math.inf
    high: float = math.inf
    example: str = ""


@dataclass(frozen=True)
class Chosen:
    """The type of a field that names a thing of a registry with its settings: `focal(gamma=2)`. All settings are there."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    registry: ClassVar[Registry[Any]]

    def __str__(self) -> str:
        known = {n: s.default for n, s in self.known(self.name).items()}
        given = [f"{n}={_shown(v)}" for n, v in self.settings.items() if v != known.get(n)]
        return f"{self.name}({', '.join(given)})" if given else self.name

    @classmethod
    def known(cls, name: str) -> dict[str, Setting]:
        """The settings that the thing of that name takes."""
        return dict(cls.registry.find(name).settings)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_shown(v) for v in cast('tuple[Any, ...]', value))}]"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
