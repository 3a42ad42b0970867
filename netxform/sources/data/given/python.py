"""Data handed in from Python, whatever has it: data sets and loaders of torch, of Hugging Face, arrays, frames, streams.

value, Wanted ─read_python→ DataSet
"""

# Long: one table of forms, and one short function for each.

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from netxform.errors import NetxformError, did_you_mean, fail
from netxform.limits import need
from netxform.sources.data.given.reader import TARGETS, Key, Reader, fields_of, layout_of, listed, numbers_in, tensor_of
from netxform.sources.data.given.samples import (
    Items,
    Source,
    Stream,
    Table,
    column,
    leaves,
    loading,
    mapped,
    names,
    nothing,
    size,
    source_of,
)
from netxform.sources.data.parts import NAMES, finite, split
from netxform.sources.data.source import DataSet

_SCANNED = 10_000  # samples that are loaded for their labels alone
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Wanted:
    """What is said of the data beside the value. `classes`: how many, or their names."""

    target: Key | None = None
    inputs: tuple[Key, ...] | None = None
    classes: int | tuple[str, ...] | None = None
    collate: Callable[[list[Any]], Any] | None = None
    workers: int = 0
    val: float = 0.15
    test: float = 0.2
    seed: int = 0
    batch: int | None = None
    said: tuple[str, ...] = field(default=())
    tokenizer: Any = None
    text: str | None = None
    pair: str | None = None
    length: int = 128

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, where they are given."""
        return self.classes if isinstance(self.classes, tuple) else ()

    @property
    def count(self) -> int | None:
        """How many classes, where that is given."""
        return len(self.classes) if isinstance(self.classes, tuple) else self.classes


def read_python(name: str, value: Any, wanted: Wanted) -> DataSet:
    """The value as a data set. Raises NetxformError X0401 (of no kind that is known), and what its samples are refused for."""
    if wanted.tokenizer is not None and not _is_parts(value):
        return _texts(name, value, wanted)
    for fits, read in _FORMS:
        if fits(value):
            return read(name, value, wanted)
    kind = f"the class `{value.__name__}`" if isinstance(value, type) else f"a `{type(value).__name__}`"
    raise fail("X0401", f"data `{name}`: {kind} is no data", helps=_HELPS)


_HELPS = (
    "hand in a pair (x, y) of arrays, a data set or DataLoader of torch, a Hugging Face data set, or a frame",
    "several parts: `{'train': …, 'val': …, 'test': …}`",
)


def _empty(name: str) -> NetxformError:
    return fail("X0817", f"data `{name}` has no samples", helps=("hand in at least one sample of each class",))


def in_part(name: str, part: str) -> str:
    """What a part of a data set is called in messages."""
    return f"{name}, {part}"


# --- forms -----------------------------------------------------------------------------------------------------------


def _is_parts(value: Any) -> bool:
    return isinstance(value, Mapping) and "train" in value and all(k in NAMES for k in cast("Mapping[Any, Any]", value))


def _parts(name: str, value: Any, wanted: Wanted) -> DataSet:
    """`{"train": …, "val": …, "test": …}`, of any form each."""
    held: dict[str, Any] = {}
    for key, one in cast("Mapping[str, Any]", value).items():
        if NAMES[key] in held:
            raise fail("X0401", f"data `{name}`: two parts are `{NAMES[key]}`", helps=("name each part once",))
        held[NAMES[key]] = one
    whole = replace(wanted, val=0.0, test=0.0)
    first = read_python(in_part(name, "train"), held["train"], replace(whole, val=0.0 if "val" in held else wanted.val))
    classes = wanted.classes or first.labels or None
    read = {p: read_python(in_part(name, p), v, replace(whole, classes=classes)) for p, v in held.items() if p != "train"}
    for part, one in read.items():
        ours, theirs = (first.shape, first.inputs), (one.shape, one.inputs)
        if (ours[0] and theirs[0] and ours[0] != theirs[0]) or [i[0] for i in ours[1]] != [i[0] for i in theirs[1]]:
            shown = [str(s[0] or [i[0] for i in s[1]]) for s in (ours, theirs)]
            helps = ("give all parts samples of one form",)
            raise fail("X0401", f"data `{name}`: samples of `train` are {shown[0]}, those of `{part}` {shown[1]}", helps=helps)
        if one.labelled != first.labelled:
            helps = ("give labels to both, or to none",)
            message = f"data `{name}`: one of `train` and `{part}` has labels, the other has none"
            raise fail("X0401", message, helps=helps)
    counts = [d.classes for d in (first, *read.values()) if d.classes is not None]
    said = (*first.said, *(s for d in read.values() for s in d.said if s not in first.said))
    val = read["val"].train if "val" in read else first.val
    test = read["test"].train if "test" in read else nothing()
    digest = hashlib.sha256(" ".join(d.digest for d in (first, *read.values())).encode()).hexdigest()
    found = replace(first, name=name, val=val, test=test, digest=digest, said=said)
    return replace(found, classes=max(counts) if first.classes is not None and not first.labels else first.classes)


def _loader(name: str, value: Any, wanted: Wanted) -> DataSet:
    """A DataLoader: its data set, collate function, workers and batch size."""
    from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, default_collate

    said: list[str] = []
    if value.batch_size is None and value.batch_sampler is None:
        helps = ("hand in its data set, `loader.dataset`, with samples one by one",)
        raise fail("X0401", f"data `{name}`: this DataLoader makes no batches itself (batch_size=None)", helps=helps)
    own = None if value.collate_fn is default_collate else value.collate_fn
    sampler = getattr(value, "sampler", None)
    if isinstance(value.dataset, IterableDataset):
        if value.num_workers:
            said.append("the workers of the DataLoader are not used: several would give each sample of a stream again")
    else:
        said.append("in the order of the spec's seed, not in that of the DataLoader")
        if type(value.batch_sampler) not in (BatchSampler, type(None)):
            said.append(f"its batch sampler `{type(value.batch_sampler).__name__}` is not used")
        elif not isinstance(sampler, RandomSampler | SequentialSampler):
            said.append(f"its sampler `{type(sampler).__name__}` is not used (`draw=balanced` draws classes equally often)")
    if value.drop_last:
        said.append("the last batch is not dropped, whatever `drop_last` says")
    if value.worker_init_fn is not None:
        said.append("`worker_init_fn` is not used: every sample has a seed of its own")
    workers = 0 if isinstance(value.dataset, IterableDataset) else value.num_workers
    more = replace(wanted, collate=wanted.collate or own, workers=wanted.workers or workers)
    found = read_python(name, value.dataset, replace(more, batch=value.batch_size, said=(*wanted.said, *said)))
    return found


def _is_stream(value: Any) -> bool:
    named = type(value).__name__ == "IterableDataset" and hasattr(value, "features")
    return isinstance(value, IterableDataset) or named or (_is_iterable(value) and not hasattr(value, "__getitem__"))


def _is_iterable(value: Any) -> bool:
    known = isinstance(value, str | bytes | Mapping | Tensor | np.ndarray | set | frozenset | Path)
    return hasattr(type(value), "__iter__") and not known


def _stream(name: str, value: Any, wanted: Wanted) -> DataSet:
    """What can be gone through from the start, again and again, in its own order."""
    if hasattr(value, "__next__"):
        helps = (
            "make a list of it: `list(…)`, or an `IterableDataset` whose `__iter__` starts anew",
            "a generator function: `class D(IterableDataset)` with `__iter__` that calls it",
        )
        raise fail("X0401", f"data `{name}`: a `{type(value).__name__}` can be gone through once alone", helps=helps)
    first, reader = _first(name, lambda: iter(value), wanted)
    said = (
        *wanted.said,
        "a stream: samples come in the order of the source, all of them for training, and how many is not known; "
        "the same bytes in two runs depend on the source",
    )
    length = _length(name, value) if hasattr(type(value), "__len__") else None
    made = Stream(_Read(value, None if wanted.collate else reader), length, _collated(reader, wanted))
    x, y = first
    described = _described(name, x, y, wanted, reader)
    return replace(described, train=made, val=nothing(), test=nothing(), said=(*said, *described.said), batch=wanted.batch)


@dataclass(frozen=True)
class _Read:
    """Begins a stream anew, each sample read."""

    value: Any
    reader: Reader | None

    def __call__(self) -> Iterator[Any]:
        read = self.reader
        return iter(self.value) if read is None else (read(s) for s in self.value)


@dataclass(frozen=True)
class _Collated:
    """Somebody's own collate function, its batch read."""

    collate: Callable[[list[Any]], Any]
    reader: Reader

    def __call__(self, samples: list[Any]) -> tuple[Any, Any]:
        return self.reader.batch(self.collate(samples))


