"""The only file that changes fx graphs: it performs Edits, on the twin and on the real network alike.

    Network, Edit ─perform→ Network        the given network is never changed

A performed network shares the tensors that the Edit leaves alone; its modules and its graph are its own.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, assert_never, cast

import torch
from torch import fx, nn

from netxform.collector import paused
from netxform.core import layers as own_layers
from netxform.core.blocks import block_nodes, start_as_identity, start_as_nothing
from netxform.core.building import build, times
from netxform.core.copies import tensors_of
from netxform.core.edit import (
    Append,
    Assign,
    Bias,
    Cast,
    Edit,
    Fill,
    Insert,
    InsertBlock,
    Quantize,
    Reindex,
    Replace,
    Trainable,
    Truncate,
)
from netxform.core.frozen import FROZEN, THAWED
from netxform.core.network import Network, clone, knowing, refresh
from netxform.core.outputs import find, output_node, outputs, set_output, sweep
from netxform.core.reindex import apply_maps, put, replace_tensors
from netxform.core.rounding import HALF, casts_needed
from netxform.core.values import Layer
from netxform.errors import fail


def perform(network: Network, edit: Edit, like: Network | None = None) -> Network:
    """Do what the Edit says, on a copy of the structure.

    `like` is what the same Edit made of the network's twin: then shapes and types are known, and the run that checks them has
    been made. Raises NetxformError X0801 where the changed network no longer runs.
    """
    if not edit.operations:
        return network
    with paused():
        return _performed(network, edit, like)


def _performed(network: Network, edit: Edit, like: Network | None) -> Network:
    # an index map copies the structure itself
    changed = network if isinstance(edit.operations[0], Reindex) else clone(network)
    for operation in edit.operations:
        match operation:
            case Truncate():
                _truncate(changed.module, operation)
            case Append():
                _append(changed.module, operation)
            case Trainable():
                _trainable(changed.module, operation)
            case Reindex():
                changed = _reindex(changed, operation, like is not None and operation is edit.operations[-1])
            case Insert():
                _insert(changed.module, operation)
            case InsertBlock():
                _insert_block(changed.module, operation)
            case Replace():
                _replace(changed.module, operation, edit.tensors)
            case Bias():
                _bias(changed.module, operation)
                changed = replace(changed)  # its types are found again, with the new tensors
            case Cast():
                _cast(changed, operation)
            case Quantize():
                _quantize(changed.module, operation, edit.tensors)
                changed = replace(changed)  # its types are found again
            case Assign():
                _assign(changed.module, operation, edit.tensors)
            case _:
                assert_never(operation)
    if like is not None:
        return _as_twin(changed, like)
    # an index map is checked, on a run, while it is made
    if any(not isinstance(o, Trainable | Reindex | Assign) for o in edit.operations):
        changed.module.graph.lint()
        changed.module.recompile()
        return refresh(changed)
    return changed


def _as_twin(changed: Network, like: Network) -> Network:
    """The network with what is known of its twin. Raises NetxformError X0801 where they are not alike."""
    changed.module.graph.lint()
    changed.module.recompile()
    for ours, theirs in zip(tensors_of(changed.module), tensors_of(like.module), strict=True):
        if ours.shape != theirs.shape:
            raise fail(
                "X0801", f"a tensor has the shape {times(tuple(ours.shape))} where {times(tuple(theirs.shape))} was planned"
            )
    for ours, theirs in zip(changed.module.graph.nodes, like.module.graph.nodes, strict=True):
        assert ours.name == theirs.name
        ours.meta |= {k: theirs.meta[k] for k in ("shape", "dtype") if k in theirs.meta}
    return knowing(like, changed)


# --- outputs ---------------------------------------------------------------------------------------------------------


def _truncate(module: fx.GraphModule, edit: Truncate) -> None:
    node = find(module, edit.node)
    set_output(module, node, node.name if edit.open else None)
    sweep(module)


# --- heads -----------------------------------------------------------------------------------------------------------


def _append(module: fx.GraphModule, edit: Append) -> None:
    head = nn.Module() if len(edit.layers) != 1 or edit.layers[0].name != edit.name else None
    device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    source = find(module, edit.node)
    old = output_node(module)
    value: fx.Node = source
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(edit.seed)
        made = [(layer, build(layer, device, source.meta.get("dtype"))) for layer in edit.layers]
    with module.graph.inserting_before(old):
        for layer, part in made:
            path = edit.name if head is None else f"{edit.name}.{layer.name}"
            part.train(module.training)
            if head is None:
                module.add_module(edit.name, part)
            else:
                head.add_module(layer.name, part)
                if not hasattr(module, edit.name):
                    head.train(module.training)
                    module.add_module(edit.name, head)
            entries = (path, edit.name) if value is source and head is not None else (path,)
            value.meta["entries"] = (*value.meta.get("entries", ()), *entries)
            value = module.graph.call_module(path, (value,))
            value.meta |= {"scope": edit.name if head is not None else "", "exits": (path,), "entries": ()}
            if isinstance(part, nn.GRU | nn.LSTM | nn.RNN):
                value.meta["exits"] = ()
                value = module.graph.call_function(operator.getitem, (value, 0))
                value.meta |= {"scope": edit.name, "exits": (path,), "entries": ()}
    if head is not None:
        value.meta["exits"] = (*value.meta.get("exits", ()), edit.name)
    present = outputs(module)
    if edit.replace:
        present = {k: n for k, n in present.items() if n is not source}
    if present:
        sole = old.meta.get("sole", "output")
        named: dict[str, fx.Node] = {(sole if k is None else k): n for k, n in present.items()}
        set_output(module, named | {edit.name: value}, None)
    else:
        set_output(module, value, value.name if edit.open else None)
        output_node(module).meta["sole"] = edit.name


# --- index maps ------------------------------------------------------------------------------------------------------


def _reindex(network: Network, edit: Reindex, checked: bool = False) -> Network:
    named = {a.name: a.atom for a in network.atoms}
    changed = apply_maps(network, {named[n]: list(m) for n, m in edit.maps}, checked)
    makers: dict[str, list[Any]] = {}
    for fill in edit.fills:
        makers.setdefault(fill.tensor, []).append(lambda t, f=fill: _filled(t, f))
    for scale in edit.scales:
        makers.setdefault(scale.tensor, []).append(lambda t, s=scale: _along(t, s.axis, s.factors) * t)

    def apply(tensor: torch.Tensor, steps: list[Any]) -> torch.Tensor:
        for step in steps:
            tensor = step(tensor.detach())
        return tensor

    replace_tensors(changed.module, {n: lambda t, s=s: apply(t, s) for n, s in makers.items()}, network.types)
    return changed


def _along(tensor: torch.Tensor, axis: int, values: Iterable[float]) -> torch.Tensor:
    """A vector in the tensor's precision, shaped to act along one axis."""
    vector = torch.tensor(list(values), dtype=tensor.dtype, device=tensor.device)
    return vector.reshape([-1 if i == axis else 1 for i in range(tensor.dim())])


