"""Tucker-2 and tensor trains: truncated in one pass with two-sided bounds, by Gram matrices in float64.

Kernels are O×I×(any spatial dimensions): 1-D to 3-D convolutions alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from math import prod
from typing import Any

import torch
from torch import Tensor

from netxform.errors import fail
from netxform.linalg.cp import CP as CP
from netxform.linalg.cp import cp as cp
from netxform.linalg.gram import checked, distance, frobenius, gram, leading, one_thread, signed
from netxform.linalg.krylov import leading_ritz
from netxform.linalg.svd import LARGE, tails

# of orthogonal iteration in a half sweep
STEPS = 2


@dataclass(frozen=True)
class Tucker2:
    """K ≈ Σ_qr core_QRHW[q, r] · U_OQ[:, q] ⊗ V_RI[r]: a 1×1 layer in, the core, a 1×1 layer out; of K's type.

    `error` is ‖K − K̂‖_F of these very factors and `norm` is ‖K‖_F, both in float64.
    """

    core_QRHW: Tensor
    U_OQ: Tensor
    V_RI: Tensor
    error: float
    norm: float


@dataclass(frozen=True)
class TT:
    """A tensor train: cores of shape (r, n, r′), or (r, o, i, r′) of a matrix; r = 1 at both ends; error and norm as above."""

    cores: tuple[Tensor, ...]
    error: float
    norm: float


def tucker2(K_OIHW: Tensor, ranks: tuple[int, int], *, sweeps: int = 1) -> Tucker2:
    """K_OIHW cut to `ranks` (Q output, R input channels), each clipped to 1 … its dimension.

    Sequentially truncated HOSVD (Vannieuwenhoven, Vandebril, Meerbergen 2012), then `sweeps` of HOOI (De Lathauwer, De Moor,
    Vandewalle 2000) by orthogonal iteration from the subspace that is there, which never makes it worse: tr UᵀGU is convex in
    U, and a step maximises its linear part. The error lies between the larger and the root of the squared sum of the tails of
    `hosvd_bounds`.
    """
    K = checked("the kernel", K_OIHW)
    if K.ndim < 2:
        raise fail("X0411", f"a kernel of shape {tuple(K.shape)}: output and input channels are needed")
    O, I = K.shape[:2]  # noqa: E741
    S = prod(K.shape[2:])
    most_q, most_r = max(1, min(ranks[0], O)), max(1, min(ranks[1], I))
    # more than the other side can carry gives zeros only
    Q, R = min(most_q, most_r * S), min(most_r, most_q * S)
    with one_thread():
        K_OSI = K.reshape(O, I, S).transpose(1, 2).contiguous()
        steps = sweeps if (Q < O and R < I) else 0
        # the shorter side first: its Gram matrix is the cheaper one of the full kernel
        if O <= I:
            v_IR, u_OQ, t_RSQ = _both_sides(K_OSI.permute(2, 1, 0).contiguous(), R, Q, steps)
            t_QSR = t_RSQ.permute(2, 1, 0)
        else:
            u_OQ, v_IR, t_QSR = _both_sides(K_OSI, Q, R, steps)
        dtype = K_OIHW.dtype
        core_QRS = t_QSR.transpose(1, 2).contiguous().to(dtype)
        out = (core_QRS.reshape(Q, R, *K.shape[2:]), u_OQ.to(dtype), v_IR.mT.contiguous().to(dtype))
        rebuilt_QSI = core_QRS.double().transpose(1, 2) @ out[2].double()
        error = distance(K_OSI.reshape(O, S * I), out[1], rebuilt_QSI.reshape(Q, S * I))
        return Tucker2(*out, error, frobenius(K))


def mode_products(T: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """T with its first modes multiplied by matrices (r × n each): T ×₁ M₁ ×₂ M₂ …, by tensorly, as fast as one contraction."""
    tl: Any = import_module("tensorly")  # its names depend on the backend, and have no types
    with tl.backend_context("pytorch", local_threadsafe=True):
        return tl.tenalg.multi_mode_dot(T, list(matrices), modes=list(range(len(matrices))))


def hosvd_bounds(K_OIHW: Tensor) -> tuple[Tensor, Tensor]:
    """The tails of the output and the input unfolding (lengths O+1 and I+1, float64), by rank.

    max(τ_o[Q], τ_i[R])² ≤ best² ≤ error² of `tucker2` ≤ τ_o[Q]² + τ_i[R]².
    """
    K = checked("the kernel", K_OIHW)
    with one_thread():
        K_OIS = K.reshape(*K.shape[:2], prod(K.shape[2:]))
        output = gram(K_OIS.reshape(K.shape[0], -1))
        inputs = gram(K_OIS.transpose(0, 1).reshape(K.shape[1], -1))
        values = (torch.linalg.eigvalsh(g).flip(0).clamp_min(0.0).sqrt() for g in (output, inputs))
        return tails(next(values)), tails(next(values))


def tt_svd(T: Tensor, ranks: int | Sequence[int]) -> TT:
    """T (n_1 × … × n_d) as a train of d cores, `ranks` between them clipped to what the sides can carry.

    TT-SVD (Oseledets 2011): error² ≤ Σ of the squared tails of the d − 1 unfoldings, hence at most √(d−1) times the best.
    """
    given, shape = checked("the tensor", T), tuple(T.shape)
    wanted = [ranks] * (len(shape) - 1) if isinstance(ranks, int) else list(ranks)
    if len(wanted) != len(shape) - 1:
        raise fail(
            "X0411", f"{len(wanted)} ranks for a tensor of order {len(shape)}: there are {len(shape) - 1} between its cores"
        )
    with one_thread():
        # whichever end has the smaller unfolding goes next: each is a projection, and the bound knows no order
        heads, ends, rest = list[Tensor](), list[Tensor](), given
        first, last, left, right = 0, len(shape) - 1, 1, 1
        while first < last:
            n, m = left * shape[first], shape[last] * right
            if n <= m:
                rest = rest.reshape(n, -1)
                rank = max(1, min(wanted[first], *rest.shape))
                U = _train_side(rest, rank)
                heads.append(U.reshape(left, shape[first], rank))
                rest, left, first = U.to(rest.dtype).mT @ rest, rank, first + 1
            else:
                rest = rest.reshape(-1, m)
                rank = max(1, min(wanted[last - 1], *rest.shape))
                V = _train_side(rest.mT, rank)
                ends.append(V.mT.reshape(rank, shape[last], right))
                rest, right, last = rest @ V.to(rest.dtype), rank, last - 1
        made = [*heads, rest.reshape(left, shape[first], right), *reversed(ends)]
        cores = [c.to(T.dtype).contiguous() for c in made]
        return TT(tuple(cores), _train_distance(given, cores), frobenius(given))


def tt_matrix(W_OI: Tensor, out_modes: Sequence[int], in_modes: Sequence[int], ranks: int | Sequence[int]) -> TT:
    """W_OI as a train of cores (r, o_k, i_k, r′), with O = Π o_k and I = Π i_k (Novikov and others 2015)."""
    W, d = checked("the matrix", W_OI, 2), len(out_modes)
    if len(in_modes) != d or prod(out_modes) != W.shape[0] or prod(in_modes) != W.shape[1]:
        raise fail(
            "X0411",
            f"modes {tuple(out_modes)} and {tuple(in_modes)} do not make a matrix of shape {tuple(W.shape)}",
            notes=("as many output as input modes, whose products are the two dimensions",),
        )
    pairs = [axis for k in range(d) for axis in (k, d + k)]
    T = W.reshape(*out_modes, *in_modes).permute(pairs).reshape([o * i for o, i in zip(out_modes, in_modes, strict=True)])
    train = tt_svd(T.to(W_OI.dtype), ranks)
    cores = [c.reshape(c.shape[0], o, i, c.shape[2]) for c, o, i in zip(train.cores, out_modes, in_modes, strict=True)]
    return TT(tuple(cores), train.error, train.norm)


def modes_of(n: int, count: int) -> tuple[int, ...]:
    """`n` as a product of `count` factors as equal as its prime factors allow (greedily), in descending order."""
    if n < 1 or count < 1:
        raise fail("X0411", f"{n} cannot be taken apart into {count} factors")
    primes, rest, p = list[int](), n, 2
    while p * p <= rest:
        while rest % p == 0:
            primes.append(p)
            rest //= p
        p += 1
    if rest > 1:
        primes.append(rest)
    modes = [1] * count
    for prime in reversed(primes):
        smallest = modes.index(min(modes))
        modes[smallest] *= prime
    return tuple(sorted(modes, reverse=True))


def _both_sides(K_OSI: Tensor, Q: int, R: int, sweeps: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (O×Q), V (I×R) and the core (Q×S×R), the input side first.

    Gram matrices are made in float64; a product in K's precision moves a subspace by rounding, and the error by its square.
    """
    O, S, I = K_OSI.shape  # noqa: E741
    v_IR = leading(K_OSI.reshape(O * S, I).mT, R).to(K_OSI.dtype)
    t_OSR = K_OSI @ v_IR
    u_OQ = leading(t_OSR.reshape(O, S * R), Q).to(K_OSI.dtype)
    for _ in range(sweeps):
        v_IR = _turned(_by_output(K_OSI, u_OQ).reshape(Q * S, I).mT, v_IR)
        t_OSR = K_OSI @ v_IR
        u_OQ = _turned(t_OSR.reshape(O, S * R), u_OQ)
    return u_OQ, v_IR, _by_output(t_OSR, u_OQ)


