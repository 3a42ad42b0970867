"""Another number of channels at an input: folded into the layers that read it, or brought to the old number in front of it.

    f'(x') = f(M x')        M (old, new): which old channel reads which new one

Where every reader is a convolution or a Linear, and what lies between treats all channels alike, W' = W M along its channels.
Where a normalisation with numbers of its own for each channel, or code that no rule covers, stands between, a fixed layer
computes M x' first, in front of all that reads the input. Both are exact in real arithmetic.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, fx, nn

from netxform.graph.edits import Operation
from netxform.graph.guards import is_guard
from netxform.graph.network import Input, Network, Probes
from netxform.graph.surgery import perform_operation
from netxform.graph.tensors import alike, exchange, held

How: TypeAlias = Literal["sum", "mean", "repeat", "zero"]
FRONT = "input_channels"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FUNCTIONAL = {torch.conv1d, torch.conv2d, torch.conv3d, nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d}
# what treats every channel alike, number by number or neighbour by neighbour: of modules by class, of functions by name
_ALIKE = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Identity, nn.Dropout, nn.MaxPool2d, nn.AvgPool2d,
          nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.Upsample)  # fmt: skip
_SAME = ("float", "double", "half", "to", "contiguous", "clone", "detach", "relu", "interpolate", "pad", "clamp")
_NUMBERS = (operator.mul, operator.truediv, operator.add, operator.sub, torch.mul, torch.div, torch.add, torch.sub)
_LINEAR = (operator.mul, operator.truediv, torch.mul, torch.div)


def matrix(old: int, new: int, how: How) -> tuple[tuple[float, ...], ...]:
    """M (old, new).

    Fewer channels: with `sum` and `repeat` the old channel c reads the new c mod new (one grey channel is read by all: kernels
    add up); with `mean` so in shares of 1/old; with `zero` those that are gone read nothing. More: old channels read their own,
    and a new one is read by none (`zero`), by all (`sum`; `mean`: in shares of 1/old), or by the old j mod old (`repeat`).
    """
    if new < old:
        reads = {
            "sum": lambda c, j: float(c % new == j),
            "repeat": lambda c, j: float(c % new == j),
            "mean": lambda c, j: float(c % new == j) / old,
            "zero": lambda c, j: float(c == j),
        }[how]
    else:
        reads = {
            "sum": lambda c, j: float(c == j or j >= old),
            "repeat": lambda c, j: float(c == j % old),
            "mean": lambda c, j: float(c == j) if j < old else 1.0 / old,
            "zero": lambda c, j: float(c == j),
        }[how]
    return tuple(tuple(reads(c, j) for j in range(new)) for c in range(old))


@dataclass(frozen=True, slots=True)
class Reading:
    """Who reads an input's channels (dimension `dim`): tensors and their dimension. `blocked`: why they cannot take it up."""

    dim: int
    tensors: tuple[tuple[str, int], ...] = ()
    blocked: str | None = None


@dataclass(frozen=True, slots=True)
class Channels(Operation):
    """Give the input `name` the channels that M (old, new) has, along its dimension `dim`.

    `tensors` take M up along theirs; with none, a fixed layer in front does.
    """

    name: str
    dim: int
    M: tuple[tuple[float, ...], ...]
    tensors: tuple[tuple[str, int], ...] = field(default=())


def reading(network: Network, name: str, M: tuple[tuple[float, ...], ...], dim: int) -> Reading:
    """Follow the input to what reads its channels."""
    module, modules = network.module, dict(network.module.named_modules(remove_duplicate=False))
    start = next(n for n in module.graph.nodes if n.op == "placeholder" and n.name == name)
    rank = len(start.meta["shape"])
    values: dict[fx.Node, int] = {start: dim % rank}
    readers: dict[tuple[str, int], set[fx.Node]] = {}
    picks = all(sorted(row)[-1] == 1.0 and sum(row) == 1.0 for row in M)
    for node in module.graph.nodes:
        given = [n for n in node.all_input_nodes if n in values]
        if not given or node.op == "output":
            if given:
                return Reading(dim, (), f"it is an output of the network (`{given[0].name}`)")
            continue
        axis = values[given[0]]
        found = _weight(node, modules, given[0], axis)
        if isinstance(found, tuple):
            readers.setdefault(found, set()).add(node)
        elif found is not None:
            return Reading(dim, (), found)
        elif _alike(node, modules, given, axis, picks):
            values[node] = axis
        elif not _asks(node, axis):
            return Reading(dim, (), f"`{_place(node)}` reads them in a way of its own")
    if not readers:
        return Reading(dim, (), "no layer reads them")
    for tensor, _ in readers:
        users = _users(network, tensor)
        if users - readers[next(r for r in readers if r[0] == tensor)]:
            return Reading(dim, (), f"`{tensor}` is read elsewhere too")
    return Reading(dim, tuple(readers))


