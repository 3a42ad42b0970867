"""Questions about the order of computation, asked of the captured graph as a networkx digraph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import networkx as nx
from torch import fx

from netxform.graph.network import Network


def graph(network: Network) -> nx.DiGraph[str]:
    """The data flow: an edge for every use of a node's value. Node names are those of the fx graph."""
    flow: nx.DiGraph[str] = nx.DiGraph()
    for node in network.module.graph.nodes:
        flow.add_node(node.name)
        for source in node.all_input_nodes:
            flow.add_edge(source.name, node.name)
    return flow


def nodes_in(network: Network, modules: Iterable[str]) -> set[str]:
    """The names of the graph nodes that run inside the given modules."""
    chosen = set(modules)
    found: set[str] = set()
    for node in network.module.graph.nodes:
        scope = str(node.target) if node.op == "call_module" else node.meta.get("scope", "")
        if node.op not in ("placeholder", "output") and scope in chosen:
            found.add(node.name)
    return found


def dependent(graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose values depend on the inputs."""
    out: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(n in out for n in node.all_input_nodes):
            out.add(node)
    return out


def reach(network: Network, modules: Iterable[str], way: Literal["upstream", "downstream"] | str) -> tuple[str, ...]:
    """The modules whose nodes lie upstream (downstream) of the given ones, without the given ones."""
    given = set(modules)
    flow = graph(network)
    seen: set[str] = set()
    for name in nodes_in(network, given):
        seen |= nx.ancestors(flow, name) if way == "upstream" else nx.descendants(flow, name)
    hit: set[str] = set()
    for node in network.module.graph.nodes:
        if node.name in seen and node.op == "call_module":
            hit.add(str(node.target))
    order = [n for n, _ in network.module.named_modules(remove_duplicate=False)]
    return tuple(p for p in order if p in hit and p not in given)


def in_order(network: Network, modules: Iterable[str]) -> list[str]:
    """The given modules in the order in which they first run; those that never run come last."""
    position: dict[str, int] = {}
    for i, node in enumerate(network.module.graph.nodes):
        scope = str(node.target) if node.op == "call_module" else node.meta.get("scope", "")
        while scope:
            position.setdefault(scope, i)
            scope = scope.rpartition(".")[0]
    return sorted(modules, key=lambda m: position.get(m, len(position) + 10**9))