def _collated(reader: Reader, wanted: Wanted) -> Callable[[list[Any]], tuple[Any, Any]] | None:
    return None if wanted.collate is None else _Collated(wanted.collate, reader)


@dataclass(frozen=True)
class _Samples(Dataset[Any]):
    """A map-style data set, each sample read."""

    value: Any
    reader: Reader

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: int) -> Any:
        return self.reader(self.value[index])


def _first(name: str, begin: Callable[[], Iterator[Any]], wanted: Wanted) -> tuple[tuple[Any, Any], Reader]:
    """The first sample as tensors, and the reader of the others. Raises NetxformError X0401, X0805, X0817 (there is none)."""
    with loading([0]):
        samples = iter(begin())
        try:
            sample = next(samples)
            few = [sample, *(s for s, _ in zip(samples, range(1), strict=False))] if wanted.collate else [sample]
        except (StopIteration, IndexError) as error:
            raise _empty(name) from error
        if wanted.collate is not None:
            sample = wanted.collate(few)
    reader = Reader(name, layout_of(name, sample, wanted.target, wanted.inputs), _numbered(wanted.names))
    return _one(name, reader, sample, wanted), reader


def _one(name: str, reader: Reader, sample: Any, wanted: Wanted) -> tuple[Any, Any]:
    """The first sample, read; a class by a name that is not known yet is number 0."""
    if reader.layout.target is not None and not reader.numbers:
        reader = replace(reader, numbers=_Any())
    with loading([0] if wanted.collate is None else []):
        x, y = reader(sample)
    if wanted.collate is not None:
        try:
            return mapped(lambda t: t[0], x), mapped(lambda t: t[0], y)
        except (IndexError, TypeError) as error:
            helps = ("its fields have the samples in front: (N, …)",)
            raise fail("X0401", f"data `{name}`: the collate function makes no batch", helps=helps) from error
    return x, y


