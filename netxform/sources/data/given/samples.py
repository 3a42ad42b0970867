"""What a part of a data set is: samples in memory, samples that are loaded one by one, and streams.

    Source, numbers of samples ─take→ (x, y)

A sample is (x, y). x is a tensor, a tuple of tensors (the model's arguments by place) or a dict (by name); y a tensor, a tuple
or dict of tensors, or None where there are no labels. A batch has the same form, each tensor with the samples in front.
"""

# Long: the kinds of sources stand beside each other, with what loads them.

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from netxform.errors import Diagnostic, NetxformError, fail

Inputs: TypeAlias = "Tensor | tuple[Tensor, ...] | dict[str, Tensor]"
Targets: TypeAlias = "Tensor | tuple[Tensor, ...] | dict[str, Tensor] | None"
Salt: TypeAlias = tuple[int, int]
"""(seed, epoch): what the random numbers that a data set draws by itself are a function of, beside the sample."""

Column: TypeAlias = "Tensor | np.ndarray"
Columns: TypeAlias = "Column | tuple[Column, ...] | dict[str, Column] | None"


def mapped(of: Callable[[Any], Any], value: Any) -> Any:
    """Every tensor of an x or y through a function; None stays None."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {k: of(v) for k, v in cast("dict[str, Any]", value).items()}
    if isinstance(value, tuple):
        return tuple(of(v) for v in cast("tuple[Any, ...]", value))
    return of(value)


def leaves(value: Any) -> list[Any]:
    """The tensors of an x or y, in order."""
    if value is None:
        return []
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else [value]


def names(value: Any) -> list[str]:
    """What the tensors of an x or y are called: their names, their places, or nothing."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [str(k) for k in cast("dict[str, Any]", value)]
    return [str(i) for i in range(len(cast("tuple[Any, ...]", value)))] if isinstance(value, tuple) else [""]


def rows(value: Any) -> int:
    """How many samples a batch of x or y holds."""
    return len(leaves(value)[0])


