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

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from netxform.core.axes import Atom
from netxform.core.network import Network, evaluating
from netxform.errors import fail
from netxform.numerics.gates import Gate, Gated, Gates, along_axis, gates

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Literal["cross_entropy", "mse"]
_AUTO_CLASSES = 32  # with more, `auto` draws classes instead of going through all of them


@dataclass(frozen=True)
class Saliency:
    """Of every atom that could be scored, for each of its indices: float64 vectors of length `atom.size`.

    `second` s_k, `first` f_k: the loss is predicted to change by f + s when k is removed. `error`: the standard error of s
    (zero where nothing was drawn, but for the samples). `taylor`: E|∂ℓ/∂m_k| over samples. `missing`: the others, and why.
    `loss`: the mean loss on the `samples`.
    """

    second: dict[Atom, Tensor]
    first: dict[Atom, Tensor]
    error: dict[Atom, Tensor]
    taylor: dict[Atom, Tensor]
    missing: dict[Atom, str]
    samples: int
    loss: float
    method: str


Totals = Callable[..., tuple[Tensor, ...]]


@dataclass
class _Sums:
    second: Tensor
    square: Tensor
    first: Tensor
    taylor: Tensor


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
    wanted = [g for g in found.gates if any(a not in found.missing for a in g.atoms)]
    scored = dict.fromkeys(a for g in wanted for a in g.atoms if a not in found.missing)
    run = _Backward(network, wanted, found.missing)
    sums = {a: _Sums(*(torch.zeros(a.size, dtype=torch.float64) for _ in range(4))) for a in scored}
    samples, total = 0, 0.0
    generator = torch.Generator().manual_seed(seed)
    chosen: str = method
    for x, y in batches:
        if chosen == "exact":
            total += _exact(network, wanted, sums, x, y, loss, output)
            samples += len(x)
            continue
        z = run.forward(x, output)
        if chosen == "auto":
            chosen = "gauss-newton" if z.shape[1] <= _AUTO_CLASSES else "monte-carlo"
        samples += len(x)
        total += _batch(run, z, y, sums, chosen, loss, draws, generator)
    counted, total = (float(t) for t in total_of(torch.tensor(float(samples)).double(), torch.tensor(total).double()))
    samples = int(counted)
    if not samples:
        raise fail("X0823", "there is no sample to score on")
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
    )


def _batch(
    run: _Backward, z: Tensor, y: Tensor, sums: dict[Atom, _Sums], method: str, loss: Loss, draws: int, rng: torch.Generator
) -> float:
    """Add one batch; returns the sum of its losses."""
    with torch.no_grad():
        p = z.double().softmax(1)
        target = _target(y, z, loss)
        each = F.cross_entropy(z.double(), target, reduction="none") if loss == "cross_entropy" else _squared(z, target)
        width = z.shape[1]
        slope = p - F.one_hot(target, width) if loss == "cross_entropy" else 2 * (z.double() - target) / width
    last_is_slope = method != "gauss-newton"
    if method == "gauss-newton":
        moments: dict[Atom, list[Tensor]] = {}
        for c in range(width):
            chance = p[:, c : c + 1] if loss == "cross_entropy" else torch.full_like(p[:, :1], 2 / width)
            for atom, v in run.backward(z, F.one_hot(torch.full((len(z),), c), width).to(z), c + 1 < width).items():
                m = moments.setdefault(atom, [torch.zeros_like(v) for _ in range(3)])
                m[0] += chance * v * v
                m[1] += chance * v
                m[2] += slope[:, c : c + 1] * v
        for atom, (square, mean, first) in moments.items():
            own = 0.5 * (square - (mean * mean if loss == "cross_entropy" else 0.0))
            _add(sums[atom], own, first)
    if method == "monte-carlo":
        for _ in range(draws):
            if loss == "cross_entropy":
                label = torch.multinomial(p, 1, generator=rng)[:, 0]
                seedling = F.one_hot(label, width) - p
            else:
                seedling = torch.randn(z.shape, generator=rng, dtype=torch.float64) * (2 / width) ** 0.5
            for atom, v in run.backward(z, seedling.to(z), True).items():
                _add(sums[atom], 0.5 * v * v, None)
    if last_is_slope:
        for atom, v in run.backward(z, slope.to(z), False).items():
            _add(sums[atom], None, v)
    return float(each.sum())