class _Any(dict[str, int]):
    """Every name is number 0."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> int:
        return 0


def _numbered(classes: Sequence[str]) -> dict[str, int]:
    return {c: i for i, c in enumerate(classes)}


def _described(name: str, x: Any, y: Any, wanted: Wanted, reader: Reader | None = None) -> DataSet:
    """A data set that is described by its first sample; its parts are still to be filled in."""
    several = isinstance(x, dict | tuple)
    shapes = [tuple(t.shape) for t in leaves(x)]
    left = reader.layout.left if reader is not None else ()
    said = (f"fields that hold no numbers are left out: {listed(left)}",) if left else ()
    shape = None if several or wanted.collate is not None else shapes[0]
    inputs = tuple(zip(names(x), shapes if wanted.collate is None else [None] * len(shapes), strict=True)) if several else ()
    return DataSet(
        name,
        nothing(),
        nothing(),
        nothing(),
        wanted.count,
        shape,
        "",
        wanted.names,
        (),
        inputs,
        said,
        y is not None,
        wanted.batch,
    )


# --- map-style data sets ---------------------------------------------------------------------------------------------


def _is_items(value: Any) -> bool:
    plain = isinstance(value, str | bytes | Mapping | type | Path)
    return not plain and hasattr(type(value), "__getitem__")


def _length(name: str, value: Any) -> int:
    try:
        count: Any = len(value)
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0][:120]
        helps = ("`__len__` gives how many samples there are; without one, make it an `IterableDataset`",)
        raise fail("X0401", f"data `{name}`: it does not say how many samples it has: {text}", helps=helps) from error
    need(count * 24, f"data `{name}`, which says that it has {count:,} samples: their order alone")
    return count


def _items(name: str, value: Any, wanted: Wanted) -> DataSet:
    """A data set whose samples are looked up by number."""
    count = _length(name, value)
    if not count:
        raise _empty(name)
    first, reader = _first(name, lambda: (value[i] for i in range(min(count, 2))), wanted)
    x, y = first
    known = None if y is None else _known(value, reader)
    if isinstance(known, list):
        wanted, known = _named(name, cast("list[str]", known), wanted)
    elif known is None and y is not None and reader.layout.target is not None and wanted.collate is None:
        wanted, known = _scanned(name, value, reader, count, wanted)
    reader = replace(reader, numbers=_numbered(wanted.names))
    given = _class_names(value)
    if given and not wanted.names and wanted.count in (None, len(given)):
        wanted = replace(wanted, classes=given)
    made = Items(
        value if wanted.collate is not None else _Samples(value, reader),
        _collated(reader, wanted),
        wanted.workers,
        None if known is None else torch.as_tensor(known),
    )
    text = f"{type(value).__module__}.{type(value).__qualname__} {count}"
    digest = hashlib.sha256(text.encode())
    for tensor in (*leaves(x), *leaves(y), *([] if known is None else [known])):
        digest.update(np.ascontiguousarray(_plain(torch.as_tensor(tensor))).tobytes())
    described = _described(name, x, y, wanted, reader)
    return _cut(described, made, known, wanted, digest.hexdigest())


def _plain(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _known(value: Any, reader: Reader) -> Any:
    """Targets that are at hand without loading samples: numbers (N), or a list of class names."""
    target = reader.layout.target
    if isinstance(value, TensorDataset) and isinstance(target, int):
        return value.tensors[target]
    if isinstance(value, TensorDataset):
        return None
    if isinstance(target, str) and hasattr(value, "column_names") and target in value.column_names:
        held = value.with_format(None)[target] if hasattr(value, "with_format") else value[target]
        found = list(held)
        if found and isinstance(found[0], str):
            return found
        try:
            return torch.as_tensor(numbers_in(found, "the labels"))
        except (TypeError, ValueError):
            return None
    return source_of(value).labels() if not isinstance(value, list | tuple) else None


def _class_names(value: Any) -> tuple[str, ...]:
    """The names of the classes that torchvision and Hugging Face keep with the data."""
    features = getattr(value, "features", None)
    if isinstance(features, Mapping):
        held = [f for k, f in cast("Mapping[str, Any]", features).items() if k in TARGETS and hasattr(f, "names")]
        return tuple(str(n) for n in held[0].names or ()) if held else ()
    for _ in range(4):
        found = getattr(value, "classes", None)
        if isinstance(found, list | tuple) and found and all(isinstance(c, str) for c in cast("list[Any]", found)):
            return tuple(cast("list[str]", found))
        value = getattr(value, "dataset", None)
    return ()


def _scanned(name: str, value: Any, reader: Reader, count: int, wanted: Wanted) -> tuple[Wanted, Any]:
    """Load the samples once for their labels, where there are not too many; numbers and names of the classes."""
    first = value[0]
    if count > _SCANNED:
        if _text_label(first, reader) and not wanted.names:
            helps = ("name the classes: `nx.dataset(…, classes=['cat', 'dog'])`",)
            raise fail(
                "X0401", f"data `{name}`: labels are names, and reading all {count:,} would load every sample", helps=helps
            )
        said = f"how many classes there are was not looked for in {count:,} samples: `nx.dataset(…, classes=…)` says it"
        return replace(wanted, said=(*wanted.said, said)) if wanted.count is None else wanted, None
    found: list[Any] = []
    for i in range(count):
        with loading([i]):
            sample = value[i]
            at = reader.layout.target
            label = (fields_of(sample) or {}).get(at)
            found.append(label if isinstance(label, str) else replace(reader, numbers=_Any()).target(label))
    if all(isinstance(v, str) for v in found):
        return _named(name, found, wanted)
    if any(not isinstance(v, Tensor) for v in found):
        if any(isinstance(v, str) for v in found):
            raise fail("X0401", f"data `{name}`: some labels are names, others numbers", helps=("use one of them",))
        return wanted, None
    shapes = {tuple(v.shape) for v in found}
    return (wanted, torch.stack(found)) if len(shapes) == 1 else (wanted, None)


def _text_label(sample: Any, reader: Reader) -> bool:
    return isinstance((fields_of(sample) or {}).get(reader.layout.target), str)


def _named(name: str, labels: Sequence[str], wanted: Wanted) -> tuple[Wanted, Tensor]:
    """Class names in alphabetical order, or in the order that is given, and the number of each sample's class."""
    held = sorted(set(labels))
    classes = wanted.names or tuple(held)
    if len(classes) > max(1000, len(labels) // 2):
        helps = ("labels are a few names of classes, or numbers",)
        raise fail("X0401", f"data `{name}`: its labels are {len(classes):,} different texts", helps=helps)
    if len(classes) == 1 and len(labels) > 1:
        helps = ("a classification needs two different classes", "data without labels: hand in `x` alone")
        raise fail("X0817", f"data `{name}`: its labels name one class alone, `{classes[0]}`", helps=helps)
    numbers = _numbered(classes)
    unknown = [n for n in held if n not in numbers]
    if unknown:
        helps = did_you_mean(unknown[0], classes) or (f"classes: {listed(classes)}",)
        raise fail("X0401", f"data `{name}`: `{unknown[0]}` is none of its classes", helps=helps)
    found = torch.tensor([numbers[n] for n in labels])
    if wanted.names:
        return wanted, found
    said = f"labels are names, numbered in alphabetical order: {listed(classes)}"
    return replace(wanted, classes=classes, said=(*wanted.said, said)), found


def _cut(described: DataSet, source: Source, known: Any, wanted: Wanted, digest: str) -> DataSet:
    """The source cut into parts, classes in their shares where they are known."""
    targets = known if isinstance(known, Tensor) else None
    classed = targets is not None and targets.dim() == 1 and not targets.dtype.is_floating_point
    labels = targets.long().numpy() if classed and targets is not None else np.zeros(len(source), dtype=np.int64)
    if classed and len(labels) and int(labels.max()) < 0:
        message = f"data `{described.name}`: every target is below 0, and none is counted"
        raise fail("X0406", message, helps=("number the classes from 0; -100 marks what does not count",))
    parts = [source.part(torch.from_numpy(p)) for p in split(labels, wanted.val, wanted.test, wanted.seed)]
    classes = wanted.count
    if classes is None and targets is not None and not targets.dtype.is_floating_point and targets.numel():
        classes = int(targets.max()) + 1
    said = (*wanted.said, *described.said)
    found = replace(described, train=parts[0], val=parts[1], test=parts[2], classes=classes, digest=digest, said=said)
    return replace(found, labels=wanted.names)


# --- columns ---------------------------------------------------------------------------------------------------------


def _is_columns(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) for k in cast("Mapping[Any, Any]", value)) and len(value) > 0