class Source(Dataset[Any]):
    """Some samples, by their numbers from 0."""

    def __len__(self) -> int:
        """How many samples there are."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """One sample (x, y)."""
        x, y = self.take(torch.tensor([index]))
        return mapped(lambda t: t[0], x), mapped(lambda t: t[0], y)

    def take(self, places: Tensor, salt: Salt = (0, 0)) -> tuple[Inputs, Targets]:
        """The samples of those numbers, as a batch."""
        raise NotImplementedError

    def batches(self, places: Sequence[Tensor], salt: Salt = (0, 0)) -> Iterator[tuple[Inputs, Targets]]:
        """The batches of a pass, in order."""
        for some in places:
            yield self.take(some, salt)

    def part(self, places: Tensor) -> Source:
        """The samples of those numbers alone."""
        raise NotImplementedError

    def labels(self) -> Targets:
        """All targets, where they are known without loading what they belong to; else None."""
        return None


class Table(Source):
    """Columns in memory, or in files that are mapped into it: of these no more is read than the samples that are asked for.

    `places`: the rows that belong to it, in order; None for all.
    """

    def __init__(self, x: Columns, y: Columns = None, places: Tensor | None = None) -> None:
        self.x, self.y, self.places = x, y, places

    def __len__(self) -> int:
        """How many rows belong to it."""
        return rows(self.x) if self.places is None else len(self.places)

    def take(self, places: Tensor, salt: Salt = (0, 0)) -> tuple[Inputs, Targets]:
        """Rows of every column."""
        at = places if self.places is None else self.places[places]
        return mapped(lambda c: column(c, at), self.x), mapped(lambda c: column(c, at), self.y)

    def batches(self, places: Sequence[Tensor], salt: Salt = (0, 0)) -> Iterator[tuple[Inputs, Targets]]:
        """Rows of every column; of two tensors without detours."""
        x, y = self.x, self.y
        if self.places is None and isinstance(x, Tensor) and isinstance(y, Tensor):
            for some in places:
                yield x[some], y[some]
            return
        yield from super().batches(places, salt)

    def part(self, places: Tensor) -> Table:
        """The same columns, fewer rows."""
        return Table(self.x, self.y, places if self.places is None else self.places[places])

    def labels(self) -> Targets:
        """The columns of targets, whole."""
        at = torch.arange(rows(self.y)) if self.places is None and self.y is not None else self.places
        return None if self.y is None else mapped(lambda c: column(c, cast(Tensor, at)), self.y)


def column(values: Column, places: Tensor) -> Tensor:
    """Rows of a column, as a tensor of its own."""
    if isinstance(values, Tensor):
        return values[places]
    return torch.from_numpy(np.ascontiguousarray(values[places.numpy()]).astype(values.dtype.newbyteorder("="), copy=False))


class Items(Source):
    """A map-style data set of samples (x, y), loaded one by one, in `workers` processes.

    `collate`: a list of samples → a batch (x, y); the default stacks. `known`: the targets (N, …) where they are at hand
    without loading. Random numbers that the data set draws are a function of (seed, epoch, number of the sample) alone:
    whatever the number of workers, a sample looks the same.
    """

    def __init__(
        self,
        samples: Any,
        collate: Callable[[list[Any]], tuple[Any, Any]] | None = None,
        workers: int = 0,
        known: Any = None,
        places: Tensor | None = None,
    ) -> None:
        self.samples, self.collate, self.workers, self.known, self.places = samples, collate or stacked, workers, known, places

    def __len__(self) -> int:
        """How many samples belong to it."""
        return len(self.samples) if self.places is None else len(self.places)

    def _numbers(self, places: Tensor) -> list[int]:
        return (places if self.places is None else self.places[places]).tolist()

    def take(self, places: Tensor, salt: Salt = (0, 0)) -> tuple[Inputs, Targets]:
        """Load samples here. Raises NetxformError X0805 for what the data set raises."""
        numbers = self._numbers(places)
        with loading(numbers):
            return self.collate([_sown(self.samples, i, salt) for i in numbers])

    def batches(self, places: Sequence[Tensor], salt: Salt = (0, 0)) -> Iterator[tuple[Inputs, Targets]]:
        """Load samples here, or ahead of time in the workers."""
        if not self.workers:
            yield from super().batches(places, salt)
            return
        numbers = [self._numbers(p) for p in places]
        with _quiet():
            loaded = iter(
                DataLoader(
                    _Sown(self.samples, salt),
                    batch_sampler=numbers,
                    collate_fn=_Told(self.collate),
                    num_workers=min(self.workers, max(1, len(numbers))),
                    generator=torch.Generator().manual_seed(0),  # draws from no other
                )
            )
        for some in numbers:
            with loading(some), _quiet():
                batch = next(loaded)
                if isinstance(batch, _Refused):
                    raise NetxformError(batch.diagnostics)
            yield batch

    def part(self, places: Tensor) -> Items:
        """Fewer of the samples."""
        at = places if self.places is None else self.places[places]
        return Items(self.samples, self.collate, self.workers, self.known, at)

    def labels(self) -> Targets:
        """Those that are known."""
        if self.known is None:
            return None
        at = self.places
        return self.known if at is None else mapped(lambda c: column(c, at), self.known)


class Bound(Source):
    """A source whose batches are changed on their way: arguments put in order, numbers in the model's types."""

    def __init__(self, source: Source, of: Callable[[Any], Any], targets: Callable[[Any], Any] = lambda y: y) -> None:
        self.source, self.of, self.on_targets = source, of, targets

    def __len__(self) -> int:
        """As many as of the source."""
        return len(self.source)

    def take(self, places: Tensor, salt: Salt = (0, 0)) -> tuple[Inputs, Targets]:
        """Batches of the source, changed."""
        x, y = self.source.take(places, salt)
        return self.of(x), self.on_targets(y)

    def batches(self, places: Sequence[Tensor], salt: Salt = (0, 0)) -> Iterator[tuple[Inputs, Targets]]:
        """Batches of the source, changed."""
        for x, y in self.source.batches(places, salt):
            yield self.of(x), self.on_targets(y)

    def part(self, places: Tensor) -> Bound:
        """Fewer of the samples."""
        return Bound(self.source.part(places), self.of, self.on_targets)

    def labels(self) -> Targets:
        """Those of the source."""
        return self.on_targets(self.source.labels())


