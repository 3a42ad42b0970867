"""Pruning settled: from scores to the indices that go, in one step or in rounds with a recovery in between.

Network, Wanted, Material ─prune→ Pruned
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from netxform.axes.algebra import Atom
from netxform.axes.index_maps import Reindex
from netxform.axes.infer import types_of
from netxform.axes.reindex import Axis, axes_of
from netxform.errors import fail
from netxform.factorization.latency import whole_seconds
from netxform.graph.edits import Assign, Bias, Edit
from netxform.graph.network import Network
from netxform.graph.surgery import perform
from netxform.graph.tensors import held
from netxform.language.material import Material
from netxform.language.work import Training
from netxform.pruning.compensate import fold, refit
from netxform.pruning.gates import gates, unmasked
from netxform.pruning.halves import Halves, halves
from netxform.pruning.loss import answered, little_learnt
from netxform.pruning.needs import SCORES
from netxform.pruning.ranking import Removed, kept, until
from netxform.pruning.removal import Sign, Wanted, cost_of, named_maps, ranking
from netxform.pruning.scores import Request, Scores, activity, known
from netxform.pruning.spread import standard_error

_SIGNS: dict[Sign, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip

Stop: TypeAlias = Callable[[Mapping[str, float]], str | None]
"""What the metrics of a round break, in words, and then the rounds end before it; None where they go on."""


@dataclass(frozen=True)
class Pruned:
    """The indices that go, of the `total` that could, and what belongs to them.

    `score`: how it was made. `biases`: layers that are given one. `mixes`: what is computed over an axis, so that
    the masked twin takes it over the rest. `twin`: whether the masked twin is what the result must compute. `means`: place,
    axis and tensor of each mean that was folded. `chosen_on`: how many samples chose; on the `samples` behind them `predicted`,
    `error` were found: the change of the loss and its standard error over samples, where the score predicts one and tells
    samples apart. `latency`: milliseconds before and after, where a budget
    asked for them. `tensors`: what a compensation or a recovery computed. `metrics`: what the last training measured. `notes`:
    what a reader should know.
    """

    score: str
    removed: Mapping[str, Sequence[int]]
    total: int
    biases: tuple[str, ...]
    mixes: tuple[str, ...]
    twin: bool
    means: tuple[tuple[str, int, str], ...]
    chosen_on: int
    samples: int
    predicted: float | None
    error: float | None
    latency: tuple[float, float] | None
    tensors: Mapping[str, Tensor]
    metrics: Mapping[str, float]
    notes: tuple[str, ...]


@dataclass
class _State:
    """Rounds so far: the network as it is, and which of its original indices each atom still holds."""

    network: Network
    held: dict[str, list[int]]
    predicted: float | None = 0.0
    totals: Tensor | None = None
    counted: bool = True
    how: str = ""
    metrics: dict[str, float] = field(default_factory=dict[str, float])


def prune(network: Network, wanted: Wanted, recover: Sequence[Training], stop: Stop, material: Material) -> Pruned:
    """The indices that go, and the tensors that a compensation or recovery computed. Raises X0331, X0603, X0823."""
    material = answered(material, network, wanted.output)
    axes = {a.name: a for a in axes_of(network)}
    state = _State(network, {n: list(range(axes[n].size)) for n in wanted.names})
    total = sum(axes[n].size for n in wanted.names)
    rounds = 1 if wanted.step is None else max(1, math.ceil((wanted.amount or 1.0) / wanted.step - 1e-9))
    biases: dict[str, None] = {}
    skipped: dict[str, str] = {}
    fitted: dict[str, Tensor] = {}
    means: list[tuple[str, int, str]] = []
    kind = SCORES.find(wanted.by)
    asks = kind.data or wanted.compensate != "none" or (wanted.threshold or ("",))[0] in ("zeros", "activation")
    parts = halves(material, wanted.data, wanted.samples, asks)
    notes: list[str] = []
    if wanted.data is not None and (kind.labels or kind.predicts):
        seen = little_learnt(network, material.batches(wanted.data, parts.choose), wanted.loss, wanted.output)
        notes += [seen] if seen else []
    wanted = replace(wanted, samples=parts.choose or wanted.samples)
    padded: dict[str, None] = {}
    material.start("prune", rounds)
    try:
        for number in range(rounds):
            goal = None if wanted.amount is None else round(total * min(wanted.amount, (number + 1) * (wanted.step or 1.0)))
            removed, reached = _round(state, network, material, wanted, goal, number, rounds > 1, parts)
            before = state.network
            edit: list[Any] = [Reindex(named_maps(before, removed))] if removed else []
            tensors: dict[str, Tensor] = {}
            if wanted.compensate != "none" and removed:
                done = (fold if wanted.compensate == "mean" else refit)(before, removed, _request(wanted, material))
                edit += [Bias(done.biases), Assign(tuple(done.tensors))]
                tensors, skipped = dict(done.tensors), skipped | done.skipped
                biases |= dict.fromkeys(done.biases)
                padded |= dict.fromkeys(f"zero padding at {path}" for path in done.padded)
                if rounds == 1:
                    fitted |= tensors
                    for (where, axis), mean in done.means.items():
                        means.append((where, axis, f"mean/{where}/{axis}"))
                        fitted[means[-1][2]] = mean
            after = perform(before, Edit(tuple(edit), tensors))
            after, metrics, broken = recovered(after, recover, stop, material, number)
            if broken is not None:
                notes.append(broken)
                break
            _keep(state, network, after, removed)
            state.metrics = metrics
            material.step(f"round {number + 1}")
            if reached:
                break
    finally:
        material.stop()
    gone = {n: sorted(set(range(axes[n].size)) - set(h)) for n, h in state.held.items()}
    gone = {n: i for n, i in gone.items() if i}
    changed = bool(recover) or (rounds > 1 and wanted.compensate != "none")
    if changed:
        fitted = {n: t.detach() for n, t in tensors_of(state.network).items()}
    atoms_gone = {axes[n].atom for n in gone}
    mixes = unmasked(network, {axes[n].atom: i for n, i in gone.items()})
    twin_claim = bool(gone) and not changed and wanted.compensate != "refit" and not skipped and _gated(network, atoms_gone)
    return Pruned(
        state.how,
        gone,
        total,
        tuple(biases),
        (*mixes, *padded),
        twin_claim,
        tuple(means),
        parts.choose if parts.judge else 0,
        parts.judge or parts.choose,
        state.predicted,
        _error(state, material),
        _timed(network, state.network, wanted, material),
        fitted,
        state.metrics,
        (*notes, *(f"{p} is not compensated: {w}" for p, w in skipped.items())),
    )


def recovered(
    network: Network, recover: Sequence[Training], stop: Stop, material: Material, number: int
) -> tuple[Network, dict[str, float], str | None]:
    """A round's trainings done, what they measured, and what that breaks, in words."""
    metrics: dict[str, float] = {}
    for work in recover:
        network, metrics = material.train(network, work, f"recover, round {number + 1}")
    broken = stop(metrics)
    return network, metrics, None if broken is None else f"stopped before round {number + 1}: {broken}"


