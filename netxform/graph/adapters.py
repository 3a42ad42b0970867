"""Low-rank adapters in a graph: two small layers beside a layer, their product added to its result.

    x ──→ layer ───────────────────────→ + ──→        found again by their names, `PATH_lora.A` and `PATH_lora.B`,
    └──→ (dropout) ──→ A ──→ B ──→ · scale ──┘          and by the way that the values take

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from netxform.graph.building import build
from netxform.graph.edits import Beside, TakeAway
from netxform.graph.network import Network
from netxform.graph.outputs import output_node, sweep
from netxform.graph.surgery import perform_operation
from netxform.graph.tensors import held

SUFFIX = "_lora"
ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter: the layer `path`, the module `name` with `A` and `B`, what its product is multiplied by, and the nodes at
    which it is added.
    """

    path: str
    name: str
    scale: float
    sums: tuple[fx.Node, ...]


def adapters(network: Network) -> tuple[Adapter, ...]:
    """Every adapter of the network, in its order."""
    return tuple(_adapters(network))


def _adapters(network: Network) -> Iterator[Adapter]:
    module = network.module
    ends: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        if node.op == "call_module" and str(node.target).endswith(f"{SUFFIX}.B"):
            ends.setdefault(str(node.target).removesuffix(".B"), []).append(node)
    for name, nodes in ends.items():
        path = name.removesuffix(SUFFIX)
        found = [_sum(node, path) for node in nodes]
        if found and all(f is not None for f in found):
            pairs = cast("list[tuple[fx.Node, float]]", found)
            yield Adapter(path, name, pairs[0][1], tuple(n for n, _ in pairs))


def _sum(end: fx.Node, path: str) -> tuple[fx.Node, float] | None:
    """Where the value of `B` is added to that of the layer, and what it is multiplied by before."""
    if len(end.users) != 1:
        return None
    node, scale, value = next(iter(end.users)), 1.0, end
    if node.target is operator.mul and len(node.args) == 2 and isinstance(node.args[1], float) and len(node.users) == 1:
        node, scale, value = next(iter(node.users)), node.args[1], node
    if node.target is not operator.add or len(node.args) != 2 or node.args[1] is not value:
        return None
    base = node.args[0]
    if not isinstance(base, fx.Node) or base.op != "call_module" or base.target != path:
        return None
    return node, scale


def obstacle(network: Network, path: str) -> str | None:
    """Why no adapter can stand beside the layer, in words; None where one can."""
    module = network.module
    part: Any = module.get_submodule(path)
    if not isinstance(part, ADAPTABLE):
        return f"a {type(part).__name__} has no adapter of this form"
    if type(part) not in ADAPTABLE:
        return f"`{type(part).__name__}` is another class than torch's own layer"
    nodes = [n for n in module.graph.nodes if n.op == "call_module" and n.target == path]
    if not nodes:
        return "its weights are read by a layer around it"
    if any(len(n.args) != 1 or n.kwargs for n in nodes):
        return "it is called with more than one value"
    if getattr(part, "groups", 1) != 1:
        return "a product of two convolutions mixes what its groups keep apart"
    if getattr(part, "padding_mode", "zeros") != "zeros":
        return f"padding by `{part.padding_mode}`"
    if getattr(part, "max_norm", None) is not None:
        return "`max_norm` rewrites its rows while they are read"
    if part.weight.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        return f"its weights are {str(part.weight.dtype).removeprefix('torch.')}"
    others = [n for n, t in held(module).items() if t is part.weight and n != f"{path}.weight"]
    if others:
        return f"its weights are tied to `{others[0]}`"
    if any(n.op == "get_attr" and str(n.target) == f"{path}.weight" for n in module.graph.nodes):
        return "its weights are read elsewhere too"
    if hasattr(_owner(module, path), f"{path.rpartition('.')[2]}{SUFFIX}"):
        return "it has an adapter already"
    return None


def _owner(module: nn.Module, path: str) -> nn.Module:
    return module.get_submodule(path.rpartition(".")[0])


def product(layer: nn.Module, A: Tensor, B: Tensor) -> Tensor:
    """B·A in the shape of the layer's weight, in the precision of the factors.

    Linear: A (r, in), B (out, r) → (out, in). Embedding: A (rows, r), B (width, r) → (rows, width).
    Convolution: A (r, in, k…), B (out, r, 1…) → (out, in, k…).
    """
    if isinstance(layer, nn.Embedding):
        return A @ B.T
    return (B.flatten(1) @ A.flatten(1)).unflatten(1, A.shape[1:])


@perform_operation.register
def _beside(edit: Beside, network: Network, tensors: Mapping[str, Tensor], checked: bool) -> Network:
    module = network.module
    old: Any = module.get_submodule(edit.path)
    weight = old.weight
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(edit.seed)
        made = [(layer.name, build(layer, weight.device, weight.dtype)) for layer in edit.layers]
    holder = nn.Module()
    for name, part in made:
        holder.add_module(name, part)
        if name == edit.zeroed and not weight.is_meta:
            with torch.no_grad():
                for parameter in part.parameters():
                    parameter.zero_()
    _owner(module, edit.path).add_module(edit.name.rpartition(".")[2], holder.train(old.training))
    for node in [n for n in module.graph.nodes if n.op == "call_module" and n.target == edit.path]:
        value = source = cast(fx.Node, node.args[0])
        after = node
        for name, _ in made:
            path = f"{edit.name}.{name}"
            entries = (path, edit.name) if value is source else (path,)
            value.meta["entries"] = (*value.meta.get("entries", ()), *entries)
            with module.graph.inserting_after(after):
                value = after = module.graph.call_module(path, (value,))
            value.meta |= {"scope": edit.name, "exits": (path,), "entries": ()}
        value.meta["exits"] = (*value.meta["exits"], edit.name)
        if edit.scale != 1.0:
            with module.graph.inserting_after(after):
                value = after = module.graph.call_function(operator.mul, (value, edit.scale))
            value.meta |= {"scope": edit.name, "exits": (), "entries": ()}
        readers = list(node.users)
        with module.graph.inserting_after(after):
            total = module.graph.call_function(operator.add, (node, value))
        for reader in readers:
            reader.replace_input_with(node, total)
        # whoever reads the layer reads it with its adapter
        total.meta |= {"scope": node.meta.get("scope", ""), "exits": node.meta.get("exits", ())}
        total.meta["entries"], node.meta["entries"] = node.meta.get("entries", ()), ()
        node.meta["exits"] = ()
    return network


@perform_operation.register
def _take_away(edit: TakeAway, network: Network, tensors: Mapping[str, Tensor], checked: bool) -> Network:
    module = network.module
    for adapter in [a for a in adapters(network) if a.name in edit.names]:
        for total in adapter.sums:
            base = cast(fx.Node, total.args[0])
            base.meta["exits"] = (*base.meta.get("exits", ()), *total.meta.get("exits", ()))
            base.meta["entries"] = (*base.meta.get("entries", ()), *total.meta.get("entries", ()))
            source = cast(fx.Node, base.args[0])
            gone = adapter.name
            source.meta["entries"] = tuple(
                p for p in source.meta.get("entries", ()) if p != gone and not p.startswith(f"{gone}.")
            )
            total.replace_all_uses_with(base)
            module.graph.erase_node(total)
    sweep(module, output_node(module))
    return network
