"""Low rank: the error is the spectral tail, certificates are honest, data-aware factors are the best for the data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from netxform.errors import NetxformError
from netxform.linalg import svd
from netxform.linalg.krylov import leading_ritz
from netxform.linalg.moments import LEVELS, Known, largest_sum, majorant
from netxform.linalg.svd import rank_by_vbmf, spectrum, tails, truncate

KINDS = ["flat", "decaying", "steep", "deficient", "zero", "clustered"]


def matrix(rows: int, columns: int, kind: str, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    n = min(rows, columns)
    U, V = (torch.linalg.qr(torch.randn(m, n, generator=g, dtype=torch.float64))[0] for m in (rows, columns))
    i = torch.arange(n, dtype=torch.float64)
    sigma = {
        "flat": 1 + 0.1 * torch.rand(n, generator=g, dtype=torch.float64),
        "decaying": 1 / (1 + i),
        "steep": 2.0 ** (-1.5 * i),
        "deficient": (i < (n + 1) // 2).double(),
        "zero": torch.zeros(n, dtype=torch.float64),
        "clustered": 1.0 + (i < n // 2).double(),
    }[kind]
    return ((U * sigma) @ V.mT).to(dtype)


sides = st.integers(1, 40)
seeds = st.integers(0, 1000)


@given(sides, sides, st.sampled_from(KINDS), st.integers(-2, 50), seeds, st.sampled_from([torch.float64, torch.float32]))
@example(40, 40, "steep", 20, 0, torch.float64)
@settings(max_examples=150)
def test_the_error_is_the_spectral_tail(rows: int, columns: int, kind: str, rank: int, seed: int, dtype: torch.dtype) -> None:
    W = matrix(rows, columns, kind, seed, dtype)
    found = truncate(W, rank)
    r = max(1, min(rank, rows, columns))
    assert found.U_OR.shape == (rows, r) and found.V_RI.shape == (r, columns)
    assert found.U_OR.dtype == found.V_RI.dtype == dtype and found.U_OR.is_contiguous() and found.V_RI.is_contiguous()
    real = float((W.double() - found.U_OR.double() @ found.V_RI.double()).norm())
    assert found.error == pytest.approx(real, rel=1e-9, abs=1e-15)
    assert found.norm == pytest.approx(float(W.double().norm()), rel=1e-12)
    best = float(torch.linalg.svdvals(W.double())[r:].square().sum().sqrt())
    # each entry of the product of r rounded pairs
    rounding = 8 * torch.finfo(dtype).eps * found.norm
    assert best - rounding <= found.error <= best * (1 + 1e-6) + rounding


@given(sides, sides, st.sampled_from(KINDS), seeds)
@settings(max_examples=30)
def test_errors_fall_with_the_rank_and_factors_are_balanced(rows: int, columns: int, kind: str, seed: int) -> None:
    W = matrix(rows, columns, kind, seed)
    errors = []
    for rank in range(1, min(rows, columns) + 1):
        found = truncate(W, rank)
        errors.append(found.error)
        left, right = found.U_OR.norm(dim=0), found.V_RI.norm(dim=1)
        torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-12)
        largest = found.U_OR.gather(0, found.U_OR.abs().argmax(0, keepdim=True))
        assert bool((largest >= 0).all())
    assert all(b <= a + 1e-12 * (1 + a) for a, b in pairwise(errors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["flat", "decaying", "steep", "deficient", "zero"])
@pytest.mark.parametrize("exact", [False, True])
def test_large_matrices_err_by_at_most_slack_times_the_best(kind: str, dtype: torch.dtype, exact: bool) -> None:
    W = matrix(600, 700, kind, 3, dtype)
    found = truncate(W, 24, exact=exact)
    best = float(tails(spectrum(W))[24])
    real = float((W.double() - found.U_OR.double() @ found.V_RI.double()).norm())
    assert found.error == pytest.approx(real, rel=1e-9, abs=1e-15)
    rounding = 8 * torch.finfo(dtype).eps * found.norm
    assert real <= best * (1 + 1e-6 if exact else 1.005) + rounding


@pytest.mark.parametrize(
    ("kind", "slack"), [("decaying", 1.005), ("decaying", 1 + 1e-6), ("gaussian", 1.005), ("gaussian", 1.05)]
)
@pytest.mark.parametrize("seed", range(4))
def test_a_certificate_is_never_above_the_truth(kind: str, slack: float, seed: int) -> None:
    W = torch.randn(640, 640, dtype=torch.float64) if kind == "gaussian" else matrix(640, 640, kind, seed)
    best = float(torch.linalg.svdvals(W)[32:].square().sum())
    found = leading_ritz(W, 32, float(W.norm()), slack, seed)
    assert found is not None
    left = float((W - found.B_MR @ found.V_NR.mT).square().sum())
    assert left - found.excess <= best * (1 + 1e-12) <= left * (1 + 1e-11)
    assert left <= slack**2 * (left - found.excess) * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["gaussian", "flat", "clustered", "decaying"])
def test_moments_bound_the_sum_of_the_largest_eigenvalues(kind: str, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    n, probes, blocks = 300, 16, 5
    W = torch.randn(n, n, generator=g, dtype=torch.float64) if kind == "gaussian" else matrix(n, n, kind, seed)
    A = W.mT @ W
    values = torch.linalg.eigvalsh(A).flip(0)
    start = A @ torch.randn(n, probes, generator=g, dtype=torch.float64)
    space = torch.linalg.qr(start)[0]
    for _ in range(blocks - 1):
        space = torch.cat([space, torch.linalg.qr((grown := A @ space[:, -probes:]) - space @ (space.mT @ grown))[0]], 1)
        space = torch.linalg.qr(space)[0]
    theta, turn = torch.linalg.eigh(space.mT @ A @ space)
    weight = ((space @ turn).mT @ start).square().sum(1)
    ritz, weights, top, trace = theta.flip(0), weight.flip(0), float(values[0]), float(values.sum())
    for rank in (5, 20, 60):
        bound = largest_sum(Known(ritz, weights, probes, blocks, n, top, trace), rank, 1e-12)
        assert bound >= float(values[:rank].sum())
        # it says more than the trace, which bounds every such sum
        assert kind == "decaying" or bound < trace


@pytest.mark.parametrize("level", [1, 20, 63])
@pytest.mark.parametrize("degree", [1, 9, 25])
def testmajorants_lie_above(level: int, degree: int) -> None:
    s, top, below = majorant(level, degree)
    x = np.random.default_rng(level).random(20_000)
    p = x * x * np.polynomial.chebyshev.chebval(2 * x - 1, s) + below
    assert (p >= np.maximum(x - level / LEVELS, 0.0)).all() and (p <= top).all()


def test_the_fast_way_is_taken_and_turned_down() -> None:
    assert truncate(matrix(600, 700, "decaying", 0), 24).method == "randomised"
    # nothing stands out: no proof can succeed at a small space
    assert truncate(torch.eye(600), 24).error == pytest.approx((600 - 24) ** 0.5, rel=1e-6)


@given(sides, sides, st.sampled_from(KINDS), seeds)
@settings(max_examples=50)
def test_spectrum_and_tails_agree(rows: int, columns: int, kind: str, seed: int) -> None:
    W = matrix(rows, columns, kind, seed)
    values = spectrum(W)
    real = torch.linalg.svdvals(W)
    torch.testing.assert_close(values, real, rtol=1e-6, atol=1e-7 * float(real[0]) + 1e-300)
    tail = tails(values)
    assert len(tail) == len(values) + 1 and float(tail[-1]) == 0.0
    for rank in range(len(values)):
        assert float(tail[rank]) == pytest.approx(float(values[rank:].square().sum()) ** 0.5, rel=1e-12)


@pytest.mark.parametrize("rank", [0, 3, 8])
def test_vbmf_finds_a_planted_rank(rank: int) -> None:
    g = torch.Generator().manual_seed(rank)
    signal = torch.randn(80, rank, generator=g) @ torch.randn(rank, 120, generator=g)
    assert rank_by_vbmf(signal + 0.3 * torch.randn(80, 120, generator=g)) == rank
    assert rank_by_vbmf(torch.zeros(4, 5)) == 0


def test_same_bits_at_any_number_of_threads() -> None:
    W, before = matrix(600, 600, "decaying", 1, torch.float32), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append((truncate(W, 20), truncate(W, 200)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a.U_OR, b.U_OR) and torch.equal(a.V_RI, b.V_RI) and a.error == b.error


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    W = torch.ones(4, 5)
    W[2, 3] = bad
    for work in (
        lambda: truncate(W, 2),
        lambda: spectrum(W),
        lambda: rank_by_vbmf(W),
    ):
        with pytest.raises(NetxformError) as caught:
            work()
        assert caught.value.diagnostics[0].code == "X0811"
    for shape in ((3,), (0, 4)):
        with pytest.raises(NetxformError):
            svd.truncate(torch.zeros(shape), 1)