def _filled(tensor: torch.Tensor, fill: Fill) -> torch.Tensor:
    if tensor.is_meta:
        return tensor
    index = torch.tensor(fill.positions, device=tensor.device)
    generator = torch.Generator().manual_seed(fill.seed)
    old = tensor.index_select(fill.axis, index)
    drawn = torch.randn(old.shape, generator=generator, dtype=torch.float64) * float(tensor.double().std())
    drawn = drawn.to(tensor)
    return tensor.index_copy(fill.axis, index, drawn if fill.noise is None else old + fill.noise * drawn)


def _bias(module: fx.GraphModule, edit: Bias) -> None:
    for path in edit.layers:
        part: Any = module.get_submodule(path)
        if part.bias is None:
            weight = part.weight
            zeros = torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)
            part.bias = nn.Parameter(zeros, requires_grad=weight.requires_grad)


# --- inserting -------------------------------------------------------------------------------------------------------


def _insert(module: fx.GraphModule, edit: Insert) -> None:
    """The layers between a value and all who read it; as a branch, their result is added to the value."""
    source = find(module, edit.node)
    device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    readers = list(source.users)
    holder = nn.Module()
    holder.train(module.training)
    owner, _, last = edit.name.rpartition(".")
    module.get_submodule(owner).add_module(last, holder)
    made: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(edit.seed)
        made = [build(layer, device, source.meta.get("dtype")) for layer in edit.layers]
    if edit.start == "identity":
        for part in made:
            start_as_identity(part)
    else:
        start_as_nothing([m for m in made if list(m.parameters())][-1])
    value = source
    after = source
    for layer, part in zip(edit.layers, made, strict=True):
        part.train(module.training)
        holder.add_module(layer.name, part)
        path = f"{edit.name}.{layer.name}"
        value.meta["entries"] = (*value.meta.get("entries", ()), *((path, edit.name) if value is source else (path,)))
        with module.graph.inserting_after(after):
            value = module.graph.call_module(path, (value,))
        after = value
        value.meta |= {"scope": edit.name, "exits": (path,), "entries": ()}
    if edit.start == "branch":
        with module.graph.inserting_after(after):
            value = module.graph.call_function(operator.add, (source, value))
        value.meta |= {"scope": edit.name, "exits": (), "entries": ()}
    for reader in readers:
        reader.replace_input_with(source, value)
    # the new end is the output of whatever the old one was the output of, but for the layer itself
    own = source.target if source.op == "call_module" else None
    moved = tuple(p for p in source.meta.get("exits", ()) if p != own)
    source.meta["exits"] = tuple(p for p in source.meta.get("exits", ()) if p == own)
    kept = tuple(p for p in source.meta.get("entries", ()) if p.startswith(edit.name))
    value.meta["entries"] = tuple(p for p in source.meta.get("entries", ()) if not p.startswith(edit.name))
    source.meta["entries"] = kept
    value.meta["exits"] = (*value.meta.get("exits", ()), edit.name, *moved)