def _columns(name: str, value: Any, wanted: Wanted) -> DataSet:
    """A dict of columns, or scikit-learn's Bunch."""
    held = dict(cast("Mapping[str, Any]", value))
    if all(k in NAMES for k in held):
        raise fail("X0401", f"data `{name}`: there is no part `train`", helps=("hand in `{'train': …, 'val': …, 'test': …}`",))
    if "data" in held and "target" in held and ("DESCR" in held or "feature_names" in held):
        return read_python(name, (held["data"], held["target"]), wanted)
    sizes = {k: len(v) for k, v in held.items() if hasattr(v, "__len__") and not isinstance(v, str)}
    if len(sizes) < len(held) or len(set(sizes.values())) != 1:
        shown = listed([f"`{k}` {sizes.get(k, 'no column')}" for k in held])
        helps = ("every column has one row a sample", "several parts: `{'train': …, 'val': …, 'test': …}`")
        raise fail("X0817", f"data `{name}`: its columns do not have as many rows: {shown}", helps=helps)
    rows_of = {k: v[0] if isinstance(v, Tensor | np.ndarray | list | tuple) else next(iter(v)) for k, v in held.items()} \
        if next(iter(sizes.values())) else {}  # fmt: skip
    if not rows_of:
        raise _empty(name)
    layout = layout_of(name, rows_of, wanted.target, wanted.inputs)
    assert layout.inputs is not None
    x = {str(k): held[cast(str, k)] for k in layout.inputs}
    y = None if layout.target is None else held[cast(str, layout.target)]
    if layout.left:
        wanted = replace(wanted, said=(*wanted.said, f"columns that hold no numbers are left out: {listed(layout.left)}"))
    return table(name, next(iter(x.values())) if len(x) == 1 else x, y, replace(wanted, target=None, inputs=None))


