"""Gates: where the axes of a network are read, and the network run with something done at those places.

    Network ─gates→ Gate, …        Network, Gate, (Gate, Tensor → Tensor) ─Gated→ outputs

Removing index k of an atom takes it out of every sum over the atom. So the gate m_k of a coupled class multiplies what
each consumer reads: it occurs once for every value that is contracted (or averaged, summed, …) over the atom, and nowhere
else. What lies between production and reading (norms, activations, pooling, concatenation, residual sums) needs no gate. The
network with these gates at zero, and with what is mixed across the atom taken over the rest (`remaining.py`), is the *masked
twin*: what removal computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from netxform.axes.algebra import Atom, Dim, atoms, repeated, size
from netxform.axes.infer import types_of
from netxform.axes.reindex import Axis, axes_of
from netxform.axes.roles import along
from netxform.axes.rules.context import Typed
from netxform.axes.types import Contraction
from netxform.graph.copies import lent, structure
from netxform.graph.layers import Attention
from netxform.graph.network import Network
from netxform.pruning.inner import PRODUCT, OpenAttention, axis_of, opened
from netxform.pruning.masked_ops import Instead, across

# what is computed across an atom by an operation that reads it once and for all
_READS = ("mean", "sum", "norm", "variance", "extremum")


@dataclass(frozen=True, eq=False)
class Gate:
    """A value that is read over atoms: the node `operand`, its dimension `axis` of type `dim`, and who reads it.

    `still`: the value does not depend on the input (a table, a parameter).
    `layer`: the value is read inside the layer that the node calls (`PATH.NAME`, see `inner.py`), maybe several times a call.
    """

    operand: str
    axis: int
    dim: Dim
    atoms: tuple[Atom, ...]
    readers: tuple[str, ...]
    layer: str | None = None
    still: bool = False

    def index(self, atom: Atom) -> Tensor:
        """For every position of the dimension the index of `atom` that it holds, or -1. Shape (size,), int64."""
        if self.dim == (atom,):
            return torch.arange(atom.size)
        zero = along(self.dim, {}, {atom: [0.0] * atom.size})
        number = along(self.dim, {}, {atom: [float(i) for i in range(1, atom.size + 1)]})
        return torch.tensor([-1 if z else int(n) - 1 for z, n in zip(zero, number, strict=True)])


@dataclass(frozen=True)
class Gates:
    """The gates of a network's free atoms; `missing`: atoms with a reader that cannot be gated, and why."""

    gates: tuple[Gate, ...]
    missing: dict[Atom, str]

    def of(self, atom: Atom) -> tuple[Gate, ...]:
        """The gates at which `atom` is read."""
        return tuple(g for g in self.gates if atom in g.atoms)


def gates(network: Network) -> Gates:
    """Find the gates. What cannot be gated is said in `missing`, never left out silently."""
    types = types_of(network)
    nodes = {n.name: n for n in network.module.graph.nodes}
    moved = dependent(network.module.graph)
    found: dict[tuple[str, int, tuple[int, ...], str | None], tuple[Gate, dict[str, None]]] = {}
    missing: dict[Atom, str] = {}

    def add(
        operand: str, axis: int, dim: Dim, wanted: list[Atom], reader: str, layer: str | None = None, still: bool = False
    ) -> None:
        key = (operand if layer is None else "", axis, tuple(sorted(id(a) for a in wanted)), layer)
        found.setdefault(key, (Gate(operand, axis, dim, tuple(wanted), (), layer, still), {}))[1][reader] = None

    reads: list[tuple[str, Dim, Contraction | None]] = [(c.node, c.dim, c) for c in types.contractions]
    reads += [(m.at, dim, None) for m, dim in types.mixes if m.kind in _READS]
    for name, dim, contraction in reads:
        wanted = list(dict.fromkeys(a for a in atoms(dim) if a.locked is None))
        if not wanted:
            continue
        inner = _inside(network, contraction) if contraction is not None else None
        if isinstance(inner, tuple):
            layer, of = inner
            add(name, axis_of(layer.rpartition(".")[2]), of, wanted, name, layer)
            continue
        why = inner or _graph_gate(network, nodes.get(name), wanted, moved, add)
        if why:
            missing |= {a: missing.get(a, f"{why} (at `{name}`)") for a in wanted}
    for axis in axes_of(network):
        if axis.locked is None and axis.atom not in missing and not any(axis.atom in g.atoms for g, _ in found.values()):
            missing[axis.atom] = "nothing reads it"
    several = set[Atom]().union(*(repeated(d) for d in dict.fromkeys(g.dim for g, _ in found.values())))
    missing |= {x.atom: "it occurs twice in one dimension" for x in axes_of(network) if x.atom in several}
    made = tuple(Gate(g.operand, g.axis, g.dim, g.atoms, tuple(readers), g.layer, g.still) for g, readers in found.values())
    return Gates(made, missing)


