"""Samples as people have them → samples (x, y) of tensors: pairs, dicts of fields, named tuples, images, numbers, class names.

a sample, what is known of its fields ─Reader→ (x, y)
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from netxform.errors import did_you_mean, fail

TARGETS = ("labels", "label", "targets", "target", "y", "class")
"""Names of fields that hold the target, where none is named."""

Key = str | int


def listed(values: Sequence[Any], most: int = 8) -> str:
    """Names, the first few of them."""
    return ", ".join(str(v) for v in values[:most]) + (", …" if len(values) > most else "")


@dataclass(frozen=True)
class Layout:
    """Where in a sample the inputs and the target stand. `inputs`: None for the sample itself; `left`: fields left out."""

    inputs: tuple[Key, ...] | None
    target: Key | None
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """Reads samples of one data set. `numbers`: the number of each class name; `scaled`: images are scaled to [0, 1]."""

    name: str
    layout: Layout
    numbers: Mapping[str, int] = field(default_factory=dict[str, int])

    def __call__(self, sample: Any) -> tuple[Any, Any]:
        """One sample. Raises ValueError or TypeError, in words, for what cannot be read."""
        at, layout = fields_of(sample), self.layout
        if layout.inputs is None:
            return self.inputs(sample if at is None or layout.target is None else at[layout.target]), None
        if at is None:
            raise TypeError(f"a sample is a `{type(sample).__name__}`, and the first one had fields")
        for key in (*layout.inputs, *(() if layout.target is None else (layout.target,))):
            if key not in at:
                raise ValueError(f"a sample has no {_field(key)}, and the first one had it")
        found = [self.inputs(at[key], _field(key)) for key in layout.inputs]
        x: Any = found[0]
        if len(found) > 1:
            named = isinstance(layout.inputs[0], str)
            x = dict(zip(layout.inputs, found, strict=True)) if named else tuple(found)
        return x, None if layout.target is None else self.target(at[layout.target])

    def batch(self, batch: Any) -> tuple[Any, Any]:
        """A batch that somebody's own collate function made: read as a sample is, with the samples in front of each field."""
        return self(batch)

    def inputs(self, value: Any, what: str = "x") -> Any:
        """What a model takes: a tensor, or several by name or place."""
        if isinstance(value, Mapping):
            held = cast("Mapping[Any, Any]", value)
            found = {str(k): tensor_of(v, f"`{k}`") for k, v in held.items() if not isinstance(v, str)}
            if not found:
                raise ValueError(f"{what} has no field of numbers")
            return next(iter(found.values())) if len(found) == 1 else found
        if isinstance(value, tuple | list) and value and all(_is_array(v) for v in cast("list[Any]", value)):
            several = cast("list[Any]", value)
            if isinstance(value, tuple):
                return tuple(tensor_of(v, f"{what}[{i}]") for i, v in enumerate(several))
        return tensor_of(value, what)

    def target(self, value: Any) -> Any:
        """What a loss takes: numbers, a class by name, several by name or place, or nothing."""
        if value is None:
            raise ValueError("a sample has no label: it is None")
        if isinstance(value, Mapping):
            return {str(k): self.target(v) for k, v in cast("Mapping[Any, Any]", value).items()}
        if isinstance(value, tuple):
            return tuple(self.target(v) for v in cast("tuple[Any, ...]", value))
        if isinstance(value, str):
            if value not in self.numbers:
                known = ", ".join(list(self.numbers)[:6]) or "none"
                raise ValueError(f"`{value[:40]}` is no class of this data (classes: {known})")
            return torch.tensor(self.numbers[value])
        if isinstance(value, list) and value and all(isinstance(v, str) for v in cast("list[Any]", value)):
            return torch.stack([self.target(v) for v in cast("list[Any]", value)])
        return tensor_of(value, "the label")


def fields_of(sample: Any) -> dict[Any, Any] | None:
    """The parts of a sample by name or by place; None for what is one thing."""
    if isinstance(sample, Mapping):
        return dict(cast("Mapping[Any, Any]", sample))
    if isinstance(sample, tuple) and hasattr(sample, "_asdict"):
        return dict(cast(Any, sample)._asdict())
    if isinstance(sample, tuple | list):
        return dict(enumerate(cast("list[Any]", sample)))
    if dataclasses.is_dataclass(sample) and not isinstance(sample, type):
        return {f.name: getattr(sample, f.name) for f in dataclasses.fields(sample)}
    return None


def layout_of(name: str, sample: Any, target: Key | None, inputs: Sequence[Key] | None) -> Layout:
    """Where inputs and target stand, by what is named, else by the form of the first sample.

    Raises NetxformError X0401 (a form that says nothing), X0402 (a field that is not there).
    """
    at = fields_of(sample)
    if at is None or (isinstance(sample, list) and not _holds_parts(cast("list[Any]", sample))):
        if target is not None or inputs is not None:
            raise fail("X0401", f"data `{name}`: a sample is a `{type(sample).__name__}`: it has no fields to be named")
        return Layout(None, None)
    keys = list(at)
    for key in (*(inputs or ()), *(() if target is None else (target,))):
        if key not in keys:
            helps = did_you_mean(str(key), [str(k) for k in keys]) or (f"it has {listed([str(k) for k in keys])}",)
            raise fail("X0401", f"data `{name}`: its samples have no {_field(key)}", helps=helps)
    if not keys:
        raise fail("X0401", f"data `{name}`: its samples are empty", helps=("each sample is a pair (x, y)",))
    if isinstance(keys[0], str):
        return _named(name, at, target, inputs)
    if inputs is None and target is None and len(keys) > 2:
        helps = (
            f"say which is the target: `nx.dataset(…, target={len(keys) - 1})`",
            f"and, where not all the others are inputs: `inputs=[0], target={len(keys) - 1}`",
        )
        raise fail("X0401", f"data `{name}`: a sample has {len(keys)} parts, and none is named", helps=helps)
    if target is None and inputs is None:
        if len(keys) == 1:
            return Layout((0,), None)
        return Layout((0,), None if at[1] is None else 1)
    return Layout(tuple(k for k in keys if k != target) if inputs is None else tuple(inputs), target)


