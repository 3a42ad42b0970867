"""What is coupled with what, for people: groups of tensors that share an axis, who couples them, and a drawing.

Network ─groups→ Group, …        Network ─drawing→ SVG text
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

import networkx as nx

from netxform.axes.algebra import Atom, atoms
from netxform.axes.infer import types_of
from netxform.axes.names import op_name
from netxform.axes.reindex import Axis, axes_of
from netxform.axes.roles import roles
from netxform.axes.rules.context import Typed
from netxform.graph.dataflow import in_order
from netxform.graph.network import Network, exit_nodes


@dataclass(frozen=True, slots=True)
class Group:
    """One axis: the layers that carry it, those that sum over it, and the operations that make them one."""

    axis: Axis
    carriers: tuple[str, ...]
    readers: tuple[str, ...]
    couplers: tuple[str, ...]


def groups(network: Network) -> tuple[Group, ...]:
    """A group for every axis of the network, locked ones too."""
    joined: dict[Atom, list[str]] = {}
    for node in network.module.graph.nodes:
        if node.op in ("call_function", "call_method") and len(node.all_input_nodes) > 1:
            shared = [set(_atoms_at(network, source.name)) for source in node.all_input_nodes]
            for atom in set(_atoms_at(network, node.name)):
                if sum(atom in s for s in shared) > 1:
                    place = node.meta.get("scope", "")
                    joined.setdefault(atom, []).append(f"{op_name(node)} in {place}" if place else op_name(node))
    out: list[Group] = []
    for axis in axes_of(network):
        readers = {name for name, _ in roles(types_of(network), axis.atom).consumers}
        carriers = dict.fromkeys(_layer(n) for n, _ in axis.sites if n not in readers)
        carriers |= dict.fromkeys(_layer(n) for n, _ in axis.sites if n in readers and _carried_too(network, axis, n))
        reading = dict.fromkeys(_layer(n) for n in sorted(readers, key=lambda n: [s for s, _ in axis.sites].index(n)))
        couplers = tuple(dict.fromkeys(joined.get(axis.atom, ())))
        out.append(Group(axis, tuple(carriers), tuple(reading), couplers))
    return tuple(out)


def _carried_too(network: Network, axis: Axis, tensor: str) -> bool:
    sites = {d for n, d in axis.sites if n == tensor}
    read = {d for n, d in roles(types_of(network), axis.atom).consumers if n == tensor}
    return bool(sites - read)


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _atoms_at(network: Network, node: str) -> Iterable[Atom]:
    def walk(value: Any) -> Iterable[Atom]:
        if isinstance(value, Typed):
            for dim in value.dims:
                yield from (a for a in atoms(dim) if a.locked is None)
        elif isinstance(value, list | tuple):
            for item in value:  # pyright: ignore[reportUnknownVariableType]
                yield from walk(item)

    return walk(types_of(network).values.get(node))


def output_atoms(network: Network, modules: Iterable[str]) -> set[Atom]:
    """The free axes of the modules' outputs."""
    out: set[Atom] = set()
    for path in modules:
        for node in exit_nodes(network, path):
            out |= set(_atoms_at(network, node.name))
    return out


def coupled(network: Network, modules: Iterable[str]) -> tuple[str, ...]:
    """The layers that carry an axis of the outputs of the given modules: what must change with them."""
    wanted = output_atoms(network, modules)
    found = {c for g in groups(network) if g.axis.atom in wanted for c in g.carriers}
    return tuple(p for p, _ in network.module.named_modules(remove_duplicate=False) if p in found)


def blocks(network: Network, modules: Iterable[str]) -> tuple[str, ...]:
    """The outermost modules inside the given ones that repeat: they have parts of their own and a sibling of their form."""
    every = [p for p, _ in network.module.named_modules(remove_duplicate=False)]
    chosen = set(modules)
    form: dict[str, tuple[str, ...]] = {}
    for path in every:
        form[path] = tuple(p[len(path) + 1 :] for p in every if path and p.startswith(path + "."))
    out: list[str] = []
    for path in every:
        parent = path.rpartition(".")[0]
        inside = path in chosen and (parent in chosen or any(c == "" for c in chosen))
        if not path or not inside or not form[path] or any(path.startswith(o + ".") for o in out):
            continue
        family = [p for p in every if p and p.rpartition(".")[0] == parent and form[p]]
        near = [p for p in family if set(form[p]) & set(form[path]) and p != path]
        if near and path.rpartition(".")[2].isdigit():
            out.append(path)
    return tuple(out)


# --- the drawing -----------------------------------------------------------------------------------------------------

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")


def drawing(network: Network, title: str = "") -> str:
    """The coupled axes as SVG: a row for every layer in the order of the run, a line for every free axis.

    A filled dot: the layer carries it; a ring: the layer sums over it.
    """
    free = [g for g in groups(network) if g.axis.locked is None]
    rows = in_order(network, dict.fromkeys(p for g in free for p in (*g.carriers, *g.readers)))
    place = {p: i for i, p in enumerate(rows)}
    spans = [(min(place[p] for p in (*g.carriers, *g.readers)), max(place[p] for p in (*g.carriers, *g.readers))) for g in free]
    overlap: nx.Graph[int] = nx.Graph()
    overlap.add_nodes_from(range(len(free)))
    overlap.add_edges_from(
        (i, j) for i in range(len(free)) for j in range(i) if spans[i][0] <= spans[j][1] and spans[j][0] <= spans[i][1]
    )
    lane: dict[int, int] = nx.greedy_color(overlap, strategy="connected_sequential_bfs") if free else {}
    text = 8 * max((len(r) for r in rows), default=0) + 24
    width, height = text + 26 * (max(lane.values(), default=0) + 1) + 140, 22 * len(rows) + 60
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="monospace" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/><text x="12" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for path, i in place.items():
        out.append(f'<text x="12" y="{22 * i + 48}">{escape(path)}</text>')
    for k, group in enumerate(free):
        x, colour = text + 26 * lane[k], _COLOURS[k % len(_COLOURS)]
        top, bottom = (22 * s + 44 for s in spans[k])
        why = escape("; ".join((f"{group.axis.name}: {group.axis.size}", *group.couplers, *group.axis.mixed)))
        dash = ' stroke-dasharray="4 3"' if group.axis.mixed else ""
        out.append(
            f"<g><title>{why}</title>"
            f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="{colour}" stroke-width="2"{dash}/>'
        )
        for path in group.readers:
            out.append(f'<circle cx="{x}" cy="{22 * place[path] + 44}" r="5" fill="white" stroke="{colour}" stroke-width="2"/>')
        for path in group.carriers:
            out.append(f'<circle cx="{x}" cy="{22 * place[path] + 44}" r="5" fill="{colour}"/>')
        out.append(
            f'<text x="{x + 8}" y="{top + 4}" font-size="9" fill="{colour}">{group.axis.name}:{group.axis.size}</text></g>'
        )
    out.append("</svg>")
    return "\n".join(out) + "\n"
