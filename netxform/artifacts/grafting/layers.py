"""The layers and tensors of a graph in the places of the user's own modules.

A layer that stayed of its kind keeps the user's object: its tensors, and those of its settings that changed, are put in.
One that became a chain of others gives its place to the chain.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from netxform.errors import fail
from netxform.graph.network import Network
from netxform.graph.tensors import held, put

_NUMBERED = ("layer_idx", "layer_id", "layer_index", "block_idx", "block_index", "idx", "index")
_ADAPTERS = ("_lora.A", "_lora.B")


def put_layers(made: nn.Module, before: Network, after: Network) -> tuple[str, ...]:
    """Put every called layer in its place; the blocks that are called no more. Raises NetxformError X0849 for a layer of the
    graph that the model's code does not call.
    """
    old, new = _called(before), _called(after)
    modules = dict(made.named_modules(remove_duplicate=False))
    put_in: dict[str, nn.Module] = {}
    for path in sorted(new):
        part = after.module.get_submodule(path)
        if path in old:
            was = before.module.get_submodule(path)
            if path not in modules:  # the capture's own: a function of the model's code, as a layer
                continue
            if type(was) is type(part):
                _settings(modules[path], was, part)
            else:
                put_in[path] = copy.deepcopy(part)
            continue
        parent = _chain_above(path, old, modules)
        if parent is None:
            raise fail(
                "X0849",
                f"`{path}` is no layer of the model as it came: its own code does not call it",
                helps=("use `result.model`", *(("fold adapters in first: `merge **`",) if path.endswith(_ADAPTERS) else ())),
            )
        chain = after.module.get_submodule(parent)
        put_in[parent] = nn.Sequential(OrderedDict((n, copy.deepcopy(m)) for n, m in chain.named_children()))
    for path, part in put_in.items():
        part.train(modules[path].training)
        owner, _, last = path.rpartition(".")
        target: Any = made.get_submodule(owner)
        if isinstance(target, nn.Sequential | nn.ModuleList) and last.isdigit():
            target[int(last)] = part
        else:
            setattr(target, last, part)
    replaced = tuple(p for p in put_in if p not in new)
    return _tops({p for p in old - new if p not in replaced and p in modules}, new, modules)


def _called(network: Network) -> set[str]:
    return {str(n.target) for n in network.module.graph.nodes if n.op == "call_module"}


def _chain_above(path: str, old: set[str], modules: Mapping[str, nn.Module]) -> str | None:
    """The layer of the model in whose place a chain stands, of which this is a part."""
    parts = path.split(".")
    above = [".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]
    return next((p for p in above if p in old and p in modules), None)


def _settings(mine: nn.Module, was: nn.Module, part: nn.Module) -> None:
    """Let the user's layer have the settings that changed."""
    for name, value in vars(part).items():
        if name == "training" or name.startswith("_"):
            continue
        same = vars(was).get(name) == value if not isinstance(value, Tensor) else True
        if not same and name in vars(mine):
            vars(mine)[name] = copy.copy(value)


def _tops(lost: set[str], kept: set[str], modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """The outermost modules all of whose called layers are gone."""
    out: set[str] = set()
    for path in lost:
        top = path
        parts = path.split(".")
        for i in range(len(parts), 0, -1):
            name = ".".join(parts[:i])
            if any(k == name or k.startswith(f"{name}.") for k in kept):
                break
            top = name
            if isinstance(modules.get(name.rpartition(".")[0]), nn.Sequential | nn.ModuleList):
                break
        out.add(top)
    return tuple(sorted(out))


def put_tensors(made: nn.Module, after: Network) -> None:
    """Every tensor of the graph under its name; one that the graph does not hold is left as it is."""
    mine = held(made)
    shared: dict[int, Tensor] = {}
    for name, tensor in held(after.module).items():
        owner, _, last = name.rpartition(".")
        try:
            target: Any = made.get_submodule(owner)
        except AttributeError:  # of a part of the graph that is no module of the model
            continue
        empty = last in target._parameters and target._parameters[last] is None  # a bias that it had none of
        if name not in mine and not empty:
            continue
        if id(tensor) not in shared:
            copied = tensor.detach().clone()
            trained = isinstance(tensor, nn.Parameter)
            shared[id(tensor)] = nn.Parameter(copied, requires_grad=tensor.requires_grad) if trained else copied
        put(target, last, shared[id(tensor)])


def take_out(made: nn.Module, gone: tuple[str, ...]) -> dict[int, list[int]]:
    """Blocks that the graph has no more, out of the lists that hold them: the length that a list had → the places that went.

    The blocks behind take the numbers that they now have, where they hold their own.
    """
    out: dict[int, list[int]] = {}
    for owner in dict.fromkeys(p.rpartition(".")[0] for p in gone):
        parent: Any = made.get_submodule(owner)
        last = [p.rpartition(".")[2] for p in gone if p.rpartition(".")[0] == owner]
        if not isinstance(parent, nn.Sequential | nn.ModuleList) or not all(n.isdigit() for n in last):
            continue
        places = sorted(int(n) for n in last)
        out[len(parent)] = places
        left = [i for i in range(len(parent)) if i not in places]
        for place in reversed(places):
            del parent[place]
        for new, old in enumerate(left):
            for part in parent[new].modules():
                for name, value in vars(part).items():
                    if type(value) is int and value == old and name in _NUMBERED:
                        part.__dict__[name] = new
    return out
