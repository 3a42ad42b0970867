"""Layers factorized: forms and ranks where they are open, every factor with its bound, corrected and measured on data.

Network, paths, Wanted ─factorize→ Factorized
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, cast

from torch import Tensor, nn

from netxform.errors import fail
from netxform.factorization.allocate import Allocation
from netxform.factorization.factorized_layer import Chain
from netxform.factorization.latency import seconds, whole_seconds
from netxform.factorization.output_covariance import Seen, observe
from netxform.factorization.rank_curves import Ranks, Table, rounded
from netxform.factorization.rank_selection import (
    AUTO,
    Gap,
    Pick,
    Target,
    Unaffordable,
    assembled,
    cheapest,
    faster,
    first,
    gaps,
    share_out,
    tables,
    targets,
    timed,
    within,
)
from netxform.factorization.worst_case import worst_case
from netxform.graph.edits import Edit, Replace
from netxform.graph.layer_spec import Layer
from netxform.graph.network import Network
from netxform.graph.surgery import perform
from netxform.language.claims import LayerBound
from netxform.language.material import HeldOut, Material

Counted: TypeAlias = Literal["params", "macs", "bytes", "latency"]


@dataclass(frozen=True)
class Budget:
    """At most `value` of `cost` for the whole network; with `share`, that share of `base`, for the latency of what is there."""

    cost: Counted
    value: float
    share: bool


@dataclass(frozen=True)
class Wanted:
    """What a `factorize` statement asks for, with every default filled in; one of `ranks`, `error`, `vbmf`, `budget`.

    `forms`: those that are allowed, None for the cheapest of `AUTO`. `modes`: (outputs, inputs) of a tensor train matrix.
    `error`: the largest relative error of a layer. `gate`: only what is faster on this machine at `batch` samples. `samples` of
    `data`: three quarters choose, the rest measures. `radius`: of the inputs for which a worst case is stated. `base`, `now`:
    what the whole network cost as it came, and costs before the statement.
    """

    forms: tuple[str, ...] | None
    modes: tuple[tuple[int, ...], tuple[int, ...]] | None
    ranks: tuple[float, ...] | None
    error: float | None
    vbmf: bool
    budget: Budget | None
    data: str | None
    samples: int
    sequential: bool
    round_to: int
    gate: bool
    batch: int
    exact: bool
    when_smaller: bool
    radius: float | None
    seed: int
    base: Mapping[str, int]
    now: Mapping[str, int]

    @property
    def fitted(self) -> int:
        """How many samples choose; the others measure."""
        return max(1, self.samples * 3 // 4)

    def allowed(self) -> float:
        """How much of the counted cost the whole network may have; latency apart, which only the machine knows."""
        assert self.budget is not None
        return self.budget.value * (self.base[self.budget.cost] if self.budget.share else 1)


@dataclass(frozen=True)
class Errors:
    """The relative error of a layer's kernel, how its factors were found, and the output's error `on` new samples."""

    kernel: float
    method: str
    output: float | None = None
    on: HeldOut | None = None


@dataclass(frozen=True)
class Chosen:
    """The decomposition of each layer; why others are left; those that would not get smaller; and the allocation, if any.

    `felt`: what a relative squared error of each layer's output costs, the weights of the allocation.
    """

    picks: tuple[Pick, ...]
    left: Mapping[str, str] = field(default_factory=dict[str, str])
    larger: tuple[Pick, ...] = ()
    allocation: Allocation | None = None
    felt: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Factorized:
    """What was chosen, and made of it: the layers in each one's place, their tensors, bounds and errors.

    `worst`: the bound on the outputs for every input within the radius.
    """

    chosen: Chosen
    layers: Mapping[str, tuple[Layer, ...]]
    tensors: Mapping[str, Tensor]
    bounds: tuple[LayerBound, ...]
    errors: Mapping[str, Errors]
    worst: float | None


class Unmet(Exception):
    """No choice meets the budget: the least that is possible, what is allowed, and the selection's share of the cost.

    `slower`: what forms that are slower on this machine go down to, where they are kept out and that is less.
    """

    def __init__(self, least: float, allowed: float, share: float | None, slower: float | None) -> None:
        super().__init__(f"{least} is the least, {allowed} allowed")
        self.least, self.allowed, self.share, self.slower = least, allowed, share, slower


def candidates(network: Network, paths: Sequence[str], wanted: Wanted) -> tuple[list[Target], dict[str, str]]:
    """The layers that can be factorized, and why others cannot. Raises NetxformError X0411 for modes that do not fit."""
    try:
        return targets(network, paths, AUTO if wanted.forms is None else wanted.forms, wanted.modes)
    except ValueError as error:
        raise fail("X0411", str(error), label="does not fit") from None


def smaller(picks: Sequence[Pick], wanted: Wanted) -> Chosen:
    """Those that make a layer smaller, and those that do not."""
    kept = tuple(p for p in picks if not wanted.when_smaller or p.cost[0] < p.target.params)
    return Chosen(kept, larger=tuple(p for p in picks if p not in kept))


def share_left(found: Sequence[Target], wanted: Wanted) -> float:
    """The share of the selected layers that the budget leaves, for an estimate."""
    assert wanted.budget is not None
    name = wanted.budget.cost
    whole = sum(t.macs if name == "macs" else t.params for t in found) or 1
    unit = wanted.now["bytes"] / wanted.now["params"] if name == "bytes" else 1
    return min(1.0, max(0.02, 1 - (wanted.now[name] / unit - wanted.allowed() / unit) / whole))


def factorize(
    network: Network, paths: Sequence[str], wanted: Wanted, given: Mapping[str, tuple[str, Ranks]], material: Material
) -> Factorized:
    """Choose forms and ranks where they are not `given`, and compute every factor.

    Raises Unmet; NetxformError, without a place, X0411 (modes, or a form that vbmf has no ranks for), X0817 (too few samples).
    """
    every = candidates(network, paths, wanted)[0]
    material.start("factorize", 2 * len(every))
    try:
        seen: Mapping[str, Seen] = {}
        if wanted.data is not None:
            enough = _batches(wanted, material, held=False)
            found = observe(network, [t.path for t in every if t.dense], enough, gradients=wanted.budget is not None)
            seen = {path: one.over_all(material.total) for path, one in found.items()}
            _enough(seen)
        if wanted.ranks is not None:
            chosen = Chosen(tuple(Pick(t, *given[t.path]) for t in every if t.path in given))
        else:
            chosen = _choose(every, network, seen, wanted, material)
        return _make(chosen, network, seen, wanted, material)
    finally:
        material.stop()


def _batches(wanted: Wanted, material: Material, held: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Three quarters of the samples for choosing, the rest for measuring."""
    assert wanted.data is not None
    if held:
        return material.fresh(wanted.data, wanted.samples - wanted.fitted, skip=wanted.fitted, shared=True)
    return material.batches(wanted.data, wanted.fitted, shared=True)


