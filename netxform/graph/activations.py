"""The activations, as one table; and where in a graph they are: the values behind the nonlinearity of a layer."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from netxform.graph.network import Network, exit_nodes


@dataclass(frozen=True, slots=True)
class Activation:
    """A nonlinearity that is applied to every element, as a layer and as a function.

    `names`: of the function, without the underscore of its form in place. `slope`: the largest one, for the layer's default
    arguments; None where there is none or weights decide. `zero`: it maps 0 to 0. `idempotent`: twice is once. `piecewise`:
    it consists of straight lines. `repeatable`: `deepen` puts another one behind a new layer.
    """

    layer: type[nn.Module]
    names: tuple[str, ...]
    slope: float | None = None
    zero: bool = True
    idempotent: bool = False
    piecewise: bool = False
    repeatable: bool = False


ACTIVATIONS = (
    Activation(nn.ReLU, ("relu",), 1.0, idempotent=True, piecewise=True, repeatable=True),
    Activation(nn.ReLU6, ("relu6",), 1.0, idempotent=True, piecewise=True, repeatable=True),
    Activation(nn.Hardtanh, ("hardtanh",), 1.0, idempotent=True, piecewise=True, repeatable=True),
    Activation(nn.LeakyReLU, ("leaky_relu",), 1.0, piecewise=True, repeatable=True),
    Activation(nn.PReLU, ("prelu",), piecewise=True),
    Activation(nn.RReLU, ("rrelu",), piecewise=True),
    Activation(nn.Threshold, ("threshold",), zero=False, piecewise=True),
    Activation(nn.Hardsigmoid, ("hardsigmoid",), 1 / 6, zero=False, piecewise=True),
    Activation(nn.ELU, ("elu",), 1.0, repeatable=True),
    Activation(nn.CELU, ("celu",), 1.0),
    Activation(nn.SELU, ("selu",), 1.7581),
    Activation(nn.GELU, ("gelu",), 1.13, repeatable=True),
    Activation(nn.SiLU, ("silu",), 1.1, repeatable=True),
    Activation(nn.Mish, ("mish",), 1.09),
    Activation(nn.Hardswish, ("hardswish",), 1.5, repeatable=True),
    Activation(nn.Tanh, ("tanh",), 1.0, repeatable=True),
    Activation(nn.Softsign, ("softsign",), 1.0),
    Activation(nn.Sigmoid, ("sigmoid",), 0.25, zero=False, repeatable=True),
    Activation(nn.LogSigmoid, ("logsigmoid", "log_sigmoid"), 1.0, zero=False),
    Activation(nn.Softplus, ("softplus",), 1.0, zero=False),
    Activation(nn.Tanhshrink, ("tanhshrink",), 1.0),
    Activation(nn.Softshrink, ("softshrink",), 1.0, piecewise=True),
    Activation(nn.Hardshrink, ("hardshrink",), idempotent=True, piecewise=True),
)
IDEMPOTENT = tuple(a.layer for a in ACTIVATIONS if a.idempotent)
_LAYERS = {a.layer: a for a in ACTIVATIONS}
_NAMES = {name: a for a in ACTIVATIONS for name in a.names}


def activation_of(what: nn.Module | str) -> Activation | None:
    """The row of a layer (its classes looked through) or of a function's name; None for what is no activation."""
    if isinstance(what, str):
        return _NAMES.get(what.rstrip("_"))
    return next((_LAYERS[c] for c in type(what).__mro__ if c in _LAYERS), None)


_BETWEEN = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.Dropout, nn.Dropout1d, nn.Dropout2d,
    nn.Dropout3d, nn.Identity,
)  # fmt: skip
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_PASSED: tuple[Any, ...] = (*_SUMS, F.dropout, F.layer_norm, F.batch_norm)


def is_activation(network: Network, node: fx.Node) -> bool:
    """Whether the node applies a nonlinearity, element by element."""
    if node.op == "call_module":
        return activation_of(network.module.get_submodule(str(node.target))) is not None
    if node.op == "call_method":
        return activation_of(str(node.target)) is not None
    return node.op == "call_function" and activation_of(getattr(node.target, "__name__", "")) is not None


def activation_nodes(network: Network, modules: Iterable[str]) -> tuple[str, ...]:
    """The nodes whose values are the activations of the modules: nonlinearities in them, and the one behind each.

    Between a layer and its nonlinearity may lie norms, dropout and the sum of a residual branch.
    """
    chosen = set(modules)
    found: dict[str, None] = {}
    for node in network.module.graph.nodes:
        scope = str(node.target) if node.op == "call_module" else node.meta.get("scope", "")
        if scope in chosen and is_activation(network, node):
            found[node.name] = None
    for path in chosen:
        for node in exit_nodes(network, path):
            behind = _behind(network, node)
            if behind is not None:
                found[behind.name] = None
    return tuple(n.name for n in network.module.graph.nodes if n.name in found)


def _behind(network: Network, node: fx.Node) -> fx.Node | None:
    """The nonlinearity that the node's value goes through first, if nothing else reads it before."""
    while True:
        if is_activation(network, node):
            return node
        if len(node.users) != 1:
            return None
        node = next(iter(node.users))
        if is_activation(network, node):
            return node
        if node.op == "call_module":
            if not isinstance(network.module.get_submodule(str(node.target)), _BETWEEN):
                return None
        elif node.target not in _PASSED:
            return None
