"""What a tensor does along an axis: is it produced or summed over? What Net2Net and pruning need beyond the types.

A tensor dimension is *contracted* where every use of the tensor sums over it (the columns of a consumer); otherwise its
indices are *carried* (the rows of a producer, the vectors of a norm, a depthwise kernel).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from netxform.axes.algebra import Atom, Dim, Mirror, Sum, extent, normal, size
from netxform.axes.infer import types_of
from netxform.axes.names import op_name
from netxform.axes.rules.registry import VIEWS
from netxform.axes.types import Contraction, Types
from netxform.graph.network import Network

Site = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Roles:
    """The places where an axis is summed over.

    `consumers`: tensors whose dimension is contracted. `inner`: sums over two activations, with no tensor to carry a
    factor. `tied`: tensors that are contracted in one use and carried in another.
    """

    consumers: tuple[Site, ...]
    inner: tuple[Contraction, ...]
    tied: tuple[Site, ...]


def roles(types: Types, atom: Atom) -> Roles:
    """The roles of the tensors along `atom`."""
    often = types.contracted
    consumers: dict[Site, None] = {}
    tied: dict[Site, None] = {}
    inner: list[Contraction] = []
    for contraction in types.contracting.get(atom, ()):
        sites = [s for s in (contraction.right, contraction.left) if s is not None]
        pure = [s for s in sites if often[s] >= types.uses.get(s[0], 0)]
        if pure:
            consumers[pure[0]] = None
        elif sites:
            tied[sites[0]] = None
        else:
            inner.append(contraction)
    return Roles(tuple(consumers), tuple(inner), tuple(tied))


def carried(types: Types, atom: Atom, consumers: Sequence[Site]) -> tuple[Site, ...]:
    """The places of the atom in tensors where it is not contracted."""
    chosen = set(consumers)
    return tuple(p for p in types.places.get(atom, ()) if p not in chosen)


def along(dim: Dim, maps: Mapping[Atom, Sequence[int]], weights: Mapping[Atom, Sequence[float]]) -> list[float]:
    """A factor for every position of the changed dimension: the product of the weights of its new indices."""
    out = [1.0]
    for factor in normal(dim):
        match factor:
            case Atom():
                inner = list(weights.get(factor) or [1.0] * len(maps.get(factor) or range(factor.size)))
            case Mirror():
                atom = factor.atom
                inner = list(reversed(weights.get(atom) or [1.0] * len(maps.get(atom) or range(atom.size))))
            case Sum():
                inner = [w for part in factor.parts for w in along(part, maps, weights)]
        out = [o * i for o in out for i in inner]
    return out


# --- where the factor of an inner product can go ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Carrier:
    """Rows of a tensor (along `axis`, old positions) that lead, unchanged, to one operand of an inner product."""

    tensor: str
    axis: int
    rows: frozenset[int]


_ROWS: dict[str, int] = {"Linear": 0, "NonDynamicallyQuantizableLinear": 0, "Conv1d": 0, "Conv2d": 0, "Conv3d": 0}


def carriers(network: Network, contraction: Contraction) -> tuple[Carrier, ...] | None:
    """Tensors that scale one operand of the inner product and nothing else; None where there are none.

    The way back from the operand must consist of views and scalar factors up to a layer that is linear.
    """
    if contraction.inside is not None:
        return _in_attention(network, contraction.inside)
    nodes = {n.name: n for n in network.module.graph.nodes}
    node = nodes.get(contraction.node)
    if node is None:
        return None
    operands = [a for a in node.args if isinstance(a, fx.Node)]
    if op_name(node) == "scaled_dot_product_attention":
        operands = operands[1:2] or [k for k in (node.kwargs.get("key"),) if isinstance(k, fx.Node)]
    for operand in reversed(operands[:2]):
        found = _back(network, operand)
        if found is not None:
            return found
    return None


def _in_attention(network: Network, path: str) -> tuple[Carrier, ...] | None:
    part: Any = network.module.get_submodule(path)
    if not hasattr(part, "head_dim"):
        return None
    rows = part.num_heads * part.head_dim
    names = types_of(network).names
    if getattr(part, "in_proj_weight", None) is None:
        found = [Carrier(names[f"{path}.k_proj_weight"], 0, frozenset(range(rows)))]
    else:
        found = [Carrier(names[f"{path}.in_proj_weight"], 0, frozenset(range(rows, 2 * rows)))]
    if f"{path}.in_proj_bias" in names:
        found.append(Carrier(names[f"{path}.in_proj_bias"], 0, frozenset(range(rows, 2 * rows))))
    return tuple(found)


def _back(network: Network, operand: fx.Node) -> tuple[Carrier, ...] | None:
    way: list[fx.Node] = []
    node = operand
    modules = dict(network.module.named_modules(remove_duplicate=False))
    names = types_of(network).names
    while True:
        if node.op == "call_module":
            module = modules[str(node.target)]
            if type(module).__name__ not in _ROWS or len(node.users) < 1:
                return None
            held = [f"{node.target}.weight"]
            if getattr(module, "bias", None) is not None:
                held.append(f"{node.target}.bias")
            feature = -1 if "Linear" in type(module).__name__ else 1
            break
        name = op_name(node) if node.op in ("call_function", "call_method") else ""
        if name == "linear" and all(isinstance(a, fx.Node) and a.op == "get_attr" for a in node.args[1:] if a is not None):
            held = [str(a.target) for a in (*node.args[1:], *node.kwargs.values()) if isinstance(a, fx.Node)]
            feature = -1
            break
        scalar = name in ("mul", "div", "truediv") and not any(isinstance(a, fx.Node) for a in node.args[1:])
        previous = node.args[0] if node.args else None
        if not (name in VIEWS or name in ("getitem", "repeat_interleave", "repeat") or scalar) or not isinstance(
            previous, fx.Node
        ):
            return None
        way.append(node)
        node = previous
    if any(n not in names for n in held):
        return None
    rows = _reached(node, list(reversed(way)), feature)
    return None if rows is None else tuple(Carrier(names[n], 0, rows) for n in held)


def _reached(source: fx.Node, way: list[fx.Node], feature: int) -> frozenset[int] | None:
    """Which rows arrive: their numbers sent along the way."""
    shape = source.meta["shape"]
    count = shape[feature]
    numbers = torch.arange(count, dtype=torch.float64)
    if feature == 1:
        numbers = numbers.reshape(-1, *[1] * (len(shape) - 2))
    value: Any = numbers.expand(shape)
    env: dict[fx.Node, Any] = {source: value}

    def known(item: fx.Node) -> Any:
        if item in env:
            return env[item]
        name = op_name(item)
        if name in ("getattr", "size", "shape") and isinstance(item.args[0], fx.Node):
            whole = torch.Size(item.args[0].meta["shape"])
            asked = item.args[1:] if name == "size" else ()
            return whole[cast(int, asked[0])] if asked else whole
        if item.op == "call_function" and not isinstance(item.meta.get("dtype"), torch.dtype):
            args = map_arg(item.args, known)
            return cast(Any, item.target)(*args)
        raise KeyError(item.name)

    try:
        for node in way:
            if op_name(node) in ("mul", "div", "truediv"):
                env[node] = env[cast(fx.Node, node.args[0])]
                continue
            args: Any = map_arg(node.args, known)
            kwargs: Any = map_arg(node.kwargs, known)
            if node.op == "call_method":
                env[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            else:
                env[node] = cast(Any, node.target)(*args, **kwargs)
        result = env[way[-1]] if way else value
    except Exception:  # any operation of torch may refuse the numbers in its own way: then nothing is known
        return None
    if not isinstance(result, Tensor):
        return None
    return frozenset(int(i) for i in result.unique())


def copies(dim: Dim, maps: Mapping[Atom, Sequence[int]], where: Callable[[Dim, Any], list[int]]) -> set[int]:
    """How often the positions of a dimension occur after the change: one number where all occur equally often."""
    taken = where(dim, lambda a: maps.get(a) or range(a.size))
    often = [0] * size(dim)
    for position in taken:
        often[position] += 1
    return set(often)


__all__ = ["Carrier", "Roles", "Site", "along", "carried", "carriers", "copies", "extent", "roles"]