def _inside(network: Network, contraction: Contraction) -> tuple[str, Dim] | str | None:
    """A sum inside a layer that is one node: an inner layer to gate, or why there is none; None for the inputs of a node."""
    sites = [s for s in (contraction.right, contraction.left) if s is not None]
    node = next((n for n in network.module.graph.nodes if n.name == contraction.node), None)
    module = network.module.get_submodule(str(node.target)) if node is not None and node.op == "call_module" else None
    if module is None or not isinstance(module, nn.MultiheadAttention | Attention | nn.RNNBase):
        return "summed over in code that is kept whole" if contraction.inside is not None else None
    assert node is not None
    names = {types_of(network).names.get(f"{node.target}.{n}"): n for n, _ in module.named_parameters()}
    if isinstance(module, nn.RNNBase):
        weight, axis = next(((names[n], i) for n, i in sites if n in names), ("", 0))
        if not weight:
            return "summed over inside a recurrent layer"
        if weight.startswith("weight_ih_l0"):
            return None
        return f"{node.target}.{weight}", types_of(network).tensors[types_of(network).names[f"{node.target}.{weight}"]][axis]
    if not sites:
        return f"{node.target}.{PRODUCT}", contraction.dim
    if any(names.get(n) == "out_proj.weight" for n, _ in sites):
        types = types_of(network)
        return f"{node.target}.out_proj", types.tensors[types.names[f"{node.target}.out_proj.weight"]][1]
    return None


def _graph_gate(
    network: Network, node: fx.Node | None, wanted: list[Atom], moved: set[fx.Node], add: Callable[..., None]
) -> str | None:
    """Gate the operand of the node that holds the atoms; the reason where that cannot be told."""
    if node is None:
        return "summed over in code that is kept whole"
    operands, why = node.all_input_nodes, "read from no value of the graph"
    if node.op == "call_module" and isinstance(
        network.module.get_submodule(str(node.target)), nn.MultiheadAttention | Attention
    ):
        return _attention_gates(network, node, wanted, moved, add)
    for operand in sorted(
        operands, key=lambda o: (o not in moved, getattr(types_of(network).values.get(o.name), "source", 0) is not None)
    ):
        value = types_of(network).values.get(operand.name)
        if not isinstance(value, Typed):
            continue
        axes = [i for i, d in enumerate(value.dims) if any(a in wanted for a in atoms(d))]
        if not axes:
            continue
        if len(axes) > 1:  # a product may be gated at its other operand
            why = "read along two dimensions of one value"
            continue
        often = sum(a is operand for a in node.args)
        if often > 1 and node.op != "call_module":
            return "multiplied with itself"
        here = set(atoms(value.dims[axes[0]]))
        if not all(a in here for a in wanted):
            return "read along two dimensions of one value"
        add(operand.name, axes[0], value.dims[axes[0]], wanted, node.name, still=operand not in moved)
        return None
    return why


def _attention_gates(
    network: Network, node: fx.Node, wanted: list[Atom], moved: set[fx.Node], add: Callable[..., None]
) -> str | None:
    """Gate queries, keys and values where they hold the atoms along their width: each is projected, masks are not."""
    places = dict(zip(("query", "key", "value"), node.args, strict=False)) | dict(node.kwargs)
    found = False
    for operand in dict.fromkeys(n for name in ("query", "key", "value") if isinstance(n := places.get(name), fx.Node)):
        value = types_of(network).values.get(operand.name)
        if not isinstance(value, Typed) or not any(a in wanted for a in atoms(value.dims[-1])):
            continue
        axis, here = len(value.dims) - 1, set(atoms(value.dims[-1]))
        if any(a in wanted for d in value.dims[:-1] for a in atoms(d)):
            return "read along two dimensions of one value"
        add(operand.name, axis, value.dims[axis], [a for a in wanted if a in here], node.name, still=operand not in moved)
        found = True
    return None if found else "read from no value of the graph"


