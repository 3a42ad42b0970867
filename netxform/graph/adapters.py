"""Adapters in a graph: small layers that are trained beside, behind or before layers that stand still.

    x ──→ layer ───────────────────────→ + ──→        LoRA: found again by their names, `PATH_lora.A` and `PATH_lora.B`,
    └──→ (dropout) ──→ A ──→ B ──→ · scale ──┘          and by the way that the values take
    … with M(layer(x), B(A(x)), weights) in the place of the sum: DoRA, `PATH_lora.M`
    layer ──→ · factors, or factors · ──→ layer       (IA)³: `PATH_ia3`
    part ──→ + down ──→ activation ──→ up ──→         bottleneck: `PATH_adapter.down`, `.up`

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022; Liu et al., "DoRA: weight-decomposed low-rank
adaptation", ICML 2024; Liu et al., "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning",
NeurIPS 2022; Houlsby et al., "Parameter-efficient transfer learning for NLP", ICML 2019.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, fx, nn

from netxform.graph.building import build
from netxform.graph.edits import Beside, Rescale, TakeAway
from netxform.graph.layer_spec import Invocation, Layer
from netxform.graph.layers import Magnitude, Scaled
from netxform.graph.network import Network
from netxform.graph.outputs import output_node, sweep
from netxform.graph.surgery import perform_operation
from netxform.graph.tensors import held

SUFFIX, FACTORS, BOTTLENECK = "_lora", "_ia3", "_adapter"
ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Kind: TypeAlias = Literal["lora", "dora", "ia3"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter that can be folded in: the layer `path`, the module `name` that holds what is trained, of which `kind`.

    `scale`: what the product of its factors is multiplied by. `ends`: the nodes whose value is that of the layer with its
    adapter. `side`: of (IA)³, whether the layer's outputs or its inputs have factors; `ends` are the factors' nodes.
    """

    path: str
    name: str
    kind: Kind
    scale: float
    ends: tuple[fx.Node, ...]
    side: Literal["input", "output"] = "output"

    @property
    def parts(self) -> tuple[str, ...]:
        """The modules that it consists of."""
        if self.kind == "ia3":
            return (self.name,)
        return tuple(f"{self.name}.{p}" for p in ("A", "B", *(("M",) if self.kind == "dora" else ())))


def adapters(network: Network) -> tuple[Adapter, ...]:
    """Every adapter of the network that can be folded in, in its order."""
    return (*_beside_layers(network), *_factors(network))


def bottlenecks(network: Network) -> tuple[str, ...]:
    """The names of the adapters that hold an activation."""
    modules = dict(network.module.named_modules())
    found = (n for n in modules if n.endswith(BOTTLENECK))
    return tuple(n for n in found if {f"{n}.down", f"{n}.up"} <= modules.keys())


def parameters_of(network: Network) -> tuple[str, ...]:
    """The parameters of every adapter, of those too that cannot be folded in."""
    inside = (*(p for a in adapters(network) for p in a.parts), *bottlenecks(network))
    return tuple(n for n, _ in network.module.named_parameters() if any(n.startswith(f"{p}.") for p in inside))


def _calls(network: Network, ending: str) -> dict[str, list[fx.Node]]:
    """The nodes that call modules whose names end so, by the name without it."""
    out: dict[str, list[fx.Node]] = {}
    for node in network.module.graph.nodes:
        if node.op == "call_module" and str(node.target).endswith(ending):
            out.setdefault(str(node.target).removesuffix(ending), []).append(node)
    return out


def _beside_layers(network: Network) -> Iterator[Adapter]:
    for path, nodes in _calls(network, f"{SUFFIX}.B").items():
        found = [_sum(network, node, path) for node in nodes]
        if found and all(f is not None for f in found):
            pairs = cast("list[tuple[fx.Node, float]]", found)
            kind = "lora" if pairs[0][0].op == "call_function" else "dora"
            yield Adapter(path, f"{path}{SUFFIX}", kind, pairs[0][1], tuple(n for n, _ in pairs))


def _factors(network: Network) -> Iterator[Adapter]:
    for path, nodes in _calls(network, FACTORS).items():
        if all(_is_call(n.args[0], path) for n in nodes):
            yield Adapter(path, f"{path}{FACTORS}", "ia3", 1.0, tuple(nodes), "output")
        elif all(len(n.users) == 1 and _is_call(next(iter(n.users)), path) for n in nodes):
            yield Adapter(path, f"{path}{FACTORS}", "ia3", 1.0, tuple(nodes), "input")


def _is_call(node: Any, path: str) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_module" and node.target == path


