from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from scipy.optimize import milp, LinearConstraint, Bounds
from netxform.errors import fail


@dataclass(frozen=True)
class Option:
    cost: float
    loss: float
    label: object


@dataclass(frozen=True)
class Allocation:
    chosen: tuple
    cost: float
    loss: float
    bound: float
    gap: float
    solver: str


def allocate(groups, budget):
    least = sum(min(o.cost for o in g) for g in groups)
    if least > budget:
        raise fail("X0604", f"the least possible is {least:g}, the budget {budget:g}")
    c = np.array([o.loss for g in groups for o in g])
    w = np.array([o.cost for g in groups for o in g])
    n = len(c)
    A = np.zeros((len(groups) + 1, n))
    j = 0
    for i, g in enumerate(groups):
        A[i, j : j + len(g)] = 1
        j += len(g)
    A[-1] = w
    r = milp(
        c,
        constraints=LinearConstraint(A, [1] * len(groups) + [-np.inf], [1] * len(groups) + [budget]),
        integrality=np.ones(n),
        bounds=Bounds(0, 1),
    )
    x = r.x
    ch = []
    j = 0
    for g in groups:
        ch.append(int(np.argmax(x[j : j + len(g)])))
        j += len(g)
    return Allocation(tuple(ch), float(w @ x), float(c @ x), float(r.mip_dual_bound), float(r.mip_gap), "HiGHS")
