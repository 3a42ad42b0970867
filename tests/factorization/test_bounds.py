"""Stated bounds of factorizations are true: held against the stored tensors, multiplied out in float64 by other code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.bounds import Case, below, case, truth
from netxform.linalg.krylov import difference_norm
from netxform.linalg.svd import spectral


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_no_stated_bound_is_below_the_truth(seed: int) -> None:
    assert below(case(seed, large=False)) == []


# the spectrum falls below what the Gram matrix in single precision tells, and the vectors are as coarse as it is
@pytest.mark.parametrize("seed", [75, 1341, 2450, 2713, 2988])
def test_what_was_once_below_the_truth(seed: int) -> None:
    assert below(case(seed)) == []


def falling(n: int, power: int) -> nn.Linear:
    torch.manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(n, n))[0] for _ in range(2))
    layer = nn.Linear(n, n)
    layer.weight.data = (U * torch.arange(1, n + 1).float() ** -power) @ V
    return layer


def test_a_coarse_table_states_a_true_gain() -> None:
    layer = falling(512, 2)
    one = Case("coarse", layer, "svd", (128,), (512,), "coarse", 0)
    made, way = one.made()
    kernel, gain = truth(one, made.tensors, way)
    (bound,) = made.bounds
    assert gain <= bound.gain <= 1.1 * gain and kernel <= bound.kernel
    assert gain > 1.2e-4, "the case no longer shows what it is about"


def test_the_gain_of_a_cut_is_at_most_root_of_tail_and_excess() -> None:
    """Closed form: with a turned basis, the error is not the tail, and the bound follows it."""
    W = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64))
    whole = spectral(W)
    c, s = np.cos(0.1), np.sin(0.1)
    turned = whole.X.clone()
    turned[:, 1], turned[:, 2] = c * whole.X[:, 1] + s * whole.X[:, 2], c * whole.X[:, 2] - s * whole.X[:, 1]
    found = type(whole)(whole.squares, turned, whole.short, whole.doubt).cut(W, 2)
    E = (W - found.U_OR @ found.V_RI).numpy()
    tail, error, best = 1.0, np.linalg.norm(E), np.sqrt(1.25)
    assert found.gain is not None
    assert found.gain == pytest.approx(np.sqrt(tail**2 + error**2 - best**2), rel=1e-9)
    # here it is attained: the old vectors carry all of the excess
    assert found.gain == pytest.approx(np.linalg.norm(E, 2), rel=1e-9)


@pytest.mark.parametrize("shape", [(700, 600), (600, 900), (90, 40)])
@pytest.mark.parametrize("kind", ["falling", "flat", "exact", "one"])
def test_the_norm_of_a_difference_is_bounded_closely(shape: tuple[int, int], kind: str) -> None:
    g = torch.Generator().manual_seed(1)
    U, V = (torch.randn(n, 20, generator=g, dtype=torch.float64) for n in shape)
    rest = torch.randn(*shape, generator=g, dtype=torch.float64)
    if kind == "falling":
        rest = rest * (torch.arange(1, shape[1] + 1).double() ** -1.5)
    if kind == "one":
        rest = torch.outer(rest[:, 0], rest[0])
    E = 1e-4 * rest if kind != "exact" else torch.zeros(*shape, dtype=torch.float64)
    W = U @ V.T + E
    real = np.linalg.norm((W - U @ V.T).numpy(), 2)
    stated = difference_norm(W, U, V.T)
    own = 1e-13 * float(W.norm())
    assert real - own <= stated <= 1.02 * real + own