def _is_frame(value: Any) -> bool:
    kind = type(value).__module__.partition(".")[0]
    return kind in ("pandas", "polars", "pyarrow") and hasattr(value, "columns") and hasattr(value, "shape")


def _frame(name: str, value: Any, wanted: Wanted) -> DataSet:
    """A table of pandas, polars or pyarrow: one column is the target, the others are the inputs, one number each."""
    frame = value if hasattr(value, "dtypes") and hasattr(value, "loc") else value.to_pandas()
    columns = [str(c) for c in frame.columns]
    frame = frame.set_axis(columns, axis=1)
    target = wanted.target if wanted.target is not None else next((c for c in columns if c.lower() in TARGETS), None)
    inputs = [c for c in columns if c != target] if wanted.inputs is None else [str(c) for c in wanted.inputs]
    for c in (*inputs, *(() if target is None else (target,))):
        if c not in columns:
            helps = did_you_mean(str(c), columns) or (f"columns: {listed(columns)}",)
            raise fail("X0401", f"data `{name}`: the frame has no column `{c}`", helps=helps)
    if target is None and wanted.inputs is None:
        helps = (f"say which: `nx.dataset(frame, target={columns[-1]!r})`", "without labels: `nx.dataset(frame, inputs=[…])`")
        raise fail("X0401", f"data `{name}`: no column of the frame is called label or target", helps=helps)
    odd = [c for c in inputs if frame[c].dtype.kind not in "biuf"]
    if odd:
        helps = ("one column a value: `pandas.get_dummies(frame)`", "or leave columns out: `nx.dataset(frame, inputs=[…])`")
        raise fail("X0401", f"data `{name}`: columns hold no numbers: {listed(odd)}", helps=helps)
    x = frame[inputs].to_numpy(dtype=np.float32)
    y = None if target is None else frame[target]
    return table(name, x, y, replace(wanted, target=None, inputs=None))


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(cast("list[Any]", value)) == 2 and not _is_rows(value)


