"""The leading singular vectors by block Lanczos, with a certificate that what is left over is near the least possible.

A = WᵀW. A block Krylov space of a random start (Golub, Underwood 1977; Musco, Musco 2015) gives ℓ ≥ r Ritz vectors V with
values Θ and residuals R = AV − VΘ. In a basis that completes V, A = [[Θ, Rᵀ], [R, C]], and for every t > 0

    A ≼ diag(Θ + RᵀR / t, C + t)        as  [[0, Rᵀ], [R, 0]] ≼ diag(RᵀR / t, t).

So with c ≥ λmax(C) the sum F of the r largest eigenvalues of A (Ky Fan 1949) is at most

    F ≤ Σ_{j ≤ r} max(θ_j, c + t) + ‖R‖² / t,

and the best error of rank r is at least (‖W‖² − F)^½. No gap in the spectrum is needed.

For c, Lanczos on C from fresh Gaussian probes x. Were all Ritz values ≤ ξ, then Σ p(λᵢ)² (λᵢ − ξ) xᵢ² ≤ 0 for each
polynomial p of degree q − 1. With the Chebyshev polynomial of the fourth kind p² (ξ − λ) ≤ ξ on [0, ξ], and p² (λ − ξ) =
ξ sinh²((2q−1) arcsinh √η) at λ = ξ(1+η): so an eigenvalue ξ(1+η) of C whose eigenvector u overlaps one probe by
(uᵀx)² ≥ δ has

    η ≤ sinh²(arcsinh(‖x‖ / √δ) / (2q − 1)).

Where many singular values are alike, `moments.py` bounds F instead, from what the same space knows.

All b probes overlap by less than δ with probability (2Φ(√δ) − 1)^b, which is put at 10⁻¹²: the same rate as Kuczyński,
Woźniakowski 1992, for several probes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import asinh, inf, log, sinh
from statistics import NormalDist

import torch
from torch import Tensor

from netxform.linalg.moments import Known, largest_sum

FAILURE = 1e-12
PROBES = 16
STEPS = 30
# an excess below this share of ‖W‖² is not to be told from the rounding of products in float32
ROUNDING = 1e-5
# rows of W held in float64 at once
ROWS = 512
# where the largest Ritz value is at most so many times the r-th, moments may bound the sum of the largest ones
FLAT = 8.0


@dataclass(frozen=True)
class Ritz:
    """V (N×r, orthonormal) and its image WV (M×r), columns orthogonal; best error² ≥ error² − `excess`."""

    V_NR: Tensor
    B_MR: Tensor
    excess: float


def leading_ritz(W_MN: Tensor, rank: int, norm: float, slack: float, seed: int) -> Ritz | None:
    """Ritz vectors of the `rank` largest singular values whose error is certified ≤ slack · best; None where that stays open.

    Works in W's type, on copies of the size of the space, never of W. `norm` is ‖W‖_F. It gives up when the space has grown
    past what the dense decomposition would cost.
    """
    rows, columns = W_MN.shape
    width = max(16, min(rank // 2, 64))
    most = min(columns // 2, 6 * rank + 4 * width)
    generator = torch.Generator().manual_seed(seed)
    start, probe = (torch.randn(columns, b, generator=generator, dtype=torch.float64).to(W_MN.dtype) for b in (width, PROBES))
    basis, image = W_MN.new_empty(columns, most + width), W_MN.new_empty(rows, most)
    basis[:, :width], first = torch.linalg.qr(W_MN.mT @ (W_MN @ start))
    overlap, length = _overlap(width), float(start.norm(dim=0).max())
    size, due, before, seen = 0, rank + width, 0.0, 0
    while size + width <= most:
        new = slice(size, size + width)
        image[:, new] = W_MN @ basis[:, new]
        size += width
        basis[:, size : size + width], beta = _next(W_MN.mT @ image[:, new], basis[:, :size])
        if size < due:
            continue
        theta, vectors = _ritz(image[:, :size])
        left = norm * norm - float(theta[:rank].sum())
        if left <= 0.0:
            return None
        residual = (beta.double() @ vectors[size - width :]).square().sum(0)
        allowed = left * (1 - slack**-2)
        precise = W_MN.dtype != torch.float64 and allowed < ROUNDING * norm * norm
        bound = _Bound(theta, residual.cumsum(0), rank)
        kept, short = bound.kept(allowed)
        # the shortfall falls by about one factor a block: how many more blocks, or is it hopeless?
        rate = (log(before / short) / (size - seen)) if before > short > 0 else 0.0
        ahead = log(short) / rate if short > 1 and rate > 0 else 0.0
        if rate > 0 and size + ahead > 1.3 * most:
            return None
        before, seen = short, size
        due = size + max(width, min(4 * width, int(0.8 * ahead)))
        if theta[0] <= FLAT * theta[rank - 1] and not precise:
            blocks = size // width
            ceiling = float(theta[0]) * (1 + sinh(asinh(length / overlap) / (2 * blocks - 1)) ** 2)
            weight = (first.double().mT @ vectors[:width]).square().sum(0)
            known = Known(theta, weight, width, blocks, columns, ceiling, norm * norm)
            F = largest_sum(known, rank, FAILURE)
            excess = F - float(theta[:rank].sum())
            if excess <= allowed:
                turn = vectors[:, :rank].to(W_MN.dtype)
                return Ritz(basis[:, :size] @ turn, image[:, :size] @ turn, max(0.0, excess))
            due = size + width * max(1, min(4, round(2 * log(excess / allowed)))) if excess < inf else due
            # what the residuals promise counts on a gap after the Ritz values, and there is none
            if size < 4 * rank:
                continue
        if short > 1:
            continue
        turn, after = vectors[:, :kept].to(W_MN.dtype), float(theta[kept])
        v_NL, b_ML = basis[:, :size] @ turn, image[:, :size] @ turn
        if precise:
            # single precision found the space, and cannot tell how good it is
            v_NL, b_ML, theta = _refined(W_MN, v_NL)
        # measured again, so that the rounding of all that went before is in it
        image_back = _back(W_MN, b_ML)
        bound = _measured(theta, image_back, v_NL, rank)
        if precise and bound.excess(kept, 1.03 * after) > 0.5 * allowed:
            # a step of subspace iteration takes what float32 left in the vectors that stand out most
            v_NL, b_ML, theta = _refined(W_MN, image_back)
            bound = _measured(theta, _back(W_MN, b_ML), v_NL, rank)
        allowed = (norm * norm - float(bound.theta_K[:rank].sum())) * (1 - slack**-2)
        excess = _certify(W_MN, v_NL.to(W_MN.dtype), probe, bound, allowed)
        if excess <= allowed:
            return Ritz(v_NL[:, :rank], b_ML[:, :rank], excess)
    return None


def difference_norm(W_MN: Tensor, U_MR: Tensor, V_RN: Tensor, seed: int = 0) -> float:
    """‖W − U V‖₂ is at most this, but for a probability FAILURE; within a per cent, by Lanczos on the difference in float64."""
    if W_MN.shape[0] < W_MN.shape[1]:
        return difference_norm(W_MN.mT, V_RN.mT, U_MR.mT, seed)
    U, V = U_MR.double(), V_RN.double()
    if W_MN.shape[1] <= PROBES * STEPS:
        return float(torch.linalg.matrix_norm(W_MN.double() - U @ V, 2))
    generator = torch.Generator().manual_seed(seed)
    probe = torch.randn(W_MN.shape[1], PROBES, generator=generator, dtype=torch.float64)
    reach = asinh(float(probe.norm(dim=0).max()) / _overlap(PROBES))
    basis, images = torch.linalg.qr(probe)[0], list[Tensor]()
    last, least = basis, inf
    for q in range(1, STEPS + 1):
        image = torch.cat([part.double() @ last for part in W_MN.split(ROWS)]) - U @ (V @ last)
        images.append(image)
        if q % 5 == 0:
            xi = float(torch.linalg.eigvalsh(_gram(torch.cat(images, 1)))[-1].clamp_min(0.0))
            least = min(least, xi * (1 + sinh(reach / (2 * q - 1)) ** 2))
            if least <= 1.02 * xi:
                break
        last = _next(_back(W_MN, image) - V.mT @ (U.mT @ image), basis)[0]
        basis = torch.cat([basis, last], 1)
    return least**0.5


@dataclass(frozen=True)
class _Bound:
    """How far F may exceed Σ θ_j, given c for the ℓ Ritz vectors that are kept."""

    theta_K: Tensor
    residual_K: Tensor  # ‖R‖² of the first ℓ, at ℓ − 1
    rank: int

    def excess(self, kept: int, c: float) -> float:
        """The least over t."""
        t_T = c * torch.logspace(-3, 1, 41, dtype=torch.float64)
        raised = (c + t_T[None] - self.theta_K[: self.rank, None]).clamp_min(0.0).sum(0)
        return float((raised + self.residual_K[kept - 1] / t_T).min())

    def kept(self, allowed: float) -> tuple[int, float]:
        """ℓ, the smallest of a few that would do were c 3 % above the next Ritz value, or the best; its excess / `allowed`."""
        choices = {min(len(self.theta_K) - 1, self.rank + self.rank * more // 16) for more in (0, 1, 2, 4, 6)}
        tried = [(self.excess(k, 1.03 * float(self.theta_K[k])) / allowed, k) for k in sorted(choices)]
        short, kept = next((pair for pair in tried if pair[0] < 0.6), min(tried))
        return kept, short


def _certify(W: Tensor, V: Tensor, probe: Tensor, bound: _Bound, allowed: float) -> float:
    """An upper bound of the excess; stops at the first that is allowed, or when none can be."""
    off = _off(probe, V)
    reach = asinh(float(off.norm(dim=0).max()) / _overlap(probe.shape[1]))
    spans, images = [torch.linalg.qr(off)[0]], list[Tensor]()
    kept, least = V.shape[1], inf
    for q in range(1, STEPS + 1):
        images.append(W @ spans[-1])
        if q % 3 == 0:
            xi = float(torch.linalg.eigvalsh(_gram(torch.cat(images, 1)))[-1])
            least = min(least, bound.excess(kept, xi * (1 + sinh(reach / (2 * q - 1)) ** 2)))
            # even if ξ were the truth it would not do
            if least <= allowed or bound.excess(kept, xi) > allowed:
                break
        rest = _off(_off(W.mT @ images[-1], V), torch.cat(spans, 1))
        spans.append(torch.linalg.qr(rest)[0])
    return least


def _measured(theta: Tensor, image_NL: Tensor, V_NL: Tensor, rank: int) -> _Bound:
    """The bound of Ritz vectors V with WᵀW V = image."""
    return _Bound(theta, _off(image_NL, V_NL).double().square().sum(0).cumsum(0), rank)


def _overlap(probes: int) -> float:
    """√δ: all of so many Gaussian probes overlap a given direction by less with probability FAILURE."""
    return NormalDist().inv_cdf((1 + FAILURE ** (1 / probes)) / 2)


def _next(Z_NB: Tensor, basis_NS: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of Z beside `basis`, and the triangle that makes Z's new part of it."""
    fresh, beta = torch.linalg.qr(Z_NB - basis_NS @ (basis_NS.mT @ Z_NB))
    again = torch.linalg.qr(fresh - basis_NS @ (basis_NS.mT @ fresh))
    # columns that were mostly rounding are not yet orthogonal to the rest; where nothing is left of them no pass helps
    for _ in range(2):
        if float(again.R.diagonal().abs().min()) >= 0.5:
            break
        again = torch.linalg.qr(again.Q - basis_NS @ (basis_NS.mT @ again.Q))
    return again.Q, beta


def _refined(W_MN: Tensor, V_NL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The Ritz vectors, their images and values in the span of V, in float64."""
    Q = torch.linalg.qr(V_NL.double())[0]
    image = torch.cat([part.double() @ Q for part in W_MN.split(ROWS)])
    theta, turn = _ritz(image)
    return Q @ turn, image @ turn, theta


def _back(W_MN: Tensor, B_ML: Tensor) -> Tensor:
    """Wᵀ B in the precision of B."""
    if W_MN.dtype == B_ML.dtype:
        return W_MN.mT @ B_ML
    out = B_ML.new_zeros(W_MN.shape[1], B_ML.shape[1])
    for part, b in zip(W_MN.split(ROWS), B_ML.split(ROWS), strict=True):
        out.addmm_(part.to(B_ML.dtype).mT, b)
    return out


def _off(Z: Tensor, V: Tensor) -> Tensor:
    """Z without its part in the span of V; projected twice, for once is not orthogonal to rounding."""
    once = Z - V @ (V.mT @ Z)
    return once - V @ (V.mT @ once)


def _gram(B: Tensor) -> Tensor:
    return (B.mT @ B).double()


def _ritz(B: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(_gram(B))
    return values.flip(0), vectors.flip(1)
