"""Pruning settled: from scores to the indices that go, in one step or in rounds; and single weights set to zero.

Network, Wanted ─estimate→ sizes on the twin        Network, Wanted, Material ─settle→ Choice
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from netxform.core.axes import Atom, atoms
from netxform.core.cost import cost
from netxform.core.edit import Assign, Bias, Choice, Edit, Reindex
from netxform.core.network import Network, example, twin
from netxform.core.reindex import Axis
from netxform.core.roles import carried, roles
from netxform.core.surgery import perform
from netxform.core.values import Invocation, Limit, compare
from netxform.core.verb import Material
from netxform.errors import NetxformError, fail
from netxform.numerics.compensate import fold, refit
from netxform.numerics.gates import free
from netxform.numerics.ranking import Ranking, Removed, alike, kept, until
from netxform.numerics.scores import Request, Scores, activity, fisher, known


@dataclass(frozen=True)
class Wanted:
    """What a `prune` statement asks for, with every default filled in. `names`: the atoms that may shrink."""

    names: tuple[str, ...]
    by: str
    options: dict[str, Any]
    amount: float | None
    threshold: tuple[str, str, float] | None
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


def candidates(
    network: Network, inside: Sequence[str] | None, spared: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The free atoms that layers of the selection produce, without those of `spared`; and warnings about what is mixed."""
    keep = {a.atom for a in _produced(network, spared)} if spared else set[Atom]()
    chosen = [a for a in (free(network) if inside is None else _produced(network, inside)) if a.atom not in keep and a.size > 1]
    good = _following(network, chosen)
    warnings = [f"{a.name} stays: code in the network states its size" for a in chosen if a not in good]
    mixed = dict.fromkeys(m.partition(" (")[0] for a in good for m in a.mixed)
    if mixed:
        warnings.append(
            f"something is {'; '.join(mixed)}: there removal is not the masked twin, and the difference is measured"
        )
    return tuple(a.name for a in good), tuple(warnings)


def _produced(network: Network, modules: Sequence[str]) -> list[Axis]:
    owners = set(modules)
    out: list[Axis] = []
    for axis in free(network):
        places = carried(network.types, axis.atom, roles(network.types, axis.atom).consumers)
        first = {network.types.names.get(n, n) for n in network.types.names if n.rpartition(".")[0] in owners}
        if any(n in first for n, _ in places):
            out.append(axis)
    return out


def _following(network: Network, chosen: Sequence[Axis]) -> list[Axis]:
    """The atoms whose size the code of the network follows; found by halving, only where all at once fails."""
    if not chosen:
        return []
    try:
        twin(network).reindex({a.name: range(a.size - 1) for a in chosen})
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
    axes = {a.name: a for a in network.atoms}
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
    found = until(rank, lambda removed: _cost(network, removed, name) <= bound)
    if found is None:
        raise fail(
            "X0603", f"`{name}` stays above {bound:,.0f} whatever is removed", helps=("lower `least=` and `min_channels=`",)
        )
    return _named(chosen, found)


def _cost(network: Network, removed: Removed, name: str) -> float:
    changed = perform(twin(network), Edit((Reindex(_maps(network, removed)),))) if removed else network
    if name == "params":
        return float(sum(p.numel() for p in changed.module.parameters()))
    found = cost(changed)
    return float({"macs": found.macs, "flops": 2 * found.macs, "bytes": found.bytes}[name])