def _sum(network: Network, end: fx.Node, path: str) -> tuple[fx.Node, float] | None:
    """Where the value of `B` joins that of the layer, and what it is multiplied by before."""
    if len(end.users) != 1:
        return None
    node, scale, value = next(iter(end.users)), 1.0, end
    if node.op == "call_module" and node.target == f"{path}{SUFFIX}.M" and _is_call(node.args[0], path):
        return node, float(cast(Any, network.module.get_submodule(str(node.target))).scale)
    if node.target is operator.mul and len(node.args) == 2 and isinstance(node.args[1], float) and len(node.users) == 1:
        node, scale, value = next(iter(node.users)), node.args[1], node
    if node.target is not operator.add or len(node.args) != 2 or node.args[1] is not value:
        return None
    return (node, scale) if _is_call(node.args[0], path) else None


def obstacle(network: Network, path: str, side: str = "") -> str | None:
    """Why the layer can have no adapter, in words; None where it can. `side`: of (IA)³, its input or output; else ""."""
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
    if side and isinstance(part, nn.Embedding):
        return "a table has no channels before it, and none that (IA)³ is defined for"
    if side != "output" and getattr(part, "groups", 1) != 1:
        return "a product of two convolutions mixes what its groups keep apart" if not side else "its inputs are in groups"
    if not side and getattr(part, "padding_mode", "zeros") != "zeros":
        return f"padding by `{part.padding_mode}`"
    if getattr(part, "max_norm", None) is not None:
        return "`max_norm` rewrites its rows while they are read"
    if part.weight.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        return f"its weights are {str(part.weight.dtype).removeprefix('torch.')}"
    others = [n for n, t in held(module).items() if t is part.weight and n != f"{path}.weight"]
    if others:
        return f"its weights are tied to `{others[0]}`"
    if any(hasattr(_owner(module, path), f"{path.rpartition('.')[2]}{s}") for s in (SUFFIX, FACTORS)):
        return "it has an adapter already"
    if any(n.op == "get_attr" and str(n.target) == f"{path}.weight" for n in module.graph.nodes):
        return "its weights are read elsewhere too"
    return None


def _owner(module: nn.Module, path: str) -> nn.Module:
    return module.get_submodule(path.rpartition(".")[0])


def layers_beside(layer: Any, rank: int, dropout: float) -> tuple[tuple[Layer, ...], str]:
    """The layers beside this one, and the name of that which begins at zero."""
    first = (Layer("dropout", Invocation("Dropout", (dropout,))),) if dropout else ()
    bare = {"bias": False}
    zeroed = "B"
    match layer:
        case nn.Linear():
            A = Invocation("Linear", (layer.in_features, rank), bare)
            B = Invocation("Linear", (rank, layer.out_features), bare)
        case nn.Embedding():
            # a dropout would drop words: there is none before a table
            first, zeroed = (), "A"
            A = Invocation("Embedding", (layer.num_embeddings, rank), {"padding_idx": layer.padding_idx})
            B = Invocation("Linear", (rank, layer.embedding_dim), bare)
        case _:
            how = {n: getattr(layer, n) for n in ("kernel_size", "stride", "padding", "dilation")}
            kind = type(layer).__name__
            A = Invocation(kind, (layer.in_channels, rank), how | bare)
            B = Invocation(kind, (rank, layer.out_channels), {"kernel_size": 1} | bare)
    return (*first, Layer("A", A), Layer("B", B)), zeroed


def sides(layer: Any) -> tuple[int, int]:
    """The numbers that A and B hold for each unit of rank."""
    weight = layer.weight
    if type(layer).__name__ == "Embedding":
        return int(weight.shape[0]), int(weight.shape[1])
    return int(weight[0].numel()), int(weight.shape[0])


def product(layer: nn.Module, A: Tensor, B: Tensor) -> Tensor:
    """B·A in the shape of the layer's weight, in the precision of the factors.

    Linear: A (r, in), B (out, r) → (out, in). Embedding: A (rows, r), B (width, r) → (rows, width).
    Convolution: A (r, in, k…), B (out, r, 1…) → (out, in, k…).
    """
    if isinstance(layer, nn.Embedding):
        return A @ B.T
    return (B.flatten(1) @ A.flatten(1)).unflatten(1, A.shape[1:])


