"""A captured network: an fx graph with the module hierarchy kept, and what is known of it. Treated as read-only.

Every node carries in `meta`: `scope` (the innermost module in which it runs), `exits` (the modules whose output it is),
`entries` (the modules whose first tensor input it is), `shape` and `dtype` of its value.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from netxform.graph.copies import parts, same, structure, tensors_of, weightless
from netxform.graph.guards import Guard, Lost, guards_of
from netxform.graph.layers import Int8Embedding
from netxform.graph.meta import annotate
from netxform.graph.shape_cache import Kernels


@dataclass(frozen=True, slots=True)
class Input:
    """One input: its name, the shape (with the batch that was traced) and dtype. `adapted`: it was another shape once."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    adapted: bool = False


@dataclass(frozen=True, slots=True)
class Island:
    """A submodule that is kept whole because it could not be traced: where, what, why."""

    path: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Probes:
    """Inputs to measure on, and how many of the samples are of which kind (given, of the data, varied, drawn)."""

    inputs: tuple[Tensor, ...]
    kinds: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        """In words, for plans and certificates."""
        return ", ".join(f"{n} {kind}" for kind, n in self.kinds)


@dataclass(frozen=True)
class Network:
    """A captured network. `module` is a plain `torch.fx.GraphModule`; `front_end` says how it was captured."""

    module: fx.GraphModule
    inputs: tuple[Input, ...]
    front_end: str
    islands: tuple[Island, ...] = ()
    notes: tuple[str, ...] = ()
    # the inputs that it was captured with, whether they were drawn, and what claims about it are measured on
    given: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)
    drawn: bool = field(default=False, compare=False)
    probes: Probes | None = field(default=None, repr=False, compare=False)
    # what the graph holds as it is in eval mode alone
    eval_only: tuple[Lost, ...] = ()
    # what was found out about it; a twin knows it too, a changed network does not
    known: dict[str, Any] = field(default_factory=dict[str, Any], init=False, repr=False, compare=False)

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The decisions on values and sizes that the graph holds one branch of."""
        return guards_of(self.module.graph)

    @property
    def lost(self) -> tuple[Lost, ...]:
        """What `train()` loses: decisions by the mode of modules that are still there, held as in eval mode."""
        if not self.eval_only:
            return ()
        here = {n for n, _ in self.module.named_modules(remove_duplicate=False)}
        return tuple(one for one in self.eval_only if one.path in here)


def exit_nodes(network: Network, path: str) -> list[fx.Node]:
    """The nodes that are the output of the module; several where it is called several times."""
    return [n for n in network.module.graph.nodes if path in n.meta.get("exits", ())]


def entry_nodes(network: Network, path: str) -> list[fx.Node]:
    """The nodes that are the first tensor input of the module."""
    return [n for n in network.module.graph.nodes if path in n.meta.get("entries", ())]


def clone(network: Network) -> Network:
    """The same network with modules and graph of its own; the tensors are shared."""
    return replace(network, module=structure(network.module, same))


def detached(network: Network) -> Network:
    """A network whose tensors are its own: what training may change."""
    return knowing(network, replace(network, module=copy.deepcopy(network.module)))


def twin(network: Network) -> Network:
    """The same network without weights: every tensor on the meta device. The types are the same too: both know them at once."""
    return knowing(network, replace(network, module=structure(network.module, weightless)))


def knowing(known: Network, network: Network) -> Network:
    """The network, which has the types that `known` has or will find."""
    object.__setattr__(network, "known", known.known)
    return network


def numbers(module: nn.Module) -> int:
    """The numbers that the module holds as weights: parameters, and weights that are stored as int8."""
    return sum(p.numel() for p in module.parameters()) + sum(b.numel() for b in module.buffers() if b.dtype == torch.int8)


def example(network: Network, device: torch.device | str = "meta", batch: int | None = None) -> tuple[Tensor, ...]:
    """Inputs of the traced shapes: empty on meta, else drawn from the normal distribution.

    Integers that an embedding looks up are drawn from its words; other integers are zeros.
    """
    made: list[Tensor] = []
    known = {} if torch.device(device).type == "meta" else tokens(network)
    for spec in network.inputs:
        shape = (batch, *spec.shape[1:]) if batch is not None and spec.shape else spec.shape
        if torch.device(device).type == "meta":
            made.append(torch.empty(shape, dtype=spec.dtype, device="meta"))
        elif spec.dtype.is_floating_point:
            made.append(torch.randn(shape, device=device).to(spec.dtype))
        elif spec.name in known:
            made.append(torch.randint(known[spec.name], shape, dtype=spec.dtype, device=device))
        else:
            made.append(torch.zeros(shape, dtype=spec.dtype, device=device))
    return tuple(made)


SAMPLES = 8


def drawn_for(network: Network, seed: int) -> tuple[Tensor, ...]:
    """`SAMPLES` samples, drawn as `example` draws them, the same for the same seed; as many as were traced where the inputs
    have first dimensions of their own.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batched = [i.shape[0] if i.shape else 1 for i in network.inputs]
        return example(network, "cpu", SAMPLES if all(b == 1 for b in batched) else None)


def tokens(network: Network) -> dict[str, int]:
    """For each input whose values an embedding looks up: how many words the smallest such embedding knows."""
    found: dict[str, int] = {}
    modules = dict(network.module.named_modules(remove_duplicate=False))
    for spec in network.inputs:
        if spec.dtype.is_floating_point:
            continue
        start = next(n for n in network.module.graph.nodes if n.op == "placeholder" and n.name == spec.name)
        stack, seen, sizes = [start], {start}, list[int]()
        while stack:
            for user in stack.pop().users:
                part = modules.get(str(user.target)) if user.op == "call_module" else None
                if isinstance(part, nn.Embedding | nn.EmbeddingBag | Int8Embedding):
                    sizes.append(part.num_embeddings)
                elif user.op == "call_function" and user.target is nn.functional.embedding:
                    weight = user.args[1] if len(user.args) > 1 else user.kwargs["weight"]
                    shape = weight.meta.get("shape") if isinstance(weight, fx.Node) else None
                    if shape:
                        sizes.append(int(shape[0]))
                elif user not in seen and part is None and user.meta.get("dtype") == spec.dtype:
                    seen.add(user)
                    stack.append(user)
        if sizes:
            found[spec.name] = min(sizes)
    return found


def refresh(network: Network) -> Network:
    """Write shapes and dtypes to the nodes again, from a run on the meta device.

    Raises NetxformError X0801 where the network does not run.
    """
    with Kernels():
        annotate(network.module.graph, weightless_parts(network), *example(network))
    return network


def weightless_parts(network: Network) -> nn.Module:
    """What the graph needs to run on meta tensors; the network's own module where it is a twin already."""
    tensors = list(tensors_of(network.module))
    weightless_ = bool(tensors) and all(t.is_meta for t in tensors)
    return network.module if weightless_ else parts(network.module, weightless)
