"""`val_error`: the share of rows that are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netxform.language.methods import METRICS, Metric

if TYPE_CHECKING:
    from torch import Tensor


def _wrong(scores: Tensor, wanted: Tensor) -> dict[str, float]:
    return {"demo_rows": float(len(wanted)), "demo_wrong": float((scores.argmax(1) != wanted).sum())}


def _error(sums: dict[str, float]) -> float | None:
    return sums["demo_wrong"] / sums["demo_rows"] if sums["demo_rows"] else None


METRICS.register("error")(Metric("classes", ("demo_rows", "demo_wrong"), _wrong, _error, least=True))
