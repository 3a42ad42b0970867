"""Tucker within its two-sided bounds, trains within theirs, CP honest and deterministic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorly as tl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.tenalg import khatri_rao, multi_mode_dot
from torch import Tensor

from netxform.errors import NetxformError
from netxform.linalg.cp import _khatri_rao
from netxform.linalg.svd import spectrum, tails
from netxform.linalg.tensor import (
    CP,
    TT,
    Tucker2,
    _by_output,
    cp,
    hosvd_bounds,
    mode_products,
    modes_of,
    tt_matrix,
    tt_svd,
    tucker2,
)

seeds = st.integers(0, 1000)
dims = st.integers(1, 12)
windows = st.sampled_from([(), (3,), (1, 1), (3, 3), (1, 5), (2, 2, 2)])
kinds = st.sampled_from(["noise", "decaying", "low", "zero"])


def kernel(shape: tuple[int, ...], kind: str, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    K = torch.randn(shape, generator=g, dtype=torch.float64)
    if kind == "decaying":
        K = K * (2.0 ** -torch.arange(shape[0]).double()).reshape(-1, *[1] * (len(shape) - 1))
    if kind == "low":
        K = torch.einsum("or,r...->o...", K.reshape(shape[0], -1)[:, :1], K[:1])
    return (K * 0 if kind == "zero" else K).to(dtype)


# what the factors stand for, by tensorly: it shares no code with what is tested


def of_tucker(t: Tucker2) -> Tensor:
    factors = [t.U_OQ.double().numpy(), t.V_RI.double().T.numpy()]
    return torch.from_numpy(multi_mode_dot(t.core_QRHW.double().numpy(), factors, modes=[0, 1]))


def of_cp(c: CP) -> Tensor:
    return torch.from_numpy(tl.cp_to_tensor((None, [f.double().numpy() for f in c.factors])))


def of_train(t: TT) -> Tensor:
    """The train as one tensor; the pairs (o, i) of a matrix's cores stay together."""
    modes = [n for c in t.cores for n in c.shape[1:-1]]
    cores = [c.double().reshape(c.shape[0], -1, c.shape[-1]).numpy() for c in t.cores]
    return torch.from_numpy(tl.tt_to_tensor(cores)).reshape(modes)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(1, 4), seeds)
@settings(max_examples=30)
def test_products_of_factors_are_those_of_tensorly(sizes: list[int], rank: int, seed: int) -> None:
    factors = [kernel((n, rank), "noise", seed + i) for i, n in enumerate(sizes)]
    assert torch.equal(_khatri_rao(factors, rank), torch.from_numpy(khatri_rao([f.numpy() for f in factors])))
    K, Q = kernel((*sizes, 3), "noise", seed), 2
    wanted = tl.tenalg.mode_dot(K.numpy(), kernel((Q, sizes[0]), "noise", seed).numpy(), 0)
    found = _by_output(K.reshape(sizes[0], -1, 3), kernel((Q, sizes[0]), "noise", seed).mT)
    assert found.reshape(wanted.shape).numpy() == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@given(
    dims, dims, windows, kinds, st.integers(0, 14), st.integers(0, 14), seeds, st.sampled_from([torch.float64, torch.float32])
)
@settings(max_examples=120)
def test_tucker_lies_within_its_bounds(
    O: int,  # noqa: E741
    I: int,  # noqa: E741
    window: tuple[int, ...],
    kind: str,
    Q: int,
    R: int,
    seed: int,
    dtype: torch.dtype,
) -> None:
    K = kernel((O, I, *window), kind, seed, dtype)
    t, (output, inputs) = tucker2(K, (Q, R)), hosvd_bounds(K)
    assert len(output) == O + 1 and len(inputs) == I + 1
    q, r = t.core_QRHW.shape[:2]
    rounding = 16 * torch.finfo(dtype).eps * t.norm + 1e-7 * t.norm
    assert t.error == pytest.approx(float((K.double() - of_tucker(t)).norm()), rel=1e-9, abs=1e-14 * (1 + t.norm))
    assert max(float(output[q]), float(inputs[r])) - rounding <= t.error
    # what the clipping of ranks to each other took away was zero
    wanted_q, wanted_r = max(1, min(Q, O)), max(1, min(R, I))
    assert t.error <= math.hypot(float(output[wanted_q]), float(inputs[wanted_r])) + rounding
    assert t.error <= tucker2(K, (Q, R), sweeps=0).error + rounding


