"""The algebra of axis types: what a dimension is made of, and what it means that two dimensions are the same.

    Dim    = product of factors, row-major               (h · d)
    factor = Atom | Mirror(Atom) | Sum(Dim, …)           Sum: a concatenation of segments [a | b | c]

An atom is the variable of an axis, kept by union-find: wherever it occurs, in whatever tensor, an index means the same
thing. An atom may be *bound* to a Dim (an axis of 768 was found to be 12 heads of 64), *locked* (why it may not be
changed), or *mixed* (something is computed across it: permuting is exact, other edits only under conditions). A Mirror is
an atom read backwards.

A dimension of size 1 has no factors, but for the axes of tensors that a module holds, which have an atom each (`unit`): one
channel may become several. It is locked where it meets a size of 1 that the code makes, or is repeated; then it is dropped.

Sound before complete: what cannot be expressed is locked, with the reason, on both sides. No torch here.
"""

# Long: one algebra: every operation on types reads the same union-find, and a reader wants them side by side.
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Lock:
    """Why an atom may not be changed: a kind (see `LOCKS`) and what it was seen at."""

    kind: str
    at: str = ""

    def __str__(self) -> str:
        return LOCKS[self.kind] + (f" ({self.at})" if self.at else "")


@dataclass(frozen=True, slots=True)
class Mix:
    """What is computed across an atom: a kind (see `MIXES`) and where."""

    kind: str
    at: str = ""

    def __str__(self) -> str:
        return MIXES[self.kind][0] + (f" ({self.at})" if self.at else "")


LOCKS: dict[str, str] = {
    "input": "an input of the network: whoever calls it decides",
    "output": "an output of the network: whoever reads it decides",
    "spatial": "positions in space or time: neighbours are read together",
    "kernel": "taps of a kernel",
    "lookup": "rows that are looked up by number",
    "position": "an operation reads positions along it",
    "constant": "a constant of the code, with values that depend on the position",
    "stack": "parts that are stacked or repeated by the code",
    "one": "a size of 1 that the code fixes, or repeats over another size",
    "renorm": "rows are renormalised, in place, when they are read (max_norm): set it to None once they are",
    "int8": "rows and columns of a weight that is stored as int8: `cast int8` comes last",
    "gates": "the gates of a recurrent cell, in the order that PyTorch fixes",
    "shape": "sizes here cannot be written as one type",
    "code": "the size is written in code that is kept whole",
    "unknown": "an operation that no rule covers",
    "unused": "not part of the graph that is run",
}
# kind → (what happens, whether a copy of every index, equally often, leaves the result the same)
MIXES: dict[str, tuple[str, bool]] = {
    "layer_norm": ("normalised together by LayerNorm", True),
    "rms_norm": ("normalised together by RMSNorm", True),
    "group_norm": ("normalised together by GroupNorm", True),
    "batch_norm": ("normalised together by batch statistics", True),
    "mean": ("averaged over", True),
    "extremum": ("reduced to its largest or smallest element", True),
    "sum": ("summed over", False),
    "norm": ("reduced to a norm", False),
    "variance": ("reduced to a variance with n - 1", False),
    "product": ("multiplied over", False),
    "softmax": ("normalised together by softmax", False),
    "size": ("its size is used as a number", False),
}


class Atom:
    """The variable of an axis; what is found to be the same becomes one.

    Mutable: `parent`, `bound`, `locked` and `mixed` are settled while types are found.
    """

    __slots__ = ("bound", "locked", "mixed", "parent", "size")

    def __init__(self, size: int, locked: Lock | None = None) -> None:
        self.size = size
        self.parent: Atom | None = None
        self.bound: Dim | None = None
        self.locked = locked
        self.mixed: dict[Mix, None] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Mirror:
    """An atom read from its last index to its first."""

    atom: Atom


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """Segments, one behind the other."""

    parts: tuple[Dim, ...]


