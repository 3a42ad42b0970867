"""What measuring gives, and the few things that every measurement needs: outputs, and distances between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from netxform.axes.reindex import Axis, axes_of, reindex
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.language.claims import Claim
from netxform.language.laws import Evidence
from netxform.precision.rounding import in_double


@dataclass(frozen=True)
class Measured:
    """Evidence, and what it was measured against: node → the value that must be found there (on the probe inputs)."""

    evidence: Evidence
    values: dict[str, Tensor]
    tensors: tuple[str, ...] = ()
    claim: Claim | None = None
    reference: tuple[Tensor, ...] = ()


def results(network: Network, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The floating-point outputs on the inputs, in eval mode and in the network's own precision."""
    module = network.module
    given = [t.to(i.dtype) for t, i in zip(inputs, network.inputs, strict=True)]
    with torch.no_grad(), evaluating(module):
        found = tensors_in(module(*given))
    return tuple(t for t in found if t.is_floating_point())


def relative(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """The largest |found − wanted| over the largest |wanted|, over all outputs; infinite for other shapes or for NaN."""
    if [t.shape for t in found] != [t.shape for t in wanted]:
        return float("inf")
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        if b.numel():
            gap = float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-300))
            worst = max(worst, gap if gap == gap else float("inf"))
    return worst


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
