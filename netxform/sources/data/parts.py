"""Samples cut into parts: by seed, the classes in their shares; few of each where few are asked for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from netxform.errors import NOWHERE, Span, fail
from netxform.sources.data.options import normal_of
from netxform.sources.data.source import DataSet, Options

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
"""What people call the parts."""


def from_tensors(
    name: str, x: Tensor, y: Tensor, *, val: float = 0.15, test: float = 0.2, seed: int = 0, classes: int | None = None
) -> DataSet:
    """A data set of tensors handed in from Python: x (N, …) float, y (N) class numbers (or (N, …) values)."""
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    if x.dim() == 0 or y.dim() == 0 or len(x) != len(y):
        sizes = [str(len(t)) if t.dim() else "a number" for t in (x, y)]
        helps = ("hand in one target for each input: x (N, …), y (N)",)
        raise fail("X0817", f"data `{name}`: {sizes[0]} inputs and {sizes[1]} targets", helps=helps)
    if not len(x) or not x.numel():
        raise fail("X0817", f"data `{name}` has no samples", helps=("hand in at least one sample of each class",))
    x, y = x.detach().cpu(), y.detach().cpu()
    if x.is_complex() or y.is_complex():
        raise fail("X0401", f"data `{name}` holds complex numbers", helps=("take their real and imaginary parts as channels",))
    finite(x, f"data `{name}`: x")
    finite(y, f"data `{name}`: y")
    is_class = not y.dtype.is_floating_point
    if is_class:
        y = y.to(torch.int64)
        if len(y) and bool((y < 0).all()):
            message = f"data `{name}`: every target is below 0, and none is counted"
            raise fail("X0406", message, helps=("number the classes from 0; -100 marks what does not count",))
    labels = y.numpy() if is_class and y.dim() == 1 else np.zeros(len(y), dtype=np.int64)
    parts = split(labels, val, test, seed)
    made = [TensorDataset(x[torch.from_numpy(p)], y[torch.from_numpy(p)]) for p in parts]
    count = classes if classes is not None else int(y.max()) + 1 if is_class and len(y) else None
    digest = hashlib.sha256(x.contiguous().numpy().tobytes() + y.contiguous().numpy().tobytes()).hexdigest()
    return DataSet(name, made[0], made[1], made[2], count, tuple(x.shape[1:]), digest)


def finite(values: Tensor, what: str, span: Span = NOWHERE, masks: bool = False) -> None:
    """Raises NetxformError X0838, with the place, for NaN and infinity. `masks`: minus infinity may stand in masks."""
    import torch

    if not values.dtype.is_floating_point or values.is_meta:
        return
    good = torch.isfinite(values) | torch.isneginf(values) if masks else torch.isfinite(values)
    if bool(good.all()):
        return
    bad = (~good).nonzero()
    at = tuple(bad[0].tolist())
    kind = "NaN" if bool(torch.isnan(values[at])) else "infinity"
    helps = ("take these samples out, or fill the gaps, before the data is handed in",)
    message = f"{what} holds {kind}: {len(bad):,} of {values.numel():,} numbers are not finite"
    raise fail("X0838", message, span, "not finite", notes=(f"the first stands at {list(at)}",), helps=helps)


def split(labels: np.ndarray, val: float, test: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three disjoint index sets, each with the classes in their shares."""
    import numpy as np

    rng = np.random.default_rng(seed)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        a, b = round(len(places) * test), round(len(places) * (test + val))
        for part, chosen in zip(parts, (places[b:], places[a:b], places[:a]), strict=True):
            part += chosen.tolist()
    return tuple(rng.permutation(np.array(sorted(p), dtype=np.int64)) for p in parts)  # type: ignore[return-value]


