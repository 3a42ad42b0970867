"""The table of defects: a row for every law that a test is written for. `python -m tests.mutations NAME` tries one."""

from __future__ import annotations

from tests.mutations.defect import Defect
from tests.mutations.rows import axes, claims, doors, factorization, graph, linalg, pruning, syntax, training, verbs

DEFECTS: tuple[Defect, ...] = (
    *pruning.DEFECTS,
    *claims.DEFECTS,
    *linalg.DEFECTS,
    *factorization.DEFECTS,
    *axes.DEFECTS,
    *graph.DEFECTS,
    *verbs.DEFECTS,
    *training.DEFECTS,
    *syntax.DEFECTS,
    *doors.DEFECTS,
)
