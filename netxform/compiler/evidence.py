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

from netxform.axes.reindex import Axis, axes_of, reindex
from netxform.graph.edits import Edit
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.graph.tensors import held
from netxform.language.laws import Evidence
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
    the probe inputs), names of tensors, and values of any other meaning (`reference`).

    `found`: the outputs of the network after the statement that were compared; they are not kept.
    """

    evidence: Evidence
    values: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    tensors: tuple[str, ...] = ()
    reference: tuple[Tensor, ...] = ()
    found: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What a claim is measured again on: the network as it is now, and what was kept.

    `values`: the values that must be found, by node; `now`: those that are found on the probe `inputs`. `slack`: by how much
    values may differ because another machine rounds otherwise; 0 on the one that measured.
    """

    network: Network
    inputs: tuple[Tensor, ...]
    values: Mapping[str, Tensor]
    now: Mapping[str, Tensor]
    reference: tuple[Tensor, ...] = ()
    slack: float = 0.0


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


def rounding(network: Network, inputs: tuple[Tensor, ...], seed: int) -> float:
    """The network's own rounding noise: what permuting its free axes at random changes, which in real arithmetic is nothing."""
    generator = torch.Generator().manual_seed(seed)
    maps: dict[Axis | str, list[int]] = {
        a: torch.randperm(a.size, generator=generator).tolist() for a in axes_of(network) if a.locked is None
    }
    return relative(results(reindex(network, maps), inputs), results(network, inputs))


def own_rounding(before: Network, after: Network, inputs: tuple[Tensor, ...], seed: int, wanted: tuple[Tensor, ...]) -> float:
    """How far rounding alone may take the outputs of `after`, as it is stored, from their true values `wanted`, relatively.

    In float32 and float64: what permuting its free axes changes. In half precision every value on the way is rounded by up to
    u of itself (2⁻¹¹ or 2⁻⁸), the outputs too, and a permutation shows only the share of that in sums. There it is at least u,
    and at least what the network before the statement, which rounds at the same places, is off from its own float64 twin.
    """
    own = max(rounding(after, inputs, seed), 1e-7)
    halves = {t.dtype for t in before.module.parameters()} & set(HALF.values())
    if not halves:
        return own
    own = max(own, *(unit_roundoff(d) for d in halves))
    exact = doubled(before)
    if exact is None:
        return own
    true, stored = results(exact, inputs), results(before, inputs)
    for a, b, w in zip(stored, true, wanted, strict=False):
        if b.numel() and w.numel() and bool(b.isfinite().any()) and bool(w.isfinite().any()):
            grown = float(b[b.isfinite()].abs().max()) / max(float(w[w.isfinite()].abs().max()), 1e-300)
            gap = relative((a,), (b,)) * grown
            own = max(own, gap if gap < float("inf") else 0.0)
    return own


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
