"""What half precision does to a network: where its casts stand, what rounding does to each weight, and to the outputs.

Weights: round to nearest gives |ŵ − w| ≤ u·|w| with the unit roundoff u = 2⁻ᵖ, and ≤ s/2 below the normal range, s the
smallest subnormal. Outputs: no useful worst case exists for deep networks, so the bound is stochastic (Monte Carlo arithmetic;
Vignes, "A stochastic arithmetic for reliable scientific computation", 1993; Parker, 1997): the network in float64, with
every weight and every value that will be rounded moved at random by up to its rounding, several times; the bound is four
times the largest change seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from netxform.errors import fail
from netxform.graph.copies import own, structure
from netxform.graph.guards import is_guard
from netxform.graph.meta import MetaRun, evaluating, grouped_shape
from netxform.graph.network import Network, knowing, refresh, weightless_parts
from netxform.graph.tensors import held

HALF: dict[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}
RUNS = 8
SAFETY = 4.0
# A recurrent layer and attention round inside, step after step, where the graph cannot see it.
_INSIDE = {"RNN": 4.0, "GRU": 8.0, "LSTM": 8.0, "MultiheadAttention": 4.0, "Attention": 4.0}


@dataclass(frozen=True, slots=True)
class Rounding:
    """What rounding did to the finite numbers of some tensors.

    `worst` is the largest |ŵ − w| / |w| in the normal range, at most the unit roundoff; `below` the largest |ŵ − w| under it,
    in units of half the smallest subnormal, at most 1. `subnormal` counts nonzero numbers under the normal range, `zeroed`
    those of them that became zero, `overflow` those that became infinite, `largest` is the largest |w|.
    """

    numbers: int
    worst: float
    below: float
    subnormal: int
    zeroed: int
    overflow: int
    largest: float


def unit_roundoff(dtype: torch.dtype) -> float:
    """2⁻¹¹ for float16, 2⁻⁸ for bfloat16: half the distance from 1 to the next number."""
    return float(torch.finfo(dtype).eps) / 2


def rounding(tensors: Iterable[Tensor], dtype: torch.dtype) -> Rounding:
    """Round copies of the tensors to `dtype` (to nearest, ties to even) and say what it did to them."""
    info = torch.finfo(dtype)
    half = float(info.smallest_normal) * float(info.eps) / 2
    out = Rounding(0, 0.0, 0.0, 0, 0, 0, 0.0)
    for tensor in tensors:
        if not tensor.numel():
            continue
        w = tensor.detach().double().flatten()
        r = tensor.detach().to(dtype).double().flatten()
        size = w.abs()
        finite = torch.isfinite(r)
        normal = finite & (size >= info.smallest_normal)
        small = finite & (size < info.smallest_normal)
        gap = (r - w).abs()
        worst = float((gap[normal] / size[normal]).max()) if bool(normal.any()) else 0.0
        below = float(gap[small].max()) / half if bool(small.any()) else 0.0
        out = Rounding(
            out.numbers + w.numel(),
            max(out.worst, worst),
            max(out.below, below),
            out.subnormal + int((small & (size > 0)).sum()),
            out.zeroed + int((small & (size > 0) & (r == 0)).sum()),
            out.overflow + int((torch.isfinite(w) & ~finite).sum()),
            max(out.largest, _top(w)),
        )
    return out


# --- where values change their precision ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CastAt:
    """Before `node` runs, its operand `operand` is cast to `dtype`."""

    node: str
    operand: str
    dtype: torch.dtype


# functions that take operands of several precisions and answer in the wider one; meta tensors do not tell which do
_PROMOTES = frozenset(
    """add sub mul div truediv true_divide divide multiply subtract pow cat concat concatenate stack hstack vstack where maximum
    minimum iadd isub imul itruediv radd rsub rmul rtruediv add sub mul div setitem copy lt le gt ge eq ne getitem""".split()
)


class _Casts(MetaRun):
    """A run of a network whose tensors have been cast; notes where an operand must be cast for the node to run."""

    def __init__(self, graph: fx.Graph, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__(module, garbage_collect_values=True, graph=graph)
        self.dtype = dtype
        self.found: list[CastAt] = []

    def run_node(self, n: fx.Node) -> Any:
        """The node, with its operands cast where they must be; every other reader sees them as they were."""
        if n.op == "output":
            return None
        held = {a: self.env[a] for a in n.all_input_nodes if _is_float(self.env[a])}
        try:
            if n.op == "call_module":
                want = held_dtype(self.module.get_submodule(str(n.target)))
                if want is not None:
                    self._cast(n, held, want)
            elif n.op in ("call_function", "call_method") and len({t.dtype for t in held.values()}) > 1:
                if getattr(n.target, "__name__", str(n.target)).strip("_") not in _PROMOTES:
                    self._cast(n, held, self.dtype)
            return super().run_node(n)
        finally:
            self.env.update(held)

    def _cast(self, n: fx.Node, held: dict[fx.Node, Tensor], want: torch.dtype) -> None:
        for operand, value in held.items():
            if value.dtype != want:
                self.found.append(CastAt(n.name, operand.name, want))
                self.env[operand] = value.to(want)


def casts_needed(network: Network, dtype: torch.dtype) -> list[CastAt]:
    """Where operands must be cast so that the network, whose tensors have two precisions, runs; found on a twin.

    Raises NetxformError X0801 where it runs in no way, such as behind a decision on precisions.
    """
    from netxform.graph.network import example

    module = weightless_parts(network)
    run = _Casts(network.module.graph, module, dtype)
    with torch.no_grad(), torch.device("meta"), evaluating(module):
        try:
            run.run(*example(network))
        except Exception as error:  # whatever code that is kept whole raises on meta tensors
            name = str(dtype).removeprefix("torch.")
            raise fail(
                "X0801",
                f"the network in {name} does not run: {str(error).strip().splitlines()[0]}",
                helps=(f"hand in the model in {name} itself, as `model.to(torch.{name})` makes it", "or `cast int8`"),
            ) from error
    return run.found


def held_dtype(module: nn.Module) -> torch.dtype | None:
    """The precision of a layer: that of its first floating-point tensor; None for a layer without one."""
    return next((t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), None)


def _top(tensor: Tensor) -> float:
    """The largest magnitude of a number that is finite; 0 where there is none."""
    return float(tensor.detach().abs().where(tensor.isfinite(), 0.0).max())


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


# --- what it does to the outputs -------------------------------------------------------------------------------------


# functions that make a tensor in the precision that their `dtype` says, or in the default one
_MAKERS = (torch.zeros, torch.ones, torch.full, torch.empty, torch.eye, torch.arange, torch.linspace, torch.tensor)


def _grouped_mm(a: Tensor, b: Tensor, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Tensor:
    """Products of groups of rows, group by group: torch has them in float32 and below alone."""
    if a.is_meta:
        return grouped_shape(a, b, offs, bias, out_dtype)
    if offs is None:
        return a @ b
    ends = offs.tolist()
    parts = list(zip([0, *ends[:-1]], ends, strict=True))
    if a.dim() == 3:
        return torch.cat([a[g] @ b[:, i:j] for g, (i, j) in enumerate(parts)], dim=1)
    if b.dim() == 2:
        return torch.stack([a[:, i:j] @ b[i:j] for i, j in parts])
    whole = torch.cat([a[i:j] @ b[g] for g, (i, j) in enumerate(parts)])
    return torch.cat([whole, whole.new_zeros(len(a) - len(whole), whole.shape[1])])


_GROUPED = (torch._grouped_mm, torch.nn.functional.grouped_mm)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def _widened(value: Any) -> Any:
    """Arguments of a node with float64 for every narrower floating-point dtype."""
    narrow = (torch.float16, torch.bfloat16, torch.float32)
    return map_aggregate(value, lambda v: torch.float64 if any(v is n for n in narrow) else v)


def _on_dtype(value: Any) -> bool:
    """Whether a condition is about the precision of a tensor."""
    if not isinstance(value, fx.Node) or value.op != "call_function":
        return False
    if value.target is getattr:
        return bool(value.args[1] == "dtype")
    return getattr(value.target, "__module__", "") == "_operator" and any(_on_dtype(a) for a in value.all_input_nodes)


def in_double(network: Network) -> Network:
    """A copy of the network in float64, with what its graph casts to, or makes in, another precision in float64 too."""
    inputs = tuple(replace(i, dtype=torch.float64 if i.dtype.is_floating_point else i.dtype) for i in network.inputs)
    module, same = structure(network.module, _double), True
    for node in list(module.graph.nodes):
        if is_guard(node) and _on_dtype(node.args[0]):  # the twin computes what the network does, in its branch
            module.graph.erase_node(node)
            continue
        node.args, node.kwargs = _widened(node.args), _widened(node.kwargs)
        if node.op == "call_method" and node.target in ("float", "half", "bfloat16"):
            node.target = "double"
        if node.op == "call_function" and node.target in _GROUPED:
            node.target = _grouped_mm
        kind = node.meta.get("dtype")
        if not (isinstance(kind, torch.dtype) and kind.is_floating_point):
            continue
        if node.op == "call_function" and node.target in _MAKERS:
            node.kwargs = {**node.kwargs, "dtype": torch.float64}
        elif node.op in ("call_function", "call_method") and not any(_floats(a) for a in node.all_input_nodes):
            widen_behind(node)
            same = False
    module.recompile()
    made = replace(network, module=module, inputs=inputs)
    return refresh(knowing(network, made) if same else made)


class SampleBySample(TorchFunctionMode):
    """Convolutions in float64 take one sample at a time: PyTorch lays every patch of all of them side by side, which for the
    first layers of VGG-16 and eight samples is 1.8 GB. The numbers are the same, bit for bit.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The convolution of each sample by itself; every other function as it is."""
        if func is torch.conv2d and args and args[0].dtype == torch.float64 and args[0].dim() == 4 and len(args[0]) > 1:
            return torch.cat([func(x, *args[1:], **(kwargs or {})) for x in args[0].split(1)])
        return func(*args, **(kwargs or {}))


def _double(tensor: Tensor) -> Tensor:
    """A tensor with the same numbers in float64, if it is one of floating-point numbers; else one of its own."""
    if not _is_float(tensor):
        return own(tensor)
    made = tensor.detach().to(torch.float64, copy=True)
    return nn.Parameter(made, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def _floats(node: fx.Node) -> bool:
    """Whether its value holds floating-point numbers, or may: a value of several parts tells no dtype."""
    kind = node.meta.get("dtype")
    return kind.is_floating_point or kind.is_complex if isinstance(kind, torch.dtype) else node.op != "call_method"


def widen_behind(node: fx.Node) -> None:
    """What was made of integers has the default precision: in float64 from here on."""
    with node.graph.inserting_after(node):
        made = node.graph.call_method("double", (node,))
    made.meta |= {k: v for k, v in node.meta.items() if k not in ("exits", "entries")} | {"exits": (), "entries": ()}
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)


class _Stops(fx.Interpreter):
    """A run that remembers where it is."""

    place = ""

    def run_node(self, n: fx.Node) -> Any:
        """The node."""
        self.place = str(n.target) if n.op == "call_module" else n.meta.get("scope", "") or n.name
        return super().run_node(n)


def failing(network: Network, inputs: tuple[Tensor, ...]) -> tuple[str, str] | None:
    """Where the network does not run on these inputs, and why; meta tensors do not show all of it. None if it runs."""
    run = _Stops(network.module, garbage_collect_values=True)
    run.extra_traceback = False
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(network.module):
            run.run(*(t.clone() for t in inputs))
    except RuntimeError as error:
        return run.place, str(error)
    return None


class _Moved(fx.Interpreter):
    """A float64 run in which every value that half precision would round is moved by up to its rounding."""

    def __init__(
        self,
        module: fx.GraphModule,
        after: fx.GraphModule,
        dtype: torch.dtype,
        noise: torch.Generator | None,
        inside: set[str],
    ) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.kinds = {n.name: n.meta.get("dtype") for n in after.graph.nodes}
        self.dtype, self.noise, self.inside = dtype, noise, inside
        self.largest, self.where = 0.0, ""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        times = 1.0
        if n.op == "call_module":
            kind = type(self.module.get_submodule(str(n.target))).__name__
            times = _INSIDE.get(kind, 1.0)
        rounded = self.kinds.get(n.name) == self.dtype or (times > 1.0 and str(n.target) in self.inside)
        if not rounded:
            return value
        for tensor in pytree.tree_leaves(value):
            if _is_float(tensor) and tensor.numel():
                top = _top(tensor)
                if top > self.largest:
                    self.largest, self.where = top, str(n.target) if n.op == "call_module" else n.name
        return pytree.tree_map(lambda t: moved(t, self.dtype, self.noise, times) if _is_float(t) else t, value)


def moved(tensor: Tensor, dtype: torch.dtype, noise: torch.Generator | None, times: float = 1.0) -> Tensor:
    """The float64 tensor, each number moved at random by up to `times` its rounding in `dtype`."""
    if noise is None:
        return tensor
    info = torch.finfo(dtype)
    half = float(info.smallest_normal) * float(info.eps) / 2
    width = (tensor.abs() * unit_roundoff(dtype)).clamp_min(half) * times
    width = width.where(tensor.isfinite(), 0.0)  # the infinity of a mask is the same in every precision
    return tensor + width * (2 * torch.rand(tensor.shape, generator=noise, dtype=tensor.dtype) - 1)


@dataclass(frozen=True, slots=True)
class Predicted:
    """`bound`: what the relative change of the outputs will not exceed. `largest`: the largest value that will be stored in
    half precision on the way, and `where`.
    """

    bound: float
    largest: float
    where: str


def predict(before: Network, after: Network, names: Iterable[str], dtype: torch.dtype, inputs: Any, seed: int) -> Predicted:
    """The bound for a cast of the tensors `names`: `after` is the cast network, `before` the one that it was made from."""
    exact = in_double(after)
    chosen = set(names)
    known, own = held(before.module), held(exact.module)
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.is_floating_point():
                tensor.copy_(known[name].double())
    inside = {m for m, _ in exact.module.named_modules() if any(n.startswith(f"{m}.") for n in chosen)}
    given = [t.double() if t.is_floating_point() else t for t in inputs]
    exact.module.eval()

    def run(noise: torch.Generator | None) -> tuple[list[Tensor], _Moved]:
        run_ = _Moved(exact.module, after.module, dtype, noise, inside)
        with torch.no_grad():
            result = run_.run(*[t.clone() for t in given])
        return [t for t in pytree.tree_leaves(result) if _is_float(t)], run_

    wanted, quiet = run(None)
    worst = 0.0
    originals = {n: t.detach().clone() for n, t in own.items() if n in chosen}
    for i in range(RUNS):
        noise = torch.Generator().manual_seed((seed * 7_919 + i) % 2**63)
        with torch.no_grad():
            for name, tensor in originals.items():
                own[name].copy_(moved(tensor, dtype, noise))
        found, _ = run(noise)
        for a, b in zip(found, wanted, strict=True):
            if b.numel():
                worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp_min(1e-300)))
    return Predicted(SAFETY * worst, quiet.largest, quiet.where)
