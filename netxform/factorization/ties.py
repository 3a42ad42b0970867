"""Layers whose tensors are used a second time: by another module, or by the code itself."""

from __future__ import annotations

from torch import nn

from netxform.graph.network import Network


def read(network: Network) -> dict[str, str]:
    """Modules of which the graph reads a tensor itself, beside calling them: the first such tensor."""
    out: dict[str, str] = {}
    for node in network.module.graph.nodes:
        if node.op == "get_attr":
            name = str(node.target)
            above = name.split(".")[:-1]
            for i in range(1, len(above) + 1):
                out.setdefault(".".join(above[:i]), name)
    return out


def shared(module: nn.Module) -> dict[str, str]:
    """Modules that share a parameter with another one, which is named."""
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for parameter in part.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((path, part))
    out: dict[str, str] = {}
    for several in owners.values():
        for path, part in several:
            other = next((p for p, m in several if m is not part), None)
            if other is not None:
                out[path] = f"`{other}`" if other else "the network itself"
    return out