def _is_rows(value: Any) -> bool:
    """Whether it is a list of samples, each a pair or a dict, and no pair of columns."""
    if not isinstance(value, list):
        return False
    held = cast("list[Any]", value)
    return bool(held) and all(isinstance(v, tuple | Mapping) for v in held)


def _pair(name: str, value: Any, wanted: Wanted) -> DataSet:
    return table(name, value[0], value[1], wanted)


def _alone(name: str, value: Any, wanted: Wanted) -> DataSet:
    return table(name, value, None, wanted)


def _is_alone(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and not _is_rows(value) and not any(isinstance(v, str) for v in cast("list[Any]", value))
    return isinstance(value, Tensor | np.ndarray) or hasattr(value, "__array_interface__") or _is_sparse(value)


def _is_sparse(value: Any) -> bool:
    return hasattr(value, "toarray") and hasattr(value, "nnz")


def table(name: str, x: Any, y: Any, wanted: Wanted) -> DataSet:
    """Columns of inputs and of targets as a data set; memory-mapped ones stay where they are."""
    if wanted.target is not None or wanted.inputs is not None:
        raise fail("X0401", f"data `{name}`: x and y have no fields to be named", helps=("leave `target` and `inputs` out",))
    given = _several(x, lambda v, what: column_of(v, name, what), "x")
    if isinstance(y, Mapping | tuple):
        targets: Any = _several(y, lambda v, what: column_of(v, name, what), "y")
    else:
        wanted, targets = _targets(name, y, wanted)
    sizes = [len(c) if np.ndim(c) else -1 for c in (*leaves(given), *leaves(targets))]
    if len(set(sizes)) != 1 or sizes[0] < 0:
        shown = ["a number" if s < 0 else str(s) for s in sizes]
        several = f"{shown[0]} inputs and {shown[-1]} targets" if len(shown) == 2 else f"columns of {', '.join(shown)} samples"
        helps = ("hand in one target for each input: x (N, …), y (N)",)
        raise fail("X0817", f"data `{name}`: {several}", helps=helps)
    if not sizes[0] or any(not np.prod(np.shape(c)) for c in leaves(given)):
        raise _empty(name)
    digest = hashlib.sha256()
    for part, held in (("x", given), ("y", targets)):
        for key, values in zip(names(held), leaves(held), strict=True):
            _look(values, f"data `{name}`: {part}" + (f"[{key}]" if key else ""), digest)
    if isinstance(targets, Tensor) and not targets.dtype.is_floating_point:
        targets = targets.to(torch.int64)
    source: Any = Table(given, targets)
    x0, y0 = source[0]
    known = targets if isinstance(targets, Tensor | np.ndarray) else None
    if isinstance(known, np.ndarray):
        known = column(known, torch.arange(len(known)))
    described = _described(name, x0, y0, wanted)
    return _in_memory(_cut(described, source, known, wanted, digest.hexdigest()))


def _in_memory(data: DataSet) -> DataSet:
    """Parts that are one tensor of inputs and one of targets, as torch's own data set."""

    def plain(part: Any) -> Any:
        if not isinstance(part, Table) or not isinstance(part.x, Tensor) or not isinstance(part.y, Tensor):
            return part
        return TensorDataset(*(cast(Tensor, t) for t in part.take(torch.arange(len(part)))))

    return replace(data, train=plain(data.train), val=plain(data.val), test=plain(data.test))


def _several(value: Any, of: Callable[[Any, str], Any], what: str) -> Any:
    if isinstance(value, Mapping):
        held = cast("Mapping[Any, Any]", value)
        if not held:
            raise fail("X0401", f"data: {what} is an empty dict")
        return {str(k): of(v, f"{what}[{k}]") for k, v in held.items()}
    if isinstance(value, tuple):
        return tuple(of(v, f"{what}[{i}]") for i, v in enumerate(cast("tuple[Any, ...]", value)))
    return of(value, what)


def column_of(value: Any, name: str, part: str) -> Any:
    """A column of numbers: a tensor, or a memory-mapped array as it is. Raises NetxformError X0401."""
    if _is_frame(value) or (type(value).__module__.partition(".")[0] in ("pandas", "polars") and hasattr(value, "to_numpy")):
        value = value.to_numpy()
    try:
        if isinstance(value, np.memmap) and value.dtype.kind in "biuf":
            return value
        if isinstance(value, list) and value and all(type(v).__module__.startswith("PIL.") for v in cast("list[Any]", value)):
            return torch.stack([tensor_of(v, part) for v in cast("list[Any]", value)])
        return tensor_of(value, part)
    except (TypeError, ValueError, RuntimeError) as error:
        text = (str(error).strip().splitlines() or [""])[0]
        raise fail("X0401", f"data `{name}`: {text}", helps=_repair(text, part)) from error


def _repair(text: str, part: str) -> tuple[str, ...]:
    if "texts" in text or "a text" in text:
        if part.startswith("x"):
            return ("words become numbers by a tokenizer: `nx.dataset(…, text=…, tokenizer=…)`",)
        return ("number them, or hand in names of classes alone",)
    if "complex" in text:
        return ("take their real and imaginary parts as channels",)
    if "sparse" in text:
        return ("hand in a dense array with numbers in it",)
    if "ragged" in text or "equal size" in text:
        return ("give all samples one shape, or hand in a data set with a `collate` function that pads",)
    return ("make an array of numbers: `numpy.stack(…)`, `.astype('float32')`",)


def _targets(name: str, y: Any, wanted: Wanted) -> tuple[Wanted, Any]:
    """A column of targets: numbers, or names of classes; None for no labels."""
    if y is None:
        return wanted, None
    held: Any = y
    if hasattr(held, "to_numpy"):
        held = held.to_numpy()
    texts = isinstance(held, np.ndarray) and held.dtype.kind in "USOT"
    if isinstance(held, list | tuple):
        texts = bool(held) and isinstance(cast("list[Any]", held)[0], str)
    if texts:
        several = [str(v) if isinstance(v, str) else v for v in cast("Iterable[Any]", held)]
        bad = next((i for i, v in enumerate(several) if not isinstance(v, str)), None)
        if bad is None:
            return _named(name, several, wanted)
        if any(isinstance(v, str) for v in several):
            shown = type(several[bad]).__name__
            helps = ("give every sample a name of a class",)
            raise fail("X0401", f"data `{name}`: y holds names of classes, but a `{shown}` for sample {bad}", helps=helps)
    return wanted, column_of(held, name, "y")


def _look(values: Any, what: str, digest: Any) -> None:
    """Look through a column in pieces for NaN and infinity, and hash it."""
    count = max(1, _CHUNK // max(1, int(np.prod(np.shape(values)[1:])) * 8))
    for begin in range(0, len(values), count):
        some = column(values, torch.arange(begin, min(begin + count, len(values))))
        try:
            finite(some, what)
        except NetxformError:
            finite(column(values, torch.arange(len(values))), what)
            raise
        digest.update(np.ascontiguousarray(_plain(some)).tobytes())


def _texts(name: str, value: Any, wanted: Wanted) -> DataSet:
    """Texts, or pairs of them, as the columns that a tokenizer makes: words, mask, which of the two."""
    from netxform.errors import NOWHERE
    from netxform.sources.tokenized import encoded, tokenizer_of

    first, second, labels = _written(name, value, wanted)
    for i, one in enumerate((*first, *(second or ()))):
        if not isinstance(one, str):
            raise fail("X0401", f"data `{name}`: sample {i % len(first)} is no text, but a `{type(one).__name__}`")
    if not first:
        raise _empty(name)
    tokenizer = tokenizer_of(wanted.tokenizer, None, NOWHERE)
    columns, said = encoded(tokenizer, first, second, wanted.length, f"data `{name}`", NOWHERE)
    plain = replace(wanted, tokenizer=None, text=None, pair=None, target=None, inputs=None, said=(*wanted.said, *said))
    return table(name, columns, labels, plain)


def _written(name: str, value: Any, wanted: Wanted) -> tuple[list[Any], list[Any] | None, Any]:
    """Texts, second texts where there are some, and labels; None for no labels."""
    if wanted.text is None:
        if not _is_pair(value):
            helps = (
                'say which field is the text: `nx.dataset(…, text="sentence", tokenizer=…)`',
                "or hand in `(texts, labels)`",
            )
            raise fail("X0401", f"data `{name}`: which field is the text is not said", helps=helps)
        texts: list[Any] = list(value[0])
        pairs = bool(texts) and all(isinstance(t, tuple | list) and len(cast("list[Any]", t)) == 2 for t in texts)
        return ([t[0] for t in texts], [t[1] for t in texts], value[1]) if pairs else (texts, None, value[1])
    if hasattr(value, "column_names"):
        known: list[str] = list(value.column_names)
    elif _is_frame(value) or isinstance(value, Mapping):
        known = [str(c) for c in value]
    else:
        rows_ = [fields_of(value[i]) or {} for i in range(_length(name, value))]
        known = list(rows_[0]) if rows_ else []
        value = {k: [r.get(k) for r in rows_] for k in known}
    target = wanted.target if wanted.target is not None else next((k for k in TARGETS if k in known), None)
    for key in (wanted.text, wanted.pair, target):
        if key is not None and key not in known:
            helps = did_you_mean(str(key), known) or (f"fields: {listed(known)}",)
            raise fail("X0401", f"data `{name}`: there is no field `{key}`", helps=helps)
    labels = None if target is None else value[target]
    features = getattr(value, "features", None)
    held = None if labels is None or hasattr(labels, "to_numpy") else list(labels)
    if held is not None and features is not None and hasattr(features.get(target), "int2str"):
        held = [features[target].int2str(int(v)) for v in held]
    return list(value[wanted.text]), None if wanted.pair is None else list(value[wanted.pair]), labels if held is None else held


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes | Path)


def _text(name: str, value: Any, wanted: Wanted) -> DataSet:
    helps = (f'files are named in the spec: `data {name} = folder("FOLDER")`, `csv("FILE")`, …',)
    raise fail("X0401", f"data `{name}`: a text is no data", helps=helps)


def _unordered(name: str, value: Any, wanted: Wanted) -> DataSet:
    raise fail("X0401", f"data `{name}`: a set has no order", helps=("hand in a list: `sorted(…)`",))


def _of_parts(name: str, value: Any, wanted: Wanted) -> DataSet:
    for part in ("train", "val", "test"):
        held = getattr(value, part)
        if not isinstance(held, Stream) and not _is_items(held):
            helps = ("each part is a map-style data set of pairs (x, y), such as a `TensorDataset`",)
            raise fail("X0401", f"data `{name}`: its part `{part}` is a `{type(held).__name__}`", helps=helps)
    return value


def _is_tuple(value: Any) -> bool:
    return isinstance(value, tuple)


def _things(name: str, value: Any, wanted: Wanted) -> DataSet:
    helps = (f"hand in a pair: `data=(x, y)`, or `data={{'{name}': (x, y)}}`; several inputs: `((a, b), y)`",)
    what = f"{len(value)} things"
    raise fail("X0401", f"data `{name}`: a DataSet or a pair (x, y) is expected, not {what}", helps=helps)


_FORMS: list[tuple[Callable[[Any], bool], Callable[[str, Any, Wanted], DataSet]]] = [
    (lambda v: isinstance(v, DataSet), _of_parts),
    (_is_text, _text),
    (_is_parts, _parts),
    (_is_columns, _columns),
    (lambda v: isinstance(v, DataLoader), _loader),
    (_is_frame, _frame),
    (_is_pair, _pair),
    (lambda v: isinstance(v, set | frozenset), _unordered),
    (_is_tuple, _things),
    (_is_alone, _alone),
    (lambda v: _is_stream(v) and not inspect.isclass(v), _stream),
    (_is_items, _items),
]


def sample_of(data: DataSet) -> tuple[Any, Any] | None:
    """The first training sample as a batch of one; None where there is none."""
    if isinstance(data.train, Stream):
        return next(data.train.batches(1), None)
    if not size(data.train):
        return None
    return source_of(data.train).take(torch.tensor([0]))