def _named(name: str, at: dict[Any, Any], target: Key | None, inputs: Sequence[Key] | None) -> Layout:
    found = [k for k in TARGETS if k in at]
    if target is None and len(found) > 1:
        helps = (f"say which is the target: `nx.dataset(…, target={found[0]!r})`",)
        raise fail("X0401", f"data `{name}`: {listed(found)} may all be the target", helps=helps)
    target = target if target is not None or not found else found[0]
    if inputs is not None:
        return Layout(tuple(inputs), target)
    others = [k for k in at if k != target and k not in found]
    kept = [k for k in others if _readable(at[k])]
    left = tuple(str(k) for k in others if k not in kept)
    if not kept:
        texts = [k for k in others if isinstance(at[k], str)]
        helps = (
            (f'words become numbers by a tokenizer: `nx.dataset(…, text="{texts[0]}", tokenizer=…)`',)
            if texts
            else (f"fields: {listed([str(k) for k in at])}; name those that go into the model: `inputs=[…]`",)
        )
        raise fail("X0401", f"data `{name}`: no field of its samples holds numbers or an image", helps=helps)
    return Layout(tuple(kept), target, left)


def _field(key: Key) -> str:
    return f"field `{key}`" if isinstance(key, str) else f"part {key}"


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _holds_parts(sample: list[Any]) -> bool:
    """Whether a list is a sample of several parts, and not a row of numbers."""
    return not all(isinstance(v, bool | int | float) for v in sample) or len(sample) == 2


def _readable(value: Any) -> bool:
    try:
        tensor_of(value, "x")
    except (ValueError, TypeError):
        return False
    return True


def tensor_of(value: Any, what: str) -> Tensor:
    """A number, an array, a list of numbers or an image as a tensor. Images become (C, H, W), uint8.

    Raises TypeError or ValueError, in words.
    """
    if isinstance(value, Tensor):
        if value.is_meta or value.layout is not torch.strided:
            raise ValueError(f"{what} is a tensor without numbers, or a sparse one")
        value = value.detach().cpu()
    elif hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise ValueError(f"{what} is sparse: hand in `.toarray()`")
    elif _is_image(value):
        picture = np.array(value if value.mode in ("L", "RGB", "RGBA", "F", "I", "I;16") else value.convert("RGB"))
        picture = picture[:, :, None] if picture.ndim == 2 else picture
        value = torch.from_numpy(np.ascontiguousarray(np.moveaxis(picture, 2, 0)))
    elif value is None:
        raise ValueError(f"{what} is None")
    elif isinstance(value, str | bytes):
        raise TypeError(f"{what} is a text, not a number" if isinstance(value, str) else f"{what} is bytes, not a number")
    else:
        value = _array(value, what)
    if value.is_complex():
        raise TypeError(f"{what} holds complex numbers")
    return value


def _is_image(value: Any) -> bool:
    return type(value).__module__.startswith("PIL.") and hasattr(value, "convert")


def _array(value: Any, what: str) -> Tensor:
    if isinstance(value, list) and value and all(isinstance(v, Tensor) for v in cast("list[Any]", value)):
        shapes = {tuple(v.shape) for v in cast("list[Tensor]", value)}
        if len(shapes) > 1:
            raise ValueError(f"{what} is ragged: its tensors have several shapes")
        return torch.stack(cast("list[Tensor]", value))
    array = numbers_in(value, what)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not array.flags.writeable:  # nothing here writes into data
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))  # a number alone becomes a row in between


def numbers_in(value: Any, what: str) -> np.ndarray:
    """An array of numbers. Python's own floats become float32. Raises TypeError or ValueError, in words."""
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever the object raises when it is asked for its numbers
        if "inhomogeneous" in str(error):
            raise ValueError(f"{what} is ragged: rows of several lengths") from error
        raise TypeError(f"{what} is a `{type(value).__name__}`, not an array of numbers") from error
    if array.dtype.kind in "US":
        raise TypeError(f"{what} holds texts, not numbers")
    if array.dtype.kind not in "biuf":
        shown = f"a `{type(value).__name__}`" if array.ndim == 0 else f"an array of {array.dtype}"
        raise TypeError(f"{what} is {shown}, not of numbers")
    if array.dtype.kind == "f" and isinstance(value, float | list | tuple):
        array = array.astype(np.float32)
    if array.dtype == np.uint16 or array.dtype == np.uint32 or array.dtype == np.uint64:
        array = array.astype(np.int64)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return array
