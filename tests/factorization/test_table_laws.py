"""Tables of errors by rank, against numpy's truncations; and ranks chosen from them, against trying all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netxform.factorization.factorized_layer import Chain, Place
from netxform.factorization.geometry import Geometry, geometry
from netxform.factorization.rank_curves import rounded


def chain(inputs: int, outputs: int, seed: int) -> tuple[Chain, nn.Linear]:
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, outputs).double()
    g = geometry(layer)
    assert isinstance(g, Geometry)
    return Chain(g, "svd", Place("layer", (inputs,))), layer


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
@settings(max_examples=30)
def test_the_error_of_a_table_is_that_of_the_truncation(inputs: int, outputs: int, seed: int) -> None:
    way, layer = chain(inputs, outputs, seed)
    table = way.table(layer)
    U, s, V = np.linalg.svd(layer.weight.detach().numpy())
    for rank in range(1, len(s) + 1):
        cut = (U[:, :rank] * s[:rank]) @ V[:rank]
        exact = np.linalg.norm(layer.weight.detach().numpy() - cut) / np.linalg.norm(s)
        assert table.error((rank,)) == pytest.approx(exact, abs=1e-7)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99), st.floats(0.05, 0.95))
@settings(max_examples=40)
def test_the_smallest_rank_within_an_error_is_the_smallest(inputs: int, outputs: int, seed: int, relative: float) -> None:
    way, layer = chain(inputs, outputs, seed)
    s = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)
    errors = [math.sqrt((s[r:] ** 2).sum() / (s**2).sum()) for r in range(1, len(s) + 1)]
    wanted = next(r for r, e in enumerate(errors, 1) if e <= relative)
    assert way.table(layer).smallest(relative) == (wanted,)


@given(st.floats(0.1, 60), st.integers(1, 60), st.integers(1, 9))
def test_ranks_are_rounded_up_to_a_multiple(rank: float, full: int, to: int) -> None:
    found = rounded(rank, full, to)
    assert 1 <= found <= full
    up = math.ceil(rank - 1e-9)
    assert found == full or found >= up
    assert found in (full, max(1, up)) or found % to == 0
    assert found == full or found - max(1, up) < to