def _by_output(K_OSX: Tensor, U_OQ: Tensor) -> Tensor:
    return (U_OQ.mT @ K_OSX.reshape(K_OSX.shape[0], -1)).reshape(-1, *K_OSX.shape[1:])


def _turned(A_MN: Tensor, U_MR: Tensor) -> Tensor:
    """Steps of orthogonal iteration with A Aᵀ: the share of A in the span of U never falls."""
    out_MR = U_MR
    for _ in range(STEPS):
        out_MR = torch.linalg.qr(A_MN @ (A_MN.mT @ out_MR))[0]
    return signed(out_MR)


def _train_side(A_MN: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors (M×rank): by a Krylov space, certified to 1e-6, where that is cheaper."""
    if min(A_MN.shape) >= LARGE and 8 * rank <= min(A_MN.shape):
        found = leading_ritz(A_MN.mT, rank, frobenius(A_MN), 1 + 1e-6, 0)
        if found is not None:
            return signed(found.V_NR)
    return leading(A_MN, rank)


def _train_distance(T: Tensor, cores: Sequence[Tensor]) -> float:
    """‖T − train‖_F in float64, by slices along the first dimension."""
    rest = cores[-1].double().reshape(cores[-1].shape[0], -1)
    for core in reversed(cores[1:-1]):
        r, n, s = core.shape
        rest = (core.double().reshape(r * n, s) @ rest).reshape(r, -1)
    first = cores[0].double().reshape(cores[0].shape[1], -1)
    if len(cores) == 1:
        return frobenius(T.double() - cores[0].reshape(T.shape).double())
    return distance(T.reshape(T.shape[0], -1), first, rest)
