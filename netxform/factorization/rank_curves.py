"""What a way of factorizing costs in error at every rank: the tables from which ranks are chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Ranks = tuple[int, ...]


class Sized(Protocol):
    """What a table must know of its layer."""

    dense: int

    def full(self) -> Ranks:
        """The largest ranks."""
        ...

    def clip(self, ranks: Sequence[int]) -> Ranks:
        """Ranks that fit together."""
        ...

    def params(self, ranks: Ranks) -> int:
        """Parameters at these ranks."""
        ...


@dataclass
class Table:
    """The relative error of a way by its ranks, for one layer.

    `tails`: the relative squared tail of each matricisation, by rank; the squared error is at most their sum (exactly the sum
    where the matrices are apart). `weights`: how an allowed error is shared among them. `kept`: for Tucker, the share of the
    energy that (output, input) ranks keep. `attempt`: for CP, the error by trying. `on_data`: the errors are those of the
    output on calibration data.
    """

    layer: Sized
    tails: tuple[Array, ...] = ()
    weights: tuple[float, ...] = ()
    kept: Array | None = None
    attempt: Callable[[int], float] | None = None
    on_data: bool = False
    tried: dict[int, float] = field(default_factory=dict[int, float])

    def error(self, ranks: Ranks) -> float:
        """The relative error at these ranks."""
        if self.kept is not None:
            return math.sqrt(max(0.0, 1.0 - float(self.kept[ranks[0], ranks[1]])))
        if self.tails:
            return math.sqrt(sum(float(t[r]) for t, r in zip(self.tails, ranks, strict=True)))
        return self._try(ranks[0])

    def _try(self, rank: int) -> float:
        if rank not in self.tried:
            assert self.attempt is not None
            self.tried[rank] = self.attempt(rank)
        return self.tried[rank]

    def smallest(self, relative: float) -> Ranks | None:
        """The ranks with the fewest parameters whose error is at most `relative`; None where there are none worth having."""
        limit = relative * relative
        if self.kept is not None:
            return self._smallest_pair(limit)
        if self.tails:
            shares = self.weights or (1 / len(self.tails),) * len(self.tails)
            picked = [int(np.argmax(t <= limit * s + 1e-15)) for t, s in zip(self.tails, shares, strict=True)]
            return self.layer.clip([max(1, r) for r in picked])
        return self._smallest_tried(relative)

    def _smallest_pair(self, limit: float) -> Ranks:
        kept = cast(Array, self.kept)
        best: tuple[int, Ranks] | None = None
        for out in range(1, kept.shape[0]):
            into = int(np.searchsorted(kept[out], 1.0 - limit - 1e-15))
            if into >= kept.shape[1]:
                continue
            ranks = (out, max(1, into))
            weight = self.layer.params(ranks)
            if best is None or weight < best[0]:
                best = weight, ranks
        return best[1] if best is not None else (kept.shape[0] - 1, kept.shape[1] - 1)

    def _smallest_tried(self, relative: float) -> Ranks | None:
        low, high = 0, 1
        while self._try(high) > relative:
            low, high = high, 2 * high
            if high > self.layer.full()[0] or self.layer.params((high,)) >= self.layer.dense:
                return None
        while high - low > max(1, high // 16):
            middle = (low + high) // 2
            low, high = (low, middle) if self._try(middle) <= relative else (middle, high)
        return (high,)

    def grid(self, round_to: int, count: int = 14) -> list[Ranks]:
        """Ranks from small to where the chain is no smaller than the layer, in geometric steps."""
        full = self.layer.full()
        shares = [2 ** (-i / 2) for i in range(count)]
        every: dict[Ranks, None] = {}
        if self.kept is not None:
            pairs = [(a, b) for a in shares for b in shares if 0.2 <= a / b <= 5]
            wanted: list[list[float]] = [[a * full[0], b * full[1]] for a, b in pairs]
        elif not self.tails:
            widest = next((8 * 2**i for i in range(12) if self.layer.params((8 * 2**i,)) >= self.layer.dense), 4096)
            wanted = [[s * widest] for s in (0.5, 0.3, 0.18, 0.1, 0.06)]
        else:
            wanted = [[s * f for f in full] for s in shares]
        for ranks in wanted:
            every[self.layer.clip([rounded(r, f, round_to) for r, f in zip(ranks, full, strict=True)])] = None
        return [r for r in every if self.layer.params(r) < self.layer.dense]


def rounded(rank: float, full: int, to: int) -> int:
    """Up to a multiple of `to` (a small rank stays), at most the full rank."""
    up = math.ceil(rank - 1e-9)
    return max(1, min(full, -(-up // to) * to if up > to else up))


def squared_tails(squares: Sequence[Any], full: int) -> Array:
    """Squared tails by rank, 0 … full, summed over matrices of which the squared singular values (descending) are given."""
    total = np.zeros(full + 1)
    for values in squares:
        padded = np.zeros(full)
        padded[: min(full, len(values))] = values[:full]
        total[:-1] += np.cumsum(padded[::-1])[::-1]
    return total