class Stream(Dataset[Any]):
    """Samples that come one after the other, in the order in which they come. `begin` starts anew; `length`: how many, if
    known.

    No order is drawn, no sample can be looked up by number, and the same bytes in two runs are a matter of the source.
    `collate` and `of`: what is done to a list of samples, and to the x of a batch.
    """

    def __init__(
        self,
        begin: Callable[[], Iterable[Any]],
        length: int | None = None,
        collate: Callable[[list[Any]], tuple[Any, Any]] | None = None,
        of: Callable[[Any], Any] = lambda x: x,
        targets: Callable[[Any], Any] = lambda y: y,
        most: int | None = None,
        skip: int = 0,
    ) -> None:
        self.skip = skip
        self.begin, self.length, self.collate = begin, length, collate or stacked
        self.of, self.on_targets, self.most = of, targets, most

    def __iter__(self) -> Iterator[Any]:
        """Samples as they come."""
        for number, sample in enumerate(self.begin()):
            if self.most is not None and number >= self.most:
                return
            if number >= self.skip:
                yield sample

    def changed(self, **fields: Any) -> Stream:
        """The same stream with other settings."""
        held: dict[str, Any] = {
            "begin": self.begin, "length": self.length, "collate": self.collate, "of": self.of,
            "targets": self.on_targets, "most": self.most, "skip": self.skip,
        }  # fmt: skip
        held.update(fields)
        return Stream(**held)

    def batches(self, size: int) -> Iterator[tuple[Inputs, Targets]]:
        """Batches of so many samples; the last may be shorter. Raises NetxformError X0805 for what the source raises."""
        count, samples = 0, iter(self)
        while True:
            some: list[Any] = []
            with loading(range(count, count + size)):
                for sample in samples:
                    some.append(sample)
                    if len(some) == size:
                        break
                if not some:
                    return
                x, y = self.collate(some)
            count += len(some)
            yield self.of(x), self.on_targets(y)


def size(samples: Any) -> int | None:
    """How many samples a part has; None for a stream that does not tell."""
    return samples.length if isinstance(samples, Stream) else len(samples)


def source_of(samples: Any) -> Source:
    """Any part of a data set but a stream, as a source."""
    if isinstance(samples, Source):
        return samples
    if isinstance(samples, TensorDataset) and len(samples.tensors) == 2:
        return Table(*samples.tensors)
    return Items(samples, known=_known(samples))


def part_of(samples: Any, places: Tensor) -> Any:
    """The samples of those numbers; of a stream the first, as many as are asked for."""
    if isinstance(samples, Stream):
        return samples.changed(most=len(places), length=None)
    return source_of(samples).part(places)


def nothing() -> Table:
    """A part without samples."""
    return Table(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64))


def _known(samples: Any) -> Any:
    """The targets that torchvision's data sets and parts of them keep beside the samples, where there is one for each."""
    held = getattr(samples, "targets", None)
    if held is None and hasattr(samples, "dataset") and hasattr(samples, "indices"):
        inner, at = samples.dataset, torch.as_tensor(list(samples.indices), dtype=torch.int64)
        if isinstance(inner, TensorDataset) and len(inner.tensors) == 2:
            return inner.tensors[1][at]
        found = _known(inner)
        return None if found is None else found[at]
    if held is None or getattr(samples, "target_transform", None) is not None:
        return None
    try:
        found = torch.as_tensor(held)
    except (TypeError, ValueError, RuntimeError):
        return None
    return found if found.dim() and len(found) == len(samples) else None


# --- loading ---------------------------------------------------------------------------------------------------------


def stacked(samples: list[Any]) -> tuple[Inputs, Targets]:
    """Samples as a batch. Raises ValueError, in words, where they are no pairs or have several shapes."""
    for sample in samples:
        if not isinstance(sample, tuple | list) or len(cast("list[Any]", sample)) != 2:
            raise ValueError("a sample is no pair (x, y)")
    return _together([s[0] for s in samples], "x"), _together([s[1] for s in samples], "y")


