"""Low rank: W ≈ U V, the best of its rank (Eckart, Young 1936; Mirsky 1960), its error measured and never estimated."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from netxform.linalg.gram import checked, descending, distance, frobenius, gram, one_thread, signs
from netxform.linalg.krylov import leading_ritz

# below this share of ‖W‖² a tail drowns in the rounding of the Gram matrix, whose condition is the square of W's
GRAM_FLOOR = 1e-8
# from this side on, a Krylov space is cheaper than the dense decomposition
LARGE = 512
# a bound that is a difference of squares is stated where it is so many times its rounding
_CLEAR = 1e4


@dataclass(frozen=True)
class LowRank:
    """W ≈ U_OR @ V_RI: contiguous, of W's type, the singular values split evenly between the two, canonical signs.

    `error` is ‖W − UV‖_F of these very factors and `norm` is ‖W‖_F, both in float64. `method` is "exact" or "randomised".
    `gain` bounds ‖W − UV‖₂, where the decomposition tells: the first singular value that was left out.
    """

    U_OR: Tensor
    V_RI: Tensor
    error: float
    norm: float
    method: str
    gain: float | None = None


@dataclass(frozen=True)
class Spectral:
    """All singular values of W, and the singular vectors of its shorter side: what every rank is cut from.

    `squares` (descending, float64) are σ²; `X` holds the vectors as columns, in the precision of W; `short` says which side
    of W they belong to (0: rows). `doubt` is what rounding may have made of a sum of them (infinite where it is coarse).
    """

    squares: Tensor
    X: Tensor
    short: int
    doubt: float = math.inf

    def cut(self, W_OI: Tensor, rank: int) -> LowRank:
        """The truncation to `rank` of the matrix that this was made of; its error is measured on the factors."""
        W = checked("the matrix", W_OI, 2)
        rank = max(1, min(rank, self.X.shape[1]))
        basis = self.X[:, :rank].to(W.dtype)
        X, Y = (basis, basis.mT @ W) if self.short == 0 else (W @ basis, basis.mT)
        found = _low_rank(W_OI, X, Y, float(self.squares.sum().sqrt()), "exact")
        # the j-th singular value of what is left is at least the (rank + j)-th of W (Weyl): of the squares of the error, the
        # first may have what the others do not need. Vectors rounded to the precision of W are in that as well
        tail = float(self.squares[rank]) if rank < len(self.squares) else 0.0
        first = tail + max(0.0, found.error**2 - float(self.squares[rank:].sum()))
        return replace(found, gain=math.sqrt(first + self.doubt) if first > _CLEAR * self.doubt else None)


def spectral(W_OI: Tensor, *, precise: bool = True, most: int | None = None) -> Spectral:
    """The decomposition of the Gram matrix of the shorter side (in float64, or for a coarse one in the precision of W).

    A coarse one is good for comparing errors above a per cent of ‖W‖, at less than half the time. Only the `most` leading
    vectors are kept; ranks above are cut to it.
    """
    W = checked("the matrix", W_OI, 2)
    short = 0 if W.shape[0] <= W.shape[1] else 1
    tall = W if short == 0 else W.mT
    exact = precise or W.dtype == torch.float64
    G = gram(tall) if exact else tall @ tall.mT
    doubt = sum(W.shape) * torch.finfo(torch.float64).eps * float(G.trace()) if exact else math.inf
    with one_thread():
        values, vectors = torch.linalg.eigh(G)
    del G
    kept = vectors[:, -most:] if most is not None else vectors
    return Spectral(values.flip(0).clamp_min(0.0).double(), kept.to(W.dtype).flip(1), short, doubt)


def truncate(W_OI: Tensor, rank: int, *, exact: bool = False, seed: int = 0, slack: float = 1.005) -> LowRank:
    """W_OI (O×I) cut to `rank`, which is clipped to 1 … min(O, I).

    The error is at most `slack` times the least possible (1 + 1e-6 with `exact`): proven by the certificate of `krylov.py` with
    the random start `seed` (it fails with probability 1e-12) where the rank is small beside a large matrix, else by dense
    decompositions in float64. Raises X0811 for NaN or infinity, X0411 for what is no matrix.
    """
    W = checked("the matrix", W_OI, 2)
    rank = max(1, min(rank, *W.shape))
    with one_thread():
        norm = frobenius(W)
        if min(W.shape) >= LARGE and 8 * rank <= min(W.shape):
            limit = 1 + 1e-6 if exact else max(slack, 1 + 1e-6)
            tall = W if W.shape[0] >= W.shape[1] else W.mT
            found = leading_ritz(tall, rank, norm, limit, seed)
            if found is not None:
                sides = (found.B_MR, found.V_NR.mT) if tall is W else (found.V_NR, found.B_MR.mT)
                out = _low_rank(W_OI, *sides, norm, "exact" if exact else "randomised")
                # the certificate speaks of the projection; the factors as stored are held to it
                if W_OI.dtype != W.dtype or out.error**2 <= limit**2 * (out.error**2 - found.excess):
                    return out
        X, Y = _dense(W, rank)
        return _low_rank(W_OI, X, Y, norm, "exact")


def spectrum(W_OI: Tensor) -> Tensor:
    """All min(O, I) singular values of W_OI, float64, descending.

    From the eigenvalues of the Gram matrix of the shorter side in float64: absolute accuracy about 1e-8 of the largest, so
    values below 1e-7 of the largest are noise.
    """
    W = checked("the matrix", W_OI, 2)
    with one_thread():
        short = W if W.shape[0] <= W.shape[1] else W.mT
        return torch.linalg.eigvalsh(gram(short)).flip(0).clamp_min(0.0).sqrt()


def tails(values: Tensor) -> Tensor:
    """tails[r] = (Σ_{i ≥ r} σᵢ²)^½, the error of the best rank r: length n+1, from ‖W‖_F down to 0."""
    squares = values.double().square()
    # summed from the small end, so that small tails keep their digits
    sums = squares.flip(0).cumsum(0).flip(0)
    return torch.cat([sums, sums.new_zeros(1)]).sqrt()


def rank_by_vbmf(W_OI: Tensor) -> int:
    """The rank of analytic empirical variational Bayes (Nakajima, Sugiyama, Babacan, Tomioka 2013, JMLR 14), noise estimated.

    The number of singular values that stand out of the noise; 0 where none does.
    """
    sigma = spectrum(W_OI)
    L, M = sorted(W_OI.shape)
    total = float(sigma.square().sum())
    if total == 0.0:
        return 0
    s = sigma.square() / (total / (L * M))
    alpha = L / M
    # theorem 2 and corollary 1: what lies below the threshold is noise for every noise variance
    tau = 2.5129 * alpha**0.5
    x_bar = (1 + tau) * (1 + alpha / tau)
    most = max(0, min(-(-L * M // (L + M)) - 1, L - 1))
    lower = max(float(s[min(most, L - 1)]) / (M * x_bar), float(s[most:].mean()) / M)
    upper = 1.0

    def energy(variance: float) -> float:
        """The free energy as a function of the noise variance, per theorem 9, up to a constant."""
        x = (s / (M * variance)).clamp_min(1e-300)
        z = x[x > x_bar]
        b = z - (1 + alpha)
        t = 0.5 * (b + (b.square() - 4 * alpha).clamp_min(0.0).sqrt())
        noise = x[x <= x_bar]
        signal = (z - t + ((t + 1) / z).log() + alpha * (t / alpha + 1).log()).sum()
        return float((noise - noise.log()).sum() + signal)

    from scipy.optimize import minimize_scalar  # imported here: it takes a tenth of a second

    lower = min(lower, upper)
    best, least = upper, energy(upper)
    # the energy has kinks and may have several valleys: each piece of a grid is searched
    grid = torch.logspace(_log10(lower), _log10(upper), 17, dtype=torch.float64).tolist()
    for low, high in pairwise(grid):
        if not low < high:
            continue
        found = minimize_scalar(energy, bounds=(low, high), method="bounded")
        for variance in (float(found.x), low):
            if energy(variance) < least:
                best, least = variance, energy(variance)
    return int((s > M * best * x_bar).sum())


def _dense(W: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """X (O×r) and Y (r×I), float64, with X Y the best of the rank; columns of X and rows of Y orthogonal."""
    if W.shape[0] > W.shape[1]:
        right, left = _dense(W.mT, rank)
        return left.mT, right.mT
    squares, vectors = descending(gram(W))
    tail, total = float(squares[rank:].sum()), float(squares.sum())
    if rank < len(squares) and tail < GRAM_FLOOR * total:
        U, sigma, V = torch.linalg.svd(W.double(), full_matrices=False)
        return U[:, :rank], sigma[:rank, None] * V[:rank]
    X = vectors[:, :rank]
    return X, X.mT @ W.double()


def _low_rank(given: Tensor, X: Tensor, Y: Tensor, norm: float, method: str) -> LowRank:
    """The factors of X Y (orthogonal columns, orthogonal rows), each component shared evenly between the sides."""
    left, right = X.norm(dim=0), Y.norm(dim=1)
    flip = signs(X)
    share = torch.where((left > 0) & (right > 0), (right / left.clamp_min(1e-300)).sqrt(), 0.0) * flip
    back = torch.where((left > 0) & (right > 0), (left / right.clamp_min(1e-300)).sqrt(), 0.0) * flip
    U, V = (X * share).to(given.dtype).contiguous(), (Y * back[:, None]).to(given.dtype).contiguous()
    return LowRank(U, V, distance(given.detach(), U, V), norm, method)


def _log10(x: float) -> float:
    return math.log10(max(x, 1e-300))
