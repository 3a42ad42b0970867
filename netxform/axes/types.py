"""The axis types of a network, as data: of tensors and values, what must follow them, where sums run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from netxform.axes.algebra import Atom, Dim, Mix, atoms


@dataclass(slots=True)
class Stated:
    """A number that must follow the sizes of dimensions: an argument of a node (`path`) or an attribute of a layer.

    Without a place it stands in code that is kept whole: it cannot be written, only checked. `computed`: the graph computes
    it from the sizes of these dimensions; a number is written in its place where one of them changes.
    """

    node: str
    path: tuple[Any, ...] | None
    dims: tuple[Dim, ...]
    value: int
    layer: str | None = None
    computed: tuple[Dim, ...] = ()


@dataclass(slots=True)
class Parts:
    """A `split` or `chunk` by one number: when its parts become unequal, their sizes must be listed."""

    node: str
    axis: int
    parts: list[Dim]


@dataclass(slots=True)
class Contraction:
    """A sum over an axis: at which node, of which tensors of the module (name, axis), or of activations (None)."""

    node: str
    left: tuple[str, int] | None
    right: tuple[str, int] | None
    dim: Dim
    inside: str | None = None


@dataclass
class Types:
    """The axis types of a network: of every tensor of the module and of every value of the graph."""

    tensors: dict[str, list[Dim]] = field(default_factory=dict[str, "list[Dim]"])
    names: dict[str, str] = field(default_factory=dict[str, str])
    values: dict[str, object] = field(default_factory=dict[str, object])
    stated: list[Stated] = field(default_factory=list[Stated])
    parts: list[Parts] = field(default_factory=list[Parts])
    contractions: list[Contraction] = field(default_factory=list[Contraction])
    mixes: list[tuple[Mix, Dim]] = field(default_factory=list["tuple[Mix, Dim]"])
    uses: dict[str, int] = field(default_factory=dict[str, int])
    scaled: list[tuple[str, Dim]] = field(default_factory=list["tuple[str, Dim]"])
    uncovered: dict[str, str] = field(default_factory=dict[str, str])
    ops: int = 0

    @cached_property
    def places(self) -> dict[Atom, tuple[tuple[str, int], ...]]:
        """Where each atom occurs: tensor and dimension, in the order of the tensors."""
        found: dict[Atom, list[tuple[str, int]]] = {}
        for name, dims in self.tensors.items():
            for i, dim in enumerate(dims):
                for atom in dict.fromkeys(atoms(dim)):
                    found.setdefault(atom, []).append((name, i))
        return {a: tuple(p) for a, p in found.items()}

    @cached_property
    def contracting(self) -> dict[Atom, list[Contraction]]:
        """The contractions over each atom."""
        found: dict[Atom, list[Contraction]] = {}
        for contraction in self.contractions:
            for atom in dict.fromkeys(atoms(contraction.dim)):
                found.setdefault(atom, []).append(contraction)
        return found

    @cached_property
    def contracted(self) -> Counter[tuple[str, int]]:
        """How often each dimension of a tensor is contracted."""
        return Counter(s for c in self.contractions for s in {c.left, c.right} if s is not None)
