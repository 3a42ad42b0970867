"""The statistics of claims against their textbook forms: the conformal quantile, and Clopper–Pearson's lower bound."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from netxform.compiler.claims.bounded import _at_least, _quantile


@given(st.lists(st.floats(0, 1e3), min_size=20, max_size=200), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_the_quantile_is_the_one_that_covers_the_next_sample(errors: list[float], level: float) -> None:
    """The ⌈(n+1)·level⌉-th smallest (Vovk, Gammerman, Shafer 2005)."""
    place = math.ceil((len(errors) + 1) * level)
    wanted = sorted(errors)[place - 1] if place <= len(errors) else math.inf
    assert _quantile(errors, level) == wanted


def test_it_covers_as_often_as_it_says() -> None:
    rng = random.Random(3)
    hits = 0
    for _ in range(2000):
        *errors, new = (rng.expovariate(1.0) for _ in range(60))
        hits += new <= _quantile(list(errors), 0.9)
    # the mean of 2000 draws at .9 and a standard error of .0067: five of them
    assert 0.9 - 0.034 <= hits / 2000 <= 0.92 + 0.034


@given(st.integers(1, 300), st.data())
def test_the_lower_bound_is_clopper_pearsons(count: int, data: st.DataObject) -> None:
    """The chance at which so many agreements or more have just 1 − level (Clopper, Pearson 1934)."""
    right = data.draw(st.integers(0, count))
    found = _at_least(right, count, 0.95)
    assert 0.0 <= found <= right / count
    if right:
        assert float(binom.sf(right - 1, count, found)) == pytest.approx(0.05, rel=1e-6)
