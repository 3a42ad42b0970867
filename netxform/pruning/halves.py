"""Which samples choose what goes, and which others say what that will cost.

What is taken because its score is low has, on the very samples that scored it, lower scores than on others: the prediction from
them is too small, and its interval too narrow. So the prediction is made on samples that chose nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from netxform.language.material import Material


@dataclass(frozen=True)
class Halves:
    """The first `choose` samples choose; the `judge` behind them predict, and the change is measured on them."""

    choose: int
    judge: int


def halves(material: Material, data: str | None, samples: int, chooses: bool) -> Halves:
    """`samples` for each where there are as many; else a third of what there is judges. Where no data are needed to choose,
    all of them judge.
    """
    there = 0 if data is None else material.size(data)
    if not chooses:
        return Halves(0, min(samples, there))
    judge = min(samples, there // 3)
    return Halves(min(samples, there - judge) if there else samples, judge)
