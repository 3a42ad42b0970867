"""What every factorization rests on, against numpy: Gram matrices, norms, leading vectors; and what Ritz values certify."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netxform.linalg.cp import cp
from netxform.linalg.gram import CACHED, distance, frobenius, gram, leading, one_thread
from netxform.linalg.krylov import _Bound
from netxform.linalg.tensor import modes_of, tt_svd

sides = st.integers(1, 30)
seeds = st.integers(0, 10**6)
dtypes = st.sampled_from([torch.float32, torch.float64])


def drawn(rows: int, columns: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@given(sides, sides, seeds, dtypes)
@example(3, 2 * (CACHED // 3) + 7, 0, torch.float32)
@settings(max_examples=40)
def test_the_gram_matrix_is_the_product(rows: int, columns: int, seed: int, dtype: torch.dtype) -> None:
    A = drawn(rows, columns, seed, dtype)
    exact = A.double().numpy() @ A.double().numpy().T
    np.testing.assert_allclose(gram(A).numpy(), exact, rtol=1e-10, atol=1e-10 * np.abs(exact).max())


@given(sides, sides, seeds, dtypes, st.sampled_from([1.0, 1e-30, 1e30]))
@example(4, 5, 0, torch.float64, 1e-200)
@example(4, 5, 0, torch.float64, 1e200)
@example(3, CACHED // 2, 0, torch.float32, 1.0)
@settings(max_examples=40)
def test_norms_and_distances_are_numpys(rows: int, columns: int, seed: int, dtype: torch.dtype, scale: float) -> None:
    A = drawn(rows, columns, seed, dtype) * scale
    plain = A.double().numpy()
    largest = np.abs(plain).max()
    assert frobenius(A) == pytest.approx(largest * np.linalg.norm(plain / largest), rel=1e-9)
    assert frobenius(A * 0) == 0.0
    if scale == 1.0:
        U, V = drawn(rows, 2, seed + 1, dtype), drawn(2, columns, seed + 2, dtype)
        wanted = np.linalg.norm(plain - U.double().numpy() @ V.double().numpy())
        assert distance(A, U, V) == pytest.approx(wanted, rel=1e-9)


@given(sides, sides, seeds, st.integers(1, 5))
@settings(max_examples=40)
def test_leading_vectors_span_what_numpys_do(rows: int, columns: int, seed: int, rank: int) -> None:
    """On a matrix whose singular values are apart."""
    n = min(rows, columns)
    rank = min(rank, n)
    U, V = (np.linalg.qr(drawn(m, n, seed + i).numpy())[0] for i, m in enumerate((rows, columns)))
    A = torch.from_numpy((U * 1.5 ** -np.arange(n)) @ V.T)
    found = leading(A, rank).numpy()
    np.testing.assert_allclose(found.T @ found, np.eye(rank), atol=1e-10)
    np.testing.assert_allclose(found @ found.T, U[:, :rank] @ U[:, :rank].T, atol=1e-6)
    assert (found[np.abs(found).argmax(0), np.arange(rank)] > 0).all()


def test_the_number_of_threads_is_the_callers() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="in between"), one_thread():
            assert torch.get_num_threads() == 1
            raise ValueError("in between")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@given(st.integers(4, 14), st.integers(2, 12), st.integers(1, 8), seeds, st.floats(0.0, 0.5))
@settings(max_examples=80)
def test_the_excess_bounds_the_sum_of_the_largest_eigenvalues(n: int, kept: int, rank: int, seed: int, turn: float) -> None:
    """Σ of the r largest eigenvalues ≤ Σ θ_j + excess, for any subspace: λmax of the rest is known here, and not estimated."""
    kept = min(kept, n - 1)
    rank = min(rank, kept)
    A = drawn(n, n, seed).numpy()
    A = A @ np.diag(1.0 / np.arange(1, n + 1)) @ A.T
    values, vectors = np.linalg.eigh(A)
    V = np.linalg.qr(vectors[:, ::-1][:, :kept] + turn * drawn(n, kept, seed + 1).numpy())[0]
    theta, inner = np.linalg.eigh(V.T @ A @ V)
    V, theta = (V @ inner)[:, ::-1], theta[::-1]
    R = A @ V - V * theta
    left = np.eye(n) - V @ V.T
    top = float(np.linalg.eigvalsh(left @ A @ left)[-1])
    bound = _Bound(torch.from_numpy(theta.copy()), torch.from_numpy((R**2).sum(0).cumsum()), rank)
    stated = theta[:rank].sum() + bound.excess(kept, top)
    assert values[::-1][:rank].sum() <= stated * (1 + 1e-9)


@given(st.lists(st.integers(2, 4), min_size=3, max_size=5), st.data(), seeds)
@settings(max_examples=40)
def test_a_train_has_the_ranks_that_were_asked_for(shape: list[int], data: st.DataObject, seed: int) -> None:
    T = drawn(1, math.prod(shape), seed).reshape(shape)
    asked = [data.draw(st.integers(1, min(math.prod(shape[:k]), math.prod(shape[k:])))) for k in range(1, len(shape))]
    found = [c.shape[0] for c in tt_svd(T, asked).cores[1:]]
    # as asked, or what the cores beside it can carry
    for k, (rank, wanted) in enumerate(zip(found, asked, strict=True)):
        before, after = (found[k - 1] if k else 1), (found[k + 1] if k + 1 < len(found) else 1)
        assert rank <= wanted
        assert rank == wanted or rank in (before * shape[k], after * shape[k + 1])


@given(st.integers(1, 4000), st.integers(2, 4))
@settings(max_examples=100)
def test_modes_are_near_each_other(n: int, count: int) -> None:
    """No prime factor of the largest could move to the smallest without making that larger than the largest was."""
    modes = modes_of(n, count)
    largest, smallest = max(modes), min(modes)
    least = next((p for p in range(2, largest + 1) if largest % p == 0), 1)
    assert largest == smallest or least * smallest >= largest


@pytest.mark.parametrize("order", [2, 3, 4])
def test_degeneracy_is_the_size_of_the_terms_over_that_of_their_sum(order: int) -> None:
    K = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(order)).double()
    K = K.reshape(3, 4, *((), (4,), (2, 2))[order - 2]) if order > 2 else K.reshape(3, 16)
    found = cp(K, 4, iterations=8)
    terms = [f.numpy() for f in found.factors]
    sizes = np.prod([np.linalg.norm(f, axis=0) for f in terms], axis=0).sum()
    letters = "abcd"[:order]
    whole = np.einsum(",".join(f"{c}r" for c in letters) + "->" + letters, *terms)
    assert found.degeneracy == pytest.approx(sizes / np.linalg.norm(whole), rel=1e-9)
    assert found.degeneracy > 1.0
