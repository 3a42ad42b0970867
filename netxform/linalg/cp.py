"""CP: a kernel as a sum of rank-one terms, by alternating least squares with Gram products (Carroll, Chang 1970).

Sweeps start from an extrapolation of the last two, and again from the best where that went too far (Nesterov's momentum with
restarts for ALS: Mitchell, Ye, De Sterck 2020).

Two products with the kernel a sweep instead of one a mode, and no Khatri–Rao matrix larger than the kernel's window: the
factors of output and input channels each contract the kernel once, and what is left is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from netxform.errors import fail
from netxform.linalg.gram import checked, frobenius, leading, one_thread


@dataclass(frozen=True)
class CP:
    """K ≈ Σ_r ⊗_m factors[m][:, r]: one factor (n×R) a mode, the weights absorbed evenly, of K's type.

    `error` is ‖K − K̂‖_F and `norm` ‖K‖_F, both in float64. `degeneracy` is Σ_r ‖term r‖ / ‖K̂‖: near 1 to √R it is healthy;
    large values mean terms that cancel each other, for a best approximation need not exist (de Silva, Lim 2008).
    """

    factors: tuple[Tensor, ...]
    error: float
    norm: float
    degeneracy: float
    iterations: int


def cp(K: Tensor, rank: int, *, iterations: int = 50, tolerance: float = 1e-6, seed: int = 0) -> CP:
    """K (O×I×window, order 2 to 5) as `rank` terms; stops when the relative error falls by less than `tolerance` a sweep.

    Starts at the leading directions of each mode, filled up from `seed` where the rank exceeds the dimension. No bound is
    known beforehand; the error is measured.
    """
    K0 = checked("the kernel", K)
    if not 2 <= K0.ndim <= 5 or rank < 1:
        raise fail(
            "X0411", f"rank {rank} of a kernel of shape {tuple(K0.shape)}: a rank of at least 1 and order 2 to 5 are needed"
        )
    O, I = K0.shape[:2]  # noqa: E741
    window = K0.shape[2:]
    S = prod(window)
    with one_thread():
        norm = frobenius(K0)
        if norm == 0.0:
            return CP(tuple(K.new_zeros(n, rank) for n in K0.shape), 0.0, 0.0, 1.0, 0)
        K_OIS = K0.reshape(O, I, S).double() / norm
        K_OSI = K_OIS.transpose(1, 2).contiguous()
        # the factors: output channels, input channels, window
        a, b, *c = _start(K_OIS.reshape(K0.shape), rank, seed)
        best, error, sweeps, pace = [a, b, *c], float("inf"), 0, 1.0
        while sweeps < iterations:
            sweeps += 1
            T_OSR = (K_OSI.reshape(O * S, I) @ b).reshape(O, S, rank)
            a = _unit(_solve(torch.einsum("osr,sr->or", T_OSR, _khatri_rao(c, rank)), [b, *c]))
            Z_SR = torch.einsum("osr,or->sr", T_OSR, a)
            for m in range(len(c)):
                others = [a, b, *c[:m], *c[m + 1 :]]
                c[m] = _unit(_solve(_fold(Z_SR.reshape(*window, rank), c, m), others))
            T_ISR = (K_OIS.reshape(O, I * S).mT @ a).reshape(I, S, rank)
            M_IR = torch.einsum("isr,sr->ir", T_ISR, _khatri_rao(c, rank))
            b = _solve(M_IR, [a, *c])
            square = float(_hadamard([a, b, *c]).sum())
            reached = max(0.0, 1 - 2 * float((M_IR * b).sum()) + square) ** 0.5
            if reached >= error and pace > 1.0:
                # too far: back to the best, and a plain sweep from there
                a, b, *c = best
                pace = 1.0
                continue
            before, error = error, reached
            last, best = best, [a, b, *c]
            if before - error < tolerance:
                break
            if sweeps > 1:
                ahead = (1 + (1 + 4 * pace * pace) ** 0.5) / 2
                push, pace = (pace - 1) / ahead, ahead
                b, *c = [f + push * (f - g) for f, g in zip(best[1:], last[1:], strict=True)]
        factors = _even(best, norm)
        out = tuple(f.to(K.dtype).contiguous() for f in factors)
        return CP(out, *_measure(K0, out), sweeps)


def _start(K: Tensor, rank: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start: list[Tensor] = []
    for mode, n in enumerate(K.shape):
        U = leading(K.movedim(mode, 0).reshape(n, -1), min(n, rank))
        more = torch.rand(n, rank - U.shape[1], generator=generator, dtype=torch.float64)
        start.append(torch.cat([U, more], dim=1))
    return start


def _unit(A_NR: Tensor) -> Tensor:
    return A_NR / A_NR.norm(dim=0).clamp_min(1e-300)


def _khatri_rao(factors: Sequence[Tensor], rank: int) -> Tensor:
    """Products of one row of each factor (Πn × R), the last index fastest."""
    out = torch.ones(1, rank, dtype=torch.float64)
    for f in factors:
        out = (out[:, None] * f[None]).reshape(-1, rank)
    return out


def _fold(Z_SR: Tensor, factors: Sequence[Tensor], mode: int) -> Tensor:
    """Σ over all window indices but `mode` of Z_SR (window×R) times the other factors: n×R."""
    z = Z_SR
    for axis in reversed(range(len(factors))):
        if axis != mode:
            shape = [1] * len(factors) + [z.shape[-1]]
            shape[axis] = factors[axis].shape[0]
            z = (z * factors[axis].reshape(shape)).sum(axis, keepdim=True)
    return z.reshape(-1, z.shape[-1])


def _hadamard(factors: Sequence[Tensor]) -> Tensor:
    """The product, entry by entry, of the Gram matrices (R×R) of the factors."""
    out = factors[0].mT @ factors[0]
    for f in factors[1:]:
        out = out * (f.mT @ f)
    return out


def _solve(M_NR: Tensor, others: Sequence[Tensor]) -> Tensor:
    """The least-squares factor: M times the inverse of the Gram product; the ridge, at rounding, keeps it solvable."""
    G = _hadamard(others)
    ridge = 1e-13 * float(G.diagonal().mean())
    while True:
        L, bad = torch.linalg.cholesky_ex(G + ridge * torch.eye(len(G), dtype=G.dtype))
        if not int(bad):
            return torch.cholesky_solve(M_NR.mT, L).mT
        ridge *= 100


def _even(factors: Sequence[Tensor], scale: float) -> list[Tensor]:
    norms = torch.stack([f.norm(dim=0) for f in factors])
    size = (norms.prod(dim=0) * scale) ** (1 / len(factors))
    return [f * torch.where(n > 0, size / n.clamp_min(1e-300), 0.0) for f, n in zip(factors, norms, strict=True)]


def _measure(K: Tensor, factors: Sequence[Tensor]) -> tuple[float, float, float]:
    """Error, norm and degeneracy, from the factors as they are returned."""
    A, *rest = [f.double() for f in factors]
    P = _khatri_rao(rest, A.shape[1])
    error = square = 0.0
    step = max(1, (1 << 22) // P.shape[0])
    for part, a in zip(K.reshape(K.shape[0], -1).split(step), A.split(step), strict=True):
        rebuilt = a @ P.mT
        error += float((part.double() - rebuilt).square().sum())
        square += float(rebuilt.square().sum())
    terms = float(torch.stack([f.double().norm(dim=0) for f in factors]).prod(dim=0).sum())
    return error**0.5, frobenius(K), terms / square**0.5 if square > 0 else 1.0