Factor: TypeAlias = Atom | Mirror | Sum
Dim: TypeAlias = tuple[Factor, ...]
ONE: Dim = ()


def fresh(size: int, locked: Lock | None = None) -> Dim:
    """A dimension of its own. One of size 1 has no factors; locked, it knows why."""
    return ONE if size == 1 and locked is None else (Atom(size, locked),)


def unit(size: int) -> Dim:
    """A dimension of a tensor that a module holds: of its own, also where its size is 1."""
    return (Atom(size),)


def find(atom: Atom) -> Atom:
    """The representative of the class of `atom`."""
    root = atom
    while root.parent is not None:
        root = root.parent
    while atom.parent is not None:
        atom.parent, atom = root, atom.parent
    return root


def extent(factor: Factor) -> int:
    """The size of a factor."""
    match factor:
        case Atom():
            return factor.size
        case Mirror():
            return factor.atom.size
        case Sum():
            return sum(size(p) for p in factor.parts)


def size(dim: Dim) -> int:
    """The size of a dimension."""
    total = 1
    for factor in dim:
        total *= extent(factor)
    return total


def normal(dim: Dim) -> Dim:
    """The same dimension in terms of representatives that are bound to nothing; nested sums are flat."""
    if len(dim) == 1 and type(dim[0]) is Atom:  # by far the most frequent case
        atom = find(dim[0])
        if atom.bound is None:
            return (atom,) if atom.size != 1 or atom.locked is None else ONE
    out: list[Factor] = []
    for factor in dim:
        match factor:
            case Atom():
                root = find(factor)
                if root.bound is not None:
                    out += normal(root.bound)
                elif root.size != 1 or root.locked is None:
                    out.append(root)
            case Mirror():
                root = find(factor.atom)
                if root.bound is not None:
                    out += normal(mirrored(root.bound))
                elif root.size != 1:
                    out.append(Mirror(root))
                elif root.locked is None:  # one index, read either way
                    out.append(root)
            case Sum():
                parts = list(_flat(factor))
                if len(parts) == 1:
                    out += parts[0]
                else:
                    out.append(Sum(tuple(parts)))
    return tuple(out)


def _flat(total: Sum) -> Iterator[Dim]:
    for part in total.parts:
        inner = normal(part)
        if len(inner) == 1 and isinstance(inner[0], Sum):
            yield from inner[0].parts
        elif size(inner) > 0:
            yield inner


def mirrored(dim: Dim) -> Dim:
    """The dimension read from its last index to its first."""

    def turn(factor: Factor) -> Factor:
        match factor:
            case Atom():
                return Mirror(factor)
            case Mirror():
                return factor.atom
            case Sum():
                return Sum(tuple(mirrored(p) for p in reversed(factor.parts)))

    return tuple(turn(f) for f in dim)


def concat(parts: Iterable[Dim]) -> Dim:
    """Segments one behind the other, as one dimension."""
    several = tuple(parts)
    return several[0] if len(several) == 1 else (Sum(several),)


def atoms(dim: Dim) -> Iterator[Atom]:
    """The representatives in a dimension, from left to right, as often as they occur."""
    yield from _atoms(normal(dim))


def _atoms(dim: Dim) -> Iterator[Atom]:
    """The atoms of a dimension that is in normal form already."""
    for factor in dim:
        match factor:
            case Atom():
                yield factor
            case Mirror():
                yield factor.atom
            case Sum():
                for part in factor.parts:
                    yield from _atoms(part)


def repeated(dim: Dim) -> set[Atom]:
    """The atoms that occur in several factors of the dimension, or of one of its segments."""
    return _repeated(normal(dim))


def _repeated(dim: Dim) -> set[Atom]:
    often = Counter(a for factor in dim for a in set(_atoms((factor,)))) if len(dim) > 1 else Counter[Atom]()
    out = {a for a, n in often.items() if n > 1}
    for factor in dim:
        if isinstance(factor, Sum):
            out.update(*map(_repeated, factor.parts))
    return out


