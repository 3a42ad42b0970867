"""One option for each group, the least loss under a budget: the multiple-choice knapsack, by HiGHS (scipy.optimize.milp)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, isfinite
from typing import Any

import numpy as np

from netxform.errors import fail


@dataclass(frozen=True)
class Option:
    """What a group may become: its cost (any unit, one for all), its loss (added over groups), and a label for the caller."""

    cost: float
    loss: float
    label: Any = None


@dataclass(frozen=True)
class Allocation:
    """The option chosen in each group (its index), the sums of cost and loss, and how good that is.

    No choice within the budget has a loss below `bound`; `gap` = (loss − bound) / |loss|, 0 where the loss is 0.
    """

    chosen: tuple[int, ...]
    cost: float
    loss: float
    bound: float
    gap: float
    solver: str


def allocate(groups: Sequence[Sequence[Option]], budget: float) -> Allocation:
    """The choice of least total loss whose total cost is at most `budget`.

    Raises X0604 where even the cheapest choice costs more, X0811 where a cost or loss is not finite, X0411 where a group is
    empty.
    """
    for number, group in enumerate(groups):
        if not group:
            raise fail("X0411", f"group {number} has no options")
        if not all(isfinite(o.cost) and isfinite(o.loss) for o in group):
            raise fail("X0811", f"group {number} has an option whose cost or loss is not finite")
    kept = [_undominated(group) for group in groups]
    least = fsum(groups[g][k[0]].cost for g, k in enumerate(kept))
    if least > budget:
        raise fail(
            "X0604",
            f"the budget is {budget:g}, and the cheapest choice of all costs {least:g}",
            helps=(f"allow at least {least:g}, or offer cheaper options (lower ranks, more layers)",),
        )
    # what does not fit even beside the cheapest of all the others cannot be chosen: said by the very sum that is checked at the
    # end, for differences of floats round otherwise and would drop what fits
    cheapest = [k[0] for k in kept]
    kept = [[i for i in k if i == k[0] or _affordable(groups, cheapest, g, i, budget)] for g, k in enumerate(kept)]
    best = [k[-1] for k in kept]
    if _sum(groups, best)[0] <= budget:
        cost, loss = _sum(groups, best)
        return Allocation(tuple(best), cost, loss, loss, 0.0, "every group at its best")
    return _milp(groups, kept, budget)


def _affordable(groups: Sequence[Sequence[Option]], chosen: Sequence[int], group: int, option: int, budget: float) -> bool:
    """Whether the choice, with this option in this group, is within the budget, in exact sums."""
    return fsum(groups[g][option if g == group else i].cost for g, i in enumerate(chosen)) <= budget


def _undominated(group: Sequence[Option]) -> list[int]:
    """The options that no other one beats in both cost and loss, by rising cost (so by falling loss)."""
    kept: list[int] = []
    for i in sorted(range(len(group)), key=lambda i: (group[i].cost, group[i].loss, i)):
        if not kept or group[i].loss < group[kept[-1]].loss:
            kept.append(i)
    return kept


def _sum(groups: Sequence[Sequence[Option]], chosen: Sequence[int]) -> tuple[float, float]:
    picked = [group[i] for group, i in zip(groups, chosen, strict=True)]
    return fsum(o.cost for o in picked), fsum(o.loss for o in picked)


# choices a hair over the budget (less than the solver sees) that are cut off, before single exchanges have the last word
_CUTS = 32


def _milp(groups: Sequence[Sequence[Option]], kept: Sequence[Sequence[int]], budget: float) -> Allocation:
    from scipy.optimize import Bounds, LinearConstraint, milp  # imported here: it takes a tenth of a second
    from scipy.sparse import csr_matrix

    pairs = [(g, i) for g, options in enumerate(kept) for i in options]
    # costs above the cheapest of the group and losses above its best: what does not matter to the choice takes no digits
    low_cost = [groups[g][k[0]].cost for g, k in enumerate(kept)]
    low_loss = [groups[g][k[-1]].loss for g, k in enumerate(kept)]
    cost = np.array([groups[g][i].cost - low_cost[g] for g, i in pairs])
    loss = np.array([groups[g][i].loss - low_loss[g] for g, i in pairs])
    room = budget - fsum(low_cost)
    cost_unit, loss_unit = float(cost.max()) or 1.0, float(loss.max()) or 1.0
    row = np.array([g for g, _ in pairs])
    one = csr_matrix((np.ones(len(pairs)), (row, np.arange(len(pairs)))), shape=(len(kept), len(pairs)))
    # the solver sees the budget a little wider than it is: what lies over it is cut off below, and what just fits is not lost
    limits = [LinearConstraint(one, 1, 1), LinearConstraint(csr_matrix(cost / cost_unit), -np.inf, room / cost_unit + 1e-9)]
    # HiGHS stops at an absolute gap of 1e-6: in these units that is 1e-10 of the largest loss
    scale = 1e4 / loss_unit
    start = [k[0] for k in kept]
    found: Any = None
    for _ in range(_CUTS):
        found = milp(
            loss * scale,
            constraints=limits,
            bounds=Bounds(0, 1),
            integrality=np.ones(len(pairs)),
            # its presolve drops small coefficients, and with them choices that just fit
            options={"mip_rel_gap": 0.0, "presolve": False},
        )
        if found.x is None:
            break
        taken = np.flatnonzero(found.x > 0.5)
        chosen = [pairs[j][1] for j in taken]
        if len(chosen) != len(kept):
            break
        if _sum(groups, chosen)[0] <= budget:
            start = chosen
            break
        # HiGHS allows a violation of 1e-6 of the constraint, this function none: that choice is cut off, and no other
        cut = csr_matrix((np.ones(len(taken)), (np.zeros(len(taken), dtype=int), taken)), shape=(1, len(pairs)))
        limits.append(LinearConstraint(cut, -np.inf, len(kept) - 1))
    chosen = _improve(groups, kept, start, budget)
    total_cost, total_loss = _sum(groups, chosen)
    dual = getattr(found, "mip_dual_bound", None)
    bound = fsum(low_loss) + (float(dual) / scale - 1e-9 * loss_unit if dual is not None else 0.0)
    bound = min(bound, total_loss)
    gap = (total_loss - bound) / abs(total_loss) if total_loss != 0.0 else 0.0
    return Allocation(tuple(chosen), total_cost, total_loss, bound, gap, "HiGHS")


def _improve(
    groups: Sequence[Sequence[Option]], kept: Sequence[Sequence[int]], chosen: Sequence[int], budget: float
) -> list[int]:
    """Single exchanges, the greatest gain first, while the budget holds: closes what the solver's tolerances leave open."""
    out = list(chosen)
    while True:
        gains = [
            (groups[g][out[g]].loss - groups[g][i].loss, -g, -i)
            for g, options in enumerate(kept)
            for i in options
            if groups[g][i].loss < groups[g][out[g]].loss
        ]
        fits = next(((-g, -i) for _, g, i in sorted(gains, reverse=True) if _affordable(groups, out, -g, -i, budget)), None)
        if fits is None:
            return out
        out[fits[0]] = fits[1]
