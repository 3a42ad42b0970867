"""Samples in the form that a network takes: fields in the order of its arguments, numbers in its types.

DataSet, inputs of a network ─bind→ DataSet whose x is one tensor, or a tuple with one tensor an argument
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from netxform.graph.network import Input
from netxform.sources.data.given.python import sample_of
from netxform.sources.data.given.samples import Bound, Stream, leaves, names, size, source_of
from netxform.sources.data.source import DataSet


@dataclass(frozen=True)
class Arguments:
    """What is done to the x of every batch: `keys` in this order (None: it is one tensor), each in its type.

    `scaled`: which of them are images of bytes, that become numbers in [0, 1].
    """

    keys: tuple[Any, ...] | None
    dtypes: tuple[torch.dtype | None, ...]
    scaled: tuple[bool, ...]

    def __call__(self, x: Any) -> Any:
        """A batch as the network takes it."""
        found = [x] if self.keys is None else [x[k] for k in self.keys]
        held = [cast_to(t, d, s) for t, d, s in zip(found, self.dtypes, self.scaled, strict=True)]
        return held[0] if len(held) == 1 else tuple(held)


def cast_to(value: Tensor, dtype: torch.dtype | None, scaled: bool) -> Tensor:
    """Numbers in another type."""
    if dtype is None or value.dtype == dtype:
        return value
    found = value.to(dtype)
    return found / 255 if scaled else found


def bind(data: DataSet, inputs: Sequence[Input]) -> DataSet:
    """The data as the network takes it, and what was done in words; as it is, where it does not fit (`input_fits` says so)."""
    first = sample_of(data)
    if first is None or not inputs:
        return data
    x = first[0]
    keys = _keys(x, [i.name for i in inputs])
    if keys is not None and any(k is None for k in keys):
        return data
    if keys is None and len(inputs) > 1:
        return data
    taken = [x] if keys is None else [x[k] for k in keys]
    said: list[str] = []
    dtypes: list[torch.dtype | None] = []
    scaled: list[bool] = []
    for i, (tensor, wanted) in enumerate(zip(taken, inputs, strict=True)):
        what = "x" if keys is None else f"`{keys[i]}`" if isinstance(keys[i], str) else f"x[{i}]"
        dtype, scale, text = _cast(tensor, wanted.dtype, what)
        dtypes.append(dtype)
        scaled.append(scale)
        said += [text] if text else []
    left = [n for n in names(x) if keys is not None and n not in [str(k) for k in keys]]
    if left:
        said.append(f"fields that the network does not take are left out: {', '.join(left)}")
    if keys is None and not any(d is not None for d in dtypes):
        return data
    of = Arguments(keys, tuple(dtypes), tuple(scaled))

    def bound(part: Any) -> Any:
        if isinstance(part, Stream):
            return part.changed(of=of)
        return Bound(source_of(part), of) if size(part) else part

    held = replace(data, train=bound(data.train), val=bound(data.val), test=bound(data.test), said=(*data.said, *said))
    if keys is not None and len(keys) == 1:
        return replace(held, shape=tuple(cast("Tensor", taken[0]).shape[1:]), inputs=())
    if keys is not None:
        known = dict(data.inputs)
        return replace(held, inputs=tuple((i.name, known.get(str(k))) for i, k in zip(inputs, keys, strict=True)))
    return held


def _keys(x: Any, wanted: list[str]) -> tuple[Any, ...] | None:
    """Which part of x goes to which argument, None for one that is missing; None for one tensor."""
    if isinstance(x, Tensor):
        return None
    if isinstance(x, tuple):
        several = cast("tuple[Any, ...]", x)
        return tuple(range(len(several))) if len(several) == len(wanted) else (None,)
    held = cast("dict[str, Any]", x)
    if len(held) == 1 == len(wanted):
        return tuple(held)
    return tuple(n if n in held else None for n in wanted)


def _cast(tensor: Tensor, wanted: torch.dtype, what: str) -> tuple[torch.dtype | None, bool, str]:
    """The type that it gets, whether it is scaled, and both in words."""
    have = tensor.dtype
    if have == wanted or (wanted.is_floating_point is False and have.is_floating_point):
        return None, False, ""
    names_ = [str(d).removeprefix("torch.") for d in (have, wanted)]
    if have == torch.uint8 and wanted.is_floating_point and tensor.dim() >= 4:
        return wanted, True, f"{what} are images of bytes: as {names_[1]} in [0, 1]"
    if not have.is_floating_point and have.is_signed and not wanted.is_floating_point:
        return wanted, False, ""  # wider, and the same numbers
    return wanted, False, f"{what} is {names_[0]}: as {names_[1]}"


def plain_shapes(data: DataSet) -> tuple[tuple[int, ...], ...]:
    """The shapes of the inputs of one sample, as the first one has them."""
    first = sample_of(data)
    return () if first is None else tuple(tuple(t.shape[1:]) for t in leaves(first[0]))