def lock(dim: Dim, why: Lock) -> None:
    """Lock every atom of the dimension. The first reason stays."""
    for atom in atoms(dim):
        if atom.locked is None:
            atom.locked = why


def mix(dim: Dim, why: Mix) -> None:
    """Note that something is computed across every atom of the dimension."""
    for atom in atoms(dim):
        atom.mixed[why] = None


def is_locked(dim: Dim) -> bool:
    """Whether nothing in the dimension may change."""
    return all(a.locked is not None for a in atoms(dim))


def units(dim: Dim) -> list[Atom]:
    """The free atoms of size 1 in a dimension."""
    return [a for a in atoms(dim) if a.size == 1]


def reasons(dim: Dim) -> list[Lock]:
    """Why atoms of the dimension are locked, those of size 1 included."""
    found: dict[Lock, None] = {}
    for factor in dim:
        match factor:
            case Atom() | Mirror():
                root = find(factor if isinstance(factor, Atom) else factor.atom)
                found |= dict.fromkeys(reasons(root.bound) if root.bound is not None else [root.locked] if root.locked else [])
            case Sum():
                found |= dict.fromkeys(why for part in factor.parts for why in reasons(part))
    return list(found)


# --- two dimensions are the same -------------------------------------------------------------------------------------


def unify(a: Dim, b: Dim, at: str = "") -> None:
    """Make two dimensions of one size the same. What cannot be expressed is locked on both sides."""
    if a is b:
        return
    why = next(iter((*reasons(a), *reasons(b))), Lock("one", at)) if size(a) == 1 else None
    a, b = normal(a), normal(b)
    if size(a) != size(b):
        lock(a, Lock("shape", at))
        lock(b, Lock("shape", at))
        return
    if why is not None and not (len(a) == len(b) == 1 and isinstance(a[0], Atom) and isinstance(b[0], Atom)):
        lock(a + b, why)  # what is 1 in the code stays 1
        return
    if len(a) == 1 and len(b) == 1:
        _unify_factors(a[0], b[0], at)
    elif len(a) == 1 and not isinstance(a[0], Sum):
        _bind_factor(a[0], b, at)
    elif len(b) == 1 and not isinstance(b[0], Sum):
        _bind_factor(b[0], a, at)
    elif len(a) == 1:
        _unify_sum_product(a, b, at)
    elif len(b) == 1:
        _unify_sum_product(b, a, at)
    else:
        parts = regroup(a, [extent(f) for f in b], at)
        if parts is None:
            _give_up(a, b, at)
            return
        for part, factor in zip(parts, b, strict=True):
            unify(part, (factor,), at)


def _unify_factors(a: Factor, b: Factor, at: str) -> None:
    if isinstance(a, Atom) and isinstance(b, Atom):
        if a is not b:
            b.locked = b.locked or a.locked
            b.mixed |= a.mixed
            a.parent = b
    elif isinstance(a, Mirror) and isinstance(b, Mirror):
        _unify_factors(a.atom, b.atom, at)
    elif isinstance(a, Atom):
        _bind_factor(a, (b,), at)
    elif isinstance(b, Atom):
        _bind_factor(b, (a,), at)
    elif isinstance(a, Mirror):
        _bind_factor(a, (b,), at)
    elif isinstance(b, Mirror):
        _bind_factor(b, (a,), at)
    else:
        _unify_sums(a, b, at)