# --- replacing -------------------------------------------------------------------------------------------------------


def _replace(module: fx.GraphModule, edit: Replace, tensors: Mapping[str, torch.Tensor]) -> None:
    """A chain of layers where a layer was: its modules are children of the old name, its nodes stand at every call.

    A single layer without a name takes the place itself.
    """
    old = module.get_submodule(edit.path)
    holder = nn.Module()
    paths: list[str] = []
    for layer in edit.layers:
        paths.append(f"{edit.path}.{layer.name}" if layer.name else edit.path)
        part = _made_of(layer, paths[-1], old, tensors)
        if layer.name:
            holder.add_module(layer.name, part)
        else:
            holder = part
    owner, _, last = edit.path.rpartition(".")
    setattr(module.get_submodule(owner), last, holder.train(old.training))
    if paths == [edit.path]:
        return
    for node in [n for n in module.graph.nodes if n.op == "call_module" and n.target == edit.path]:
        value = cast(fx.Node, node.args[0])
        for path in paths:
            value.meta["entries"] = (*value.meta.get("entries", ()), path)
            with module.graph.inserting_before(node):
                value = module.graph.call_module(path, (value,))
            value.meta |= {"scope": edit.path, "exits": (path,), "entries": ()}
        value.meta["exits"] = (*value.meta["exits"], *node.meta.get("exits", ()))
        value.meta["entries"] = node.meta.get("entries", ())
        node.replace_all_uses_with(value)
        module.graph.erase_node(node)