def _together(values: list[Any], what: str) -> Any:
    first = values[0]
    if first is None:
        if any(v is not None for v in values):
            raise ValueError(f"{what} is None in some samples, and not in others")
        return None
    if isinstance(first, dict):
        if any(not isinstance(v, dict) or v.keys() != cast("dict[str, Any]", first).keys() for v in values):
            raise ValueError(f"samples do not have the same fields in {what}")
        return {k: _together([v[k] for v in values], f"`{k}`") for k in cast("dict[str, Any]", first)}
    if isinstance(first, tuple):
        if any(not isinstance(v, tuple) or len(v) != len(cast("tuple[Any, ...]", first)) for v in values):
            raise ValueError(f"samples do not have as many tensors in {what}")
        return tuple(_together([v[i] for v in values], f"{what}[{i}]") for i in range(len(cast("tuple[Any, ...]", first))))
    tensors = [v if isinstance(v, Tensor) else _number(v, what) for v in values]
    shapes = list(dict.fromkeys(tuple(t.shape) for t in tensors))
    if len(shapes) > 1:
        raise ValueError(f"samples have several shapes in {what}, such as {shapes[0]} and {shapes[1]}")
    return torch.stack(tensors)


def _number(value: Any, what: str) -> Tensor:
    if isinstance(value, bool | int | float | np.generic | np.ndarray):
        return torch.as_tensor(np.asarray(value)) if isinstance(value, np.generic | np.ndarray) else torch.tensor(value)
    raise TypeError(f"{what} is no number and no tensor, but a `{type(value).__name__}`")


class _Sown(Dataset[Any]):
    """A data set that draws the same for a sample, whoever loads it."""

    def __init__(self, samples: Any, salt: Salt) -> None:
        self.samples, self.salt = samples, salt

    def __getitem__(self, index: int) -> Any:
        try:
            return _sown(self.samples, index, self.salt)
        except NetxformError as error:
            return _Refused(error.diagnostics)


@dataclass(frozen=True)
class _Refused:
    """Why a worker could not load a sample: an exception with a place would lose it between processes."""

    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True)
class _Told:
    """Samples put together in a worker, or the first refusal among them."""

    collate: Callable[[list[Any]], tuple[Any, Any]]

    def __call__(self, samples: list[Any]) -> Any:
        refused = next((s for s in samples if isinstance(s, _Refused)), None)
        try:
            return refused or self.collate(samples)
        except NetxformError as error:
            return _Refused(error.diagnostics)


def _sown(samples: Any, index: int, salt: Salt) -> Any:
    if getattr(samples, "without_chance", False):  # what draws nothing needs no state of its own: three of them cost as much
        return samples[index]
    seed = (salt[0] * 1_000_003 + salt[1] * 7_919 + index * 2_654_435_761) % 2**32
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        return samples[index]
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


@contextlib.contextmanager
def loading(numbers: Sequence[int] | Tensor) -> Generator[None]:
    """While samples are loaded by a data set's own code. Raises NetxformError X0805 for what that raises."""
    try:
        yield
    except NetxformError:
        raise
    except Exception as error:
        text = _said(error)
        numbers = numbers.tolist() if isinstance(numbers, Tensor) else numbers
        shown = "" if not len(numbers) else f" {', '.join(map(str, numbers[:4]))}{' …' if len(numbers) > 4 else ''}"
        own = isinstance(error, TypeError | ValueError) or "TypeError" in text or "ValueError" in text
        look = f"look at it: `dataset[{numbers[0]}]`" if len(numbers) else "look at what its `__iter__` gives"
        helps = ("each sample is a pair (x, y); all x have one shape, all y too",) if own else (look,)
        if "several shapes" in text:
            helps = ("pad them where a batch is made: a `DataLoader` with a `collate_fn`, or `nx.dataset(…, collate=…)`",)
        raise fail("X0805", f"samples{shown} cannot be loaded: {text}", helps=helps) from error


def _said(error: Exception) -> str:
    """What went wrong, in one line; of an error in a worker, its last line."""
    lines = str(error).strip().splitlines() or [""]
    if lines[0].startswith("Caught ") and len(lines) > 1:
        return lines[-1].strip()[:200]
    return f"{type(error).__name__}: {lines[0][:200]}"


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without the advice of torch to use fewer workers on a small machine."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        warnings.filterwarnings("ignore", message="This process .* is multi-threaded")
        yield