def build(
    name: str, images: np.ndarray, labels: np.ndarray, options: Options, seed: int, span: Span, official: int | None = None
) -> DataSet:
    """Images (N, H, W) in [0, 1] and labels as a data set; with `official` the samples from there on are the test part."""
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    split_seed = options.seed if options.seed is not None else 0
    if official is None:
        train, val, test = split(labels, share(options.val), share(options.test), split_seed)
    else:
        train, val, _ = split(labels[:official], share(options.val), 0.0, split_seed)
        test = np.arange(official, len(labels))
    if isinstance(options.val, int) and options.val > 1:
        val = val[: options.val]
    if isinstance(options.test, int) and options.test > 1:
        test = np.random.default_rng([split_seed, 19]).permutation(test)[: options.test]
    kept = list(range(10)) if options.classes is None else list(options.classes)
    absent = [c for c in kept if c not in set(labels.tolist())]
    if absent:
        raise fail(
            "X0817",
            f"data `{name}` has no class {absent[0]}",
            span,
            "no such class",
            helps=(f"classes: {sorted(set(labels.tolist()))}",),
        )
    number = {c: i for i, c in enumerate(kept)}
    train, val, test = (p[np.isin(labels[p], kept)] for p in (train, val, test))
    if options.omit:  # classes that are never shown: in training and validation no sample of theirs, in the test all
        if any(c not in kept for c in options.omit):
            raise fail(
                "X0817",
                f"data `{name}`: `omit` names a class that is not there",
                span,
                "no such class",
                helps=(f"classes: {kept}",),
            )
        train, val = (p[~np.isin(labels[p], options.omit)] for p in (train, val))
        kept = [c for c in kept if c not in options.omit]
    if options.per_class is not None:
        rng = np.random.default_rng([seed, 17])
        train = few(train, labels, kept, options.per_class, rng, name, span)
        val = few(val, labels, kept, min(options.per_class, fewest(val, labels, kept)), rng, name, span)
    if options.train is not None:
        if options.train > len(train):
            message = f"data `{name}`: {options.train} training samples asked for, {len(train)} there"
            raise fail("X0817", message, span, "too many", helps=(f"ask for at most {len(train)}",))
        train = np.random.default_rng([seed, 18]).permutation(train)[: options.train]
    x = torch.from_numpy(np.ascontiguousarray(images[:, None].astype(np.float32)))
    y = torch.tensor([number.get(int(c), -1) for c in labels])

    def part(indices: np.ndarray) -> TensorDataset:
        return TensorDataset(prepare(x[torch.from_numpy(indices)], options, span), y[torch.from_numpy(indices)])

    if not len(train):
        helps = ("take fewer for `val` and `test`, and leave some classes in",)
        raise fail("X0817", f"data `{name}` leaves nothing to train on", span, "no training samples", helps=helps)
    parts = [part(p) for p in (train, val, test)]
    kept = list(number)
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + repr(options).encode()).hexdigest()
    shape = tuple(parts[0].tensors[0].shape[1:])
    return DataSet(name, parts[0], parts[1], parts[2], len(kept), shape, digest, tuple(str(c) for c in kept))


def share(value: float) -> float:
    """A share as it is; for a number of samples, the share that they are taken from."""
    return 0.2 if isinstance(value, int) and value > 1 else value


def fewest(indices: np.ndarray, labels: np.ndarray, kept: list[int]) -> int:
    """How many samples the rarest of the classes has."""
    return min((int((labels[indices] == c).sum()) for c in kept), default=0)


def few(indices: np.ndarray, labels: np.ndarray, kept: list[int], count: int, rng: Any, name: str, span: Span) -> np.ndarray:
    """`count` samples of every class, drawn by `rng`. Raises NetxformError X0817 where there are fewer."""
    import numpy as np

    out: list[np.ndarray] = []
    for label in kept:
        places = indices[labels[indices] == label]
        if len(places) < count:
            message = f"data `{name}`: {count} samples of class {label} asked for, {len(places)} there"
            raise fail("X0817", message, span, "too many", helps=(f"ask for at most {len(places)}",))
        out.append(rng.permutation(places)[:count])
    return rng.permutation(np.concatenate(out)) if out else indices


def prepare(x: Tensor, options: Options, span: Span = NOWHERE) -> Tensor:
    """Images (N, C, H, W) in the size, channels and range that the spec asks for."""
    import torch

    if options.size is not None and len(x):
        x = torch.nn.functional.interpolate(x, options.size, mode="bicubic", align_corners=False, antialias=True)
        x = x.clamp(0, 1)
    if options.channels is not None and options.channels != x.shape[1]:
        x = x.expand(-1, options.channels, -1, -1).contiguous()
    if isinstance(options.normalize, str):
        helps = ("write numbers: `normalize=[0.5, 0.25]`",)
        raise fail("X0406", f"`normalize={options.normalize}` is not for this data set", span, "normalize", helps=helps)
    if (both := normal_of(options.normalize, x.shape[1], span)) is not None:
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in both)
        x = (x - mean) / std
    return x
