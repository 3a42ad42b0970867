"""Allocation is the best there is on all cases small enough to try out, and its bound is honest."""

from __future__ import annotations

from itertools import product
from math import fsum

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netxform.errors import NetxformError
from netxform.factorization.allocate import Option, allocate

numbers = st.one_of(st.integers(0, 50).map(float), st.floats(0, 1e3), st.floats(0, 1e-3))
groups_of = st.lists(st.lists(st.builds(Option, numbers, numbers), min_size=1, max_size=4), min_size=1, max_size=4)


# a choice that lies over the budget by less than the solver sees
OVER = [[Option(0.00050651, 28.833), Option(6.797e-05, 682.555)], [Option(953.229, 2.844e-05), Option(5.0, 457.795)]]


@example(OVER, 0.0, 2)
@given(groups_of, st.floats(0, 1), st.integers(0, 255) | st.none())
@settings(max_examples=300)
def test_as_good_as_trying_everything(groups: list[list[Option]], share: float, exactly: int | None) -> None:
    """Under any budget, and under one that is to the last bit the cost of some choice."""
    least = sum(min(o.cost for o in g) for g in groups)
    most = sum(max(o.cost for o in g) for g in groups)
    budget = least + share * (most - least)
    if exactly is not None:
        every = list(product(*groups))
        budget = fsum(o.cost for o in every[exactly % len(every)])
    choices = [(fsum(o.cost for o in c), fsum(o.loss for o in c)) for c in product(*groups)]
    possible = [loss for cost, loss in choices if cost <= budget]
    if not possible:
        with pytest.raises(NetxformError):
            allocate(groups, budget)
        return
    found = allocate(groups, budget)
    picked = [g[i] for g, i in zip(groups, found.chosen, strict=True)]
    assert found.cost == fsum(o.cost for o in picked) <= budget and found.loss == fsum(o.loss for o in picked)
    # HiGHS is asked to 1e-10 of the largest loss
    rounding = 1e-8 * max(o.loss for g in groups for o in g)
    assert min(possible) <= found.loss <= min(possible) + rounding
    assert found.bound <= min(possible) and found.loss - found.bound <= rounding
    assert found.gap == pytest.approx((found.loss - found.bound) / found.loss if found.loss else 0.0)


def test_too_small_a_budget_says_what_would_do() -> None:
    with pytest.raises(NetxformError) as caught:
        allocate([[Option(3, 1), Option(2, 5)], [Option(4, 0)]], 5)
    assert caught.value.diagnostics[0].code == "X0604" and "6" in caught.value.diagnostics[0].message


def test_nothing_to_choose_and_nonsense() -> None:
    assert allocate([], 0).chosen == ()
    assert allocate([[Option(1, 2, "a")]], 1).chosen == (0,)
    for groups in ([[]], [[Option(1, float("nan"))]]):
        with pytest.raises(NetxformError):
            allocate(groups, 10)


def test_many_options() -> None:
    groups = [[Option(float(c * (g + 1)), (40 - c) ** 2 / (g + 1.5)) for c in range(1, 41)] for g in range(50)]
    found = allocate(groups, 15_000)
    assert found.cost <= 15_000 and found.gap < 1e-6
