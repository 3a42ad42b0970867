"""Curvature of the loss along gates: optimal brain damage on neurons, channels, heads (LeCun, Denker, Solla, 1990).

    Network, batches ─saliency→ Saliency

m_k multiplies index k of a coupled class wherever it is read (`gates.py`); s_k = ½ ∂²L/∂m_k² at m = 1. With softmax
cross-entropy, logits z (N, C), p = softmax(z), and v_ck = Σ over places of a_k · ∂z_c/∂a_k, for every sample:

    s_k = ½ E[ Σ_c p_c v_ck² − (Σ_c p_c v_ck)² ]        f_k = −E[ Σ_c (p_c − y_c) v_ck ]        (−first derivative)

the Gauss–Newton form: C backward passes give all gates of all layers. It is the exact second derivative where the network is
piecewise linear between gates and output and no path leads through two gates of the same class. Drawing the class from p
gives the same in expectation by one backward pass (`draws`), with a standard error. `exact` differentiates twice, once a gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from netxform.axes.algebra import Atom
from netxform.errors import fail
from netxform.graph.inputs import Given, arguments, count
from netxform.graph.network import Network
from netxform.pruning.backward import Backward
from netxform.pruning.gates import Gate, Gated, Gates, along_axis, gates
from netxform.pruning.loss import (
    Batches,
    Loss,
    chance_of,
    drawn,
    each_loss,
    laid,
    logits,
    slope_of,
    target_of,
    weights_of,
)

_AUTO_CLASSES = 32  # with more, `auto` draws classes instead of going through all of them

# numbers that are kept sample by sample
EACH = 1 << 25


@dataclass(frozen=True)
class Saliency:
    """Of every atom that could be scored, for each of its indices: float64 vectors of length `atom.size`.

    `second` s_k, `first` f_k: the loss is predicted to change by f + s when k is removed. `error`: the standard error of s
    (zero where nothing was drawn, but for the samples). `taylor`: E|∂ℓ/∂m_k| over samples. `missing`: the others, and why.
    `loss`: the mean loss on the `samples`. `each`: f + s of every sample (N, size), float32, of this process's samples; empty
    where the method does not tell samples apart (`exact`), or where they would take more than `EACH` numbers.
    """

    second: dict[Atom, Tensor]
    first: dict[Atom, Tensor]
    error: dict[Atom, Tensor]
    taylor: dict[Atom, Tensor]
    missing: dict[Atom, str]
    samples: int
    loss: float
    method: str
    each: dict[Atom, Tensor] = field(default_factory=dict[Atom, Tensor])


Totals = Callable[..., tuple[Tensor, ...]]


@dataclass
class _Sums:
    second: Tensor
    square: Tensor
    first: Tensor
    taylor: Tensor
    each: list[Tensor] = field(default_factory=list[Tensor], init=False)


def saliency(
    network: Network,
    batches: Batches,
    *,
    method: Literal["auto", "gauss-newton", "monte-carlo", "exact", "first"] = "auto",
    loss: Loss = "cross_entropy",
    draws: int = 1,
    seed: int = 0,
    output: str | None = None,
    total_of: Totals = lambda *sums: sums,
) -> Saliency:
    """Score every index of every free atom on batches (x (N, …), y (N,)); samples are streamed, nothing is kept.

    `method`: `gauss-newton` makes C backward passes a batch, `monte-carlo` one for each draw, `exact` one Hessian-vector
    product for each gate, `first` none (s stays zero); `auto` is Gauss–Newton up to 32 classes and Monte-Carlo above.
    `total_of` adds sums up over processes that were given shares of the batches. Raises
    NetxformError X0823 where the output is no (N, C) tensor or there is no sample, X0805 where the data does not fit.
    """
    found = gates(network)
    if method != "exact":
        still = {a: "read from a value that is the same for all samples" for g in found.gates if g.still for a in g.atoms}
        found = Gates(found.gates, still | found.missing)
    wanted = [g for g in found.gates if any(a not in found.missing for a in g.atoms)]
    scored = dict.fromkeys(a for g in wanted for a in g.atoms if a not in found.missing)
    run = Backward(network, wanted, found.missing)
    sums = {a: _Sums(*(torch.zeros(a.size, dtype=torch.float64) for _ in range(4))) for a in scored}
    samples, total = 0, 0.0
    generator = torch.Generator().manual_seed(seed)
    chosen: str = method
    for x, y in batches:
        if chosen == "exact":
            total += _exact(network, wanted, sums, x, y, loss, output)
            samples += count(x)
            continue
        z = run.forward(x, output, lambda z, y=y: laid(z, y, loss))
        if chosen == "auto":
            chosen = "gauss-newton" if z[0].numel() <= _AUTO_CLASSES else "monte-carlo"
        samples += count(x)
        few = samples * sum(a.size for a in scored) <= EACH
        for s in sums.values():
            s.each = [*s.each, torch.zeros(count(x), s.first.shape[0])] if few else []
        total += _batch(run, z, y, sums, chosen, loss, draws, generator)
    counted, total = (float(t) for t in total_of(torch.tensor(float(samples)).double(), torch.tensor(total).double()))
    samples = int(counted)
    if not samples:
        raise fail("X0823", "there is no sample to score on")
    each = {a: torch.cat(s.each) for a, s in sums.items() if s.each and a not in run.missing}
    sums = {a: _Sums(*total_of(s.second, s.square, s.first, s.taylor)) for a, s in sums.items()}
    n = float(samples)
    drawn = n * draws if chosen == "monte-carlo" else n
    error = {a: ((s.square / drawn - (s.second / drawn) ** 2).clamp_min(0) / drawn).sqrt() for a, s in sums.items()}
    left = {a: why for a, why in run.missing.items()}
    keep = [a for a in sums if a not in left]
    return Saliency(
        {a: sums[a].second / drawn for a in keep},
        {a: sums[a].first / n for a in keep},
        {a: error[a] for a in keep},
        {a: sums[a].taylor / n for a in keep},
        left,
        samples,
        total / n,
        chosen,
        each,
    )


def _batch(
    run: Backward, z: Tensor, y: Tensor, sums: dict[Atom, _Sums], method: str, loss: Loss, draws: int, rng: torch.Generator
) -> float:
    """Add one batch; returns the sum of its losses."""
    with torch.no_grad():
        target = target_of(y, z, loss)
        each = each_loss(z.double(), target, loss)
        slope = slope_of(z, target, loss)
    last_is_slope = method != "gauss-newton"
    if method == "gauss-newton":
        for atom, (own, first) in _whole(run, z, target, slope, loss).items():
            _add(sums[atom], own, first)
    if method == "monte-carlo":
        for _ in range(draws):
            seedling = drawn(z.detach(), target if loss == "cross_entropy" else None, loss, rng)
            for atom, v in run.backward(z, seedling.to(z), True).items():
                _add(sums[atom], 0.5 * v * v, None, draws)
    if last_is_slope:
        for atom, v in run.backward(z, slope.to(z), False).items():
            _add(sums[atom], None, v)
    return float(each.sum())


def _whole(run: Backward, z: Tensor, target: Tensor, slope: Tensor, loss: Loss) -> dict[Atom, tuple[Tensor, Tensor]]:
    """½ of the Gauss–Newton second derivative, and the first, of every sample (N, size): one backward pass for each score."""
    with torch.no_grad():
        width = z.shape[-1]
        if loss == "mse":
            chance = torch.full(z.shape, 2 / width, dtype=torch.float64)
        elif loss == "bce":
            p = chance_of(z, loss)
            chance = p * (1 - p) / width
        else:
            chance = chance_of(z, loss)
    weight = weights_of(target) if loss == "cross_entropy" else torch.ones(z.shape[:-1], dtype=torch.float64)
    places: list[tuple[int, ...]] = [()] if z.dim() == 2 else [(t,) for t in range(z.shape[1])]
    out: dict[Atom, tuple[Tensor, Tensor]] = {}
    for number, at in enumerate(places):
        moments: dict[Atom, list[Tensor]] = {}
        for c in range(width):
            seedling = torch.zeros_like(z)
            seedling[(slice(None), *at, c)] = 1.0
            last = number + 1 == len(places) and c + 1 == width
            for atom, v in run.backward(z, seedling, not last).items():
                m = moments.setdefault(atom, [torch.zeros_like(v) for _ in range(3)])
                m[0] += chance[(slice(None), *at, c)][:, None] * v * v
                m[1] += chance[(slice(None), *at, c)][:, None] * v
                m[2] += slope[(slice(None), *at, c)][:, None] * v
        for atom, (square, mean, first) in moments.items():
            own = 0.5 * weight[(slice(None), *at)][:, None] * (square - (mean * mean if loss == "cross_entropy" else 0.0))
            held = out.get(atom)
            out[atom] = (own, first) if held is None else (held[0] + own, held[1] + first)
    return out


def _add(sums: _Sums, second: Tensor | None, slope: Tensor | None, draws: int = 1) -> None:
    if sums.each:
        for part in (None if second is None else second / draws, None if slope is None else -slope):
            if part is not None:
                sums.each[-1] += part.float()
    if second is not None:
        sums.second += second.sum(0)
        sums.square += (second * second).sum(0)
    if slope is not None:
        sums.first -= slope.sum(0)
        sums.taylor += slope.abs().sum(0)


# --- exact -----------------------------------------------------------------------------------------------------------


def gate_loss(
    network: Network, wanted: list[Gate], x: Given, y: Tensor, m: dict[Atom, Tensor], loss: Loss, output: str | None = None
) -> Tensor:
    """The mean loss as a function of the gates m (one vector for each atom)."""

    def act(gate: Gate, value: Tensor) -> Tensor:
        for atom in gate.atoms:
            if atom in m:
                index = gate.index(atom)
                factor = torch.cat([m[atom], torch.ones(1, dtype=m[atom].dtype)])[index]
                value = value * along_axis(factor.to(value.dtype), gate.axis, value.dim())
        return value

    z = laid(logits(Gated(network, wanted)(arguments(x), act), output), y, loss)
    return each_loss(z, target_of(y, z, loss), loss).mean()


def _exact(
    network: Network, wanted: list[Gate], sums: dict[Atom, _Sums], x: Given, y: Tensor, loss: Loss, output: str | None
) -> float:
    """Double backward: one Hessian-vector product for each gate. Sums are over samples, hence the factor N."""
    dtype = next((p.dtype for p in network.module.parameters() if p.dtype.is_floating_point), torch.float32)
    n = count(x)
    m = {a: torch.ones(a.size, dtype=dtype, requires_grad=True) for a in sums}
    # the fused attention kernels have no second derivative
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        value = gate_loss(network, wanted, x, y, m, loss, output)
        slopes = torch.autograd.grad(value, list(m.values()), create_graph=True) if m else ()
        for atom, slope in zip(m, slopes, strict=True):
            second = torch.stack([_diagonal(slope, m[atom], k) for k in range(atom.size)]).double()
            sums[atom].second += 0.5 * n * second
            sums[atom].square += n * (0.5 * second) ** 2
            sums[atom].first -= n * slope.detach().double()
    return float(value.detach()) * n


def _diagonal(slope: Tensor, m: Tensor, k: int) -> Tensor:
    if not slope.requires_grad:
        return torch.zeros((), dtype=slope.dtype)
    found: Any = torch.autograd.grad(slope[k], m, retain_graph=True, allow_unused=True)[0]
    return torch.zeros((), dtype=slope.dtype) if found is None else found[k]