@given(dims, dims, windows, seeds)
@settings(max_examples=30)
def test_full_ranks_reproduce(O: int, I: int, window: tuple[int, ...], seed: int) -> None:  # noqa: E741
    K = kernel((O, I, *window), "noise", seed)
    assert tucker2(K, (O, I)).error <= 1e-12 * float(K.norm())
    assert tt_svd(K, 10_000).error <= 1e-12 * float(K.norm())


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), kinds, st.integers(1, 9), seeds)
@settings(max_examples=100)
def test_trains_lie_within_their_bounds(shape: list[int], kind: str, rank: int, seed: int) -> None:
    T = kernel(tuple(shape), kind, seed)
    t = tt_svd(T, rank)
    cuts = [float(tails(spectrum(T.reshape(math.prod(shape[:k]), -1)))[c.shape[0]]) for k, c in enumerate(t.cores) if k > 0]
    assert t.error == pytest.approx(float((T - of_train(t)).norm()), rel=1e-9, abs=1e-14 * (1 + t.norm))
    # best ≥ each tail, so the bound is at most √(d−1) times the best; 1e-7: the floor of the spectra that it is checked by
    assert max(cuts, default=0.0) - 1e-7 * t.norm <= t.error <= math.sqrt(sum(c * c for c in cuts)) + 1e-7 * t.norm
    assert tt_svd(T, rank + 1).error <= math.sqrt(max(1, len(shape) - 1)) * t.error + 1e-12 * t.norm


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4), st.integers(1, 6), seeds)
@settings(max_examples=40)
def test_a_matrix_train_is_the_matrix(modes: list[tuple[int, int]], rank: int, seed: int) -> None:
    outs, ins = [o for o, _ in modes], [i for _, i in modes]
    W = kernel((math.prod(outs), math.prod(ins)), "noise", seed)
    t, d = tt_matrix(W, outs, ins, rank), len(modes)
    assert [c.shape[1:3] for c in t.cores] == [torch.Size(m) for m in modes]
    rebuilt = of_train(t).permute([2 * k for k in range(d)] + [2 * k + 1 for k in range(d)]).reshape(W.shape)
    assert t.error == pytest.approx(float((W - rebuilt).norm()), rel=1e-9, abs=1e-13 * t.norm)
    assert tt_matrix(W, outs, ins, 10_000).error <= 1e-12 * t.norm


@given(st.integers(1, 3000), st.integers(1, 5))
@settings(max_examples=100)
def test_modes_multiply_to_the_size(n: int, count: int) -> None:
    modes = modes_of(n, count)
    assert len(modes) == count and math.prod(modes) == n and list(modes) == sorted(modes, reverse=True)


@given(st.integers(1, 8), st.integers(1, 8), windows, kinds, st.integers(1, 10), seeds)
@settings(max_examples=60)
def test_cp_says_what_its_factors_are(O: int, I: int, window: tuple[int, ...], kind: str, rank: int, seed: int) -> None:  # noqa: E741
    K = kernel((O, I, *window), kind, seed)
    c, again = cp(K, rank, iterations=15), cp(K, rank, iterations=15)
    assert all(torch.equal(a, b) for a, b in zip(c.factors, again.factors, strict=True))
    assert [f.shape for f in c.factors] == [torch.Size([n, rank]) for n in K.shape]
    rebuilt = of_cp(c)
    assert c.error == pytest.approx(float((K - rebuilt).norm()), rel=1e-8, abs=1e-12 * (1 + c.norm))
    # least squares over the last factor: never worse than nothing
    assert c.error <= c.norm * (1 + 1e-6)
    assert c.degeneracy >= 1 - 1e-9


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_cp_finds_a_planted_sum(rank: int) -> None:
    planted = CP(tuple(torch.randn(n, rank, dtype=torch.float64) for n in (16, 12, 3, 3)), 0, 0, 0, 0)
    K = of_cp(planted)
    assert cp(K.float(), rank, iterations=300, tolerance=1e-9).error <= 1e-2 * float(K.norm())
    assert cp(K, rank, iterations=1).error >= cp(K, rank, iterations=60).error - 1e-9 * float(K.norm())


def test_what_makes_no_sense_is_refused() -> None:
    bad = torch.ones(3, 4, 3, 3)
    bad[0, 0, 0, 0] = float("nan")
    for code, work in [
        ("X0811", lambda: tucker2(bad, (2, 2))),
        ("X0811", lambda: cp(bad, 2)),
        ("X0811", lambda: tt_svd(bad, 2)),
        ("X0411", lambda: tt_svd(torch.ones(2, 3, 4), [2])),
        ("X0411", lambda: tt_matrix(torch.ones(4, 6), (2, 2), (2, 2), 2)),
        ("X0411", lambda: cp(torch.ones(3), 2)),
        ("X0411", lambda: tucker2(torch.ones(3), (1, 1))),
        ("X0411", lambda: modes_of(0, 2)),
    ]:
        with pytest.raises(NetxformError) as caught:
            work()
        assert caught.value.diagnostics[0].code == code


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_lifted(dtype: torch.dtype) -> None:
    K = kernel((6, 5, 3, 3), "decaying", 0, dtype)
    for found, rebuilt in (
        (t := tucker2(K, (3, 3)), of_tucker(t)),
        (c := cp(K, 4), of_cp(c)),
        (s := tt_svd(K, 3), of_train(s)),
    ):
        assert found.error == pytest.approx(float((K.double() - rebuilt).norm()), rel=1e-8)
    assert t.U_OQ.dtype == c.factors[0].dtype == s.cores[0].dtype == dtype


@given(st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 1000))
def test_mode_products_are_contractions(shape: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    t, a, b = rng.normal(size=shape), rng.normal(size=(2, shape[0])), rng.normal(size=(3, shape[1]))
    found = mode_products(torch.tensor(t), [torch.tensor(a), torch.tensor(b)])
    assert np.allclose(found.numpy(), np.einsum("ijk,ai,bj->abk", t, a, b), rtol=1e-12, atol=1e-12)
