"""Scores by name, and what each needs: the facts that a spec is checked by. No torch: a score is computed by the function that
is named here (`registry.called`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from netxform.registry import Registry


@dataclass(frozen=True, slots=True)
class ScoreKind:
    """`of`: (Network, Request) → Scores, over whole classes.

    `data`: it asks for samples; `labels`: for their targets too. `normalise`: what the scores of a class are divided by before
    classes are ranked in one list, where the spec says nothing. `single`: the score that ranks single weights under this name,
    None where there is none; it has `weights`: (Network, names, Request) → a number for each element of these tensors.
    `predicts`: those numbers are changes of the loss. `each`: (Network, masks by tensor, Request) → that change for
    every sample (N,). `slope`: it is of the first derivative alone, which needs labels.
    """

    of: Callable[..., Any] | str
    data: bool = True
    labels: bool = False
    normalise: Literal["none", "mean", "max", "l2"] = "none"
    single: str | None = None
    weights: Callable[..., Any] | str | None = None
    predicts: bool = False
    each: Callable[..., Any] | str | None = None
    slope: bool = False


SCORES: Registry[ScoreKind] = Registry("netxform.scores", "score", "X0412")

_AT = "netxform.pruning.scores"
SCORES.register("obd")(ScoreKind(f"{_AT}:obd", labels=True, single="obd-weights"))
SCORES.register("taylor")(ScoreKind(f"{_AT}:taylor", labels=True, slope=True))
SCORES.register("obd-weights")(
    ScoreKind(
        f"{_AT}:obd_weights",
        single="obd-weights",
        weights=f"{_AT}:half_curvature",
        predicts=True,
        each=f"{_AT}:half_curvature_each",
    )
)
SCORES.register("magnitude")(
    ScoreKind(f"{_AT}:magnitude", data=False, normalise="mean", single="magnitude", weights=f"{_AT}:sizes")
)
SCORES.register("bn-scale")(ScoreKind(f"{_AT}:bn_scale", data=False, normalise="mean"))
SCORES.register("random")(ScoreKind(f"{_AT}:at_random", data=False))
SCORES.register("activation")(ScoreKind(f"{_AT}:activation", normalise="mean"))


def untrained(by: str, parts: Sequence[str], threshold: bool) -> tuple[str, ...]:
    """What a reader must know where a score cannot mean anything: it is taken of weights that nothing has trained.

    `parts`: what nothing has trained, by name ("" for the whole network); `threshold`: what goes is below a number.
    """
    kind = SCORES.find(by)
    if "" in parts and by != "random":
        return (f"nothing has trained this network: `{by}` scores weights as they were drawn, and means nothing",)
    if not parts or not (kind.labels or kind.predicts):
        return ()
    names, them = " and ".join(f"`{n}`" for n in parts), "them" if len(parts) > 1 else "it"
    most = "a threshold can take nearly all; " if threshold else ""
    return (
        f"nothing has trained {names}: behind {them} the loss is that of guessing, and gradients and curvature say little of "
        f"what is needed; {most}train {them} first: `train {parts[0]} for 3epochs`",
    )