def _enough(seen: Mapping[str, Seen]) -> None:
    """Refuse to fit a covariance to fewer positions than channels: it would follow the sample."""
    for path, one in seen.items():
        if one.count < len(one.total_O):
            raise fail(
                "X0817",
                f"`{path}` has {len(one.total_O)} outputs and was seen at {one.count} positions",
                label="not enough samples",
                helps=(f"write `samples={10 * len(one.total_O)}` or more",),
            )


# --- forms and ranks -------------------------------------------------------------------------------------------------


def _choose(every: Sequence[Target], network: Network, seen: Mapping[str, Seen], wanted: Wanted, material: Material) -> Chosen:
    """Forms and ranks by error, by VBMF or under the budget."""
    picks: list[Pick] = []
    left: dict[str, str] = {}
    found: list[dict[str, Table]] = []
    for target in every:
        module = network.module.get_submodule(target.path)
        material.step(target.path)
        if wanted.vbmf:
            picks.append(_by_vbmf(target, module, wanted.round_to))
            continue
        precise = wanted.exact or wanted.budget is None
        found.append(tables(target, module, seen.get(target.path), wanted.forms is None, precise))
        if wanted.error is not None:
            one = within(target, found[-1], wanted.error, wanted.round_to, lambda p: _passes(p, wanted))
            if isinstance(one, str):
                left[target.path] = one
            else:
                picks.append(one)
    if wanted.budget is not None:
        return _under_budget(every, found, network, seen, wanted)
    kept = smaller(picks, wanted)
    return Chosen(kept.picks, left, kept.larger)