def _bind_factor(factor: Factor, dim: Dim, at: str) -> None:
    """Bind an unbound atom, read forwards or backwards, to a dimension."""
    if isinstance(factor, Mirror):
        factor, dim = factor.atom, mirrored(dim)
    assert isinstance(factor, Atom)
    dim = normal(dim)
    if any(a is factor for a in atoms(dim)):
        if len(dim) == 1 and isinstance(dim[0], Mirror):  # the same as itself read backwards: two halves, one atom
            half = fresh(factor.size // 2)
            middle = [ONE] if factor.size % 2 else []
            _bind(factor, concat([half, *middle, mirrored(half)]))
        else:
            lock(dim, Lock("shape", at))
            lock((factor,), Lock("shape", at))
        return
    _bind(factor, dim)


def _bind(atom: Atom, dim: Dim) -> None:
    if atom.locked is not None:
        lock(dim, atom.locked)
    for why in atom.mixed:
        mix(dim, why)
    atom.bound = dim


def _unify_sums(a: Sum, b: Sum, at: str) -> None:
    if [size(p) for p in a.parts] != [size(p) for p in b.parts]:
        cuts = sorted({*_offsets(a.parts), *_offsets(b.parts)})
        left, right = split((a,), cuts, at), split((b,), cuts, at)
        if left is None or right is None:
            _give_up((a,), (b,), at)
            return
    else:
        left, right = list(a.parts), list(b.parts)
    for one, other in zip(left, right, strict=True):
        unify(one, other, at)


def _unify_sum_product(total: Dim, product: Dim, at: str) -> None:
    product = _without_units(product, at)
    if len(product) == 1:
        unify(total, product, at)
        return
    first = total[0]
    assert isinstance(first, Sum)
    parts, count, rest = first.parts, extent(product[0]), product[1:]
    if len(parts) == count and len({size(p) for p in parts}) == 1:  # segments that are all the same: a stack of them
        lock(product[:1], Lock("stack", at))
        for part in parts:
            unify(part, rest, at)
        return
    pieces = split(product, _offsets(parts), at)
    if pieces is None:
        _give_up(total, product, at)
        return
    for one, other in zip(pieces, parts, strict=True):
        unify(one, other, at)


def _give_up(a: Dim, b: Dim, at: str) -> None:
    lock(a, Lock("shape", at))
    lock(b, Lock("shape", at))


def _offsets(parts: Iterable[Dim]) -> list[int]:
    out: list[int] = []
    total = 0
    for part in parts:
        total += size(part)
        out.append(total)
    return out[:-1]


# --- one dimension taken apart ---------------------------------------------------------------------------------------


def split(dim: Dim, cuts: list[int], at: str = "") -> list[Dim] | None:
    """The dimension cut at the given offsets (increasing, inside); None where it cannot be expressed."""
    dim = normal(dim)
    if not cuts:
        return [dim]
    if len(dim) > 1:
        dim = _without_units(dim, at)
    if not dim:
        return None
    bounds = [0, *cuts, size(dim)]
    sizes = [b - a for a, b in pairwise(bounds)]
    if len(dim) > 1:
        inner = size(dim[1:])
        if any(c % inner for c in cuts):
            return None
        heads = split(dim[:1], [c // inner for c in cuts], at)
        return None if heads is None else [normal(h + dim[1:]) for h in heads]
    match first := next(iter(dim)):
        case Atom():
            parts = [fresh(n) for n in sizes]
            _bind(first, concat(parts))
            return [normal(p) for p in parts]
        case Mirror():
            whole = size(dim)
            back = split((first.atom,), [whole - c for c in reversed(cuts)], at)
            return None if back is None else [mirrored(p) for p in reversed(back)]
        case Sum():
            return _split_sum(first, sizes, at)


def _without_units(dim: Dim, at: str) -> Dim:
    """The dimension where its sizes of 1 stay 1."""
    lock(tuple(f for f in dim if extent(f) == 1), Lock("one", at))
    return normal(dim)


def _split_sum(total: Sum, sizes: list[int], at: str) -> list[Dim] | None:
    queue = list(total.parts)
    out: list[Dim] = []
    for wanted in sizes:
        piece: list[Dim] = []
        while wanted:
            part = queue.pop(0)
            here = size(part)
            if here > wanted:
                halves = split(part, [wanted], at)
                if halves is None:
                    return None
                part, here = halves[0], wanted
                queue.insert(0, halves[1])
            piece.append(part)
            wanted -= here
        out.append(normal(concat(piece)))
    return out


def regroup(dim: Dim, sizes: list[int], at: str = "") -> list[Dim] | None:
    """The factors of a dimension grouped into dimensions of the given sizes (a reshape); None where it cannot be expressed."""
    factors = list(normal(dim))
    out: list[Dim] = []
    for wanted in sizes:
        group: list[Factor] = []
        while wanted > 1:
            if not factors:
                return None
            factor = factors.pop(0)
            here = extent(factor)
            if wanted % here == 0:
                group.append(factor)
                wanted //= here
            elif here % wanted == 0:
                pieces = _factor_in_two(factor, wanted, at)
                if pieces is None:
                    return None
                factors[:0] = pieces
            else:
                return None
        if not group and factors and extent(factors[0]) == 1:
            group.append(factors.pop(0))
        out.append(tuple(group))
    if any(extent(f) != 1 for f in factors):
        return None
    if out:
        out[-1] += tuple(factors)
    else:
        lock(tuple(factors), Lock("one", at))
    return out


def _factor_in_two(factor: Factor, outer: int, at: str) -> Dim | None:
    """A factor as a product whose first factor has the size `outer`."""
    match factor:
        case Atom():
            pair = (Atom(outer), Atom(factor.size // outer))
            _bind(factor, pair)
            return pair
        case Mirror():
            pair = _factor_in_two(factor.atom, outer, at)
            return None if pair is None else mirrored(pair)
        case Sum():
            parts = factor.parts
            if len(parts) == outer and len({size(p) for p in parts}) == 1:
                for part in parts[1:]:
                    unify(parts[0], part, at)
                return (Atom(outer, Lock("stack", at)), *normal(parts[0]))
            inner = extent(factor) // outer  # every segment a multiple of the inner size, with the same inner factor
            tails: list[tuple[Dim, Dim]] = []
            for part in parts:
                if size(part) % inner:
                    return None
                pieces = regroup(part, [size(part) // inner, inner], at)
                if pieces is None:
                    return None
                tails.append((pieces[0], pieces[1]))
            for _, tail in tails[1:]:
                unify(tails[0][1], tail, at)
            return (Sum(tuple(h for h, _ in tails)), *normal(tails[0][1]))


# --- sizes and indices under a change --------------------------------------------------------------------------------


def size_under(dim: Dim, sizes: Mapping[Atom, int]) -> int:
    """The size of a dimension when the atoms in `sizes` have these sizes."""
    total = 1
    for factor in normal(dim):
        match factor:
            case Atom():
                total *= sizes.get(factor, factor.size)
            case Mirror():
                total *= sizes.get(factor.atom, factor.atom.size)
            case Sum():
                total *= sum(size_under(p, sizes) for p in factor.parts)
    return total


def positions(dim: Dim, index: Callable[[Atom], list[int] | range]) -> list[int]:
    """For every position of the changed dimension, the position of the old one that it is taken from."""
    out = [0]
    for factor in normal(dim):
        here = extent(factor)
        match factor:
            case Atom():
                inner: list[int] | range = index(factor)
            case Mirror():
                inner = [here - 1 - i for i in reversed(index(factor.atom))]
            case Sum():
                inner, start = [], 0
                for part in factor.parts:
                    inner += [start + i for i in positions(part, index)]
                    start += size(part)
        out = [o * here + i for o in out for i in inner]
    return out


def show(dim: Dim, name: Callable[[Atom], str]) -> str:
    """The dimension as text: `64`, `(h · d)`, `[a | b]`."""
    shown: list[str] = []
    for factor in normal(dim):
        match factor:
            case Atom():
                shown.append(name(factor))
            case Mirror():
                shown.append(f"~{name(factor.atom)}")
            case Sum():
                shown.append("[" + " | ".join(show(p, name) for p in factor.parts) + "]")
    if not shown:
        return "1"
    return shown[0] if len(shown) == 1 else "(" + " · ".join(shown) + ")"
