"""Which layers can be factorized, in which ways, and which way and ranks each gets: by ranks, by an error, under a budget.

Network, paths ─targets→ Target, …        Target, rule ─pick→ Pick        Target, … , budget ─share_out→ Pick, …, Allocation
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from netxform.factorization import ties
from netxform.factorization.allocate import Allocation, Option, allocate
from netxform.factorization.factorized_layer import Chain, FactorizedLayer, Pairs, Place, TrainMatrix, pairs
from netxform.factorization.geometry import Geometry, geometry, layer, macs
from netxform.factorization.latency import seconds
from netxform.factorization.output_covariance import Seen
from netxform.factorization.rank_curves import Ranks, Table, rounded
from netxform.graph.building import build
from netxform.graph.inputs import arguments
from netxform.graph.layer_spec import Invocation, Layer
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.language.rank import Rank

AUTO = ("svd", "svd_in", "spatial", "tucker2", "cp")
# alternating least squares dearer than this (multiply-accumulates a sweep at full rank) is left out of `auto`
_CP_EFFORT = 3e8


@dataclass(frozen=True)
class Target:
    """A layer that can be factorized: its ways by name, what it costs now, and the shape of one sample that arrives."""

    path: str
    factorized: Mapping[str, FactorizedLayer]
    params: int
    macs: int
    shape: tuple[int, ...]
    dense: Invocation | None


@dataclass(frozen=True)
class Pick:
    """A way and its ranks for one layer; `error` is the relative error that its table promises, where one was made."""

    target: Target
    form: str
    ranks: Ranks
    error: float | None = None

    @property
    def layer(self) -> FactorizedLayer:
        """The factorized layer."""
        return self.target.factorized[self.form]

    @property
    def cost(self) -> tuple[int, int]:
        """Parameters and multiply-accumulates."""
        return self.layer.cost(self.ranks)


def targets(
    network: Network, paths: Iterable[str], forms: Sequence[str], modes: tuple[tuple[int, ...], tuple[int, ...]] | None
) -> tuple[list[Target], dict[str, str]]:
    """The layers among `paths` that can be written in one of the forms, in the order of the graph; and why others cannot.

    Modules without a matrix (norms, activations) are passed over.
    """
    chosen = set(paths)
    shared = ties.shared(network.module)
    read = ties.read(network)
    found: dict[str, Target] = {}
    left: dict[str, str] = {}
    for node in network.module.graph.nodes:
        path = str(node.target)
        if node.op != "call_module" or path not in chosen or path in found or path in left:
            continue
        module = network.module.get_submodule(path)
        if not any(p.dim() > 1 for p in module.parameters()):
            continue
        if path in shared:
            left[path] = f"its weight is also that of {shared[path]}: factors would untie them"
            continue
        if path in read:
            left[path] = f"the code reads `{read[path]}` elsewhere: there would be none"
            continue
        shape = node.args[0].meta.get("shape") if node.args else None
        ways = _ways(module, path, shape, forms, modes) if isinstance(shape, tuple) else "what arrives is not one tensor"
        if isinstance(ways, str):
            left[path] = ways
        else:
            found[path] = _target(module, path, ways, cast("tuple[int, ...]", shape))
    return list(found.values()), left


def _ways(
    module: nn.Module,
    path: str,
    shape: tuple[int, ...],
    forms: Sequence[str],
    modes: tuple[tuple[int, ...], tuple[int, ...]] | None,
) -> dict[str, FactorizedLayer] | str:
    several = pairs(module, Place(path, shape[1:], math.prod(shape[1:-1])))
    if several is not None:
        return {"svd": several} if "svd" in forms else f"{type(module).__name__} has several matrices: use svd"
    g = geometry(module)
    if isinstance(g, str):
        return g
    flat = not g.kernel
    place = Place(path, shape[1:], math.prod(shape[1:] if g.kind == "Embedding" else shape[1:-1]) if flat else 1)
    out: dict[str, FactorizedLayer] = {}
    reasons: list[str] = []
    for form in forms:
        if form == "tt" and g.kind == "Linear":
            out[form] = TrainMatrix(g, place, *modes) if modes is not None else TrainMatrix.plain(g, place)
            continue
        way = Chain(g, form, place)
        why = way.form.obstacle(g)
        if why is None:
            out[form] = way
        else:
            reasons.append(why)
    return out or reasons[0]


def _target(module: nn.Module, path: str, ways: Mapping[str, FactorizedLayer], shape: tuple[int, ...]) -> Target:
    g = geometry(module)
    params = sum(p.numel() for p in module.parameters())
    if isinstance(g, Geometry):
        positions = next(iter(ways.values())).place.positions
        return Target(
            path, ways, params, macs(g, shape[2:], positions) if g.kernel else macs(g, (), positions), shape, layer(g)
        )
    way = cast(Pairs, next(iter(ways.values())))
    return Target(path, ways, params, way.place.positions * sum(o * i for _, (o, i) in way.shapes), shape, None)


# --- ranks that are given --------------------------------------------------------------------------------------------


def given(target: Target, form: str, ranks: Sequence[float]) -> Pick:
    """The ranks that the spec states: whole numbers, or shares of the full ranks. Raises ValueError for a wrong count."""
    way = target.factorized[form]
    full = way.full()
    wanted = list(ranks) * (len(full) if len(ranks) == 1 else 1)
    if len(wanted) != len(full):
        raise ValueError(f"{form} takes {len(full)} ranks at `{target.path}`, not {len(wanted)}")
    # 1 is one, 1.0 and 100% are all
    shares = [r < 1 or (r == 1 and isinstance(r, Rank) and r.share) for r in wanted]
    ranks = [max(1, round(r * f)) if share else int(r) for r, f, share in zip(wanted, full, shares, strict=True)]
    return Pick(target, form, way.clip(ranks))


def first(target: Target) -> str:
    """The way for ranks that are given without one: Tucker for a kernel, else svd."""
    return "tucker2" if "tucker2" in target.factorized else next(iter(target.factorized))


def estimate(target: Target, share: float) -> Pick | None:
    """What the twin can say before anything is read: the ranks at which the first way has that share of the parameters."""
    form = first(target)
    way = target.factorized[form]
    full = way.full()
    best: Ranks | None = None
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        ranks = way.clip([max(1, round(middle * f)) for f in full])
        if way.params(ranks) <= share * target.params:
            best, low = ranks, middle
        else:
            high = middle
    return None if best is None else Pick(target, form, best)


# --- ranks that are chosen -------------------------------------------------------------------------------------------


def tables(target: Target, module: nn.Module, seen: Seen | None, auto: bool, precise: bool) -> dict[str, Table]:
    """A table for every way; under `auto`, CP only where trying it is cheap. Coarse ones do for comparing large errors."""
    out: dict[str, Table] = {}
    for form, way in target.factorized.items():
        if auto and form == "cp" and len(target.factorized) > 1 and _cp_effort(way) > _CP_EFFORT:
            continue
        out[form] = way.table(module, seen, precise)
    return out


def _cp_effort(way: FactorizedLayer) -> float:
    g = cast(Chain, way).g
    rank = g.params / (g.rows + g.columns + g.taps) / 2
    return 3 * g.params * rank


def within(
    target: Target, found: Mapping[str, Table], relative: float, round_to: int, gate: Callable[[Pick], bool]
) -> Pick | str:
    """The cheapest way (by multiply-accumulates, then parameters) whose error is at most `relative` and that passes the gate;
    or why there is none.
    """
    picks: list[Pick] = []
    for form, one in found.items():
        ranks = one.smallest(relative)
        if ranks is None:
            continue
        way = target.factorized[form]
        wide = way.clip([rounded(r, f, round_to) for r, f in zip(ranks, way.full(), strict=True)])
        for option in (wide, ranks):
            if way.params(option) < target.params:
                picks.append(Pick(target, form, option, one.error(option)))
                break
    if not picks:
        return f"no way within {relative:.3g} is smaller"
    picks.sort(key=lambda p: (p.cost[1], p.cost[0]))
    return next((p for p in picks if gate(p)), "no way within the error is faster on this machine")


def timed(pick: Pick, batch: int) -> tuple[float, float]:
    """Seconds of the factors and of the layer as it is, on a batch of samples. The layer must be a chain or a TT matrix."""
    shape = (batch, *pick.target.shape[1:])
    assert pick.target.dense is not None
    return seconds([part.make for part in pick.layer.layers(pick.ranks)], shape), seconds([pick.target.dense], shape)


def faster(pick: Pick, batch: int) -> bool:
    """Whether the factors take less time than the layer; a layer that cannot be timed by itself passes."""
    if pick.target.dense is None:
        return True
    factors, dense = timed(pick, batch)
    return factors < dense


@dataclass(frozen=True)
class Shares:
    """What a budget gave each layer; None: it stays as it is."""

    picks: tuple[Pick | None, ...]
    allocation: Allocation


class Unaffordable(ValueError):
    """A budget that nothing meets: `least` is the least cost of what may be chosen."""

    def __init__(self, least: float) -> None:
        super().__init__(f"{least:g} is the least")
        self.least = least


def share_out(
    every: Sequence[Target],
    found: Sequence[Mapping[str, Table]],
    weights: Sequence[float],
    measure: Callable[[Pick], float],
    dense: Sequence[float],
    budget: float,
    round_to: int,
    gate: Callable[[Pick], bool],
) -> Shares:
    """Formats and ranks of all layers together, such that the sum of `measure` is within the budget and the sum of
    weight × squared relative error is least: a multiple-choice knapsack. What is chosen must pass the gate; what does not is
    taken out, with all that is larger in its form, and the rest is shared out again.

    Raises Unaffordable where nothing fits.
    """
    options: list[list[Option]] = []
    for target, one, weight, cost in zip(every, found, weights, dense, strict=True):
        picks = [Pick(target, form, ranks, table.error(ranks)) for form, table in one.items() for ranks in table.grid(round_to)]
        options.append([Option(cost, 0.0, None), *(Option(measure(p), weight * cast(float, p.error) ** 2, p) for p in picks)])
    passed: set[tuple[str, str, Ranks]] = set()
    while True:
        least = math.fsum(min(o.cost for o in rows) for rows in options)
        if least > budget:
            raise Unaffordable(least)
        allocation = allocate(options, budget)
        chosen = [rows[i].label for rows, i in zip(options, allocation.chosen, strict=True)]
        refused: list[tuple[int, Pick]] = []
        for i, pick in enumerate(chosen):
            if pick is None or (pick.target.path, pick.form, pick.ranks) in passed:
                continue
            if gate(pick):
                passed.add((pick.target.path, pick.form, pick.ranks))
            else:
                refused.append((i, pick))
        if not refused:
            return Shares(tuple(chosen), allocation)
        for i, bad in refused:
            options[i] = [o for o in options[i] if o.label is None or o.label.form != bad.form or o.label.cost[1] < bad.cost[1]]


def cheapest(
    every: Sequence[Target],
    found: Sequence[Mapping[str, Table]],
    measure: Callable[[Pick], float],
    dense: Sequence[float],
    round_to: int,
) -> float:
    """The least that the layers can cost together, whatever it does to the error."""
    total = 0.0
    for target, one, cost in zip(every, found, dense, strict=True):
        picks = [Pick(target, form, ranks) for form, table in one.items() for ranks in table.grid(round_to)]
        total += min((measure(p) for p in picks), default=cost)
    return total


# --- chains as modules -----------------------------------------------------------------------------------------------


def assembled(layers: Sequence[Layer], tensors: Mapping[str, Tensor], like: nn.Module) -> nn.Module:
    """The layers with their tensors, as one module that can be called."""
    dtype = next(like.parameters()).dtype
    parts: list[nn.Module] = []
    for one in layers:
        part = build(one, torch.device("meta"), dtype)
        state = {
            n.removeprefix(f"{one.name}.") if one.name else n: t
            for n, t in tensors.items()
            if not one.name or n.startswith(f"{one.name}.")
        }
        part.load_state_dict(state, assign=True)
        parts.append(part)
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


@dataclass
class Gap:
    """The mean of y − ŷ by channel, and E‖y − ŷ‖² / E‖y‖², over the positions that were seen."""

    total_O: Tensor
    count: int = 0
    squared: float = 0.0
    energy: float = 0.0

    def over_all(self, total_of: Callable[..., tuple[Tensor, ...]]) -> Gap:
        """The same of what all processes saw, each on its share."""
        sums = torch.tensor([self.count, self.squared, self.energy], dtype=torch.float64)
        total, sums = total_of(self.total_O, sums)
        count, squared, energy = sums.tolist()
        return Gap(total, int(count), squared, energy)

    @property
    def mean_O(self) -> Tensor:
        """E[y − ŷ]."""
        return self.total_O / max(self.count, 1)

    @property
    def relative(self) -> float:
        """Root of the relative expected squared error."""
        return math.sqrt(self.squared / self.energy) if self.energy else 0.0


def gaps(network: Network, chains: Mapping[str, nn.Module], batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Gap]:
    """What each chain would put out instead of its layer, on the inputs that arrive there; in eval mode."""
    module = network.module
    found: dict[str, Gap] = {}

    def watch(path: str) -> Any:
        first_axis = isinstance(module.get_submodule(path), nn.modules.conv._ConvNd)  # pyright: ignore[reportPrivateUsage]

        def hook(_: nn.Module, args: tuple[Any, ...], y: Any) -> None:
            if not isinstance(y, Tensor):
                return
            z = cast(Tensor, chains[path](*args))
            a, b = (t.movedim(1, -1) if first_axis else t for t in (y, z))
            gap = (a.double() - b.double()).flatten(0, -2)
            one = found.setdefault(path, Gap(torch.zeros(gap.shape[1], dtype=torch.float64)))
            one.total_O += gap.sum(0)
            one.count += len(gap)
            one.squared += float(gap.square().sum())
            one.energy += float(a.double().square().sum())

        return hook

    handles = [module.get_submodule(p).register_forward_hook(watch(p)) for p in chains]
    try:
        with torch.no_grad(), evaluating(module):
            for x, _ in batches:
                module(*arguments(x))
    finally:
        for handle in handles:
            handle.remove()
    return found