def _add(sums: _Sums, second: Tensor | None, slope: Tensor | None) -> None:
    if second is not None:
        sums.second += second.sum(0)
        sums.square += (second * second).sum(0)
    if slope is not None:
        sums.first -= slope.sum(0)
        sums.taylor += slope.abs().sum(0)


def _target(y: Tensor, z: Tensor, loss: Loss) -> Tensor:
    if loss == "cross_entropy":
        if y.dtype.is_floating_point or y.shape != z.shape[:1]:
            raise fail("X0823", f"cross-entropy needs one class number a sample, and the targets are {tuple(y.shape)}")
        return y
    if not y.dtype.is_floating_point:
        return F.one_hot(y, z.shape[1]).double()
    return y.double().reshape(z.shape)


def _squared(z: Tensor, target: Tensor) -> Tensor:
    return (z.double() - target).square().mean(1)


def logits(value: Any, output: str | None) -> Tensor:
    """The scored output (N, C) of what the network returns. Raises NetxformError X0823."""
    if isinstance(value, dict):
        if output is None and len(value) == 1:
            output = next(iter(value))
        if output not in value:
            raise fail(
                "X0319", "the network has several outputs", helps=(f"write `output=` one of {', '.join(map(str, value))}",)
            )
        value = value[output]
    if not isinstance(value, Tensor) or value.dim() != 2:
        raise fail("X0823", "curvature is defined here for one output of shape (samples, classes)")
    return value


class _Backward:
    """A forward pass that keeps what the gates see, and backward passes that give v (N, size) of every atom."""

    def __init__(self, network: Network, wanted: list[Gate], missing: dict[Atom, str]) -> None:
        self.gated = Gated(network, wanted)
        self.shapes = {n.name: n.meta.get("shape") for n in network.module.graph.nodes}
        self.missing = dict(missing)
        self.example = next((i.shape[0] for i in network.inputs if i.shape), 1)
        self.index = {(g, a): g.index(a) for g in wanted for a in g.atoms}
        self.whole = {(g, a): g.dim == (a,) for g in wanted for a in g.atoms}
        self.copied: set[Gate] = set()
        self.seen: dict[Gate, Tensor] = {}
        self.checked = False

    def forward(self, x: Tensor, output: str | None) -> Tensor:
        """The logits (N, C)."""
        versions: dict[Gate, int] = {}
        z = x

        def act(gate: Gate, value: Tensor) -> Tensor:
            if value.requires_grad:
                kept = value.clone() if gate in self.copied else value.view_as(value)
            else:
                kept = (value.clone() if gate in self.copied else value).detach().requires_grad_()
            self.seen[gate] = kept
            versions[gate] = kept._version
            return kept

        for _ in range(2):
            self.seen = {}
            with torch.enable_grad():
                try:
                    z = logits(self.gated((x,), act), output)
                except (RuntimeError, ValueError) as error:
                    raise fail("X0805", f"the network fails on the data: {str(error).splitlines()[0]}") from error
            # a value that the network overwrites later is kept as a copy, in a second run
            changed = {g for g, v in self.seen.items() if v._version != versions[g]}
            if not changed:
                break
            self.copied |= changed
        self.count = len(x)
        self.place = {g: self._batch_axis(g, v) for g, v in self.seen.items()}
        if not self.checked and self.seen and z.requires_grad:
            self._check(z)
        return z

    def _batch_axis(self, gate: Gate, value: Tensor) -> int | None:
        """The axis along which samples lie, outermost in it; None where there is none."""
        if value.shape[0] == self.count and gate.axis % value.dim() != 0:
            return 0
        held = self.shapes.get(gate.operand) if gate.layer is None else None
        for i, n in enumerate(value.shape):
            if i == gate.axis % value.dim() or n % self.count:
                continue
            if held is None or len(held) != value.dim() or n * self.example == held[i] * self.count:
                return i
        return None

    def _check(self, z: Tensor) -> None:
        """One backward pass from the first sample: where its gradient is not within its own part, samples are not apart."""
        self.checked = True
        values = list(self.seen)
        odd = [g for g in values if self.place[g] is None or self.seen[g].shape[0] != self.count]
        if not odd:
            return
        found: Any = torch.autograd.grad(z[0].sum(), [self.seen[g] for g in odd], retain_graph=True, allow_unused=True)
        for gate, slope in zip(odd, found, strict=True):
            axis = self.place[gate]
            if slope is None:
                continue
            rest = None if axis is None else slope.movedim(axis, 0).unflatten(0, (self.count, -1))[1:]
            if rest is None or bool((rest != 0).any()):
                why = "its values do not belong to one sample each"
                self.missing |= {a: self.missing.get(a, why) for a in gate.atoms}

    def backward(self, z: Tensor, seedling: Tensor, keep: bool) -> dict[Atom, Tensor]:
        """V (N, size), float64, of every scored atom: Σ over its gates and places of a · ∂(seedling · z)/∂a."""
        chosen = list(self.seen)
        out: dict[Atom, Tensor] = {}
        if not chosen or not z.requires_grad:
            return out
        slopes: Any = torch.autograd.grad(z, [self.seen[g] for g in chosen], seedling, retain_graph=keep, allow_unused=True)
        with torch.no_grad():
            for gate, slope in zip(chosen, slopes, strict=True):
                axis = self.place[gate]
                if axis is None:
                    continue
                if slope is None:
                    v = self.seen[gate].new_zeros((self.count, self.seen[gate].shape[gate.axis]))
                else:
                    v = _places(self.seen[gate], slope, axis, gate.axis % slope.dim(), self.count)
                v = v.double()
                for atom in gate.atoms:
                    if atom in self.missing:
                        continue
                    held = out.get(atom)
                    if self.whole[gate, atom]:
                        out[atom] = v if held is None else held + v
                        continue
                    index = self.index[gate, atom]
                    mine = index >= 0
                    base = torch.zeros((self.count, atom.size), dtype=torch.float64) if held is None else held
                    out[atom] = base.index_add(1, index[mine], v[:, mine])
        return out


