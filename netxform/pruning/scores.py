"""Scores: how much each index of each coupled class matters, under one name each. Low scores are removed first.

    Network, batches, Request ─score→ Scores

A class is scored as a whole: what all its layers hold (weights), or what all its readers see (activations, gates). Users add
scores of their own in Python: `@score("mine")` on a function (Network, Request) → Scores; a spec then says `by mine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from netxform.axes.algebra import Atom, normal
from netxform.axes.infer import types_of
from netxform.axes.roles import roles
from netxform.errors import fail
from netxform.graph.inputs import arguments, count
from netxform.graph.network import Network
from netxform.pruning.curvature import Totals, saliency
from netxform.pruning.gates import Gate, Gated, free, gates
from netxform.pruning.loss import Loss, drawn, laid, logits, target_of
from netxform.pruning.needs import SCORES, ScoreKind
from netxform.registry import called

Source = Callable[[], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Request:
    """What a score may use: batches (x, y) from the start each time, the loss, a seed, and the options as written.

    `shares`: this process's share of the batches, where there are several; `total_of` then adds sums up.
    """

    batches: Source
    loss: Loss = "cross_entropy"
    seed: int = 0
    output: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, object])
    iterative: bool = False
    shares: Source | None = None
    total_of: Totals = lambda *sums: sums


@dataclass(frozen=True)
class Scores:
    """A float64 vector of length `atom.size` for each scored atom; for the others the reason.

    `predicted`: the change of the mean loss that the removal of each index alone is predicted to cause, where the score says;
    `error`: the standard error of its second order. `each`: the same change sample by sample (N, size), of this process's
    samples, where that is known. `how`: the score and its aggregation over the class, in words.
    """

    values: dict[Atom, Tensor]
    missing: dict[Atom, str]
    how: str
    predicted: dict[Atom, Tensor] = field(default_factory=dict[Atom, Tensor])
    error: dict[Atom, Tensor] = field(default_factory=dict[Atom, Tensor])
    samples: int = 0
    each: dict[Atom, Tensor] = field(default_factory=dict[Atom, Tensor])


Score = Callable[[Network, Request], Scores]


def score(name: str, data: bool = True, **needs: Any) -> Callable[[Score], Score]:
    """Register a score under a name that specs may use; `data=False`: it asks for no samples. `needs`: see `ScoreKind`."""

    def register(function: Score) -> Score:
        SCORES.register(name)(ScoreKind(function, data, **needs))
        return function

    return register


def known(name: str) -> Score:
    """The score of that name. Raises NetxformError X0412."""
    return called(SCORES.find(name).of)


# --- by the loss -----------------------------------------------------------------------------------------------------


def obd(network: Network, request: Request) -> Scores:
    """Optimal brain damage on gates (`curvature.py`): s in one shot, f + s where scores are computed again after each step.

    Options: `method` (auto, gauss-newton, monte-carlo, exact), `draws`, `first` (whether f is added to the rank).
    """
    method: Any = request.options.get("method", "auto")
    if method not in ("auto", "gauss-newton", "monte-carlo", "exact"):
        raise fail("X0412", f"`obd` has no method `{method}`", helps=("methods: auto, gauss-newton, monte-carlo, exact",))
    found = saliency(
        network,
        (request.shares or request.batches)(),
        method=method,
        loss=request.loss,
        draws=int(request.options.get("draws", 1)),
        seed=request.seed,
        output=request.output,
        total_of=request.total_of,
    )
    total = {a: found.first[a] + s for a, s in found.second.items()}
    both = bool(request.options.get("first", request.iterative))
    how = f"½ ∂²L/∂m² of one gate for the class, {found.method}" + (", plus the first order" if both else "")
    return Scores(total if both else found.second, found.missing, how, total, found.error, found.samples, found.each)


def taylor(network: Network, request: Request) -> Scores:
    """E|a · ∂ℓ/∂a|, summed over places and readers before the absolute value (Molchanov et al., 2017, on gates)."""
    found = saliency(
        network,
        (request.shares or request.batches)(),
        method="first",
        total_of=request.total_of,
        loss=request.loss,
        seed=request.seed,
        output=request.output,
    )
    return Scores(
        found.taylor,
        found.missing,
        "mean over samples of |Σ a ∂L/∂a| over the class",
        found.first,
        {},
        found.samples,
        found.each,
    )


def obd_weights(network: Network, request: Request) -> Scores:
    """½ h_ii w_i² of weights (LeCun, Denker, Solla, 1990), summed over what the class produces; h is the Fisher diagonal."""
    diagonal, count = fisher(network, request)
    held = dict(network.module.named_parameters(remove_duplicate=False))
    each = {n: 0.5 * h * held[n].detach().double().square() for n, h in diagonal.items()}
    values, missing = _per_index(network, each, least=1)
    return Scores(values, missing, "½ h w², summed over the weights that the class produces", {}, {}, count)


def fisher(network: Network, request: Request) -> tuple[dict[str, Tensor], int]:
    """The diagonal of the Fisher matrix of the parameters, one label drawn from the network's own p for each sample; and the
    number of samples.
    """
    sums: dict[str, Tensor] = {}
    count = 0
    for slopes, size in _slopes(network, request):
        for name, slope in slopes.items():
            found = slope.detach().double().square().sum(0)
            sums[name] = sums[name] + found if name in sums else found
        count += size
    if not count:
        sums = {n: torch.zeros(p.shape, dtype=torch.float64) for n, p in _first(network).items()}
    return {n: s / max(count, 1) for n, s in sums.items()}, count


def _first(network: Network) -> dict[str, Tensor]:
    """Every parameter, tied ones once."""
    names = types_of(network).names
    return {n: p.detach() for n, p in network.module.named_parameters(remove_duplicate=False) if names[n] == n}


def _slopes(network: Network, request: Request) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Batch by batch the gradients of every sample's loss at a label drawn from p, by parameter, computed together
    (`torch.func`); and how many samples they are.
    """
    module = network.module
    module.eval()
    names = types_of(network).names
    params = _first(network)
    every = dict(module.named_parameters(remove_duplicate=False))
    ties = {n: names[n] for n in every if names[n] != n}
    buffers = dict(module.named_buffers(remove_duplicate=False))
    rng = torch.Generator().manual_seed(request.seed)

    def one(p: dict[str, Tensor], x: tuple[Tensor, ...], seedling: Tensor) -> Tensor:
        state = p | {n: p[f] for n, f in ties.items()} | buffers
        found = torch.func.functional_call(module, state, tuple(t[None] for t in x), tie_weights=False)
        return (logits(found, request.output)[0] * seedling).sum()

    slopes = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0), chunk_size=32)
    for x, y in request.batches():
        with torch.no_grad():
            raw = logits(module(*arguments(x)), request.output)
        raw.requires_grad_()
        z = laid(raw, y, request.loss)
        target = target_of(y, z.detach(), request.loss) if request.loss == "cross_entropy" else None
        drawn_ = drawn(z.detach(), target, request.loss, rng)
        (seedling,) = torch.autograd.grad(z, raw, drawn_.to(z))  # in the shape of the output as it is
        yield slopes(params, arguments(x), seedling), count(x)