def _gated(network: Network, wanted: set[Atom]) -> bool:
    missing = gates(network).missing
    return not any(a in missing and missing[a] != "nothing reads it" for a in wanted)


def _round(
    state: _State,
    original: Network,
    material: Material,
    wanted: Wanted,
    goal: int | None,
    number: int,
    several: bool,
    parts: Halves,
) -> tuple[Removed, bool]:
    """What goes in this round, and whether a budget is reached with it."""
    network = state.network
    now = _now(original, network, wanted.names)
    seen = known(wanted.by)(network, _request(wanted, material, number, several))
    state.how = seen.how
    scores = {a.atom: seen.values[a.atom] for a in now.values() if a.atom in seen.values}
    if not scores:
        reasons = dict.fromkeys(seen.missing.get(a.atom, "") for a in now.values())
        raise fail(
            "X0331",
            f"`{wanted.by}` scores nothing of the selection",
            notes=tuple(reasons),
            helps=("`by magnitude` scores every free axis, from the weights alone",),
        )
    whole = {now[n].atom: original_size for n, original_size in _sizes(original, wanted.names).items() if n in now}
    rank = ranking(network, wanted, scores, whole)
    reached = False
    if wanted.threshold is not None:
        removed = rank.where(_held(network, wanted, material, scores, seen))
    elif wanted.budget is not None:
        name, bound = wanted.budget[0], _bound(original, wanted, material)
        found = until(rank, lambda r: _costs(network, r, name, material) <= bound)
        if found is None:
            raise fail(
                "X0603", f"`{name}` stays above {bound:,.4g} whatever is removed", helps=("lower `least=` and `min_channels=`",)
            )
        count = sum(map(len, found.values()))
        step = count if wanted.step is None else round(wanted.step * sum(_sizes(original, wanted.names).values()))
        removed, reached = (found, True) if count <= step else (rank.lowest(step), False)
    else:
        assert goal is not None
        already = sum(_sizes(original, wanted.names).values()) - sum(map(len, state.held.values()))
        removed = rank.lowest(max(0, goal - already))
    if seen.predicted and parts.judge:
        judges = _request(replace(wanted, samples=parts.judge), material, number, several, skip=parts.choose)
        seen = known(wanted.by)(network, judges)
        _predict(state, seen, removed)
    else:
        state.predicted = None
    return removed, reached


