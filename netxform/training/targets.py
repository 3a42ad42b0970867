"""What the targets of a data set look like, and what a loss takes from them: weights, and chances to be drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from netxform.errors import Span, fail
from netxform.language.methods import IGNORED, Loss
from netxform.language.targets import MOST, UNLABELLED, Targets, targets_fit
from netxform.language.work import Training
from netxform.sources.data import DataSet
from netxform.sources.data.given.samples import Stream, leaves, names, rows, size, source_of
from netxform.training.data import Samples
from netxform.training.losses import class_rows
from netxform.training.objective import column, terms_of

_FEW = 32
_AT_ONCE = 256


def labels_of(samples: Samples, most: int | None = None) -> Any:
    """The targets of all samples (or of the first `most`), without the inputs where the data set tells; None for no sample, and
    where there are no labels. Of several targets each by its name or place.
    """
    if isinstance(samples, Stream):
        return None if most is None else next(samples.batches(most), (None, None))[1]
    source = source_of(samples)
    found = source.labels()
    if found is not None or not len(source):
        return found
    places = torch.arange(len(source) if most is None else min(most, len(source)))
    several = [y for _, y in source.batches(places.split(_AT_ONCE))]
    if several[0] is None:
        return None
    parts = [torch.cat(list(held)) for held in zip(*map(leaves, several), strict=True)]
    return parts[0] if isinstance(several[0], Tensor) else dict(zip(names(several[0]), parts, strict=True))


def look(target: Tensor) -> Targets:
    """What is to be known of targets (N, …)."""
    whole = not target.dtype.is_floating_point
    finite = torch.ones((), dtype=torch.bool) if whole else torch.isfinite(target)
    broken = 0 if whole else int((~finite.reshape(len(target), -1).all(1)).sum())
    flat = target.reshape(-1) if not broken else target[finite]
    counted = flat[flat != IGNORED] if whole else flat
    shares = False
    if len(target.shape) >= 2 and not broken and flat.numel():
        sums = target.double().sum(1)
        shares = bool(counted.min() >= 0) and bool((sums - 1).abs().max() <= 1e-3)
    different = torch.unique(counted)
    if len(different) > MOST:
        different = torch.stack([different[0], different[-1]])
    values = tuple(float(v) for v in different)
    dtype = str(target.dtype).removeprefix("torch.")
    return Targets(tuple(target.shape[1:]), whole, dtype, values, shares, broken, len(target))


def targets_of(data: DataSet) -> Targets | None:
    """What the targets of the training part look like, as far as they lie in memory; None where they do not."""
    known = None if isinstance(data.train, Stream) else source_of(data.train).labels()
    return look(known) if isinstance(known, Tensor) and len(known) else None


def check(work: Training, shapes: dict[str | None, tuple[int, ...]], data: DataSet, span: Span) -> None:
    """Nothing where the targets of every part fit the losses. Raises NetxformError X0317, X0351."""
    if not data.labelled and (work.soft is None or work.soft.hard > 0):
        raise fail("X0351", f"`{data.name}` has no labels", span, "nothing to learn from", helps=UNLABELLED)
    for part in (data.train, data.val, data.test):
        found = labels_of(part, _FEW) if size(part) != 0 and data.labelled else None
        if found is None:
            continue
        for term in terms_of(work):
            shape = shapes.get(term.output, next(iter(shapes.values())) if len(shapes) == 1 else None)
            if shape is not None and (term.target is None or not isinstance(found, Tensor) or found.dim() > 1):
                targets_fit(term.loss, shape, look(column(found, term.target)), data.name, span)


def settled(work: Training, shapes: dict[str | None, tuple[int, ...]], data: DataSet) -> tuple[Training, tuple[str, ...]]:
    """The work with every weight a number, and what was settled in words.

    `balanced` weighs class c by N / (C · N_c), the labels of each output by (zeros / ones), counted on the training part.
    Raises NetxformError X0406 where the number of weights is not that of the classes, X0817 where a class has no sample.
    """
    said: list[str] = []

    def of(loss: Loss, shape: tuple[int, ...] | None, index: int | str | None) -> Loss:
        settings = dict(loss.settings)
        for key in ("weight", "pos_weight"):
            value = settings.get(key)
            if value is None:
                continue
            if value == "balanced":
                target = _counted(data, f"{key}=balanced")
                values = _balanced(column(target, index), shape, loss, key, data.name)
                settings[key] = values
                said.append(f"{key} of `{loss.name}`, from {rows(target)} training samples: {_listed(values)}")
                value = values
            first = labels_of(data.train, 1)
            count = _count(shape, loss, None if first is None else column(first, index))
            if isinstance(value, tuple) and count is not None and len(cast("tuple[float, ...]", value)) != count:
                several = len(cast("tuple[float, ...]", value))
                raise fail("X0406", f"`{key}` has {several} numbers, and the network {count} outputs", label=key)
            if isinstance(value, float) and key == "weight":
                raise fail("X0406", f"`weight` is a list, one number a class, not {value:g}", label=key)
        return Loss(loss.name, settings)

    only = next(iter(shapes.values())) if len(shapes) == 1 else None
    terms = tuple(replace(t, loss=of(t.loss, shapes.get(t.output, only), t.target)) for t in work.terms)
    loss = work.loss if work.terms else of(work.loss, shapes.get(work.outputs[0] if work.outputs else None, only), None)
    return replace(work, loss=loss, terms=terms), tuple(said)


def _count(shape: tuple[int, ...] | None, loss: Loss, target: Tensor | None) -> int | None:
    """How many classes or outputs there are."""
    if shape is None or len(shape) < 2:
        return None
    if loss.kind.takes == "classes" and len(shape) == 3 and target is not None and tuple(target.shape[1:]) == shape[1:-1]:
        return shape[-1]
    return shape[-1] if loss.kind.takes != "classes" and len(shape) == 3 else shape[1]


def _balanced(target: Tensor, shape: tuple[int, ...] | None, loss: Loss, key: str, name: str) -> tuple[float, ...]:
    classes = _count(shape, loss, target[:1])
    if key == "pos_weight":
        if target.dim() == 1 and classes is not None and classes > 1:
            flat = torch.nn.functional.one_hot(target.long(), classes).double()
        elif classes == 1 or classes is None:
            flat = target.reshape(-1, 1).double()
        else:
            flat = (target.movedim(1, -1) if target.dim() > 3 else target).reshape(-1, classes).double()
        ones = flat.sum(0)
        _all_there(ones, name)
        return tuple(float(v) for v in (len(flat) - ones) / ones)
    if target.dtype.is_floating_point:
        counts = class_rows(target)[0].double().sum(0)
    else:
        flat = target.reshape(-1)
        kept = flat[(flat != IGNORED) & (flat != loss.settings.get("ignore_index", IGNORED))].long()
        counts = torch.bincount(kept, minlength=classes or 0).double()
    _all_there(counts, name)
    return tuple(float(v) for v in counts.sum() / (len(counts) * counts))


def _all_there(counts: Tensor, name: str) -> None:
    if bool((counts == 0).any()):
        empty = int((counts == 0).nonzero()[0])
        raise fail("X0817", f"class {empty} has no training sample in `{name}`: no weight balances it", label="balanced")


def _counted(data: DataSet, what: str) -> Any:
    """The targets of all training samples. Raises NetxformError X0351 where there are none, or they cannot be looked
    through.
    """
    if data.streamed:
        raise fail("X0351", f"`{data.name}` is a stream: its labels cannot be counted beforehand", label=what)
    target = labels_of(data.train)
    if target is None:
        raise fail("X0351", f"`{data.name}` has no labels", label=what)
    return target


def chances(data: DataSet, work: Training) -> Tensor | None:
    """How likely each training sample is drawn (N,), so that classes come equally often; None for every sample once an epoch.

    Raises NetxformError X0351 where the samples have no class each.
    """
    if work.draw != "balanced":
        return None
    target = _counted(data, "draw=balanced")
    target = column(target, terms_of(work)[0].target)
    if target.dim() == 2 and target.dtype.is_floating_point and look(target).shares:
        target = target.argmax(1)
    if target.dim() == 2 and target.shape[1] == 1:
        target = target[:, 0]
    flags = look(target).flags
    if target.dim() != 1 or (target.dtype.is_floating_point and not flags):
        raise fail(
            "X0351",
            f"targets of `{data.name}` are {look(target)}: there is no one class a sample to be drawn by",
            label="draw=balanced",
            helps=("leave `draw=balanced` out; `bce(pos_weight=balanced)` weighs labels",),
        )
    _, places, counts = torch.unique(target, return_inverse=True, return_counts=True)
    return 1.0 / counts[places].double()


def _listed(values: tuple[float, ...], most: int = 10) -> str:
    shown = ", ".join(f"{v:.4g}" for v in values[:most])
    return shown if len(values) <= most else f"{shown}, … (from {min(values):.4g} to {max(values):.4g})"
