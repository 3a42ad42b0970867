"""Schedules: what the learning rate is multiplied by when the share `done` of the training is behind, in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence


def constant(done: float) -> float:
    """Always the same."""
    return 1.0


def cosine(done: float, end: float = 0.0) -> float:
    """Half a cosine, from 1 to `end` (Loshchilov, Hutter, "SGDR", 2017)."""
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * done))


def linear(done: float, end: float = 0.0) -> float:
    """A line from 1 to `end`."""
    return end + (1 - end) * (1 - done)


def onecycle(done: float, rise: float = 0.3, end: float = 0.0) -> float:
    """Up from 0 during the share `rise`, then down by half a cosine (Smith, Topin, "Super-convergence", 2018)."""
    return done / rise if done < rise else cosine((done - rise) / (1 - rise), end)


def cosine_restarts(done: float, cycles: int = 3, decay: float = 1.0, end: float = 0.0) -> float:
    """`cycles` half cosines one behind the other, each beginning at `decay` times the height of the one before."""
    number = min(int(done * cycles + 1e-12), cycles - 1)
    height = decay**number
    return end + (height - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done * cycles - number)))


def polynomial(done: float, power: float = 2.0, end: float = 0.0) -> float:
    """(1 − done)^power, from 1 to `end`."""
    return end + (1 - end) * (1 - done) ** power


def exponential(done: float, end: float = 0.01) -> float:
    """By the same factor in every step, from 1 to `end`."""
    return end**done


def steps(done: float, at: Sequence[float] | float = (0.5, 0.75), factor: float = 0.1) -> float:
    """Times `factor` at each of these shares of the training."""
    places = (at,) if isinstance(at, int | float) else at
    return factor ** sum(done >= a for a in places)


def tanh(done: float, low: float = -7.0, high: float = 3.0, end: float = 0.0) -> float:
    """A hyperbolic tangent between `low` and `high` (Hsueh et al., "Stochastic gradient descent with hyperbolic-tangent
    decay", 2018).
    """
    return end + 0.5 * (1 - end) * (1 - math.tanh(low * (1 - done) + high * done))
