"""What a statement cost although its contract holds: accuracy that fell, a loss that rose more than was predicted.

figures ─→ Harm        metrics, statement after statement ─Course→ Harm where one is worse than the best before
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from netxform.language.laws import Harm
from netxform.language.methods import METRICS

# Where they come from: docs/warnings.md. Choices are POINT, _WORSE and _HALF; the others follow.
POINT = 0.01
"""A share may fall by this before a reader is warned."""
_WORSE = 1.05  # an error or a mean square may grow by this factor
_SIDES = 1.96  # of a nominal 95 % interval, in standard errors: the normal quantile at .975
_MATERIAL = math.log(_WORSE)  # nats: the same factor, of the likelihood of a sample
_HALF = 0.5  # of the predicted change


def accuracy_fell(before: float, after: float, samples: int, where: str, metric: str = "accuracy") -> tuple[Harm, ...]:
    """A warning where the share of right answers fell by more than a point."""
    if not before - after > POINT:
        return ()
    few = _by_chance(before - after, before * (1 - before) + after * (1 - after), samples)
    text = f"accuracy fell by {100 * (before - after):.1f} points, {before:.3f} → {after:.3f}, on {samples} {where}{few}"
    figures = {"before": before, "after": after, "samples": float(samples)}
    return (Harm("accuracy", text, figures, _at_least(metric, before)),)


def _by_chance(fall: float, variance: float, samples: int) -> str:
    """What to add where new samples could show as much without any change: within the 95 % interval of a difference of two
    shares of `samples` samples, each sample's two answers taken as independent (paired ones vary less).
    """
    interval = _SIDES * math.sqrt(variance / samples) if samples > 0 else math.inf
    return "" if fall > interval else f" (so few samples tell falls of {100 * interval:.1f} points from chance, and no smaller)"


def loss_rose(before: float, after: float, samples: int, where: str) -> tuple[Harm, ...]:
    """A warning where the mean square grew by more than a twentieth."""
    if not after > _WORSE * before:
        return ()
    figures = {"before": before, "after": after, "samples": float(samples)}
    text = f"the loss rose from {before:.3g} to {after:.3g} on {samples} {where}"
    return (Harm("loss", text, figures, f"assert loss <= {_WORSE * before:.3g}"),)


def beyond_prediction(
    predicted: float, error: float | None, before: float, after: float, samples: int, shares: bool
) -> tuple[Harm, ...]:
    """A warning where the change of the loss is above the predicted one: outside its nominal 95 % interval, and by more than
    .049 nats, a factor of 1.05 in likelihood (`shares` False: that part of the loss) and more than half of what was predicted.
    """
    over = after - before - predicted
    material = max(_MATERIAL * (1.0 if shares else max(before, 0.0)), _HALF * abs(predicted))
    if not over > max(_SIDES * (error or 0.0), material):
        return ()
    spread = f" ± {error:.2g}" if error else ""
    text = (
        f"the loss changed by {after - before:+.3g} where {predicted:+.3g}{spread} was predicted: too much went at once for a "
        "prediction from single removals"
    )
    figures = {"predicted": predicted, "measured": after - before, "samples": float(samples)}
    figures |= {} if error is None else {"standard error": error}
    return (Harm("loss", text, figures, f"assert loss <= {_round_up(before + max(predicted, 0.0) + material):g}"),)


def class_changed(agreement: float, samples: int, where: str) -> tuple[Harm, ...]:
    """A warning where more than one sample in a hundred is given another class."""
    if not 1 - agreement > POINT:
        return ()
    few = _by_chance(1 - agreement, agreement * (1 - agreement), samples)
    text = f"{1 - agreement:.1%} of {samples} {where} are given another class than before{few}"
    figures = {"agreement": agreement, "samples": float(samples)}
    return (Harm("agreement", text, figures, "assert agreement >= 99%"),)


def _at_least(metric: str, before: float) -> str:
    return f"assert {metric} >= {max(0, math.floor(100 * (before - POINT))):g}%"


def _round_up(value: float) -> float:
    return math.ceil(100 * value) / 100


@dataclass
class Course:
    """What was measured along the way, data set by data set: the best value of each metric, and the statement that had it.

    `open`: harms that no later training has made good, as (place in the list of the entries, data set).
    """

    best: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict[tuple[str, str], tuple[float, str]])
    open: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def fell(self, data: str, metrics: Mapping[str, float]) -> tuple[Harm, ...]:
        """One warning for each metric that is worse than the best before: on test data where it was measured there."""
        told: dict[str, Harm] = {}
        known: set[str] = set()
        for part in ("test", "val"):
            for name, metric in METRICS.items():
                key = f"{part}_{name}"
                if name in known or key not in metrics or (data, key) not in self.best:
                    continue
                known.add(name)
                (was, where), now = self.best[data, key], metrics[key]
                worse = now > _WORSE * was if metric.least else was - now > POINT
                if worse:
                    by = "" if metric.least else f" by {100 * (was - now):.1f} points"
                    text = f"{key.replace('_', ' ')} is worse{by} than after `{where}`: {was:.3f} → {now:.3f}"
                    ask = f"assert {key} <= {_WORSE * was:.3g}" if metric.least else _at_least(key, was)
                    told[name] = Harm(name, text, {"before": was, "after": now}, ask)
        return tuple(told.values())

    def knows(self, data: str, metrics: Mapping[str, float]) -> bool:
        """Whether one of these metrics was measured on that data before."""
        return any((data, k) in self.best for k in metrics)

    def note(self, data: str, metrics: Mapping[str, float], text: str) -> None:
        """Remember what is better than all before."""
        for key, value in metrics.items():
            part, _, name = key.partition("_")
            if part not in ("test", "val") or name not in METRICS:
                continue
            known = self.best.get((data, key))
            better = known is None or (value < known[0] if METRICS.find(name).least else value > known[0])
            if better:
                self.best[data, key] = (value, text)


def made_good(harms: tuple[Harm, ...]) -> tuple[Harm, ...]:
    """The same harms, with the word that a later training brought back what they cost."""
    return tuple(replace(h, made_good=True) for h in harms)
