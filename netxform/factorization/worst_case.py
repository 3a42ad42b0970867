"""A bound on how far the outputs may move for every input of a given norm, by composing the bounds of the layers.

Network, gains of the errors, radius ─worst_case→ a number that nothing exceeds, and that is far above what happens

Along the graph three numbers are carried: a bound on the norm of a value, and one on the distance between the value in the
network as it was and as it will be. Loose by nature (two to three orders of magnitude on small networks): only on request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from netxform.axes.names import op_name
from netxform.errors import fail
from netxform.factorization.factorized_layer import taps_bound
from netxform.factorization.geometry import Geometry, geometry, kernel
from netxform.graph.activations import Activation, activation_of
from netxform.graph.network import Network

# what moves or thins out values, or maps them by a function of slope 1 with several arguments
_PASSED = frozenset(
    "dropout dropout2d identity flatten view reshape contiguous permute transpose squeeze unsqueeze softmax".split()
)


@dataclass(frozen=True)
class _Value:
    norm: float
    gap: float


def worst_case(network: Network, errors: Mapping[str, float], radius: float) -> float:
    """An upper bound on ‖f(x) − f′(x)‖₂ for every single input with ‖x‖₂ ≤ `radius`, where layer p changes by a gain of
    at most errors[p]. Eval mode.

    Raises NetxformError X0324 where an operation lies on the way whose slope is not known.
    """
    env: dict[fx.Node, _Value] = {}
    modules = dict(network.module.named_modules(remove_duplicate=False))
    for node in network.module.graph.nodes:
        inputs = [env[n] for n in node.all_input_nodes if n in env]
        if node.op == "placeholder":
            env[node] = _Value(radius, 0.0)
        elif node.op == "output":
            return math.hypot(*(v.gap for v in inputs))
        elif node.op == "call_module":
            env[node] = _module(node, modules[str(node.target)], inputs[0], errors.get(str(node.target), 0.0))
        elif inputs:
            env[node] = _function(node, inputs)
    return math.inf


def _refuse(node: fx.Node, what: str) -> Exception:
    return fail("X0324", f"no slope is known of {what} at `{node.name}`", helps=("leave `worst_case` out",))


def _module(node: fx.Node, part: nn.Module, x: _Value, error: float) -> _Value:
    g = geometry(part)
    shape = cast("tuple[int, ...]", cast(fx.Node, node.args[0]).meta["shape"])
    out = cast("tuple[int, ...]", node.meta["shape"])
    if isinstance(g, Geometry) and g.kind != "Embedding":
        gain = taps_bound(kernel(g, cast(Tensor, part.weight)).double(), g, shape[2:] if g.kernel else ())
        bias = cast("Tensor | None", part.bias)
        where = math.prod(out[2:]) if g.kernel else math.prod(out[1:-1])
        shift = float(bias.detach().norm()) * math.sqrt(where) if bias is not None else 0.0
        return _Value((gain + error) * x.norm + shift, (gain + error) * x.gap + error * x.norm)
    if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and part.running_var is not None:
        assert part.running_mean is not None
        scale = (part.weight if part.affine else torch.ones_like(part.running_var)) / (part.running_var + part.eps).sqrt()
        shift = (part.bias if part.affine else 0.0) - part.running_mean * scale
        gain, more = float(scale.detach().abs().max()), float(shift.detach().norm()) * math.sqrt(math.prod(out[2:]))
        return _Value(gain * x.norm + more, gain * x.gap)
    name = type(part).__name__.lower()
    if name in ("maxpool1d", "maxpool2d", "avgpool2d", "avgpool1d"):
        sizes = cast(Any, part)
        overlap = _overlap(sizes.kernel_size, sizes.stride, len(shape) - 2)
        return _Value(overlap * x.norm, overlap * x.gap)
    if name.startswith(("adaptiveavgpool", "adaptivemaxpool")) and all(n >= m for n, m in zip(shape[2:], out[2:], strict=True)):
        sides = list(zip(shape[2:], out[2:], strict=True))
        overlap = math.prod(1 if n % m == 0 else 2 for n, m in sides)
        window = math.prod(-(-n // m) for n, m in sides) if "avg" in name else 1
        gain = math.sqrt(overlap / window)
        return _Value(gain * x.norm, gain * x.gap)
    known = activation_of(part)
    slope = 1.0 if name in _PASSED else _slope(known) if known is not None and type(part) is known.layer else None
    if slope is None:
        raise _refuse(node, f"`{type(part).__name__}`")
    return _Value(slope * x.norm, slope * x.gap)


def _slope(known: Activation | None) -> float | None:
    """The largest slope of a function that maps 0 to 0, so that it bounds norms as well."""
    return known.slope if known is not None and known.zero else None


def _overlap(kernel_size: Any, stride: Any, dims: int) -> float:
    """The root of how many windows a pixel lies in."""
    k = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * dims
    s = stride if isinstance(stride, tuple) else (stride,) * dims
    return math.sqrt(math.prod(math.ceil(a / b) for a, b in zip(k, s, strict=True)))


def _function(node: fx.Node, inputs: list[_Value]) -> _Value:
    name = op_name(node).strip("_")
    if name in ("add", "iadd", "sub"):
        return _Value(sum(v.norm for v in inputs), sum(v.gap for v in inputs))
    if name in ("cat", "concat"):
        return _Value(math.hypot(*(v.norm for v in inputs)), math.hypot(*(v.gap for v in inputs)))
    slope = 1.0 if name in _PASSED else _slope(activation_of(name))
    if slope is not None:
        return _Value(slope * inputs[0].norm, slope * inputs[0].gap)
    if name in ("size", "getattr", "getitem", "shape"):
        return inputs[0]
    if name == "mean":
        return inputs[0]
    raise _refuse(node, f"`{name}`")