def dependent(graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose values depend on the inputs."""
    out: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(n in out for n in node.all_input_nodes):
            out.add(node)
    return out


# --- running with gates ----------------------------------------------------------------------------------------------

Act = Callable[[Gate, Tensor], Tensor]


class Gated:
    """A network, in eval mode and without gradients of its tensors, in which `act` is called on every gated value.

    `instead`: operations in the place of nodes (`remaining.py`).
    """

    def __init__(self, network: Network, chosen: Sequence[Gate], instead: Mapping[str, Instead] | None = None) -> None:
        copied = structure(network.module, lent)
        _without_gradients(copied)
        self.act: Act = lambda gate, value: value
        by_name = {n.name: n for n in copied.graph.nodes}
        for gate in chosen:
            if gate.layer is not None:
                self._inside(copied, gate)
                continue
            operand = by_name[gate.operand]
            readers = [by_name[r] for r in gate.readers]
            first = next(n for n in copied.graph.nodes if n in readers)
            with copied.graph.inserting_before(first):
                made = copied.graph.call_function(lambda value, g=gate: self.act(g, value), (operand,))
            for reader in readers:
                reader.replace_input_with(operand, made)
        for name, operation in (instead or {}).items():
            node = by_name[name]
            with copied.graph.inserting_before(node):
                made = copied.graph.call_function(operation, node.args, node.kwargs)
            node.replace_all_uses_with(made)
            copied.graph.erase_node(node)
        self._run = fx.Interpreter(copied.eval(), garbage_collect_values=True)

    def _inside(self, module: fx.GraphModule, gate: Gate) -> None:
        assert gate.layer is not None
        path, _, name = gate.layer.rpartition(".")
        part = opened(module, path)
        if isinstance(part, OpenAttention) and name == "out_proj":
            part.out_proj.register_forward_pre_hook(lambda m, args, g=gate: (self.act(g, args[0]), *args[1:]))  # pyright: ignore
        else:
            part.acts[name] = lambda value, g=gate: self.act(g, value)

    def __call__(self, inputs: Iterable[Tensor], act: Act) -> Any:
        """The outputs of the network on the inputs."""
        self.act = act
        return self._run.run(*inputs)


def _without_gradients(module: nn.Module) -> None:
    """The tensors as plain constants, so that a backward pass computes gradients of values alone."""
    for part in module.modules():
        held: Any = part._parameters  # pyright: ignore[reportPrivateUsage]
        for name, tensor in list(held.items()):
            if tensor is not None:
                held[name] = nn.Parameter(tensor.detach(), requires_grad=False)
        if isinstance(part, nn.RNNBase):
            own: Any = part
            own._flat_weights = [getattr(own, n, None) for n in own._flat_weights_names]


def along_axis(vector: Tensor, axis: int, dim: int) -> Tensor:
    """A vector shaped to act along one axis of a value with `dim` dimensions."""
    return vector.reshape([-1 if i == axis % dim else 1 for i in range(dim)])


def masks(found: Sequence[Gate], removed: dict[Atom, Sequence[int]]) -> dict[Gate, Tensor]:
    """For every gate with a removed index: which positions go. Shape (size of its dimension,), bool."""
    out: dict[Gate, Tensor] = {}
    for gate in found:
        gone = torch.zeros(size(gate.dim), dtype=torch.bool)
        for atom in gate.atoms:
            if removed.get(atom):
                away = torch.zeros(atom.size + 1, dtype=torch.bool)
                away[torch.tensor(list(removed[atom]))] = True
                gone |= away[gate.index(atom)]  # -1 is the last place, which stays False
        if bool(gone.any()):
            out[gate] = gone
    return out


def masked(
    network: Network,
    found: Gates,
    removed: dict[Atom, Sequence[int]],
    inputs: tuple[Tensor, ...],
    fill: dict[tuple[str, int], Tensor] | None = None,
) -> Any:
    """The masked twin: the outputs with the removed indices read as zero (or as `fill`, by operand and axis), and left out of
    what is computed across them, where that has a form (`unmasked` says where not).
    """
    gone = masks(found.gates, removed)

    def act(gate: Gate, value: Tensor) -> Tensor:
        mask = along_axis(gone[gate].to(value.device), gate.axis, value.dim())
        held = None if fill is None else fill.get((gate.layer or gate.operand, gate.axis))
        other = torch.zeros((), dtype=value.dtype) if held is None else along_axis(held.to(value), gate.axis, value.dim())
        return torch.where(mask, other, value)

    with torch.no_grad():
        return Gated(network, list(gone), across(network, removed)[0])(inputs, act)


def unmasked(network: Network, removed: Mapping[Atom, Sequence[int]]) -> list[str]:
    """What is computed across removed indices and has no form over the rest: there the masked twin is not what removal does."""
    return across(network, removed)[1]


def free(network: Network) -> tuple[Axis, ...]:
    """The atoms that may change."""
    return tuple(a for a in axes_of(network) if a.locked is None)