def half_curvature(network: Network, names: Sequence[str], request: Request) -> dict[str, Tensor]:
    """½ h w² of every element of these tensors: the change of the loss that its removal is predicted to cause."""
    diagonal, _ = fisher(network, request)
    return {n: 0.5 * diagonal[n] * w.square() for n, w in sizes(network, names, request).items()}


def half_curvature_each(network: Network, gone: Mapping[str, Tensor], request: Request) -> Tensor:
    """½ Σ g² w² over the elements that are masked True, for every sample (N,): its mean is their ½ h w²."""
    held = dict(network.module.named_parameters(remove_duplicate=False))
    weight = {n: 0.5 * held[n].detach().double().square() * m for n, m in gone.items()}
    out: list[Tensor] = []
    for slopes, size in _slopes(network, request):
        parts = [(slopes[n].detach().double().square() * w).reshape(size, -1).sum(1) for n, w in weight.items()]
        out.append(torch.stack(parts).sum(0) if parts else torch.zeros(size, dtype=torch.float64))
    return torch.cat(out) if out else torch.zeros(0, dtype=torch.float64)


# --- by the weights --------------------------------------------------------------------------------------------------


def sizes(network: Network, names: Sequence[str], request: Request) -> dict[str, Tensor]:
    """|w| of every element of these tensors."""
    held = dict(network.module.named_parameters(remove_duplicate=False))
    return {n: held[n].detach().double().abs() for n in names}


def magnitude(network: Network, request: Request) -> Scores:
    """The norm of the weights that produce the index (L1, or L2 with `norm=2`), over all layers of the class."""
    power = int(request.options.get("norm", 1))
    if power not in (1, 2):
        raise fail("X0412", f"`magnitude` has the norms 1 and 2, not {power}")
    held = dict(network.module.named_parameters(remove_duplicate=False))
    each = {n: p.detach() for n, p in held.items() if p.dim() > 1}
    values, missing = _per_index(network, each, least=2, power=power)
    if power == 2:
        values = {a: v.sqrt() for a, v in values.items()}
    return Scores(values, missing, f"L{power} norm of the weights that the class produces")


def bn_scale(network: Network, request: Request) -> Scores:
    """The mean of |γ| over the BatchNorm layers of the class (Liu et al., 2017, network slimming)."""
    each: dict[str, Tensor] = {}
    for path, part in network.module.named_modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and part.affine:
            each[types_of(network).names[f"{path}.weight"]] = part.weight.detach().double().abs()
    values, missing = _per_index(network, each, least=1, mean=True)
    reason = "no BatchNorm with a scale lies on it"
    return Scores(values, {a: reason for a in missing}, "mean |γ| over the norms of the class")