def _place(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else f"{node.name} in {node.meta.get('scope') or 'the network'}"


def _weight(node: fx.Node, modules: Mapping[str, nn.Module], value: fx.Node, axis: int) -> tuple[str, int] | str | None:
    """The weight that sums over the channels, and along which dimension; why it cannot be changed; None where it is no such."""
    last = len(value.meta["shape"]) - 1
    if node.op == "call_module":
        part: Any = modules[str(node.target)]
        if type(part) in _CONVOLUTIONS and node.args[:1] == (value,):
            if part.groups != 1:
                return f"`{node.target}` keeps its channels in {part.groups} groups"
            return (f"{node.target}.weight", 1) if axis == 1 else None
        if type(part) is nn.Linear and axis == last:
            return f"{node.target}.weight", 1
        return None
    weight = node.args[1] if len(node.args) > 1 else None
    if node.op == "call_function" and node.args[:1] == (value,) and isinstance(weight, fx.Node) and weight.op == "get_attr":
        if node.target in _FUNCTIONAL and axis == 1:
            groups = node.kwargs.get("groups", node.args[6] if len(node.args) > 6 else 1)
            return (str(weight.target), 1) if groups == 1 else f"`{_place(node)}` keeps its channels in groups"
        if node.target is nn.functional.linear and axis == last:
            return str(weight.target), 1
    return None


def _alike(node: fx.Node, modules: Mapping[str, nn.Module], given: list[fx.Node], axis: int, picks: bool) -> bool:
    """Whether the node does the same with every channel, so that M may be applied behind it as well as before."""
    first = bool(node.args) and node.args[0] is given[0]
    if len(node.all_input_nodes) != 1 or not (first or (node.target in _NUMBERS and node.args[1:] == (given[0],))):
        return False
    shape: Any = node.meta.get("shape")
    if not isinstance(shape, tuple) or len(shape) != len(given[0].meta["shape"]) or shape[axis] != given[0].meta["shape"][axis]:
        return False
    if node.op == "call_module":
        part = modules[str(node.target)]
        return isinstance(part, nn.Identity | nn.Dropout | nn.AvgPool2d | nn.ZeroPad2d) or (picks and type(part) in _ALIKE)
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    if node.target in _NUMBERS:
        scales = node.target in (operator.mul, torch.mul) or (first and node.target in _LINEAR)
        return bool(picks or scales)
    return name in _SAME and (picks or name not in ("relu", "clamp", "pad", "interpolate"))


def _asks(node: fx.Node, axis: int) -> bool:
    """Whether the node asks for sizes of other dimensions alone, or for what does not depend on them, or compares the number of
    channels of the input with the one that the model was made for: from here on the network itself says which it takes.
    """
    if node.op == "call_method" and node.target == "size" and len(node.args) == 2:
        return bool(node.args[1] != axis) or _judged(node)
    if node.op == "call_method" and node.target in ("dim",):
        return True
    if node.op == "call_function" and node.target is getattr and node.args[1] in ("dtype", "device", "ndim"):
        return True
    if node.op == "call_function" and node.target is getattr and node.args[1] == "shape":
        return all(
            u.target is operator.getitem and isinstance(u.args[1], int) and (u.args[1] != axis or _judged(u))
            for u in node.users
        )
    return False


def _judged(node: fx.Node) -> bool:
    """Whether the number is compared for a guard alone, and was read off an input."""
    source = node
    while source.op != "placeholder" and source.args and isinstance(source.args[0], fx.Node):
        if source is not node and not (source.target is getattr and source.args[1] == "shape"):
            return False
        source = source.args[0]
    compared = (operator.ne, operator.eq)
    guards = [u for n in node.users for u in ([n] if is_guard(n) else n.users)]
    return all(is_guard(n) or n.target in compared for n in node.users) and all(is_guard(g) for g in guards)


def _settle_guards(start: fx.Node, dim: int) -> None:
    """What compares the number of channels compares the old one: the network takes no other than it says."""
    found = [u for u in start.users if u.op == "call_method" and u.target == "size" and u.args[1:] == (dim,)]
    shapes = [u for u in start.users if u.target is getattr and u.args[1] == "shape"]
    found += [u for n in shapes for u in n.users if u.target is operator.getitem and u.args[1] == dim]
    for node in found:
        for user in list(node.users):
            user.args = tuple(start.meta["shape"][dim] if a is node else a for a in user.args)


def _users(network: Network, tensor: str) -> set[fx.Node]:
    """The nodes that read the tensor, under any of its names."""
    every = held(network.module)
    names = {n for n, t in every.items() if t is every[tensor]}
    owners = {n.rpartition(".")[0] for n in names}
    calls = {n for n in network.module.graph.nodes if n.op == "call_module" and str(n.target) in owners}
    return calls | {u for n in network.module.graph.nodes if n.op == "get_attr" and str(n.target) in names for u in n.users}


def through(M: tuple[tuple[float, ...], ...], x: Tensor, dim: int) -> Tensor:
    """M x': every old channel as it reads the new ones. X' (N, …, new, …) → (N, …, old, …)."""
    exact = torch.tensor(M, dtype=torch.float64, device=x.device)
    return _plain((x.double().movedim(dim, -1) @ exact.T).movedim(-1, dim)).to(x.dtype)


def _plain(x: Tensor) -> Tensor:
    """The same numbers one behind the other in memory: where a dimension is of one, `contiguous` keeps another order."""
    return x.contiguous().flatten().reshape(x.shape)


def like(M: tuple[tuple[float, ...], ...], x: Tensor, dim: int) -> Tensor:
    """An example of the new kind, made of one of the old: as many of its channels, from the first on and once more."""
    new, old = len(M[0]), len(M)
    index = torch.tensor([j % old for j in range(new)], device=x.device)
    if new == 1 and old > 1:
        return _plain(x.mean(dim, keepdim=True))
    return _plain(x.index_select(dim, index))


def renewed(network: Network, name: str, shape: tuple[int, ...], change: Any) -> Network:
    """The network with another shape of one input, and with what is known of its inputs changed alike."""
    place = next(i for i, one in enumerate(network.inputs) if one.name == name)
    inputs = tuple(Input(i.name, shape, i.dtype, True) if i.name == name else i for i in network.inputs)

    def of(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(change(t) if i == place else t for i, t in enumerate(given)) if len(given) > place else given

    probes = None if network.probes is None else Probes(of(network.probes.inputs), network.probes.kinds)
    return replace(network, inputs=inputs, given=of(network.given), probes=probes)


@perform_operation.register
def _channels(edit: Channels, network: Network, tensors: Mapping[str, Tensor], checked: bool) -> Network:
    module = network.module
    old = next(i for i in network.inputs if i.name == edit.name)
    shape = tuple(len(edit.M[0]) if i == edit.dim else n for i, n in enumerate(old.shape))
    if edit.tensors:
        every = held(module)
        for name, axis in edit.tensors:
            weight = every[name]
            exact = torch.tensor(edit.M, dtype=torch.float64, device=weight.device)
            changed = (weight.detach().double().movedim(axis, -1) @ exact).movedim(-1, axis)
            exchange(module, {id(weight): alike(weight, _plain(changed).to(weight.dtype))})
        _settle_guards(next(n for n in module.graph.nodes if n.op == "placeholder" and n.name == edit.name), edit.dim)
        for part in module.modules():
            own: Any = part
            if isinstance(part, _CONVOLUTIONS) and part.weight.dim() > 1:
                own.in_channels = int(part.weight.shape[1]) * part.groups
            elif type(part) is nn.Linear:
                own.in_features = int(part.weight.shape[1])
    else:
        _in_front(module, edit, old)
    return renewed(network, edit.name, shape, lambda t: like(edit.M, t, edit.dim))


def _in_front(module: fx.GraphModule, edit: Channels, old: Input) -> None:
    rank, new = len(old.shape), len(edit.M[0])
    kind: Any = nn.Linear if edit.dim == rank - 1 else getattr(nn, f"Conv{rank - 2}d")
    like_ = next(iter((*module.parameters(), *module.buffers())))
    part = kind(new, len(edit.M), *(() if kind is nn.Linear else (1,)), bias=False, device=like_.device, dtype=old.dtype)
    if not like_.is_meta:
        with torch.no_grad():
            part.weight.copy_(torch.tensor(edit.M, dtype=torch.float64).reshape(part.weight.shape))
    part.weight.requires_grad_(False)
    name = next(n for n in (FRONT, *(f"{FRONT}_{i}" for i in range(2, 99))) if not hasattr(module, n))
    module.add_module(name, part.train(module.training))
    start = next(n for n in module.graph.nodes if n.op == "placeholder" and n.name == edit.name)
    last = [n for n in module.graph.nodes if n.op == "placeholder"][-1]
    readers = list(start.users)
    with module.graph.inserting_after(last):
        made = module.graph.call_module(name, (start,))
    for reader in readers:
        reader.replace_input_with(start, made)
    made.meta |= {"scope": "", "exits": (name,), "entries": start.meta.get("entries", ())}
    start.meta["entries"] = (name,)


def channels_of(network: Network, one: Input) -> int | None:
    """The dimension of the input that holds channels: the one behind the batch, or the last where that is the short one. None
    where it is open.
    """
    rank = len(one.shape)
    if rank == 2:
        return 1
    if rank in (4, 5):
        first, last, inner = one.shape[1], one.shape[-1], min(one.shape[2:-1])
        return 1 if first <= last or first <= inner else rank - 1
    for dim in (1, 2) if rank == 3 else ():
        if reading(network, one.name, matrix(one.shape[dim], one.shape[dim], "zero"), dim).blocked is None:
            return dim
    return None
