"""What may go and what is asked for: the axes that a `prune` may shrink, and what the twin can say of the result.

Network, selection ─candidates→ axes        Network, Wanted ─estimate→ sizes on the twin
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from netxform.axes.algebra import MIXES, Atom
from netxform.axes.index_maps import Reindex
from netxform.axes.infer import types_of
from netxform.axes.reindex import Axis, axes_of, reindex
from netxform.axes.roles import carried, roles
from netxform.errors import NetxformError, fail
from netxform.graph.cost import cost
from netxform.graph.edits import Edit
from netxform.graph.network import Network, twin
from netxform.graph.surgery import perform
from netxform.pruning.gates import free
from netxform.pruning.ranking import Ranking, Removed, alike, kept, until

Sign: TypeAlias = Literal["<", "<=", ">", ">=", "==", "!="]


@dataclass(frozen=True)
class Wanted:
    """What a `prune` statement asks for, with every default filled in.

    `names`: the atoms that may shrink. `share`: the budget is a share of what the network costs before the statement (latency).
    """

    names: tuple[str, ...]
    by: str
    options: Mapping[str, Any]
    amount: float | None
    threshold: tuple[str, Sign, float] | None
    budget: tuple[str, float] | None
    ranking: Literal["global", "layer"]
    normalise: Literal["none", "mean", "max", "l2"]
    min_channels: int
    least: float
    multiple: int
    step: float | None
    compensate: Literal["none", "mean", "refit"]
    data: str | None
    samples: int
    loss: Literal["cross_entropy", "mse"]
    output: str | None
    seed: int
    share: bool = False


def candidates(
    network: Network, inside: Sequence[str] | None, spared: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The free atoms that layers of the selection produce, without those of `spared`; and warnings about what is mixed."""
    keep = {a.atom for a in _produced(network, spared)} if spared else set[Atom]()
    chosen = [a for a in (free(network) if inside is None else _produced(network, inside)) if a.atom not in keep and a.size > 1]
    good = _following(network, chosen)
    warnings = [f"{a.name} stays: code in the network states its size" for a in chosen if a not in good]
    mixed = dict.fromkeys(MIXES[m.kind][0] for a in good for m in a.atom.mixed)
    if mixed:
        warnings.append(
            f"something is {'; '.join(mixed)}: what is left is so alone, and a prediction from gates does not see that"
        )
    return tuple(a.name for a in good), tuple(warnings)


def locked(network: Network, inside: Sequence[str] | None) -> tuple[str, ...]:
    """Why the axes of the selection's tensors are locked, each reason once."""
    owners = None if inside is None else set(inside)
    first = types_of(network).names
    held = {first[n] for n in first if owners is None or n.rpartition(".")[0] in owners}
    return tuple(dict.fromkeys(a.locked for a in axes_of(network) if a.locked and any(n in held for n, _ in a.sites)))[:4]


def _produced(network: Network, modules: Sequence[str]) -> list[Axis]:
    owners, types = set(modules), types_of(network)
    first = {types.names[n] for n in types.names if n.rpartition(".")[0] in owners}

    def made(atom: Atom) -> bool:
        return any(n in first for n, _ in carried(types, atom, roles(types, atom).consumers))

    return [axis for axis in free(network) if made(axis.atom)]


def _following(network: Network, chosen: Sequence[Axis]) -> list[Axis]:
    """The atoms whose size the code of the network follows; found by halving, only where all at once fails."""
    if not chosen:
        return []
    try:
        reindex(twin(network), {a.name: range(a.size - 1) for a in chosen})
    except NetxformError:
        if len(chosen) == 1:
            return []
        half = len(chosen) // 2
        return [*_following(network, chosen[:half]), *_following(network, chosen[half:])]
    return list(chosen)


def ranking(
    network: Network, wanted: Wanted, scores: Mapping[Atom, Tensor], whole: Mapping[Atom, int] | None = None
) -> Ranking:
    """The ranking of these scores. `whole`: the sizes that floors are shares of, where rounds have removed some already."""
    least = {a: max(wanted.min_channels, math.ceil(wanted.least * (whole or {}).get(a, a.size) - 1e-9)) for a in scores}
    return Ranking(scores, wanted.ranking, wanted.normalise, least, wanted.multiple, alike(network))


def estimate(network: Network, wanted: Wanted) -> dict[str, list[int]]:
    """The same share of every atom, the last indices: what the twin can say of sizes and costs."""
    axes = {a.name: a for a in axes_of(network)}
    chosen = [axes[n] for n in wanted.names]
    rank = replace(
        ranking(network, wanted, {a.atom: -torch.arange(a.size, dtype=torch.float64) for a in chosen}),
        scope="layer",
        normalise="none",
    )
    if wanted.threshold is not None:
        return {}
    if wanted.amount is not None:
        return _named(chosen, rank.lowest(round(wanted.amount * rank.total)))
    assert wanted.budget is not None
    name, bound = wanted.budget
    if name == "latency":
        return {}
    found = until(rank, lambda removed: cost_of(network, removed, name) <= bound)
    if found is None:
        raise fail(
            "X0603", f"`{name}` stays above {bound:,.0f} whatever is removed", helps=("lower `least=` and `min_channels=`",)
        )
    return _named(chosen, found)


def cost_of(network: Network, removed: Removed, name: str) -> float:
    """What the network costs (params, macs, flops, bytes) after the removal, from the twin."""
    changed = perform(twin(network), Edit((Reindex(named_maps(network, removed)),))) if removed else network
    if name == "params":
        return float(sum(p.numel() for p in changed.module.parameters()))
    found = cost(changed)
    return float({"macs": found.macs, "flops": 2 * found.macs, "bytes": found.bytes}[name])


def _named(chosen: Sequence[Axis], removed: Removed) -> dict[str, list[int]]:
    return {a.name: removed[a.atom] for a in chosen if removed.get(a.atom)}


def named_maps(network: Network, removed: Mapping[Atom, Sequence[int]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The index maps of the removal, as an Edit states them."""
    names = {a.atom: a.name for a in axes_of(network)}
    return tuple((names[a], tuple(i)) for a, i in kept(removed).items())


def maps_of(network: Network, removed: Mapping[str, Sequence[int]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The index maps of the removal, by the names of atoms."""
    axes = {a.name: a.atom for a in axes_of(network)}
    return named_maps(network, {axes[n]: i for n, i in removed.items()})