def _by_vbmf(target: Target, module: nn.Module, round_to: int) -> Pick:
    form = first(target)
    way = target.factorized[form]
    try:
        ranks = way.by_vbmf(module)
    except ValueError as error:
        raise fail("X0411", str(error), label=f"at `{target.path}`") from None
    return Pick(target, form, way.clip([rounded(r, f, round_to) for r, f in zip(ranks, way.full(), strict=True)]))


def _passes(pick: Pick, wanted: Wanted) -> bool:
    """Where times decide, only what is faster on this machine."""
    return not wanted.gate or faster(pick, wanted.batch)


def _under_budget(
    every: Sequence[Target],
    found: Sequence[Mapping[str, Table]],
    network: Network,
    seen: Mapping[str, Seen],
    wanted: Wanted,
) -> Chosen:
    assert wanted.budget is not None
    name = wanted.budget.cost
    size = next(network.module.parameters()).element_size()
    extra = {t.path: _new_biases(t, network) if wanted.data is not None else 0 for t in every}
    measures: dict[Counted, Callable[[Pick], float]] = {
        "params": lambda p: p.cost[0] + extra[p.target.path],
        "macs": lambda p: p.cost[1],
        "bytes": lambda p: size * (p.cost[0] + extra[p.target.path]),
        "latency": lambda p: 1e3 * timed(p, wanted.batch)[0],
    }
    if name == "latency":
        timeable = [i for i, t in enumerate(every) if t.dense is not None]
        every, found = [every[i] for i in timeable], [found[i] for i in timeable]
        dense = [1e3 * seconds([t.dense], (wanted.batch, *t.shape[1:])) for t in every if t.dense is not None]
        now = 1e3 * whole_seconds(network, wanted.batch)
        allowed = wanted.budget.value * (now if wanted.budget.share else 1)
    else:
        dense = [float(t.macs if name == "macs" else t.params * (size if name == "bytes" else 1)) for t in every]
        now, allowed = float(wanted.now[name]), wanted.allowed()
    weights = [_weight(seen.get(t.path)) for t in every]
    rest = now - sum(dense)

    def gate(pick: Pick) -> bool:
        return _passes(pick, wanted)

    try:
        shares = share_out(every, found, weights, measures[name], dense, allowed - rest, wanted.round_to, gate)
    except Unaffordable as error:
        least, any_form = rest + error.least, rest + cheapest(every, found, measures[name], dense, wanted.round_to)
        slower = any_form if wanted.gate and any_form < least else None
        raise Unmet(least, allowed, sum(dense) / now if now else None, slower) from None
    left = {t.path: "the budget is met without it" for t, p in zip(every, shares.picks, strict=True) if p is None}
    felt = {t.path: w for t, w in zip(every, weights, strict=True)}
    return Chosen(tuple(p for p in shares.picks if p is not None), left, (), shares.allocation, felt)


def _weight(seen: Seen | None) -> float:
    """What a relative squared error of the output costs: its variance a sample, times what the loss feels of it."""
    if seen is None:
        return 1.0
    return float(seen.covariance_OO.trace()) * seen.count / max(seen.samples, 1) * (seen.slope or 1.0)


def _new_biases(target: Target, network: Network) -> int:
    """Biases that a correction adds to a layer that has none."""
    way = next(iter(target.factorized.values()))
    without = getattr(network.module.get_submodule(target.path), "bias", None) is None
    return cast(Chain, way).g.outputs if target.dense is not None and without else 0


