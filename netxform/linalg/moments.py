"""An upper bound of the sum F of the r largest eigenvalues of A = WᵀW, from the moments that a block Krylov space holds.

For every t and every polynomial p ≥ (x − t)₊ on [0, L], where no eigenvalue exceeds L,

    F ≤ r t + tr (A − t)₊ ≤ r t + tr p(A).

With b Gaussian probes X, the mean of xᵀp(A)x is measured without a further product: the space that starts at A X holds it
exactly where p = x² s(x) and the degree of s is below twice the number of blocks (Golub, Meurant 1994). A quadratic form of
Gaussians with a positive semidefinite matrix B falls below its mean with Gaussian tails (Laurent, Massart 2000, lemma 1),

    tr B − mean ≤ 2 ‖B‖_F √(y / b)  except with probability e⁻ʸ,   ‖B‖_F² ≤ ‖B‖₂ tr B,

which is worth little where a few values stand out and much where many are alike: there the Ritz vectors converge slowly, and
the bound of `krylov.py` asks for them. L, t and the degree come from a grid fixed beforehand, and y pays for all of it. p is
the majorant of the least area over the grid of Chebyshev, by linear programming.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# L is ‖W‖² · GROWTH⁻ᵏ for k < SCALES, t is L · j / LEVELS, and no more than DEGREES sizes of the space are looked at
GROWTH, SCALES, LEVELS, DEGREES = 1.01, 2048, 64, 256
# where a majorant is asked for and where it is checked
ASKED, CHECKED = 400, 8000


@dataclass(frozen=True)
class Known:
    """What a block Krylov space of A X, with X Gaussian, knows of A.

    theta_K are its Ritz values, weight_K the squared parts of A X in its Ritz vectors, `probes` the columns of X, `blocks` how
    many powers of A it is made of, `columns` the order of A, `ceiling` a bound of its largest eigenvalue, `trace` its trace.
    """

    theta_K: Tensor
    weight_K: Tensor
    probes: int
    blocks: int
    columns: int
    ceiling: float
    trace: float


def largest_sum(known: Known, rank: int, failure: float) -> float:
    """The sum of the `rank` largest eigenvalues is at most this, but for a probability `failure`; inf: nothing is known."""
    ceiling, square, blocks = known.ceiling, known.trace, known.blocks
    if not 0.0 < ceiling <= square or blocks > DEGREES:
        return inf
    k = int(log(square / ceiling) / log(GROWTH))
    if k >= SCALES:
        return inf
    L = square * GROWTH**-k
    share = log(SCALES * LEVELS * DEGREES / failure) / known.probes
    ritz, weight = known.theta_K.clamp(0.0, L).numpy() / L, known.weight_K.numpy() / (known.probes * L * L)
    near = min(LEVELS - 1, max(1, ceil(LEVELS * float(known.theta_K[rank - 1]) / L)))
    best = inf
    for level in range(max(1, near - 2), min(LEVELS - 1, near + 3) + 1):
        s, top, below = majorant(level, 2 * blocks - 1)
        mean = max(0.0, float(weight @ np.polynomial.chebyshev.chebval(2 * ritz - 1, s)))
        trace = (sqrt(top * share) + sqrt(top * share + mean + known.columns * below)) ** 2
        best = min(best, L * (rank * level / LEVELS + trace))
    return best


@lru_cache(maxsize=256)
def majorant(level: int, degree: int) -> tuple[NDArray[np.float64], float, float]:
    """The s with x² s(x) + below ≥ (x − t)₊ on [0, 1], t = level / LEVELS, and the largest value of that.

    `below` covers what lies between the points of the check: a trigonometric polynomial of degree d has a second derivative of
    at most d² times its maximum (Bernstein), and (x − t)₊ bends by at most one in the angle but for its kink, which bends up.
    """
    from scipy.optimize import linprog  # imported here: it takes a tenth of a second

    t, d = level / LEVELS, degree + 2
    angle = pi * (np.arange(ASKED) + 0.5) / ASKED
    x = (1 + np.cos(angle)) / 2
    rows = (x * x)[:, None] * np.cos(np.outer(angle, np.arange(degree + 1)))
    found = linprog(rows.mean(0), A_ub=-rows, b_ub=-np.maximum(x - t, 0.0), bounds=(None, None), method="highs")
    if found.x is None:
        return np.zeros(1), inf, inf
    angle = pi * np.arange(CHECKED + 1) / CHECKED
    x = (1 + np.cos(angle)) / 2
    p = x * x * np.polynomial.chebyshev.chebval(np.cos(angle), found.x)
    # between two points of the check no value exceeds the largest one by more than 1 / (1 − (d h)² / 8)
    h = pi / CHECKED
    size = float(np.abs(p).max()) / (1 - (d * h) ** 2 / 8)
    below = max(0.0, float((np.maximum(x - t, 0.0) - p).max()), float(-p.min())) + h * h / 8 * (d * d * size + 1)
    return found.x, size + below, below
