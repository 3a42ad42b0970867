"""Which indices go: from scores and limits to a set for every atom.

    scores ─Ranking→ order        Ranking, wanted count | threshold | budget ─→ {atom: removed indices}

Ties are broken by the order of atoms and indices, so that the same scores give the same choice. Every set is a prefix of one
order: a larger amount removes what a smaller one does, and more (before `round_to` and layers that need equal sizes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from netxform.axes.algebra import Atom
from netxform.axes.infer import types_of
from netxform.graph.network import Network

Removed = dict[Atom, list[int]]


@dataclass(frozen=True)
class Ranking:
    """The scores of the atoms that may shrink, and how they are compared.

    `scope`: all indices in one list, or the same share of every atom. `normalise`: scores are divided by this statistic of
    their atom before they are compared (global only). `least`: how many indices of an atom stay. `multiple`: what is left of
    an atom is rounded up to a multiple. `alike`: atoms that must keep equal numbers.
    """

    scores: Mapping[Atom, Tensor]
    scope: Literal["global", "layer"] = "global"
    normalise: Literal["none", "mean", "max", "l2"] = "none"
    least: Mapping[Atom, int] | None = None
    multiple: int = 1
    alike: Sequence[Sequence[Atom]] = ()

    def floor(self, atom: Atom) -> int:
        """The number of indices of `atom` that stay at least."""
        return min(atom.size, max(1, (self.least or {}).get(atom, 1)))

    @property
    def total(self) -> int:
        """The number of all indices."""
        return sum(a.size for a in self.scores)

    def orders(self) -> dict[Atom, list[int]]:
        """Of every atom the indices that may go, lowest score first."""
        out: dict[Atom, list[int]] = {}
        for atom, scores in self.scores.items():
            values = scores.tolist()
            out[atom] = sorted(range(atom.size), key=lambda i, v=values: (v[i], i))[: atom.size - self.floor(atom)]
        return out

    def lowest(self, count: int) -> Removed:
        """The `count` lowest of all (fewer where floors forbid), or that share of every atom."""
        orders = self.orders()
        if self.scope == "layer":
            share = count / max(self.total, 1)
            taken = {a: o[: min(len(o), math.floor(share * a.size + 1e-9))] for a, o in orders.items()}
        else:
            scale = {a: self._scale(s) for a, s in self.scores.items()}
            place = {a: i for i, a in enumerate(self.scores)}
            flat = [
                (float(self.scores[a][i]) / scale[a], place[a], k, a, i) for a, o in orders.items() for k, i in enumerate(o)
            ]
            flat.sort(key=lambda item: item[:3])
            taken = {a: [] for a in self.scores}
            for *_, atom, index in flat[:count]:
                taken[atom].append(index)
        return self.fitted(taken)

    def where(self, held: Mapping[Atom, Sequence[bool]]) -> Removed:
        """Those for which the condition holds, lowest first, as far as floors allow."""
        return self.fitted({a: [i for i in o if held[a][i]] for a, o in self.orders().items()})

    def _scale(self, scores: Tensor) -> float:
        match self.normalise:
            case "none":
                return 1.0
            case "mean":
                value = float(scores.abs().mean())
            case "max":
                value = float(scores.abs().max())
            case "l2":
                value = float(scores.norm())
        return value if value > 0 else 1.0

    def fitted(self, taken: Removed) -> Removed:
        """With what is left rounded up to a multiple, and equal where it must be: the best of those taken stay."""
        out: Removed = {}
        for atom, indices in taken.items():
            left = atom.size - len(indices)
            if self.multiple > 1 and indices:
                left = min(atom.size, -(-left // self.multiple) * self.multiple)
            out[atom] = indices[: atom.size - left]
        for group in self.alike:
            most = min((len(out.get(a, ())) for a in group), default=0)
            for atom in group:
                if atom in out:
                    out[atom] = out[atom][:most]
        return {a: sorted(i) for a, i in out.items() if i}


def until(ranking: Ranking, fits: Callable[[Removed], bool]) -> Removed | None:
    """The smallest removal, lowest first, that fits a budget, by bisection: costs fall as more is removed."""
    low, high = -1, ranking.total
    if not fits(ranking.lowest(high)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if fits(ranking.lowest(middle)):
            high = middle
        else:
            low = middle
    return ranking.lowest(high)


def alike(network: Network) -> list[list[Atom]]:
    """Atoms whose sizes one attribute of a layer states: they must stay equal (recurrent layers)."""
    from netxform.axes.algebra import normal

    shared: dict[tuple[str, tuple[object, ...]], dict[Atom, None]] = {}
    for stated in types_of(network).stated:
        if stated.layer is not None and stated.path is not None and len(stated.dims) == 1:
            only = normal(stated.dims[0])
            if len(only) == 1 and isinstance(only[0], Atom):
                shared.setdefault((stated.layer, stated.path), {})[only[0]] = None
    return [list(g) for g in shared.values() if len(g) > 1]


def kept(removed: Mapping[Atom, Sequence[int]]) -> dict[Atom, list[int]]:
    """The index maps that remove."""
    out: dict[Atom, list[int]] = {}
    for atom, indices in removed.items():
        gone = set(indices)
        out[atom] = [i for i in range(atom.size) if i not in gone]
    return out