# --- factors ---------------------------------------------------------------------------------------------------------


def _make(chosen: Chosen, network: Network, seen: Mapping[str, Seen], wanted: Wanted, material: Material) -> Factorized:
    """Every factor, with its bound; on data, the mean error goes into the bias."""
    layers = {p.target.path: p.layer.layers(p.ranks) for p in chosen.picks}
    parts: dict[str, dict[str, Tensor]] = {}
    bounds: list[LayerBound] = []
    errors: dict[str, Errors] = {}
    now = network
    for pick in chosen.picks:
        path = pick.target.path
        material.step(path)
        data = seen.get(path)
        if wanted.sequential and data is not None:
            data = observe(now, [path], _batches(wanted, material, held=False))[path].over_all(material.total)
        module = network.module.get_submodule(path)
        made = pick.layer.make(module, pick.ranks, seed=wanted.seed, exact=wanted.exact, seen=data)
        parts[path] = dict(made.tensors)
        bounds += made.bounds
        errors[path] = Errors(made.error / (made.norm or 1.0), made.method)
        if wanted.sequential:
            _correct([pick], now, layers, parts, wanted, material)
            now = perform(network, Edit(tuple(Replace(p, layers[p]) for p in parts), _named(parts)))
    if wanted.data is not None:
        on = material.held_out(wanted.data)
        if not wanted.sequential:
            _correct(chosen.picks, network, layers, parts, wanted, material)
        for path, gap in _gaps(network, layers, parts, wanted, material, held=True).items():
            errors[path] = replace(errors[path], output=gap.relative, on=on)
    worst = None
    if wanted.radius is not None:
        gains = {b.path.partition("::")[0]: b.gain for b in bounds}
        shifts = {path: _bias_change(network, path, layers[path], held) for path, held in parts.items()}
        worst = worst_case(network, gains, wanted.radius, shifts)
    return Factorized(chosen, layers, _named(parts), tuple(bounds), errors, worst)


def _named(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{path}.{name}": tensor for path, held in parts.items() for name, tensor in held.items()}


def _gaps(
    network: Network,
    layers: Mapping[str, Sequence[Layer]],
    parts: Mapping[str, Mapping[str, Tensor]],
    wanted: Wanted,
    material: Material,
    held: bool,
) -> dict[str, Gap]:
    modules = {p: network.module.get_submodule(p) for p in parts}
    made = {p: assembled(layers[p], parts[p], m) for p, m in modules.items()}
    found = gaps(network, made, _batches(wanted, material, held))
    return {path: one.over_all(material.total) for path, one in found.items()}


def _correct(
    picks: Sequence[Pick],
    network: Network,
    layers: dict[str, tuple[Layer, ...]],
    parts: dict[str, dict[str, Tensor]],
    wanted: Wanted,
    material: Material,
) -> None:
    """Put the mean error of each chain into the bias of its last layer; one is added where there is none."""
    mine = {p.target.path: p for p in picks if p.target.dense is not None}
    found = _gaps(network, layers, {path: parts[path] for path in mine}, wanted, material, held=False)
    for path, gap in found.items():
        held = parts[path]
        biased = mine[path].layer.layers(mine[path].ranks, bias=True)
        name = f"{biased[-1].name}.bias" if biased[-1].name else "bias"
        like = next(iter(held.values()))
        held[name] = (held[name].double() + gap.mean_O if name in held else gap.mean_O).to(like.dtype)
        layers[path] = biased


def _bias_change(network: Network, path: str, layers: Sequence[Layer], held: Mapping[str, Tensor]) -> float:
    """‖b − b′‖ of a layer and what takes its place."""
    old = getattr(network.module.get_submodule(path), "bias", None)
    new = held.get(f"{layers[-1].name}.bias" if layers[-1].name else "bias")
    if new is None or isinstance(old, bool):
        return 0.0
    return float((new.double() - (cast(Tensor, old).detach().double() if old is not None else 0.0)).norm())
