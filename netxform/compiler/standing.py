"""Whether a claim still speaks of the network: a hash of all that it speaks of, as it was and as it is.

Network, names ─digest_of→ text        Lives: for every claim and metric, by which statement it was superseded
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, cast

from torch import Tensor, fx

from netxform.compiler.claims.registry import family
from netxform.compiler.evidence import Measured, ends, tensor_hash
from netxform.graph.network import Network
from netxform.graph.outputs import needed, output_node
from netxform.language.laws import Detail


@dataclass
class Hashes:
    """The hash of every tensor of a network; a tensor that was not written to since is not hashed twice."""

    known: dict[str, tuple[Tensor, int, str]] = field(default_factory=dict[str, "tuple[Tensor, int, str]"])

    def of(self, network: Network) -> dict[str, str]:
        """By name."""
        now: dict[str, tuple[Tensor, int, str]] = {}
        held = tensors_as_held(network)
        for name, tensor in held.items():
            old = self.known.get(name)
            same = old is not None and old[0] is tensor and old[1] == tensor._version  # pyright: ignore[reportPrivateUsage]
            now[name] = old if old is not None and same else (tensor, tensor._version, tensor_hash(tensor))  # pyright: ignore[reportPrivateUsage]
        self.known = now
        return {n: h for n, (_, _, h) in now.items()}


def tensors_as_held(network: Network) -> dict[str, Tensor]:
    """Every parameter and buffer by name: the very objects."""
    module = network.module
    return {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}


def digest_of(network: Network, nodes: Iterable[str], names: Iterable[str], hashes: Mapping[str, str]) -> str:
    """A hash of these tensors, and of the values of these nodes: of every operation and tensor that they are computed from.

    With neither, of the whole network. What is gone has a hash of its own.
    """
    wanted, read = tuple(nodes), set(names)
    if not wanted and not read:
        wanted, read = ends(network), set(hashes)
    out = hashlib.sha256()
    if wanted:
        lines, more = _program(network.module, wanted)
        read |= {n for n in hashes if not more.isdisjoint(accumulate(n.split("."), "{}.{}".format))}
        out.update("\n".join(lines).encode())
    for name in sorted(read):
        out.update(f"{name} {hashes.get(name, 'gone')}\n".encode())
    return out.hexdigest()


def _program(module: fx.GraphModule, nodes: tuple[str, ...]) -> tuple[list[str], set[str]]:
    """The operations that the values are computed by, a line each; modules and tensors by name."""
    known = {n.name: n for n in module.graph.nodes}
    if any(n not in known for n in nodes):
        return ["gone"], set()
    closure = needed(module, [known[n] for n in nodes], output_node(module))
    place: dict[fx.Node, int] = {}
    lines: list[str] = []
    read: set[str] = set()
    for node in module.graph.nodes:
        if node not in closure:
            continue
        place[node] = len(place)
        target: Any = node.target
        name = target if isinstance(target, str) else f"{target.__module__}.{target.__name__}"
        if node.op in ("call_module", "get_attr"):
            read.add(str(target))
        given = (_text(node.args, place), _text(dict(sorted(node.kwargs.items())), place))
        lines.append(f"{node.op} {'' if node.op == 'placeholder' else name} {given[0]} {given[1]}")
    return [*lines, *(str(place[known[n]]) for n in nodes)], read


def _text(value: Any, place: Mapping[fx.Node, int]) -> str:
    if isinstance(value, fx.Node):
        return f"%{place.get(value, '?')}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_text(v, place)}" for k, v in cast("dict[Any, Any]", value).items()) + "}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(_text(v, place) for v in cast("list[Any]", value)) + ")"
    if isinstance(value, slice):
        return f"slice{_text((value.start, value.stop, value.step), place)}"
    return repr(value)


@dataclass(frozen=True)
class Life:
    """The digest of what was spoken of when a claim was made; the statement that changed it, if one did."""

    digest: str
    superseded_by: int | None = None


def stands(kind: str, detail: Detail, network: Network) -> bool | None:
    """What the kind of the claim itself says of whether it speaks of the network; None where the digest decides."""
    known = family(kind).stands
    return None if known is None else known(detail, network)


@dataclass
class Lives:
    """What becomes of every claim, by (statement, claim), and of every metric, while statements follow one another."""

    claims: dict[tuple[int, int], Life] = field(default_factory=dict["tuple[int, int]", Life])
    metrics: dict[str, tuple[int, tuple[str, ...], Life]] = field(
        default_factory=dict[str, "tuple[int, tuple[str, ...], Life]"]
    )
    hashes: Hashes = field(default_factory=Hashes)

    def done(self, index: int, measured: list[tuple[Measured, ...]], network: Network, metrics: Iterable[str]) -> None:
        """Statement `index` is done, and its claims are the last of `measured`: which claims does it supersede?"""
        hashes = self.hashes.of(network)
        last = len(measured) - 1
        for i, several in enumerate(measured):
            for j, one in enumerate(several):
                life = self.claims.get((i, j))
                if life is not None and life.superseded_by is not None:
                    continue
                now = digest_of(network, one.nodes, one.tensors, hashes)
                if life is None or i == last:
                    self.claims[i, j] = Life(now)
                    continue
                says = stands(one.evidence.kind, one.evidence.detail, network)
                if (now != life.digest) if says is None else not says:
                    self.claims[i, j] = Life(life.digest, index)
        for name, (made, nodes, life) in self.metrics.items():
            if life.superseded_by is None and digest_of(network, nodes, (), hashes) != life.digest:
                self.metrics[name] = (made, nodes, Life(life.digest, index))
        for name in metrics:
            nodes = ends(network)
            self.metrics[name] = (index, nodes, Life(digest_of(network, nodes, (), hashes)))
