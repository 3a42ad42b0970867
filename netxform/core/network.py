"""A captured network: an fx graph with the module hierarchy kept, and what is known of it. Treated as read-only.

Every node carries in `meta`: `scope` (the innermost module in which it runs), `exits` (the modules whose output it is),
`entries` (the modules whose first tensor input it is), `shape` and `dtype` of its value.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from netxform.core.copies import parts, same, structure, tensors_of, weightless
from netxform.core.kernels import Kernels
from netxform.core.layers import Int8Embedding
from netxform.errors import fail

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from netxform.core.infer import Types
    from netxform.core.reindex import Axis


@dataclass(frozen=True, slots=True)
class Input:
    """One input: its name, the shape (with the batch that was traced) and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Island:
    """A submodule that is kept whole because it could not be traced: where, what, why."""

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Network:
    """A captured network. `module` is a plain `torch.fx.GraphModule`; `front_end` says how it was captured."""

    module: fx.GraphModule
    inputs: tuple[Input, ...]
    front_end: str
    islands: tuple[Island, ...] = ()
    notes: tuple[str, ...] = ()
    # what was found out about it; a twin knows it too, a changed network does not
    known: dict[str, Any] = field(default_factory=dict[str, Any], init=False, repr=False, compare=False)

    @property
    def types(self) -> Types:
        """The axis types: of every tensor of the module and of every value of the graph."""
        from netxform.core.infer import infer

        if "types" not in self.known:
            self.known["types"] = infer(self)
        return self.known["types"]

    @property
    def atoms(self) -> tuple[Axis, ...]:
        """The index sets of the network's tensors: each with its size, why it is locked, what mixes it, and where it occurs."""
        from netxform.core.reindex import axes_of

        if "atoms" not in self.known:
            self.known["atoms"] = axes_of(self.types)
        return self.known["atoms"]

    def reindex(self, maps: Mapping[Axis | str, Sequence[int]], optimizer: Optimizer | None = None) -> Network:
        """The network with new[i] = old[maps[atom][i]] along each atom, wherever it occurs (see `core.reindex`).

        Raises NetxformError X0320 (unknown or locked atom, bad index), X0321 (code that cannot follow).
        """
        from netxform.core.reindex import reindex

        return reindex(self, maps, optimizer)


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


def samples(network: Network, seed: int) -> tuple[Tensor, ...]:
    """Inputs to measure on: `SAMPLES` samples, drawn as `example` draws them, the same for the same seed."""
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


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Generator[None]:
    """Eval mode inside; every part is in its own mode again afterwards."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def on_meta(value: Any) -> Any:
    """Arguments with every device replaced by the meta device: what the code makes there must meet the others."""
    if isinstance(value, torch.device) or (isinstance(value, str) and value in ("cpu", "cuda")):
        return torch.device("meta")
    if isinstance(value, tuple | list):
        items = [on_meta(v) for v in cast("list[Any]", value)]
        return value if all(a is b for a, b in zip(items, cast("list[Any]", value), strict=True)) else type(value)(items)
    if isinstance(value, dict):
        return {k: on_meta(v) for k, v in cast("dict[Any, Any]", value).items()}
    return value


class MetaRun(fx.Interpreter):
    """A graph run on meta tensors, wherever its code says that things are."""

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[Any, Any]:
        """The arguments, on the meta device."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return on_meta(args), on_meta(kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """The value of the node, without the record of where in the source it was made."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        return getattr(self, n.op)(n.target, args, kwargs)


class _Shapes(MetaRun):
    meta = False

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[Any, Any]:
        return super().fetch_args_kwargs_from_env(n) if self.meta else fx.Interpreter.fetch_args_kwargs_from_env(self, n)

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:
            text = str(error).strip().split("\n")[0]
            where = n.meta.get("scope") or "the network"
            raise fail(
                "X0801",
                f"the network no longer runs at `{n.name}` in `{where}`: {text}",
                notes=(f"node: {n.format_node()}",),
            ) from error
        if isinstance(value, Tensor):
            n.meta["shape"], n.meta["dtype"] = tuple(value.shape), value.dtype
        else:
            n.meta["shape"] = pytree.tree_map(lambda t: tuple(t.shape) if isinstance(t, Tensor) else None, value)
            n.meta["dtype"] = None
        return value


def annotate(graph: fx.Graph, module: nn.Module, *inputs: Tensor) -> Any:
    """Run the graph node by node on what the module holds, in eval mode, and note the shape and dtype of every value.

    Returns the result. Raises NetxformError X0801 where it does not run.
    """
    # tensors that the code makes on the default device must meet the others where they are
    meta = any(t.is_meta for t in inputs)
    with torch.no_grad(), torch.device("meta") if meta else contextlib.nullcontext(), evaluating(module):
        run = _Shapes(module, garbage_collect_values=True, graph=graph)
        run.meta = meta
        return run.run(*inputs)
