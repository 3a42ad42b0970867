"""What measuring needs and what it gives; and what every measurement is made of: outputs, values, hashes, distances.

Case ─measure→ Measured        Kept ─again→ Evidence
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from netxform.axes.reindex import apply_maps, axes_of
from netxform.graph.edits import Edit
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.graph.outputs import outputs
from netxform.graph.tensors import held
from netxform.language.laws import Detail, Evidence, Real
from netxform.language.verb import Material
from netxform.precision.rounding import HALF, in_double, unit_roundoff


@dataclass(frozen=True, slots=True)
class Case:
    """The networks before and after a statement, and what a claim about them may be measured on.

    `inputs`: the probe inputs, drawn under `seed`. `edit`: what was done. `material` gives calibration data to
    claims about data.
    """

    before: Network
    after: Network
    inputs: tuple[Tensor, ...]
    seed: int
    edit: Edit = field(default_factory=Edit)
    material: Material | None = None

    @property
    def count(self) -> int:
        """How many samples the probe inputs are."""
        return self.inputs[0].shape[0] if self.inputs and self.inputs[0].dim() else 0


@dataclass(frozen=True)
class Measured:
    """Evidence, and what must be kept so that the claim can be measured again: node → the value that must be found there (on
    the probe inputs), and values of any other meaning (`reference`).

    `tensors` and `nodes` name what the claim speaks of: these tensors, and the values of these nodes with all that they are
    computed from; everything where both are empty. `beside`: what was found on the way and is a claim of its own. `nothing`:
    the claim speaks of nothing at all, and so is none.
    `found`: the outputs of the network after the statement that were compared; they are not kept.
    """

    evidence: Evidence
    values: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    tensors: tuple[str, ...] = ()
    reference: tuple[Tensor, ...] = ()
    nodes: tuple[str, ...] = ()
    beside: tuple[Measured, ...] = ()
    nothing: bool = False
    found: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What a claim is measured again on: the network as it is now, and what was kept.

    `values`: the values that must be found, by node; `now`: those that are found on the probe `inputs`. `slack`: by how much
    values may differ because another machine rounds otherwise; 0 on the one that measured. `in_force`: what the claim speaks of
    is as it was. `claim`: the claim as the plan states it, as plain data.
    """

    network: Network
    inputs: tuple[Tensor, ...]
    values: Mapping[str, Tensor]
    now: Mapping[str, Tensor]
    reference: tuple[Tensor, ...] = ()
    slack: float = 0.0
    in_force: bool = True
    claim: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def count(self) -> int:
        """How many samples the probe inputs are."""
        return self.inputs[0].shape[0] if self.inputs and self.inputs[0].dim() else 0


class Unmeasurable(Exception):
    """Why a claim cannot be measured again on what was kept of it; `evidence` is what can be derived nevertheless."""

    def __init__(self, why: str, evidence: Evidence | None = None) -> None:
        super().__init__(why)
        self.why, self.evidence = why, evidence


# What is kept of one claim, or of one part of the data, is at most so large.
KEPT_BYTES = 8_000_000


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


def ends(network: Network) -> tuple[str, ...]:
    """The nodes whose values are the outputs."""
    return tuple(n.name for n in outputs(network.module).values())


def again_at(kept: Kept, nodes: tuple[str, ...]) -> tuple[Tensor, ...]:
    """The floating-point values of the nodes now, as `results` gives them. Raises Unmeasurable where one is gone."""
    network = kept.network
    if not nodes or nodes == ends(network):
        return results(network, kept.inputs)
    known = {n.name for n in network.module.graph.nodes}
    gone = [n for n in nodes if n not in known]
    if gone:
        raise Unmeasurable(f"`{gone[0]}` is not computed any more")
    given = tuple(t.to(i.dtype) for t, i in zip(kept.inputs, network.inputs, strict=True))
    found = values_at(network, nodes, given)
    return tuple(found[n] for n in nodes if n in found and found[n].is_floating_point())


def results(network: Network, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The floating-point outputs on the inputs, in eval mode and in the network's own precision."""
    module = network.module
    given = [t.to(i.dtype) for t, i in zip(inputs, network.inputs, strict=True)]
    with torch.no_grad(), evaluating(module):
        found = tensors_in(module(*given))
    return tuple(t for t in found if t.is_floating_point())


def relative(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """The largest |found − wanted| over the largest |wanted|, over all outputs; infinite for other shapes, and where not the
    same numbers are NaN or infinite. Where none is finite there is nothing to compare, and it is infinite too.
    """
    if [t.shape for t in found] != [t.shape for t in wanted]:
        return float("inf")
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        finite = b.isfinite()
        if not bool(finite.all()):
            if not _same_marks(a, b) or not bool(finite.any()):
                return float("inf")
            a, b = a[finite], b[finite]
        if b.numel():
            gap = float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-300))
            worst = max(worst, gap if gap == gap else float("inf"))
    return worst