def _made_of(layer: Layer, path: str, old: nn.Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """A layer with the Edit's tensors, on the device, in the precision and as trainable as the layer that it replaces."""
    like = next(old.parameters())
    trained = any(p.requires_grad for p in old.parameters())
    part = build(layer, torch.device("meta"), like.dtype)
    for name, parameter in list(part.named_parameters()):
        owner, _, last = name.rpartition(".")
        held = tensors.get(f"{path}.{name}")
        if held is None and not like.is_meta:
            raise ValueError(f"the edit holds no tensor `{path}.{name}`")
        value = parameter if held is None else held.to(device=like.device, dtype=like.dtype)
        if value.shape != parameter.shape:
            raise ValueError(f"`{path}.{name}` is {tuple(value.shape)}, and should be {tuple(parameter.shape)}")
        put(part.get_submodule(owner), last, nn.Parameter(value.detach(), requires_grad=trained))
    return part.train(old.training)


def _insert_block(module: fx.GraphModule, edit: InsertBlock) -> None:
    inside, entry, end = block_nodes(module, edit.path)
    made = copy.deepcopy(module.get_submodule(edit.path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(edit.seed)
        for part in made.modules():
            reset: Any = getattr(part, "reset_parameters", None)
            if callable(reset) and not any(p.is_meta for p in part.parameters()):
                reset()
    with torch.no_grad():
        for name in edit.zeroed:
            made.get_parameter(name).zero_()
    owner, _, last = edit.name.rpartition(".")
    module.get_submodule(owner).add_module(last, made)
    readers = list(end.users)
    twins: dict[fx.Node, fx.Node] = {entry: end}
    after = end

    def moved(text: str) -> str:
        return edit.name + text[len(edit.path) :] if text == edit.path or text.startswith(edit.path + ".") else text

    for node in inside:
        with module.graph.inserting_after(after):
            after = module.graph.node_copy(node, lambda n: twins[n])
        if node.op in ("call_module", "get_attr"):
            after.target = moved(str(node.target))
        after.meta = dict(node.meta) | {
            "scope": moved(node.meta.get("scope", "")),
            "exits": tuple(moved(p) for p in node.meta.get("exits", ()) if moved(p) != p),
            "entries": tuple(moved(p) for p in node.meta.get("entries", ()) if moved(p) != p),
        }
        twins[node] = after
    for reader in readers:
        reader.replace_input_with(end, twins[end])
    outer = tuple(p for p in end.meta.get("exits", ()) if not (p == edit.path or p.startswith(edit.path + ".")))
    end.meta["exits"] = tuple(p for p in end.meta.get("exits", ()) if p not in outer)
    twins[end].meta["exits"] = (*twins[end].meta["exits"], *outer)


# --- precision and values --------------------------------------------------------------------------------------------


def _cast(network: Network, edit: Cast) -> None:
    """New tensors in the narrow precision, tied ones still one; casts where the twin shows that operands must meet."""
    module, dtype = network.module, HALF[edit.dtype]
    kinds = {n: n.meta.get("dtype") for n in module.graph.nodes}
    chosen = set(edit.tensors)
    old = {id(t): t for n, t in _held(module).items() if n in chosen}
    new = {i: _like(t, t.detach().to(dtype)) for i, t in old.items()}
    _exchange_tensors(module, new)
    nodes = {n.name: n for n in module.graph.nodes}
    for place in casts_needed(network, dtype):
        _cast_operand(module, nodes[place.node], nodes[place.operand], place.dtype)
    module.recompile()
    refresh(network)
    end = output_node(module)
    for operand in end.all_input_nodes:
        was = kinds.get(operand)
        if was is not None and was.is_floating_point and operand.meta.get("dtype") != was:
            _cast_operand(module, end, operand, was)


def _cast_operand(module: fx.GraphModule, node: fx.Node, operand: fx.Node, dtype: torch.dtype) -> None:
    with module.graph.inserting_before(node):
        made = module.graph.call_method("to", (operand, dtype))
    made.meta |= {"scope": node.meta.get("scope", ""), "exits": (), "entries": ()}
    node.replace_input_with(operand, made)


def _quantize(module: fx.GraphModule, edit: Quantize, tensors: Mapping[str, torch.Tensor]) -> None:
    """Each layer by one of the same sizes that holds int8; layers that shared a weight share the new one."""
    parts = dict(module.named_modules(remove_duplicate=False))
    made: dict[int, nn.Module] = {}
    shared: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for path in edit.layers:
        old = cast("nn.Linear | nn.Embedding", parts[path])
        if id(old) not in made:
            rows, columns = old.weight.shape
            with torch.device("meta"):
                if isinstance(old, nn.Embedding):
                    new: nn.Module = own_layers.Int8Embedding(rows, columns)
                else:
                    bias = cast("nn.Parameter | None", old.bias)
                    new = own_layers.Int8Linear(columns, rows, bias is not None)
                    new.bias = bias
            device = old.weight.device
            if id(old.weight) not in shared:
                found = [tensors.get(f"{path}.{n}", new.get_buffer(n)) for n in ("weight", "scale")]
                if device.type != "meta" and found[0].is_meta:
                    raise ValueError(f"the edit holds no tensor `{path}.weight`")
                shared[id(old.weight)] = (found[0].to(device), found[1].to(device))
            new.register_buffer("weight", shared[id(old.weight)][0])
            new.register_buffer("scale", shared[id(old.weight)][1])
            made[id(old)] = new.train(old.training)
        owner, _, last = path.rpartition(".")
        setattr(module.get_submodule(owner), last, made[id(old)])


def _assign(module: fx.GraphModule, edit: Assign, tensors: Mapping[str, torch.Tensor]) -> None:
    held = _held(module)
    new: dict[int, torch.Tensor] = {}
    for name in edit.tensors:
        old, value = held[name], tensors.get(name)
        if old.is_meta or value is None:
            continue
        if value.shape != old.shape:
            raise ValueError(f"`{name}` is {tuple(value.shape)}, and should be {tuple(old.shape)}")
        new[id(old)] = _like(old, value.detach().to(device=old.device, dtype=old.dtype, copy=True))
    _exchange_tensors(module, new)


def _held(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}


def _like(old: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value


def _exchange_tensors(module: nn.Module, new: Mapping[int, torch.Tensor]) -> None:
    """Put tensors in the place of those with these ids, wherever they are held."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):  # pyright: ignore[reportPrivateUsage]
            for name, tensor in list(held.items()):
                if tensor is not None and id(tensor) in new:
                    put(part, name, new[id(tensor)])


# --- freezing --------------------------------------------------------------------------------------------------------


def norms_in(network: Network, owners: set[str]) -> tuple[list[str], list[str]]:
    """BatchNorm modules among `owners` that can be frozen, and modules with running statistics that cannot."""
    good: list[str] = []
    bad: list[str] = []
    for name, module in network.module.named_modules(remove_duplicate=False):
        if name not in owners or getattr(module, "running_mean", None) is None:
            continue
        if type(module) in FROZEN:
            good.append(name)
        elif type(module) not in THAWED:
            bad.append(name)
    return good, bad


def frozen_norms(network: Network) -> list[str]:
    """The BatchNorm modules that are frozen."""
    return [n for n, m in network.module.named_modules(remove_duplicate=False) if type(m) in THAWED]


def modules_in_training(network: Network, selected: Iterable[str], owners: set[str]) -> tuple[str, ...]:
    """The modules that are in `train()` mode while the selection is trained: the selected ones.

    Everything else stays in eval: its dropout is off and its running statistics stand still.
    """
    chosen = set(selected) | owners
    return tuple(n for n, _ in network.module.named_modules(remove_duplicate=False) if n in chosen)


def _trainable(module: fx.GraphModule, edit: Trainable) -> None:
    # new Parameter objects on the same storage: the flag is the tensor's, and the given network keeps its own
    old = {id(module.get_parameter(n)): module.get_parameter(n) for n in edit.parameters}
    new = {i: nn.Parameter(p.detach(), requires_grad=edit.value) for i, p in old.items()}
    for part in module.modules():
        for name, tensor in list(part._parameters.items()):  # pyright: ignore[reportPrivateUsage]
            if tensor is not None and id(tensor) in new:
                put(part, name, new[id(tensor)])
    swap = THAWED if edit.value else FROZEN
    for name in edit.norms:
        norm = module.get_submodule(name)
        norm.__class__ = swap[type(norm)]
        norm.train(module.training)
