"""Index maps as operations of an Edit: gather along axes, then fill and scale slices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from netxform.axes.infer import types_of
from netxform.axes.reindex import apply_maps, axes_of, replace_tensors
from netxform.graph.edits import Operation
from netxform.graph.network import Network
from netxform.graph.surgery import perform_operation


@dataclass(frozen=True, slots=True)
class Scale:
    """Multiply slices of a tensor: slice i along `axis` by factors[i]."""

    tensor: str
    axis: int
    factors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Fill:
    """Draw slices of a tensor (the given positions along `axis`) from the normal distribution, as wide as the tensor.

    With `noise`, what is there is kept and noise of that relative width is added.
    """

    tensor: str
    axis: int
    positions: tuple[int, ...]
    seed: int
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class Reindex(Operation):
    """Apply index maps to axes (by name): everything of their type is gathered; then fill, then scale."""

    copies: ClassVar[bool] = True
    restructures: ClassVar[bool] = False
    maps: tuple[tuple[str, tuple[int, ...]], ...]
    scales: tuple[Scale, ...] = ()
    fills: tuple[Fill, ...] = ()


@perform_operation.register
def _(edit: Reindex, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    named = {a.name: a.atom for a in axes_of(network)}
    changed = apply_maps(network, {named[n]: list(m) for n, m in edit.maps}, checked)
    makers: dict[str, list[Any]] = {}
    for fill in edit.fills:
        makers.setdefault(fill.tensor, []).append(lambda t, f=fill: _filled(t, f))
    for scale in edit.scales:
        makers.setdefault(scale.tensor, []).append(lambda t, s=scale: _along(t, s.axis, s.factors) * t)

    def apply(tensor: torch.Tensor, steps: list[Any]) -> torch.Tensor:
        for step in steps:
            tensor = step(tensor.detach())
        return tensor

    replace_tensors(changed.module, {n: lambda t, s=s: apply(t, s) for n, s in makers.items()}, types_of(network))
    return changed


def _along(tensor: torch.Tensor, axis: int, values: Iterable[float]) -> torch.Tensor:
    """A vector in the tensor's precision, shaped to act along one axis."""
    vector = torch.tensor(list(values), dtype=tensor.dtype, device=tensor.device)
    return vector.reshape([-1 if i == axis else 1 for i in range(tensor.dim())])


def _filled(tensor: torch.Tensor, fill: Fill) -> torch.Tensor:
    if tensor.is_meta:
        return tensor
    index = torch.tensor(fill.positions, device=tensor.device)
    generator = torch.Generator().manual_seed(fill.seed)
    old = tensor.index_select(fill.axis, index)
    drawn = torch.randn(old.shape, generator=generator, dtype=torch.float64) * float(tensor.double().std())
    drawn = drawn.to(tensor)
    return tensor.index_copy(fill.axis, index, drawn if fill.noise is None else old + fill.noise * drawn)