def _same_marks(a: Tensor, b: Tensor) -> bool:
    """Whether the same numbers are NaN, and the same infinite."""
    same = torch.equal(a.isposinf(), b.isposinf()) and torch.equal(a.isneginf(), b.isneginf())
    return same and torch.equal(a.isnan(), b.isnan())


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a nested result, in order."""
    return [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]


# Of a network with more parameters than this no double-precision copy is made; float32 alone is compared.
_LARGE = 150_000_000
EXACT = 1e-10


def doubled(network: Network) -> Network | None:
    """A copy of the network in float64; None for a huge one."""
    if sum(p.numel() for p in network.module.parameters()) > _LARGE:
        return None
    return in_double(network)


def rounding(network: Network, inputs: tuple[Tensor, ...], seed: int, found: tuple[Tensor, ...] | None = None) -> float:
    """The network's own rounding noise: what permuting its free axes at random changes, which in real arithmetic is nothing.

    `found`: the outputs on the inputs, where they are known.
    """
    generator = torch.Generator().manual_seed(seed)
    maps = {a.atom: torch.randperm(a.size, generator=generator).tolist() for a in axes_of(network) if a.locked is None}
    permuted = apply_maps(network, maps, checked=True)  # no size changes, so no code has to follow
    return relative(results(permuted, inputs), results(network, inputs) if found is None else found)


class Tolerance(Detail, frozen=True):
    """What rounding may change in a network as it is stored, and where that number comes from.

    `times` the largest of: the network's `own_noise` (what permuting its free axes at random changes, which in real arithmetic
    is nothing), `one_rounding` in the precision of its parameters, and for half precision how far the network before the
    statement is from itself in float64: there every value on the way is rounded by up to u of itself (2⁻¹¹ or 2⁻⁸), the outputs
    too, and a permutation shows only the share of that in sums.
    """

    own_noise: Real
    one_rounding: Real
    times: Real = 10.0
    distance_from_float64: Real | None = None

    @property
    def allowed(self) -> float:
        """The relative change that is allowed."""
        return self.times * max(self.own_noise, self.one_rounding, self.distance_from_float64 or 0.0)


def tolerance(
    network: Network,
    inputs: tuple[Tensor, ...],
    seed: int,
    distance: float | None = None,
    found: tuple[Tensor, ...] | None = None,
) -> Tolerance:
    """What rounding may change here; `distance` is that of a network in half precision from itself in float64, `found` the
    outputs on the inputs, where they are known.
    """
    dtypes = {p.dtype for p in network.module.parameters()}
    single = torch.finfo(torch.float64 if dtypes == {torch.float64} else torch.float32).eps
    single = max([single, *(unit_roundoff(d) for d in dtypes & set(HALF.values()))])
    return Tolerance(rounding(network, inputs, seed, found), max(single, EXACT / 10), distance_from_float64=distance)


def half_distance(stored: tuple[Tensor, ...], true: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """How far outputs in half precision are from their true values in float64, relative to the `wanted` ones."""
    worst = 0.0
    for a, b, w in zip(stored, true, wanted, strict=False):
        if b.numel() and w.numel() and bool(b.isfinite().any()) and bool(w.isfinite().any()):
            grown = float(b[b.isfinite()].abs().max()) / max(float(w[w.isfinite()].abs().max()), 1e-300)
            gap = relative((a,), (b,)) * grown
            worst = max(worst, gap if gap < float("inf") else 0.0)
    return worst


class _Watch(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, nodes: Iterable[str]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.wanted = set(nodes)
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted and isinstance(value, Tensor):
            self.seen[n.name] = value.detach().clone()
        return value


def values_at(network: Network, nodes: Iterable[str], inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The values of the named nodes, in eval mode. No parameter asks for a gradient meanwhile, or `nn.RNN` rounds otherwise."""
    module = network.module
    asking = [p for p in module.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    watch = _Watch(module, nodes)
    try:
        with torch.no_grad(), evaluating(module):
            watch.run(*[t.clone() for t in inputs])
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
    return watch.seen


def distance(found: Tensor | None, wanted: Tensor | None) -> float:
    """The largest difference; 0 for equal bits, NaN among them; infinite for another shape or a lost value."""
    if found is None or wanted is None or found.shape != wanted.shape or found.dtype != wanted.dtype:
        return float("inf")
    if bool(((found == wanted) | ((found != found) & (wanted != wanted))).all()):
        return 0.0
    gap = (found.double() - wanted.double()).abs().max()
    return float(gap) if bool(torch.isfinite(gap)) else float("inf")


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by name, further names of tied tensors included."""
    return {n: t.detach() for n, t in held(module).items()}


def digest(module: nn.Module, names: Iterable[str]) -> str:
    """A hash of the named tensors' bits."""
    held = tensors(module)
    out = hashlib.sha256()
    for name in sorted(names):
        out.update(name.encode())
        out.update(tensor_hash(held[name]).encode() if name in held else b"?")
    return out.hexdigest()


def tensor_hash(tensor: Tensor) -> str:
    """sha256 of shape, dtype and bytes."""
    out = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    flat = tensor.detach().cpu().contiguous().flatten()
    out.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return out.hexdigest()


def same_bits(a: Tensor, b: Tensor) -> bool:
    """The same shape, precision and bytes."""
    return a.shape == b.shape and a.dtype == b.dtype and tensor_hash(a) == tensor_hash(b)
