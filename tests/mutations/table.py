"""The table of defects: a row for every law that a test is written for. `python -m tests.mutations NAME` tries one."""

from __future__ import annotations

from tests.mutations.defect import Defect
from tests.mutations.rows import (
    axes,
    claims,
    data,
    doors,
    factorization,
    files,
    grafts,
    graph,
    linalg,
    pruning,
    syntax,
    training,
    verbs,
)

DEFECTS: tuple[Defect, ...] = (
    *pruning.DEFECTS,
    *claims.DEFECTS,
    *linalg.DEFECTS,
    *factorization.DEFECTS,
    *axes.DEFECTS,
    *graph.DEFECTS,
    *grafts.DEFECTS,
    *verbs.DEFECTS,
    *training.DEFECTS,
    *data.DEFECTS,
    *files.DEFECTS,
    *syntax.DEFECTS,
    *doors.DEFECTS,
)
