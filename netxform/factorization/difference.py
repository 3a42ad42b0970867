"""How far a chain of factors is from the layer that it replaces: measured from the two as they are, in float64.

layer, chain ─kernel_error→ ‖K − K̂‖_F, ‖K‖_F        layer, chain ─worst→ the input that they differ most on
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from netxform.factorization.decompositions import compose
from netxform.factorization.geometry import Geometry, geometry, kernel
from netxform.graph.layers import Factored, Int8Embedding, Int8Linear, TTLinear

# rows of a matrix that are held in float64 at a time
_ROWS = 1024
# a map is cut to this size: what is bounded on the whole map is bounded on a part of it (the rest of the input being zero)
_CROP = 12
_ITERATIONS = 12


@dataclass(frozen=True)
class Worst:
    """An input x of norm 1 (one sample), the layer's linear part on it, and the gain that is reached there."""

    gain: float
    x: Tensor
    y: Tensor


def links_of(new: nn.Module) -> list[nn.Module]:
    """The layers of a chain, in order."""
    if isinstance(new, Int8Linear | Int8Embedding):
        return [dequantized(new)]
    return [new] if isinstance(new, TTLinear) else list(new.children())


def dequantized(layer: Int8Linear | Int8Embedding) -> nn.Linear | nn.Embedding:
    """The layer that an int8 one stands for, in float64."""
    whole = layer.weight.double() * layer.scale.double()[:, None]
    if isinstance(layer, Int8Embedding):
        return nn.Embedding.from_pretrained(whole)
    made = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    made.weight = nn.Parameter(whole, requires_grad=False)
    if layer.bias is not None:
        made.bias = nn.Parameter(layer.bias.detach().double(), requires_grad=False)
    return made


def linear_part(layers: list[nn.Module], x: Tensor) -> Tensor:
    """What the layers make of x without their biases, in float64."""
    value: Any = x
    for layer in layers:
        value = _without_bias(layer)(value)
    return cast(Tensor, value)


def table_part(layers: list[nn.Module], x: Tensor) -> Tensor:
    """The mixture x (rows) of the rows of a table, through the matrix behind it where there is one."""
    table, *last = (cast(Tensor, layer.weight).detach() for layer in layers)
    value = table.T @ x
    for matrix in last:
        value = matrix @ value
    return value


def _without_bias(layer: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    made = copy.deepcopy(layer).to(dtype)
    bias = getattr(made, "bias", None)
    if isinstance(bias, Tensor):
        made.register_parameter("bias", None)
    return made


def matrix_of(layer: nn.Module, name: str) -> Tensor:
    """A matrix of a layer with several: as it is held, or as the product of its factors."""
    if isinstance(layer, Factored):
        short = name.replace(".", "_")
        return layer.get_parameter(f"{short}_u").detach().double() @ layer.get_parameter(f"{short}_v").detach().double()
    return layer.get_parameter(name).detach().double()


def kernel_error(old: nn.Module, new: nn.Module) -> tuple[float, float]:
    """‖K − K̂‖_F and ‖K‖_F of a layer and the chain in its place."""
    g = geometry(old)
    assert isinstance(g, Geometry)
    held = cast(Tensor, old.weight).detach()
    if isinstance(new, TTLinear):
        with torch.no_grad():
            rebuilt = linear_part([new], torch.eye(g.inputs, dtype=torch.float64)).T
        return float((held.double() - rebuilt).norm()), float(held.double().norm())
    links = links_of(new)
    shapes = [cast(Geometry, geometry(link)) for link in links]
    kernels = [kernel(s, cast(Tensor, link.weight)) for s, link in zip(shapes, links, strict=True)]
    if g.taps == 1:
        return _matrix_error(g, kernel(g, held), shapes, kernels)
    whole = kernel(g, held).double()
    rebuilt = compose(g, shapes, [k.double() for k in kernels])
    return float((whole - rebuilt).norm()), float(whole.norm())


def _matrix_error(g: Geometry, K: Tensor, shapes: list[Geometry], kernels: list[Tensor]) -> tuple[float, float]:
    """Row by row, so that a huge matrix has no copy in float64."""
    error = norm = 0.0
    first = [k.double() for k in kernels[:-1]]
    for start in range(0, g.rows, _ROWS):
        rows = K[:, start : start + _ROWS].double()
        rebuilt = compose(g, shapes, [*first, kernels[-1][:, start : start + _ROWS].double()])
        error += float((rows - rebuilt).square().sum())
        norm += float(rows.square().sum())
    return math.sqrt(error), math.sqrt(norm)


def worst(old: nn.Module, new: nn.Module, size: tuple[int, ...], seed: int) -> Worst:
    """Power iteration on the difference of the linear parts, for one sample of `size` (maps are cut to a part of it)."""
    g = geometry(old)
    assert isinstance(g, Geometry)
    if g.kind == "Embedding":
        return _matrix_worst(g, old, new, seed)
    if g.kind == "Linear":
        return _matrix_worst(g, old, new, seed)
    reach = [d * (k - 1) + 1 for d, k in zip(g.dilation, g.kernel, strict=True)]
    shape = (1, g.inputs, *(min(n, max(_CROP, r)) for n, r in zip(size[1:], reach, strict=True)))
    before, after = [_without_bias(old)], [_without_bias(layer) for layer in links_of(new)]

    def run(layers: list[nn.Module], x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    x = _start(shape, seed)
    for _ in range(_ITERATIONS):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            gap = run(before, x) - run(after, x)
            (step,) = torch.autograd.grad(0.5 * gap.square().sum(), x)
        x = _unit(step, x)
    x = x.detach()
    with torch.no_grad():
        y = run(before, x)
        return Worst(float((y - run(after, x)).norm()), x, y)


def _start(shape: tuple[int, ...], seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm()


def _unit(step: Tensor, x: Tensor) -> Tensor:
    """The step at length 1; where the two do not differ there is none, and x stays."""
    length = float(step.norm())
    return step / length if length > 0 else x


def _matrix_worst(g: Geometry, old: nn.Module, new: nn.Module, seed: int) -> Worst:
    """The iteration runs in the precision of the weights; what is reported is measured in float64 at the x that it found."""
    held = kernel(g, cast(Tensor, old.weight))[0]
    links = links_of(new)

    def after(x: Tensor, layers: list[nn.Module]) -> Tensor:
        if g.kind == "Embedding":  # a row of the table is what one input gives; a mixture of rows what a matrix gives
            return table_part(layers, x)
        value: Any = x[None]
        for layer in layers:
            value = layer(value)
        return cast(Tensor, value)[0]

    plain = [_without_bias(layer, held.dtype) for layer in links]
    x = _start((held.shape[1],), seed).to(held.dtype)
    for _ in range(_ITERATIONS):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            z = after(x, plain)
        gap = held @ x.detach() - z.detach()
        (back,) = torch.autograd.grad(z, x, gap)
        x = _unit(held.T @ gap - back, x)
    exact = x.detach().double()
    exact = exact / exact.norm()
    with torch.no_grad():
        y = torch.cat([held[i : i + _ROWS].double() @ exact for i in range(0, len(held), _ROWS)])
        precise = [_without_bias(layer) for layer in links]
        return Worst(float((y - after(exact, precise)).norm()), exact, y)


def matrix_worst(old_OI: Tensor, new_OI: Tensor, seed: int) -> Worst:
    """Power iteration on the difference of two matrices."""
    E = old_OI - new_OI
    x = _start((E.shape[1],), seed)
    for _ in range(_ITERATIONS):
        x = _unit(E.T @ (E @ x), x)
    return Worst(float((E @ x).norm()), x, old_OI @ x)
