"""Scores by name, and what each needs: the facts that a spec is checked by. No torch: a score is computed by the function that
is named here (`registry.called`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from netxform.errors import Diagnostic, Span
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


# of each option the range, and what its ends would do; a share of nothing and one of all choose nothing
_RANGES: dict[str, tuple[int, int, str, str]] = {
    "amount": (0, 1, "nothing would go", "all of every axis cannot go"),
    "step": (0, 1, "a round would remove nothing", ""),
    "least": (0, 1, "", "where all of an axis stays, nothing goes"),
    "min_channels": (1, 1 << 40, "", ""),
    "round_to": (1, 1 << 40, "", ""),
    "samples": (1, 1 << 40, "", ""),
}


def out_of_range(statement: Any, span: Span) -> Iterator[Diagnostic]:
    """X0406 for numbers of a `prune` that cannot be, or that would make it do nothing or take all."""
    for name, (low, high, at_low, at_high) in _RANGES.items():
        value = getattr(statement, name)
        if value is None:
            continue
        why = at_low if value == low else at_high if value == high else ""
        if why:
            helps = ("write a share between, such as `30%`; to change nothing leave the statement out, to take all `remove`",)
            yield Diagnostic("X0406", f"`{name}={100 * value:g}%`: {why}", span, name, helps=helps)
        elif not low <= value <= high:
            yield Diagnostic("X0406", f"`{name}` is out of range: {value}", span, name)


def nothing_goes(removes: bool) -> tuple[str, ...]:
    """What a plan says where by its estimate no index goes."""
    if removes:
        return ()
    return (
        "by the estimate nothing goes: the budget is met already, or the share is less than one index, or `least`, "
        "`min_channels` or `round_to` keep them all",
    )


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
