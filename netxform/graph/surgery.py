"""The only file that changes fx graphs: it performs Edits, on the twin and on the real network alike.

    Network, Edit ─perform→ Network        the given network is never changed

A performed network shares the tensors that the Edit leaves alone; its modules and its graph are its own.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from dataclasses import replace
from functools import singledispatch
from typing import Any, cast

import torch
from torch import fx, nn

from netxform.collector import paused
from netxform.errors import fail
from netxform.graph.blocks import block_nodes, start_as_identity, start_as_nothing
from netxform.graph.building import build, times
from netxform.graph.copies import tensors_of
from netxform.graph.edits import Append, Assign, Bias, Edit, Insert, InsertBlock, Operation, Replace, Trainable, Truncate
from netxform.graph.frozen import FROZEN, THAWED
from netxform.graph.layer_spec import Layer
from netxform.graph.memory import as_it_was, hold, memory_of, release
from netxform.graph.network import Network, clone, knowing, refresh
from netxform.graph.outputs import find, output_node, outputs, set_output, sweep
from netxform.graph.tensors import alike, exchange, held, put


def perform(network: Network, edit: Edit, like: Network | None = None, again: bool = False) -> Network:
    """Do what the Edit says, on a copy of the structure.

    `like` is what the same Edit made of the network's twin: then shapes and types are known, and the run that checks them has
    been made. `again`: the same was done to this network in another precision, and its code followed; shapes are as they were.
    Raises NetxformError X0801 where the changed network no longer runs.
    """
    if not edit.operations:
        return network
    with paused():
        return _performed(network, edit, like, again)


def _performed(network: Network, edit: Edit, like: Network | None, again: bool) -> Network:
    changed = network if edit.operations[0].copies else clone(network)
    for operation in edit.operations:
        last = operation is edit.operations[-1]
        changed = perform_operation(operation, changed, edit.tensors, (again or like is not None) and last)
    if like is not None:
        return _as_twin(changed, like)
    restructured = any(o.restructures for o in edit.operations)
    if again or restructured:
        changed.module.graph.lint()
        changed.module.recompile()
    return refresh(changed) if restructured else changed


@singledispatch
def perform_operation(operation: Operation, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    """One operation, done to a network whose structure may be changed (or, where it `copies`, to a copy of its own).

    `tensors`: what the Edit brings. `checked`: the same was done to the twin, and its code followed. Each operation registers
    its function here; returns the network, with nothing known of it any more where its types are to be found again.
    """
    raise TypeError(f"nothing performs {type(operation).__name__}: register a function with `perform_operation`")


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


@perform_operation.register
def _truncate(edit: Truncate, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    module = network.module
    node = find(module, edit.node)
    set_output(module, node, node.name if edit.open else None)
    sweep(module, node)
    return network


# --- heads -----------------------------------------------------------------------------------------------------------


@perform_operation.register
def _append(edit: Append, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    module = network.module
    head = nn.Module() if len(edit.layers) != 1 or edit.layers[0].name != edit.name else None
    device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    source = find(module, edit.node)
    old = output_node(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(edit.seed)
        made = [(layer, build(layer, device, source.meta.get("dtype"))) for layer in edit.layers]
    writes = any(getattr(p, "inplace", False) for _, part in made for p in part.modules())
    first: fx.Node = as_it_was(module, source, memory_of(module), kept=writes)
    value = first
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
            entries = (path, edit.name) if value is first and head is not None else (path,)
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
    return network


@perform_operation.register
def _bias(edit: Bias, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    module = network.module
    for path in edit.layers:
        part: Any = module.get_submodule(path)
        if part.bias is None:
            weight = part.weight
            zeros = torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)
            part.bias = nn.Parameter(zeros, requires_grad=weight.requires_grad)
    return replace(network)  # its types are found again, with the new tensors


# --- inserting -------------------------------------------------------------------------------------------------------


@perform_operation.register
def _insert(edit: Insert, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    module = network.module
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
        for layer, part in zip(edit.layers, made, strict=True):
            for name, buffer in part.named_buffers(recurse=False):
                given = tensors.get(f"{edit.name}.{layer.name}.{name}")
                if given is not None:
                    buffer.copy_(given)
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
    return network


# --- replacing -------------------------------------------------------------------------------------------------------


@perform_operation.register
def _replace(edit: Replace, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    module = network.module
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
        return network
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
    return network


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


@perform_operation.register
def _insert_block(edit: InsertBlock, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    module = network.module
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
    return network


# --- values --------------------------------------------------------------------------------------------


@perform_operation.register
def _assign(edit: Assign, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    module = network.module
    mine = held(module)
    new: dict[int, torch.Tensor] = {}
    for name in edit.tensors:
        old, value = mine[name], tensors.get(name)
        if old.is_meta or value is None:
            continue
        if value.shape != old.shape:
            raise ValueError(f"`{name}` is {tuple(value.shape)}, and should be {tuple(old.shape)}")
        new[id(old)] = alike(old, value.detach().to(device=old.device, dtype=old.dtype, copy=True))
    exchange(module, new)
    return network


# --- freezing --------------------------------------------------------------------------------------------------------


@perform_operation.register
def _trainable(edit: Trainable, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    module = network.module
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
    if edit.value and (edit.still or edit.held):
        release(module, (*edit.still, *edit.held))
    elif edit.still or edit.held:
        hold(module, edit.still, edit.held)
    return network
