"""Bottleneck adapters: down, an activation, up, behind a part of a network, added to what it gives.

Network, path ─place→ node, layers       Houlsby et al., "Parameter-efficient transfer learning for NLP", ICML 2019
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from netxform.graph.adapters import BOTTLENECK
from netxform.graph.layer_spec import Invocation, Layer
from netxform.graph.layers import Scaled
from netxform.graph.network import Network, exit_nodes

_ACTS = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "tanh": "Tanh"}
_CHANNELS_FIRST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)


def obstacle(network: Network, path: str) -> str | None:
    """Why nothing can be put behind the part, in words; None where it can."""
    module = network.module
    if not path:
        return "the network as a whole has no place behind it: `attach` puts a head there"
    nodes = list(dict.fromkeys(exit_nodes(network, path)))
    if len(nodes) != 1:
        return "it does not give one tensor" if not nodes else f"it runs {len(nodes)} times"
    dtype: Any = nodes[0].meta.get("dtype")
    if not _channels(network, path) or not getattr(dtype, "is_floating_point", False):
        return "what it gives has no channels that are known: 2, 3 or 4 dimensions of floating-point numbers"
    if hasattr(module.get_submodule(path.rpartition(".")[0]), f"{path.rpartition('.')[2]}{BOTTLENECK}"):
        return "it has an adapter already"
    return None


def _channels(network: Network, path: str) -> Literal["first", "last"] | None:
    """Where the channels of the part's value lie: behind the batch, or at the end."""
    shape: Any = exit_nodes(network, path)[0].meta.get("shape")
    if not isinstance(shape, tuple) or not 2 <= len(shape) <= 5:
        return None
    if len(shape) == 2:
        return "last"
    layers = [m for m in network.module.get_submodule(path).modules() if any(True for _ in m.parameters(recurse=False))]
    for layer in reversed(layers):
        width = int(next(layer.parameters(recurse=False)).shape[0])
        if isinstance(layer, _CHANNELS_FIRST) or (isinstance(layer, Scaled) and layer.after):
            if width == shape[1]:
                return "first"
        elif width == shape[-1]:
            return "last"
    return "last" if len(shape) == 3 else None


def place(network: Network, path: str, width: int, act: str) -> tuple[str, tuple[Layer, ...]]:
    """The node behind which the adapter stands, and its layers."""
    node = exit_nodes(network, path)[0]
    shape: Any = node.meta["shape"]
    last = _channels(network, path) == "last"
    size = int(shape[-1] if last else shape[1])
    kind, how = ("Linear", ()) if last else (f"Conv{len(shape) - 2}d", (1,))
    down, up = Invocation(kind, (size, width, *how)), Invocation(kind, (width, size, *how))
    return node.name, (Layer("down", down), Layer("act", Invocation(_ACTS[act])), Layer("up", up))