def latency(network: Network, repeats: int = 7) -> float:
    """The median time of one forward pass in milliseconds, at the captured batch, on random inputs."""
    inputs = example(network, "cpu")
    times: list[float] = []
    with torch.no_grad():
        network.module.eval()
        for _ in range(repeats + 2):
            start = time.perf_counter()
            network.module(*inputs)
            times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[2:])[repeats // 2]


def _named(chosen: Sequence[Axis], removed: Removed) -> dict[str, list[int]]:
    return {a.name: removed[a.atom] for a in chosen if removed.get(a.atom)}


def _maps(network: Network, removed: Mapping[Atom, Sequence[int]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    names = {a.atom: a.name for a in network.atoms}
    return tuple((names[a], tuple(i)) for a, i in kept(removed).items())


def maps_of(network: Network, removed: Mapping[str, Sequence[int]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The index maps of the removal, by the names of atoms."""
    axes = {a.name: a.atom for a in network.atoms}
    return _maps(network, {axes[n]: i for n, i in removed.items()})


# --- settling --------------------------------------------------------------------------------------------------------


@dataclass
class _State:
    """Rounds so far: the network as it is, and which of its original indices each atom still holds."""

    network: Network
    held: dict[str, list[int]]
    predicted: float | None = 0.0
    variance: float = 0.0
    samples: int = 0
    how: str = ""
    metrics: dict[str, float] = field(default_factory=dict[str, float])


def settle(
    network: Network, choice: Choice, material: Material, wanted: Wanted, recover: Sequence[Any], stops: Sequence[Limit]
) -> Choice:
    """The indices that go, and the tensors that a compensation or recovery computed. Raises X0331, X0603, X0823."""
    axes = {a.name: a for a in network.atoms}
    state = _State(network, {n: list(range(axes[n].size)) for n in wanted.names})
    total = sum(axes[n].size for n in wanted.names)
    rounds = 1 if wanted.step is None else max(1, math.ceil((wanted.amount or 1.0) / wanted.step - 1e-9))
    biases: dict[str, None] = {}
    skipped: dict[str, str] = {}
    fitted: dict[str, Tensor] = {}
    means: list[tuple[str, int, str]] = []
    notes: list[str] = []
    padded: dict[str, None] = {}
    material.start("prune", rounds)
    try:
        for number in range(rounds):
            goal = None if wanted.amount is None else round(total * min(wanted.amount, (number + 1) * (wanted.step or 1.0)))
            removed, reached = _round(state, network, material, wanted, goal, number, rounds > 1)
            before = state.network
            edit: list[Any] = [Reindex(_maps(before, removed))] if removed else []
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
            metrics: dict[str, float] = {}
            for work in recover:
                after, metrics = material.train(after, work, f"recover, round {number + 1}")
            broken = [s for s in stops if s.name in metrics and compare(s.op, metrics[s.name], s.value)]
            absent = [s for s in stops if s.name not in metrics]
            if absent:
                raise fail("X0602", f"`stop_if {absent[0]}`: nothing measures it", absent[0].span, "not measured by `recover`")
            if broken:
                notes.append(f"stopped before round {number + 1}: `{broken[0]}` ({metrics[broken[0].name]:.4g})")
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
        fitted = {n: t.detach() for n, t in _tensors(state.network).items()}
    atoms_gone = {axes[n].atom for n in gone}
    mixes = sorted({f"{why.kind} at {why.at}" for why, dim in network.types.mixes if atoms_gone & set(atoms(dim))})
    scaled = [name for name, dim in network.types.scaled if atoms_gone & set(atoms(dim))]
    twin_claim = bool(gone) and not changed and wanted.compensate != "refit" and not skipped and _gated(network, atoms_gone)
    values: dict[str, Any] = {
        "by": choice.values["by"], "score": state.how, "index sets": len(wanted.names), "removed": gone,
        "indices": f"{sum(map(len, gone.values()))} of {total}", "biases": list(biases), "mixes": [*mixes, *scaled, *padded],
        "assigned": [n for n in fitted if not n.startswith("mean/")], "twin": twin_claim, "means": means,
        "data": wanted.data, "samples": state.samples or wanted.samples, "predicted": state.predicted,
        "error": state.variance**0.5 if state.predicted is not None else None, "recover": list(recover), "wanted": wanted,
    }  # fmt: skip
    warnings = [*choice.warnings, *notes, *(f"{p} is not compensated: {w}" for p, w in skipped.items())]
    return replace(choice, values=values, warnings=tuple(warnings), provisional="", tensors=fitted, metrics=state.metrics)


def _gated(network: Network, wanted: set[Atom]) -> bool:
    from netxform.numerics.gates import gates

    missing = gates(network).missing
    return not any(a in missing and missing[a] != "nothing reads it" for a in wanted)


def _round(
    state: _State, original: Network, material: Material, wanted: Wanted, goal: int | None, number: int, several: bool
) -> tuple[Removed, bool]:
    """What goes in this round, and whether a budget is reached with it."""
    network = state.network
    now = _now(original, network, wanted.names)
    seen = known(wanted.by)(network, _request(wanted, material, number, several))
    state.samples, state.how = max(state.samples, seen.samples), seen.how
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
        name, bound = wanted.budget
        if name == "latency":
            found = until(
                rank, lambda r: latency(perform(network, Edit((Reindex(_maps(network, r)),))) if r else network) <= bound
            )
        else:
            found = until(rank, lambda r: _cost(network, r, name) <= bound)
        if found is None:
            raise fail(
                "X0603", f"`{name}` stays above {bound:,.0f} whatever is removed", helps=("lower `least=` and `min_channels=`",)
            )
        count = sum(map(len, found.values()))
        step = count if wanted.step is None else round(wanted.step * sum(_sizes(original, wanted.names).values()))
        removed, reached = (found, True) if count <= step else (rank.lowest(step), False)
    else:
        assert goal is not None
        already = sum(_sizes(original, wanted.names).values()) - sum(map(len, state.held.values()))
        removed = rank.lowest(max(0, goal - already))
    _predict(state, seen, removed)
    return removed, reached


def _predict(state: _State, seen: Scores, removed: Removed) -> None:
    """The sum of the predictions: what single removals would add up to."""
    if state.predicted is None or not seen.predicted:
        state.predicted = None
        return
    for atom, indices in removed.items():
        index = torch.tensor(indices)
        state.predicted += float(seen.predicted[atom][index].sum())
        if atom in seen.error:
            state.variance += float(seen.error[atom][index].square().sum())


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
    sign: Any = op
    return {a: [compare(sign, v, bound) for v in values[a].tolist()] if a in values else [False] * a.size for a in scores}


def _request(wanted: Wanted, material: Material, number: int = 0, several: bool = False) -> Request:
    def source(shared: bool = False) -> Any:
        if wanted.data is None:
            raise fail("X0302", "this score needs data, and none is named", helps=("write `over NAME`",))
        return material.batches(wanted.data, wanted.samples, shared=shared)

    seed = wanted.seed + number
    shares = lambda: source(shared=True)  # noqa: E731
    return Request(source, wanted.loss, seed, wanted.output, wanted.options, several, shares, material.total)


def _sizes(network: Network, names: Sequence[str]) -> dict[str, int]:
    axes = {a.name: a.size for a in network.atoms}
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
        return {a.name: a for a in network.atoms if a.name in set(names)}
    now = _key(network.atoms)
    return {a.name: now[k] for k, a in _key(original.atoms).items() if a.name in set(names) and k in now}


def _keep(state: _State, original: Network, after: Network, removed: Removed) -> None:
    by_atom = {a.atom: n for n, a in _now(original, state.network, list(state.held)).items()}
    for atom, indices in removed.items():
        name = by_atom[atom]
        state.held[name] = [state.held[name][i] for i in kept({atom: indices})[atom]]
    state.network = after


def _tensors(network: Network) -> dict[str, Tensor]:
    every = [*network.module.named_parameters(remove_duplicate=False), *network.module.named_buffers(remove_duplicate=False)]
    return {n: t for n, t in every if network.types.names[n] == n}


# --- single weights --------------------------------------------------------------------------------------------------


def weights_in(network: Network, modules: Sequence[str] | None) -> tuple[str, ...]:
    """The weights of the Linear and Conv layers among the modules."""
    out: list[str] = []
    for path, part in network.module.named_modules():
        inside = modules is None or path in set(modules)
        if inside and isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            out.append(network.types.names[f"{path}.weight"])
    return tuple(dict.fromkeys(out))


def zero_weights(
    network: Network, choice: Choice, material: Material, by: Invocation, granularity: str, amount: float, samples: int,
    loss: Literal["cross_entropy", "mse"],
) -> Choice:  # fmt: skip
    """The lowest weights set to zero: a share of all of them, or two of every four neighbours along the inputs."""
    data = choice.values["data"]
    held = dict(network.module.named_parameters(remove_duplicate=False))
    each: dict[str, Tensor] = {n: held[n].detach().double().abs() for n in choice.values["weights"]}
    predicted: float | None = None
    if by.name == "obd-weights":
        request = Request(lambda: material.batches(data, samples), loss)
        diagonal, _ = fisher(network, request)
        each = {n: 0.5 * diagonal[n] * w.square() for n, w in each.items()}
        predicted = 0.0
    elif by.name != "magnitude":
        raise fail("X0412", f"single weights are scored by `magnitude` or `obd-weights`, not by `{by.name}`", by.span)
    tensors: dict[str, Tensor] = {}
    zeros, count = 0, 0
    flat = torch.cat([v.flatten() for v in each.values()])
    take = torch.zeros(len(flat), dtype=torch.bool)
    take[torch.argsort(flat, stable=True)[: round(amount * len(flat))]] = True
    parts = take.split([v.numel() for v in each.values()])
    for (name, values), part in zip(each.items(), parts, strict=True):
        mask = part.reshape(values.shape)
        if granularity == "2:4":
            mask = _two_of_four(values)
        if predicted is not None:
            predicted += float(values[mask].sum())
        tensors[name] = held[name].detach().masked_fill(mask, 0.0)
        zeros, count = zeros + int(mask.sum()), count + mask.numel()
    values_: dict[str, Any] = choice.values | {
        "zeros": f"{zeros} of {count}", "assigned": list(tensors), "samples": samples, "predicted": predicted, "error": None,
    }  # fmt: skip
    values_.pop("weights")
    return replace(choice, values=values_ | {"weights": tuple(tensors)}, provisional="", tensors=tensors)


def _two_of_four(values: Tensor) -> Tensor:
    """The two lowest of every four neighbours along the inputs (dimension 1); a rest of fewer than four stays."""
    moved = values.movedim(1, -1)
    whole = moved.shape[-1] // 4 * 4
    mask = torch.zeros(moved.shape, dtype=torch.bool)
    four = moved[..., :whole].unflatten(-1, (-1, 4))
    low = four.argsort(dim=-1, stable=True)[..., :2]
    mask[..., :whole] = torch.zeros(four.shape, dtype=torch.bool).scatter(-1, low, True).flatten(-2)
    return mask.movedim(-1, 1)