def _costs(network: Network, removed: Removed, name: str, material: Material) -> float:
    """What a budget counts; the latency in milliseconds, at the captured batch, timed once for a structure on this machine.
    Of several processes all go on with the mean of their times.
    """
    if name != "latency":
        return cost_of(network, removed, name)
    left = perform(network, Edit((Reindex(named_maps(network, removed)),))) if removed else network
    own = 1e3 * whole_seconds(left, next((i.shape[0] for i in network.inputs if i.shape), 1))
    (summed,) = material.total(torch.tensor([own, 1.0], dtype=torch.float64))
    return float(summed[0] / summed[1])


def _timed(before: Network, after: Network, wanted: Wanted, material: Material) -> tuple[float, float] | None:
    if wanted.budget is None or wanted.budget[0] != "latency":
        return None
    return _costs(before, {}, "latency", material), _costs(after, {}, "latency", material)


def _bound(original: Network, wanted: Wanted, material: Material) -> float:
    assert wanted.budget is not None
    name, bound = wanted.budget
    return bound * _costs(original, {}, name, material) if wanted.share else bound


def _predict(state: _State, seen: Scores, removed: Removed) -> None:
    """The sum of the predictions: what single removals would add up to; and the same sum for every sample. `seen`: on samples
    that chose nothing.
    """
    if state.predicted is None:
        return
    for atom, indices in removed.items():
        index = torch.tensor(indices)
        state.predicted += float(seen.predicted[atom][index].sum())
        own = seen.each[atom][:, index].sum(1, dtype=torch.float64) if atom in seen.each else None
        # rounds see the same samples in the same order
        state.counted &= own is not None and (state.totals is None or len(state.totals) == len(own))
        if state.counted and own is not None:
            state.totals = own if state.totals is None else state.totals + own


def _error(state: _State, material: Material) -> float | None:
    """The standard error over samples of the whole prediction, both orders and all covariances; None where samples are not
    told apart.
    """
    if state.predicted is None or not state.counted:
        return None
    return 0.0 if state.totals is None else standard_error(state.totals, material.total)


def _held(
    network: Network, wanted: Wanted, material: Material, scores: Mapping[Atom, Tensor], seen: Scores
) -> dict[Atom, list[bool]]:
    assert wanted.threshold is not None
    name, op, bound = wanted.threshold
    values: Mapping[Atom, Tensor] = scores
    if name in ("zeros", "activation"):
        active = activity(network, _request(wanted, material))
        values = active.zeros if name == "zeros" else active.size
    elif name == "magnitude" and wanted.by != "magnitude":
        values = known("magnitude")(network, _request(wanted, material)).values
    return {a: [_SIGNS[op](v, bound) for v in values[a].tolist()] if a in values else [False] * a.size for a in scores}


def _request(wanted: Wanted, material: Material, number: int = 0, several: bool = False, skip: int = 0) -> Request:
    def source(shared: bool = False) -> Any:
        if wanted.data is None:
            raise fail("X0302", "this score needs data, and none is named", helps=("write `over NAME`",))
        return material.batches(wanted.data, wanted.samples, skip=skip, shared=shared)

    seed = wanted.seed + number
    shares = lambda: source(shared=True)  # noqa: E731
    return Request(source, wanted.loss, seed, wanted.output, wanted.options, several, shares, material.total)


def _sizes(network: Network, names: Sequence[str]) -> dict[str, int]:
    axes = {a.name: a.size for a in axes_of(network)}
    return {n: axes[n] for n in names}


def _key(axes: Sequence[Axis]) -> dict[Any, Axis]:
    """Atoms by where they occur: that stays the same when sizes change."""
    out: dict[Any, Axis] = {}
    often: dict[Any, int] = {}
    for axis in axes:
        often[axis.sites] = often.get(axis.sites, 0) + 1
        out[axis.sites, often[axis.sites]] = axis
    return out


def _now(original: Network, network: Network, names: Sequence[str]) -> dict[str, Axis]:
    """The atoms of the network as it is now, by their names in the original; those of one index are no atoms any more."""
    if network is original:
        return {a.name: a for a in axes_of(network) if a.name in set(names)}
    now = _key(axes_of(network))
    return {a.name: now[k] for k, a in _key(axes_of(original)).items() if a.name in set(names) and k in now}


def _keep(state: _State, original: Network, after: Network, removed: Removed) -> None:
    by_atom = {a.atom: n for n, a in _now(original, state.network, list(state.held)).items()}
    for atom, indices in removed.items():
        name = by_atom[atom]
        state.held[name] = [state.held[name][i] for i in kept({atom: indices})[atom]]
    state.network = after


def tensors_of(network: Network) -> dict[str, Tensor]:
    """Every parameter and buffer, tied ones once."""
    return {n: t for n, t in held(network.module).items() if types_of(network).names[n] == n}
