"""Weights as int8 with a step for each row: made by torchao, and what it can do to a layer and to the outputs.

nn.Linear | nn.Embedding ─quantize→ int8 weight, scale        layer ─half_steps→ a bound of ‖W − Ŵ‖_F

Symmetric, weight-only: with s = max|W_o| / 127.5 of row o, q = round(W / s) within −128 … 127, so that |W − s·q| ≤ s/2
(Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from netxform.errors import NOWHERE, Span, fail
from netxform.graph import layers as own_layers
from netxform.graph.edits import Operation
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.graph.surgery import perform_operation
from netxform.precision.rounding import RUNS, SAFETY, in_double

# W / s is computed in float32 as W · (1/s): two roundings of at most 127.5 steps each, in half steps
EXCESS = 2.0**-15


@dataclass(frozen=True, slots=True)
class Quantize(Operation):
    """Store the weights of the named Linear and Embedding layers as int8, with a step for each row.

    The Edit's tensors are `PATH.weight` (int8) and `PATH.scale`; on the twin they have shapes alone. Tied weights stay tied.
    """

    layers: tuple[str, ...]


def quantizable(part: nn.Module) -> str | None:
    """Why a layer with weights cannot be stored so, or None."""
    if type(part) not in (nn.Linear, nn.Embedding):
        return f"{type(part).__name__}: torchao stores Linear and Embedding"
    assert isinstance(part, nn.Linear | nn.Embedding)
    if isinstance(part, nn.Embedding) and part.max_norm is not None:
        return "its rows are renormalised when they are read (max_norm)"
    if part.weight.dtype not in (torch.float32, torch.float64):
        return "its weights are narrower than float32 already"
    if part.weight.shape[1] < 2:  # a number a row: int8 and a step of four bytes
        return "int8 and its steps would not be smaller"
    return None


def need_torchao(span: Span = NOWHERE) -> None:
    """Raise NetxformError X0814 where torchao is not installed."""
    if importlib.util.find_spec("torchao") is None:
        raise fail(
            "X0814", "`torchao` is not installed: it makes int8", span, "needed here", helps=("pip install 'netxform[quant]'",)
        )


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (rows, columns) → int8 (rows, columns) and float32 steps (rows), by torchao's `Int8WeightOnlyConfig`."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    rows, columns = weight.shape
    holder = nn.Sequential(nn.Linear(columns, rows, bias=False, device="meta"))
    holder[0].weight = nn.Parameter(weight.detach().float(), requires_grad=False)
    quantize_(holder, Int8WeightOnlyConfig(set_inductor_config=False))
    made: Any = holder[0].weight
    q, scale = made.qdata, made.scale
    if q.dtype != torch.int8 or scale.numel() != rows or bool((made.zero_point != 0).any()):
        raise RuntimeError("torchao did not give symmetric int8 with one step a row")
    return q.detach().clone().contiguous(), scale.detach().reshape(rows).clone()


def half_steps(scale: Tensor, columns: int) -> float:
    """‖W − Ŵ‖_F, and with it the layer's gain, is at most half a step in every number: ½ √columns · ‖s‖."""
    return 0.5 * float(scale.double().norm()) * columns**0.5 * (1 + EXCESS)


def worst_step(old: Tensor, q: Tensor, scale: Tensor) -> float:
    """The largest |W − s·q| in half steps of its row; at most 1 + `EXCESS`. Infinite where a number is not finite."""
    gap = (old.double() - q.double() * scale.double()[:, None]).abs() / (0.5 * scale.double()[:, None])
    return float(gap.nan_to_num(float("inf")).max()) if gap.numel() else 0.0


def predict(network: Network, steps: Mapping[str, Tensor], inputs: Iterable[Tensor], seed: int) -> float:
    """A bound of the outputs' relative change: four times the largest when, in float64, each number of the weights `steps` (by
    name) moves at random by up to half a step of its row, several times. Stochastic, as for half precision; no worst case.
    """
    exact = in_double(network).module
    held = {n: p for n, p in exact.named_parameters(remove_duplicate=False) if n in steps}
    originals = {n: p.detach().clone() for n, p in held.items()}
    given = [t.double() if t.is_floating_point() else t for t in inputs]

    def run() -> list[Tensor]:
        with torch.no_grad(), evaluating(exact):
            found: Any = exact(*[t.clone() for t in given])
        leaves = pytree.tree_leaves(found)
        return [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point() and t.numel()]

    wanted, worst = run(), 0.0
    for i in range(RUNS):
        noise = torch.Generator().manual_seed((seed * 7_919 + i) % 2**63)
        with torch.no_grad():
            done: set[int] = set()
            for name, old in originals.items():
                if id(held[name]) in done:
                    continue  # tied: one tensor moves once
                done.add(id(held[name]))
                draw = torch.rand(old.shape, generator=noise, dtype=torch.float64) - 0.5
                held[name].copy_(old + draw * steps[name].double()[:, None])
        for a, b in zip(run(), wanted, strict=True):
            worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp_min(1e-300)))
    return SAFETY * worst


@perform_operation.register
def _(edit: Quantize, network: Network, tensors: Mapping[str, Tensor], checked: bool) -> Network:
    """Each layer by one of the same sizes that holds int8; layers that shared a weight share the new one."""
    module = network.module
    parts = dict(module.named_modules(remove_duplicate=False))
    made: dict[int, nn.Module] = {}
    shared: dict[int, tuple[Tensor, Tensor]] = {}
    for path in edit.layers:
        old = cast("nn.Linear | nn.Embedding", parts[path])
        if id(old) not in made:
            rows, columns = old.weight.shape
            with torch.device("meta"):
                if isinstance(old, nn.Embedding):
                    new: nn.Module = own_layers.Int8Embedding(rows, columns)
                else:
                    bias = cast("nn.Parameter | None", old.bias)
                    new = own_layers.Int8Linear(columns, rows, bias is not None)
                    new.bias = bias
            device = old.weight.device
            if id(old.weight) not in shared:
                found = [tensors.get(f"{path}.{n}", new.get_buffer(n)) for n in ("weight", "scale")]
                if device.type != "meta" and found[0].is_meta:
                    raise ValueError(f"the edit holds no tensor `{path}.weight`")
                shared[id(old.weight)] = (found[0].to(device), found[1].to(device))
            new.register_buffer("weight", shared[id(old.weight)][0])
            new.register_buffer("scale", shared[id(old.weight)][1])
            made[id(old)] = new.train(old.training)
        owner, _, last = path.rpartition(".")
        setattr(module.get_submodule(owner), last, made[id(old)])
    return replace(network)  # its types are found again
