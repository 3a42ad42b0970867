"""A row of `benchmarks.models_sweep`: a model, how it is built, and how its inputs are drawn.

Inputs are drawn by batch, size (a length, or the side of a picture) and mask (all ones, or padded at the end). The first size is
the example's. Nothing is imported before a row is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A model: how it is built, how its inputs are drawn (batch, size, padded), and which sizes and masks there are."""

    library: str
    name: str
    build: Callable[[], Any]
    draw: Callable[[int, int, bool], tuple[Any, ...]]
    sizes: tuple[int, ...] = (0,)
    masked: bool = False

    @property
    def key(self) -> str:
        return f"{self.library}/{self.name}"


class Lazy:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


torch = Lazy("torch")


def named(model: Any, *names: str) -> Any:
    """The model with these arguments, by position: a captured network takes tensors one after the other."""
    from torch import nn

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, a: Any) -> Any:
            return self.model(**{names[0]: a})

    class Two(One):
        def forward(self, a: Any, b: Any) -> Any:
            return self.model(**{names[0]: a, names[1]: b})

    class Three(One):
        def forward(self, a: Any, b: Any, c: Any) -> Any:
            return self.model(**{names[0]: a, names[1]: b, names[2]: c})

    class Four(One):
        def forward(self, a: Any, b: Any, c: Any, d: Any) -> Any:
            return self.model(**{names[0]: a, names[1]: b, names[2]: c, names[3]: d})

    return (One, Two, Three, Four)[len(names) - 1]()


# --- inputs ---------------------------------------------------------------------------------------------------------------
def ids(batch: int, length: int, vocab: int = 99) -> Any:
    return torch.randint(3, vocab, (batch, length))


def mask(batch: int, length: int, padded: bool) -> Any:
    """Ones; padded: every second sequence ends a third earlier."""
    out = torch.ones(batch, length, dtype=torch.long)
    if padded:
        out[::2, length - max(length // 3, 1) :] = 0
    return out


def picture(channels: int = 3) -> Any:
    return lambda b, s, _: (torch.randn(b, channels, s, s),)


def volume(channels: int = 1) -> Any:
    return lambda b, s, _: (torch.randn(b, channels, s, s, s),)


def table(features: int) -> Any:
    return lambda b, _, __: (torch.randn(b, features),)


def text(b: int, n: int, _: bool) -> tuple[Any, ...]:
    return (ids(b, n),)


def masked_text(b: int, n: int, padded: bool) -> tuple[Any, ...]:
    return (ids(b, n), mask(b, n, padded))


def pair(b: int, n: int, padded: bool) -> tuple[Any, ...]:
    """Text with its mask, and a second text for a decoder."""
    return (ids(b, n), mask(b, n, padded), ids(b, 5))
