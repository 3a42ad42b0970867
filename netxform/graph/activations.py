"""Where in a graph the activations of layers are: the values behind their nonlinearity."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from netxform.graph.network import Network, exit_nodes

_LAYERS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Threshold, nn.LogSigmoid,
)  # fmt: skip
_NAMES = frozenset(
    "relu relu_ relu6 leaky_relu leaky_relu_ prelu rrelu elu elu_ celu selu gelu silu mish hardswish hardsigmoid hardtanh "
    "hardtanh_ sigmoid tanh softplus softsign".split()
)
_BETWEEN = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.Dropout, nn.Dropout1d, nn.Dropout2d,
    nn.Dropout3d, nn.Identity,
)  # fmt: skip
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_PASSED: tuple[Any, ...] = (*_SUMS, F.dropout, F.layer_norm, F.batch_norm)


def is_activation(network: Network, node: fx.Node) -> bool:
    """Whether the node applies a nonlinearity, element by element."""
    if node.op == "call_module":
        return isinstance(network.module.get_submodule(str(node.target)), _LAYERS)
    if node.op == "call_method":
        return node.target in _NAMES
    return node.op == "call_function" and getattr(node.target, "__name__", "") in _NAMES


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