def _places(value: Tensor, slope: Tensor, batch: int, axis: int, count: int) -> Tensor:
    """Σ over all places of value · slope, for every sample and position along the axis: (N, size)."""
    product = value * slope
    if batch == 0 and product.shape[0] == count:
        others = [i for i in range(product.dim()) if i not in (0, axis)]
        return product.sum(others) if others else product
    moved = product.movedim(axis, -1).movedim(batch if batch < axis else batch - 1, 0)
    return moved.reshape(count, -1, moved.shape[-1]).sum(1)


# --- exact -----------------------------------------------------------------------------------------------------------


def gate_loss(
    network: Network, wanted: list[Gate], x: Tensor, y: Tensor, m: dict[Atom, Tensor], loss: Loss, output: str | None = None
) -> Tensor:
    """The mean loss as a function of the gates m (one vector for each atom)."""

    def act(gate: Gate, value: Tensor) -> Tensor:
        for atom in gate.atoms:
            if atom in m:
                index = gate.index(atom)
                factor = torch.cat([m[atom], torch.ones(1, dtype=m[atom].dtype)])[index]
                value = value * along_axis(factor.to(value.dtype), gate.axis, value.dim())
        return value

    z = logits(Gated(network, wanted)((x,), act), output)
    target = _target(y, z, loss)
    return F.cross_entropy(z, target) if loss == "cross_entropy" else F.mse_loss(z, target.to(z.dtype))


def _exact(
    network: Network, wanted: list[Gate], sums: dict[Atom, _Sums], x: Tensor, y: Tensor, loss: Loss, output: str | None
) -> float:
    """Double backward: one Hessian-vector product for each gate. Sums are over samples, hence the factor N."""
    dtype = next((p.dtype for p in network.module.parameters() if p.dtype.is_floating_point), torch.float32)
    n = len(x)
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


def mean_loss(network: Network, batches: Batches, loss: Loss, output: str | None = None) -> tuple[float, float, int]:
    """The mean loss in eval mode, the share of right classes, and the number of samples."""
    total, right, count = 0.0, 0, 0
    with torch.no_grad(), evaluating(network.module):
        for x, y in batches:
            z = logits(network.module(x), output).double()
            target = _target(y, z, loss)
            each = F.cross_entropy(z, target, reduction="none") if loss == "cross_entropy" else _squared(z, target)
            total += float(each.sum())
            right += 0 if y.dtype.is_floating_point else int((z.argmax(1) == y).sum())
            count += len(x)
    if not count:
        raise fail("X0823", "there is no sample to measure the loss on")
    return total / count, right / count, count


def each_batch(x: Tensor, y: Tensor, size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
    """Tensors as batches."""
    yield from zip(x.split(size), y.split(size), strict=True)


__all__ = ["Batches", "Gates", "Saliency", "each_batch", "gate_loss", "logits", "mean_loss", "saliency"]
