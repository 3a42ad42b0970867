"""What an axis is for: heads of an attention, the width within them, the inner width of dense layers, or a residual stream.

Network ─kinds→ a kind for every free atom that has one

Read off the types, not off names of modules:

- *within*: queries and keys are summed over it, or it stands beside heads in the rows of a projection (values);
- *heads*: it stands before such an axis in the rows of a projection, whatever the layers are called (`heads · within`);
- *residual*: two values that depend on the input are added along it;
- *mlp*: dense layers (Linear, kernels of one tap) make it and read it, and nothing else has weights along it.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

from torch import fx

from netxform.axes.algebra import Atom, Dim, Factor, Sum, atoms, normal
from netxform.axes.infer import types_of
from netxform.axes.names import op_name
from netxform.axes.reindex import axes_of
from netxform.axes.roles import carried, roles
from netxform.axes.rules.context import Typed
from netxform.axes.types import Types
from netxform.graph.dataflow import dependent
from netxform.graph.network import Network

Kind: TypeAlias = Literal["heads", "within", "mlp", "residual"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def kinds(network: Network) -> dict[Atom, Kind]:
    """The kind of every free atom of the network's tensors that has one; found once, its twin knows it too."""
    if "kinds" not in network.known:
        network.known["kinds"] = _kinds(network)
    return network.known["kinds"]


def kind_of(network: Network, atom: Atom) -> Kind | None:
    """What the axis is for; None for what is none of these: channels inside a block of convolutions, states."""
    return kinds(network).get(atom)


def _kinds(network: Network) -> dict[Atom, Kind]:
    types, out = types_of(network), dict[Atom, Kind]()
    free = {a.atom for a in axes_of(network) if a.locked is None}
    heads, within = _attention(types, free)
    for atom in within | heads:
        out[atom] = "heads" if atom in heads else "within"
    for atom in _added(network) & free:
        out.setdefault(atom, "residual")
    for atom in free - set(out):
        if _dense(types, atom):
            out[atom] = "mlp"
    return out


def _attention(types: Types, free: set[Atom]) -> tuple[set[Atom], set[Atom]]:
    """Heads, and what is within them: queries times keys is a sum over two activations, with no tensor of weights."""
    within = {a for c in types.contractions if c.left is None and c.right is None for a in atoms(c.dim)} & free
    heads: set[Atom] = set()
    products = [p for dims in types.tensors.values() for dim in dims for p in _products(dim)]
    for product in products:
        for i, factor in enumerate(product):
            if i and any(a in within for a in atoms((factor,))):
                heads |= {f for f in product[:i] if isinstance(f, Atom) and f in free}
    for product in products:  # the width of the values stands beside the same heads
        for i, factor in enumerate(product):
            if any(isinstance(f, Atom) and f in heads for f in product[:i]):
                within |= set(atoms((factor,))) & free
    return heads, within - heads


def _products(dim: Dim) -> list[list[Factor]]:
    """The products of several factors in a dimension, those in its segments too."""
    factors = list(normal(dim))
    found = [factors] if len(factors) > 1 else []
    for factor in factors:
        if isinstance(factor, Sum):
            found += [p for part in factor.parts for p in _products(part)]
    return found


def _added(network: Network) -> set[Atom]:
    """The atoms along which two values are added that depend on the input, and have gone through other layers."""
    graph, values, found = network.module.graph, types_of(network).values, set[Atom]()
    moved, place = dependent(graph), {n: 1 << i for i, n in enumerate(graph.nodes)}
    layers: dict[fx.Node, int] = {}  # those that lie behind a value, a bit each: an activation written out adds none
    for node in graph.nodes:
        given = [n for n in node.all_input_nodes if n in moved]
        weighs = node.op == "call_module" or len(given) < len(node.all_input_nodes)
        layers[node] = place[node] if weighs and given else 0
        for one in given:
            layers[node] |= layers[one]
        if node.op in ("call_function", "call_method") and op_name(node) == "add":
            sides = [a for a in node.args[:2] if isinstance(a, fx.Node) and a in moved]
            if len(sides) == 2 and layers[sides[0]] != layers[sides[1]]:
                found |= _atoms(values.get(sides[0].name)) & _atoms(values.get(sides[1].name))
    return found


def _atoms(value: Any) -> set[Atom]:
    return {a for dim in value.dims for a in atoms(dim)} if isinstance(value, Typed) else set()


def _dense(types: Types, atom: Atom) -> bool:
    """Whether dense layers alone have weights along the atom, one that makes it and one that reads it."""
    consumers = roles(types, atom).consumers
    makers = [(t, i) for t, i in carried(types, atom, consumers) if len(types.tensors[t]) > 1]
    if not makers or not consumers or not all(_one_tap(types.tensors[t]) for t, _ in (*makers, *consumers)):
        return False
    # a table is looked up, a matrix is summed over along its other side
    return all(any((t, j) in types.contracted for j in range(len(types.tensors[t])) if j != i) for t, i in makers)


def _one_tap(dims: list[Dim]) -> bool:
    return math.prod(a.size for d in dims[2:] for a in atoms(d)) == 1