def at_random(network: Network, request: Request) -> Scores:
    """Uniform numbers under the seed."""
    rng = torch.Generator().manual_seed(request.seed)
    values = {x.atom: torch.rand(x.size, generator=rng, dtype=torch.float64) for x in free(network)}
    return Scores(values, {}, "at random")


def _per_index(
    network: Network, each: Mapping[str, Tensor], least: int, mean: bool = False, power: int = 0
) -> tuple[dict[Atom, Tensor], dict[Atom, str]]:
    """Numbers of tensors' elements (with `power`: |element| to it), summed for every index of every class."""
    values: dict[Atom, Tensor] = {}
    missing: dict[Atom, str] = {}
    for axis in free(network):
        atom = axis.atom
        total, count = torch.zeros(atom.size, dtype=torch.float64), 0
        read = set(roles(types_of(network), atom).consumers)
        for name, place in axis.sites:
            numbers = each.get(name)
            if numbers is None or numbers.dim() < least or (name, place) in read:
                continue
            gate = Gate("", place, normal(types_of(network).tensors[name][place]), (atom,), ())
            index = gate.index(atom)
            others = [i for i in range(numbers.dim()) if i != place]
            flat = _summed(numbers, others, power)
            total.index_add_(0, index[index >= 0], flat[index >= 0])
            count += int((index == 0).sum())
        if count:
            values[atom] = total / count if mean else total
        else:
            missing[atom] = "no weights produce it"
    return values, missing


def _summed(numbers: Tensor, others: list[int], power: int) -> Tensor:
    if not others:
        return numbers.double().abs() ** power if power else numbers.double()
    if not power:
        return numbers.sum(others, dtype=torch.float64)
    return torch.linalg.vector_norm(numbers, power, others).double() ** power


# --- by the activations ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activity:
    """What readers see: of every atom the mean of |a| and the share of zeros, over all its readers, places and samples;
    of every gate the mean value at each position, by (operand, axis).
    """

    size: dict[Atom, Tensor]
    zeros: dict[Atom, Tensor]
    means: dict[tuple[str, int], Tensor]
    missing: dict[Atom, str]
    samples: int


def activity(network: Network, request: Request) -> Activity:
    """One pass over the batches."""
    found = gates(network)
    kinds = ("mean", "size", "zeros")
    sums = {g: {k: torch.zeros(len(g.index(g.atoms[0])), dtype=torch.float64) for k in kinds} for g in found.gates}
    counts = dict.fromkeys(found.gates, 0)

    def act(gate: Gate, value: Tensor) -> Tensor:
        rows = value.detach().movedim(gate.axis, 0).flatten(1)
        held = sums[gate]
        held["mean"] += rows.sum(1, dtype=torch.float64)
        held["size"] += rows.abs().sum(1, dtype=torch.float64)
        held["zeros"] += (rows == 0).sum(1)
        counts[gate] += rows.shape[1]
        return value

    run, samples = Gated(network, found.gates), 0
    with torch.no_grad():
        for x, _ in request.batches():
            run(arguments(x), act)
            samples += count(x)
    if not samples:
        raise fail("X0823", "there is no sample to score on")
    size: dict[Atom, Tensor] = {}
    zeros: dict[Atom, Tensor] = {}
    for axis in free(network):
        atom = axis.atom
        if atom in found.missing:
            continue
        parts = [(g, g.index(atom)) for g in found.of(atom)]
        total = torch.zeros(3, atom.size, dtype=torch.float64)
        for gate, index in parts:
            mine = index >= 0
            total[0].index_add_(0, index[mine], sums[gate]["size"][mine])
            total[1].index_add_(0, index[mine], sums[gate]["zeros"][mine])
            total[2].index_add_(0, index[mine], torch.full((int(mine.sum()),), float(counts[gate]), dtype=torch.float64))
        size[atom], zeros[atom] = total[0] / total[2], total[1] / total[2]
    means = {(g.layer or g.operand, g.axis): sums[g]["mean"] / max(counts[g], 1) for g in found.gates}
    return Activity(size, zeros, means, found.missing, samples)


def activation(network: Network, request: Request) -> Scores:
    """The mean of |a|, as the readers see it; with `kind=zeros` the share of values that are not zero."""
    kind: Literal["size", "zeros"] = "zeros" if request.options.get("kind") == "zeros" else "size"
    seen = activity(network, request)
    values = seen.size if kind == "size" else {a: 1 - z for a, z in seen.zeros.items()}
    how = "mean |a| over the readers of the class" if kind == "size" else "share of values that are not zero"
    return Scores(values, seen.missing, how, {}, {}, seen.samples)


__all__ = ["Activity", "Request", "Score", "Scores", "activity", "fisher", "known", "score"]