def merged(network: Network, adapter: Adapter) -> dict[str, Tensor]:
    """The tensors of the layer with its adapter folded in, by name, in float64."""
    module, path = network.module, adapter.path
    layer: Any = module.get_submodule(path)
    W = layer.weight.detach().double()
    if adapter.kind == "ia3":
        factors = module.get_parameter(f"{adapter.name}.weight").detach().double().flatten()
        if adapter.side == "input":
            return {f"{path}.weight": W * factors.reshape(1, -1, *[1] * (W.dim() - 2))}
        own = {f"{path}.weight": W * factors.reshape(-1, *[1] * (W.dim() - 1))}
        return own if layer.bias is None else own | {f"{path}.bias": layer.bias.detach().double() * factors}
    A, B = (module.get_parameter(f"{adapter.name}.{part}.weight").detach().double() for part in ("A", "B"))
    W = W + adapter.scale * product(layer, A, B)
    if adapter.kind == "dora":
        wanted = module.get_parameter(f"{adapter.name}.M.weight").detach().double()
        table = isinstance(layer, nn.Embedding)
        lengths = W.norm(dim=0) if table else W.flatten(1).norm(dim=1)
        factors = wanted / lengths.clamp_min(torch.finfo(torch.float64).tiny)
        W = W * (factors if table else factors.reshape(-1, *[1] * (W.dim() - 1)))
    return {f"{path}.weight": W}


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
    if edit.lengths:
        holder.add_module("M", _lengths(old, edit, dict(made)))
    for node in [n for n in module.graph.nodes if _is_call(n, edit.path)]:
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
        if edit.scale != 1.0 and not edit.lengths:
            with module.graph.inserting_after(after):
                value = after = module.graph.call_function(operator.mul, (value, edit.scale))
            value.meta |= {"scope": edit.name, "exits": (), "entries": ()}
        readers = list(node.users)
        given: list[fx.Node] = []
        for name in _read_by_lengths(old, edit) if edit.lengths else ():
            with module.graph.inserting_after(after):
                after = module.graph.get_attr(name)
            after.meta |= {"scope": edit.name, "exits": (), "entries": ()}
            given.append(after)
        with module.graph.inserting_after(after):
            if edit.lengths:
                total = module.graph.call_module(f"{edit.name}.M", (node, value, *given))
            else:
                total = module.graph.call_function(operator.add, (node, value))
        for reader in readers:
            reader.replace_input_with(node, total)
        _pass_on(node, total, (f"{edit.name}.M",) if edit.lengths else ())
    return network


def _pass_on(node: fx.Node, total: fx.Node, own: tuple[str, ...] = ()) -> None:
    """Whoever reads the layer reads it with its adapter."""
    total.meta |= {"scope": node.meta.get("scope", ""), "exits": (*own, *node.meta.get("exits", ()))}
    total.meta["entries"], node.meta["entries"] = node.meta.get("entries", ()), ()
    node.meta["exits"] = ()


def _lengths(old: Any, edit: Beside, made: Mapping[str, nn.Module]) -> Magnitude:
    """The layer that joins the two, with the lengths that the weights have."""
    weight, table = old.weight, isinstance(old, nn.Embedding)
    with torch.device(weight.device):
        part = Magnitude(int(weight.shape[1 if table else 0]), edit.scale, table).to(weight.dtype)
    if not weight.is_meta:
        A, B = (cast(Any, made[n]).weight for n in ("A", "B"))
        with torch.no_grad():
            part.weight.copy_(part.lengths(weight, A, B))
    return part


def _read_by_lengths(old: Any, edit: Beside) -> tuple[str, ...]:
    names = (f"{edit.path}.weight", f"{edit.name}.A.weight", f"{edit.name}.B.weight")
    return (*names, f"{edit.path}.bias") if getattr(old, "bias", None) is not None else names


@perform_operation.register
def _rescale(edit: Rescale, network: Network, tensors: Mapping[str, Tensor], checked: bool) -> Network:
    module = network.module
    old: Any = module.get_submodule(edit.path)
    with torch.device(old.weight.device):
        part = Scaled(edit.size, edit.after).to(old.weight.dtype).train(old.training)
    _owner(module, edit.path).add_module(edit.name.rpartition(".")[2], part)
    for node in [n for n in module.graph.nodes if _is_call(n, edit.path)]:
        if edit.side == "input":
            source = cast(fx.Node, node.args[0])
            with module.graph.inserting_before(node):
                made = module.graph.call_module(edit.name, (source,))
            made.meta |= {"scope": node.meta.get("scope", ""), "exits": (edit.name,), "entries": (edit.path,)}
            source.meta["entries"] = (*(p for p in source.meta.get("entries", ()) if p != edit.path), edit.name)
            node.args = (made, *node.args[1:])
            continue
        readers = list(node.users)
        with module.graph.inserting_after(node):
            made = module.graph.call_module(edit.name, (node,))
        for reader in readers:
            reader.replace_input_with(node, made)
        _pass_on(node, made, (edit.name,))
        node.meta["entries"] = (edit.name,)
    return network


@perform_operation.register
def _take_away(edit: TakeAway, network: Network, tensors: Mapping[str, Tensor], checked: bool) -> Network:
    module = network.module
    for adapter in [a for a in adapters(network) if a.name in edit.names]:
        gone = adapter.name
        for total in adapter.ends:
            base = cast(fx.Node, total.args[0])
            own = {gone, *adapter.parts}
            exits = tuple(p for p in total.meta.get("exits", ()) if p not in own)
            base.meta["exits"] = (*base.meta.get("exits", ()), *exits)
            base.meta["entries"] = (*base.meta.get("entries", ()), *total.meta.get("entries", ()))
            source = base if adapter.kind == "ia3" else cast(fx.Node, base.args[0])
            for node in (source, base):
                entries = node.meta.get("entries", ())
                node.meta["entries"] = tuple(p for p in entries if p != gone and not p.startswith(f"{gone}."))
            total.replace_all_uses_with(base)
            module.graph.erase_node(total)
    sweep(module, output_node(module))
    return network
