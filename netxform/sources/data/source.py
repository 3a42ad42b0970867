"""What a source of data is, and what it gives: three disjoint parts. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from netxform.registry import Registry
from netxform.sources.trust import Trust
from netxform.syntax import ast


@dataclass(frozen=True)
class DataSet:
    """Three disjoint parts of samples (x, y), each a `sources.data.samples.Source`, a `Stream`, or any map-style data set of
    pairs. `nx.dataset` makes one of what people have.

    `classes` is the number of classes, None for targets that are no classes, or where it is not known; `shape` is that of one
    x, None where it is not known, or where a sample has several `inputs` (name, shape); `digest` hashes what it was made of;
    `labels` are the names of the classes, `vocabulary` the words by their number. `said`: what was done with the data, in
    words. `labelled`: whether there are targets. `batch`: the batch size that it came with; `normal`: mean and
    spread (a channel each) that images were normalised by.
    """

    name: str
    train: Any
    val: Any
    test: Any
    classes: int | None
    shape: tuple[int, ...] | None
    digest: str
    labels: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    inputs: tuple[tuple[str, tuple[int, ...] | None], ...] = ()
    said: tuple[str, ...] = ()
    labelled: bool = True
    batch: int | None = None
    normal: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def streamed(self) -> bool:
        """Whether its training samples come in an order of their own, and cannot be looked up."""
        return type(self.train).__name__ == "Stream"


@dataclass(frozen=True, slots=True)
class Options:
    """What a spec says of a data set; `more`: what only the source of that name knows."""

    classes: tuple[int, ...] | None = None
    omit: tuple[int, ...] = ()
    per_class: int | None = None
    train: int | None = None
    val: float = 0.15
    test: float = 0.2
    size: int | None = None
    channels: int | None = None
    normalize: tuple[float, ...] | None = None
    seed: int | None = None
    root: str | None = None
    path: str | None = None
    length: int = 16
    words: int | None = None
    vocabulary: str | None = None
    corpus: str | None = None
    more: dict[str, object] = field(default_factory=dict[str, object])


Known: TypeAlias = "tuple[int | None, tuple[int, ...] | None]"


@dataclass(frozen=True, slots=True)
class DataSource:
    """`load`: the declaration, its options, what may be read, and the seed that draws few samples → the parts.

    `describe`: options → the number of classes and the shape of one sample, as far as the text tells; it imports nothing.
    `more`: options that this source alone has. `takes`: those of `Options` that it heeds; None
    for all. `load` raises NetxformError X0807 (file missing), X0814 (package missing),
    X0817 (not enough samples).
    """

    load: Callable[[ast.Data, Options, Trust, int], DataSet]
    describe: Callable[[Options], Known]
    more: tuple[str, ...] = ()
    takes: tuple[str, ...] | None = None


PICTURES = ("classes", "omit", "per_class", "train", "val", "test", "size", "channels", "normalize", "seed")
SENTENCES = ("path", "length", "words", "vocabulary", "corpus", "train", "val", "test", "seed")

DATA: Registry[DataSource] = Registry("netxform.data", "source of data", "X0212", "netxform.sources.data")


def images(classes: int | None, shape: tuple[int, int, int] | None) -> Callable[[Options], Known]:
    """`describe` of images (C, H, W): `classes`, `size` and `channels` of the spec go before what the source has."""

    def describe(options: Options) -> Known:
        count = len(options.classes) if options.classes is not None else classes
        if shape is not None:
            size = (options.size, options.size) if options.size else shape[1:]
            return count, (options.channels or shape[0], *size)
        if options.size is not None:
            return count, (options.channels or 3, options.size, options.size)
        return count, None

    return describe
