"""Whether the order of the tensors in a file can be that of a model whose names are others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import takewhile

from torch import Tensor


def not_in_order(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Why the n-th tensor of the file cannot be taken for the n-th of the model, in words; None where it can.

    Of as many tensors. Where no two of the model have one shape, a wrong order shows by itself.
    """
    shapes = Counter(t.shape for t in wanted.values())
    if all(n == 1 for n in shapes.values()):
        return None
    names, own = list(state), list(wanted)
    bare, inner = _bare(names), _bare(own)
    if bare == inner:
        return None
    if sorted(bare) == sorted(inner):
        i = next(i for i, (a, b) in enumerate(zip(bare, inner, strict=True)) if a != b)
        return f"number {i + 1} is `{names[i]}` there, and `{own[i]}` here"
    ends = [[n.rpartition(".")[2] for n in every] for every in (names, own)]
    if Counter(ends[0]) == Counter(ends[1]) and ends[0] != ends[1]:
        i = next(i for i, (a, b) in enumerate(zip(*ends, strict=True)) if a != b)
        return f"number {i + 1} is a `{ends[0][i]}` there (`{names[i]}`), and a `{ends[1][i]}` here (`{own[i]}`)"
    # some formats sort by name, or by the width of the type first
    for how, order in (("by name", _plainly), ("by type and name", _by_width)):
        if len(names) > 1 and names == order(names, state) and own != order(own, wanted):
            return f"its names are sorted {how}, and the model's are not"
    return None


def _bare(names: list[str]) -> list[str]:
    """The names without the path that all of them begin with."""
    parts = [n.split(".") for n in names]
    common = len(list(takewhile(lambda column: len(set(column)) == 1, zip(*(p[:-1] for p in parts), strict=False))))
    return [".".join(p[common:]) for p in parts]


def _plainly(names: Iterable[str], _: Mapping[str, Tensor]) -> list[str]:
    return sorted(names)


def _by_width(names: Iterable[str], held: Mapping[str, Tensor]) -> list[str]:
    return sorted(names, key=lambda n: (-held[n].element_size(), n))
