"""What a source has found, before any sample is decoded; and the three parts made of it.

Found ─seen_of→ Seen, what a plan says of it       Found ─parted→ DataSet
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netxform.errors import Span, fail
from netxform.sources.data.options import given_of
from netxform.sources.data.parts import few, share, split
from netxform.sources.data.source import DataSet, Options, Seen
from netxform.syntax import ast

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

PARTS = ("train", "val", "test")
_FEW = 512
_MANY = 8
_WORDS = {"train": "to train on", "val": "to validate on", "test": "to test on"}


@dataclass(frozen=True, slots=True)
class Found:
    """Samples before they are decoded.

    `x`: a tensor (N, …), or what gives a sample (x, y) by number; `y`: targets (N, …), None where they lie in files. `shape`:
    of one x. `labels`: the names of the classes, or of the columns of `y`. `given`: the parts that the data itself has, as
    numbers of samples. `said`: what was found, in words; `digest`: a hash of it.
    """

    x: Any
    y: Tensor | None
    shape: tuple[int, ...] | None
    digest: str
    classes: int | None = None
    labels: tuple[str, ...] = ()
    given: Mapping[str, np.ndarray] = field(default_factory=dict[str, "np.ndarray"])
    said: tuple[str, ...] = ()


def seen_of(data: ast.Data, options: Options, found: Found, seed: int) -> Seen:
    """What the plan says of it."""
    parts = _cut(data, options, found, seed)
    said = (*found.said, _sizes(parts, found))
    return Seen(found.classes, found.shape, len(parts["train"]), found.labels, found.y, said)


def parted(data: ast.Data, options: Options, found: Found, seed: int) -> DataSet:
    """The data set. Raises NetxformError X0817 (not enough samples), X0404 (a part that the data has is asked for again)."""
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    from netxform.sources.data.given.samples import Items

    parts = _cut(data, options, found, seed)
    said = (*found.said, _sizes(parts, found))
    places = {n: torch.from_numpy(np.ascontiguousarray(p, dtype=np.int64)) for n, p in parts.items()}
    if isinstance(found.x, torch.Tensor):
        assert found.y is not None
        x = _standard(found.x, places["train"]) if options.normalize == "own" else found.x
        made: list[Any] = [TensorDataset(x[places[n]], found.y[places[n]]) for n in PARTS]
    else:
        every = Items(found.x, workers=workers_of(options, len(found.x)), known=found.y)
        made = [every.part(places[n]) for n in PARTS]
    shape = found.shape or tuple(made[0][0][0].shape)
    view = None if isinstance(found.x, torch.Tensor) else found.x.view
    normal = (view.mean, view.std) if view is not None and view.mean else None
    return DataSet(
        data.name, made[0], made[1], made[2], found.classes, shape, found.digest, found.labels, said=said, normal=normal
    )


def workers_of(options: Options, count: int) -> int:
    """How many processes decode: those asked for; by itself none for few samples, else one a core, up to eight."""
    if options.workers is not None:
        return options.workers
    forked = multiprocessing.get_start_method(allow_none=True) in (None, "fork") and os.name == "posix"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return min(_MANY, cores) if forked and count >= _FEW else 0


def _standard(x: Tensor, train: Tensor) -> Tensor:
    """Every column less its mean and divided by its standard deviation over the training part; one that is constant stays."""
    held = x[train].double()
    std, mean = held.std(0, correction=0), held.mean(0)
    return ((x.double() - mean) / std.where(std > 0, 1.0)).float()


def _cut(data: ast.Data, options: Options, found: Found, seed: int) -> dict[str, np.ndarray]:
    """The numbers of the samples of each part: those that the data has itself; the others are cut off what is trained on."""
    import numpy as np

    count = len(found.x)
    y = found.y.numpy() if found.y is not None else None
    sorted_out = y is not None and y.ndim == 1 and y.dtype.kind == "i"
    labels = y if y is not None and sorted_out else np.zeros(count, dtype=np.int64)
    base = found.given.get("train", np.arange(count))
    shares = {n: 0.0 if n in found.given else share(getattr(options, n)) for n in ("val", "test")}
    cut = split(labels[base], shares["val"], shares["test"], options.seed or 0)
    out = {n: base[p] for n, p in zip(PARTS, cut, strict=True)}
    out |= {n: p for n, p in found.given.items() if n != "train"}
    asked = given_of(data)[1]
    for name in ("val", "test"):
        wanted = getattr(options, name)
        if isinstance(wanted, int) and wanted > 1:
            if name in found.given:
                out[name] = np.random.default_rng([options.seed or 0, 19]).permutation(out[name])
            out[name] = out[name][:wanted]
        elif name in found.given and name in asked:
            helps = (f"leave it out, or say how many are taken: `{name}=500`",)
            text = f"`{data.name}` has a part `{name}` of its own, of {len(out[name]):,} samples"
            raise fail("X0404", text, asked[name].span, "not cut", helps=helps)
    if options.per_class is not None:
        if not sorted_out:
            span = asked["per_class"].span
            raise fail("X0404", "`per_class` is of classes, and the targets are none", span, "of what?",
                       helps=("say how many in all: `train=100`",))  # fmt: skip
        kept = sorted(set(labels[out["train"]].tolist()))
        out["train"] = few(out["train"], labels, kept, options.per_class, np.random.default_rng([seed, 17]), data.name,
                           data.span)  # fmt: skip
    if options.train is not None:
        if options.train > len(out["train"]):
            message = f"data `{data.name}`: {options.train} training samples asked for, {len(out['train'])} there"
            raise fail("X0817", message, data.span, "too many", helps=(f"ask for at most {len(out['train'])}",))
        out["train"] = np.random.default_rng([seed, 18]).permutation(out["train"])[: options.train]
    if not len(out["train"]):
        helps = ("take fewer for `val` and `test`, or more samples",)
        raise fail("X0817", f"data `{data.name}` leaves nothing to train on", data.span, "no training samples", helps=helps)
    return out


def _sizes(parts: Mapping[str, np.ndarray], found: Found) -> str:
    """How many samples each part has, and whose choice it is."""
    own = [n for n in PARTS if n in found.given]
    text = ", ".join(f"{len(parts[n]):,} {_WORDS[n]}" for n in PARTS)
    return text + (f"; {' and '.join(own)} as the data has them" if own else "")


def alone(classes: int, what: str, span: Span) -> None:
    """Nothing where there are two classes at least. Raises NetxformError X0817."""
    if classes < 2:
        helps = ("there are two classes at least to be told apart",)
        raise fail("X0817", f"{what}: one class alone", span, "nothing to tell apart", helps=helps)
