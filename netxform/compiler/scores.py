"""Metrics measured again: the samples that travel with a bundle, and what the network scores on them.

data ─held_out_of→ HeldOut        Network, HeldOut, metric ─score→ number
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from netxform.compiler.evidence import KEPT_BYTES
from netxform.compiler.standing import Lives
from netxform.graph.inputs import Given, arguments, some
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.language.certificate import ScoreRecord
from netxform.language.methods import LOSSES, METRICS, Metric
from netxform.registry import called
from netxform.sources.data.given.samples import size, source_of

_BATCH = 256
# a metric adds up thousands of samples; evaluated in other batches it may differ by the rounding of single precision
CLOSE = 1e-5


@dataclass(frozen=True)
class Part:
    """Samples (N, …) of one part of the data, their targets (N), and how many there were `of` that part."""

    x: Given
    y: Tensor
    of: int


@dataclass(frozen=True)
class HeldOut:
    """Samples that nothing was trained on, by the part of the data (`test`, `val`), so that metrics can be measured again."""

    parts: Mapping[str, Part]


def held_out_of(network: Network, data: Any) -> HeldOut | None:
    """The test and the validation samples of the data that was trained on last, as many as fit into 4 MB each."""
    if data is None:
        return None
    parts: dict[str, Part] = {}
    for name, samples in (("test", data.test), ("val", data.val)):
        whole = size(samples)
        if not whole:
            continue
        source = source_of(samples)
        x0, y0 = source.take(torch.tensor([0]))
        if isinstance(x0, dict) or not isinstance(y0, Tensor) or y0.dim() > 1:
            continue
        each = sum(t.numel() * t.element_size() for t in arguments(x0))
        x, y = source.take(torch.arange(min(whole, max(1, KEPT_BYTES // 2 // max(1, each)))))
        if isinstance(x, Tensor | tuple) and isinstance(y, Tensor):
            parts[name] = Part(x, y, whole)
    return HeldOut(parts) if parts else None


def scores(
    network: Network, held: HeldOut | None, metrics: Mapping[str, float], lives: Lives, items: list[dict[str, Any]]
) -> tuple[ScoreRecord, ...]:
    """A record for every metric; `items` are those of the plan, as plain data."""
    out: list[ScoreRecord] = []
    for name, value in metrics.items():
        made, _, life = lives.metrics[name]
        record = ScoreRecord(name, float(value), made, superseded_by=life.superseded_by)
        found = score(network, held, name, items[made] if made < len(items) else {})
        if isinstance(found, float):
            part = parts_of(held)[name.partition("_")[0]]
            record = ScoreRecord(name, float(value), made, len(part.y), part.of, found, life.superseded_by)
            whole = len(part.y) == part.of and life.superseded_by is None
            if whole and abs(found - value) > CLOSE * max(1.0, abs(value)):
                found = "the training measured it in another way than on the outputs as they are"
        if isinstance(found, str):
            record = ScoreRecord(name, float(value), made, superseded_by=life.superseded_by, unmeasured=found)
        out.append(record)
    return tuple(out)


def parts_of(held: HeldOut | None) -> Mapping[str, Part]:
    """The parts by name."""
    return held.parts if held is not None else {}


def score(network: Network, held: HeldOut | None, metric: str, item: Mapping[str, Any]) -> float | str:
    """The metric on the samples that are kept; or why it is not measured on them."""
    where, _, what = metric.partition("_")
    work = item.get("work") or {}
    if where == "train":
        return "the training samples are not in the folder"
    if where not in ("test", "val"):
        return "what it was measured with is not in the folder"
    if where not in parts_of(held):
        return f"the {'test' if where == 'test' else 'validation'} samples are not in the folder"
    if work.get("terms"):
        return "the network has several heads"
    if work and "loss" not in work:
        return "what was fitted beside the network is not run here"
    # a statement that trains on the way to its values names its loss in what it claims
    loss = work.get("loss") or next((c["loss"] for c in item.get("claims", ()) if "loss" in c), None)
    if what == "loss" and loss is None:
        return "the plan does not say which loss it was"
    part = parts_of(held)[where]
    try:
        return _measured(network, part, what, loss)
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
        return f"the outputs are not scored here ({type(error).__name__})"


@torch.no_grad()
def _measured(network: Network, part: Part, what: str, loss: Any) -> float | str:
    """`loss`: its name, or its name and settings, as the plan has them."""
    name, settings = (loss["name"], dict(loss["settings"])) if isinstance(loss, Mapping) else (str(loss), {})
    if "balanced" in settings.values():
        return "the loss is weighed by counts of the training samples, which are not in the folder"
    kind = LOSSES.find(name) if loss is not None else None
    metric: Metric | None = None
    if what != "loss":
        if what not in METRICS:
            return "no installed package knows this metric"
        known = METRICS.find(what)
        if not isinstance(known, Metric):
            return "it is measured by torchmetrics, while training"
        metric = known
    total: dict[str, float] = {}
    with evaluating(network.module):
        for at in torch.arange(len(part.y)).split(_BATCH):
            x, y = some(part.x, at), part.y[at]
            z: Any = network.module(*arguments(x))
            if not isinstance(z, Tensor):
                return "the network has several outputs"
            classes = z.dim() == 2 and z.shape[1] > 1 and not y.dtype.is_floating_point
            if metric is None:
                assert kind is not None
                weighed = kind.mass is not None and not y.dtype.is_floating_point
                rows = float(called(kind.mass)(y, **settings)) if weighed and kind.mass is not None else float(len(y))
                sums = {"loss": float(called(kind.of)(z, y, 0.0, **settings)) * rows, "count": rows}
            elif metric.on == "classes" and classes:
                sums = called(metric.count)(z, y.long())
            elif metric.on == "values":
                sums = called(metric.count)(z.double(), y.double().reshape(z.shape))
            else:
                return "the outputs are not one row of scores a sample"
            total = {k: total.get(k, 0.0) + v for k, v in sums.items()}
    if metric is None:
        return total["loss"] / max(total["count"], 1e-300)
    found: float | None = called(metric.rate)(total)
    return "it is not defined on the samples that are kept" if found is None else float(found)
