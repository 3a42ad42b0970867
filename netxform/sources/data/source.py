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
    """Three disjoint parts of samples (x, y), each a `samples.Source`, a `Stream`, or any map-style data set of
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
class Normal:
    """What is taken off and divided by, a channel each (or one number for all): `mean` and `std`, in the range [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def of(self, channels: int) -> tuple[list[float], list[float]]:
        """A number for each channel."""
        both = [list(v) * (channels if len(v) == 1 else 1) for v in (self.mean, self.std)]
        return both[0], both[1]


IMAGENET = Normal((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of the images of ImageNet, as torchvision and most of timm state it."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What is stated of the images that a model's weights were learnt from, and by whom, in words."""

    normal: Normal
    by: str
    interpolation: str | None = None

    def words(self, used: str) -> str:
        """The numbers, and the interpolation where another one is used."""
        shown = [", ".join(f"{v:.4g}" for v in numbers) for numbers in (self.normal.mean, self.normal.std)]
        other = self.interpolation is not None and self.interpolation != used
        hint = f"; it states `interpolation={self.interpolation}`, and {used} is used" if other else ""
        return f"normalised as {self.by}: mean {shown[0]}, standard deviation {shown[1]}{hint}"


@dataclass(frozen=True, slots=True)
class Options:
    """What a spec says of a data set; `more`: what only the source of that name knows.

    `size` is (height, width). `normalize`: numbers, or the word `model` (what is stated of the model's weights) or `data` (what
    the training part has). `image`, `label`, … name columns.
    """

    classes: tuple[int, ...] | None = None
    omit: tuple[int, ...] = ()
    per_class: int | None = None
    train: int | None = None
    val: float = 0.15
    test: float = 0.2
    size: tuple[int, int] | None = None
    channels: int | None = None
    normalize: Normal | str | None = None
    fit: str = "crop"
    interpolation: str = "bilinear"
    workers: int | None = None
    bad: str = "refuse"
    image: str | None = None
    columns: tuple[str, ...] = ()
    label: str | None = None
    labels: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    mask: str | None = None
    masks: str | None = None
    values: tuple[int, ...] = ()
    ignore: int | None = None
    split: str | None = None
    separator: str | None = None
    delimiter: str | None = None
    folder: str | None = None
    seed: int | None = None
    root: str | None = None
    path: str | None = None
    length: int = 16
    words: int | None = None
    vocabulary: str | None = None
    corpus: str | None = None
    more: dict[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a data set whose names and headers were read: `train` is the size of the training part, `targets` are
    those of all its samples (N, …), None where they lie in files; `said`: what was found, in words.
    """

    classes: int | None
    shape: tuple[int, ...] | None
    train: int | None = None
    labels: tuple[str, ...] = ()
    targets: Any = None
    said: tuple[str, ...] = ()
    inputs: tuple[tuple[str, tuple[int, ...] | None], ...] = ()
    labelled: bool = True


Known: TypeAlias = "tuple[int | None, tuple[int, ...] | None]"


@dataclass(frozen=True, slots=True)
class DataSource:
    """`load`: the declaration, its options, what may be read, and the seed that draws few samples → the parts.

    `describe`: options → the number of classes and the shape of one sample, as far as the text tells; it imports nothing.
    `look`: the same, and how many samples and of which kind, from names and headers; it decodes nothing. None where the text
    tells all. `more`: options that this source alone has. `takes`: those of `Options` that it heeds; None
    for all. `load` raises NetxformError X0807 (file missing), X0814 (package missing),
    X0817 (not enough samples).
    """

    load: Callable[[ast.Data, Options, Trust, int], DataSet]
    describe: Callable[[Options], Known]
    more: tuple[str, ...] = ()
    takes: tuple[str, ...] | None = None
    look: Callable[[ast.Data, Options, Trust, int], Seen] | None = None


PICTURES = ("classes", "omit", "per_class", "train", "val", "test", "size", "channels", "normalize", "seed")
SENTENCES = ("path", "length", "words", "vocabulary", "corpus", "train", "val", "test", "seed")

DATA: Registry[DataSource] = Registry("netxform.data", "source of data", "X0212", "netxform.sources.data")


def images(classes: int | None, shape: tuple[int, int, int] | None) -> Callable[[Options], Known]:
    """`describe` of images (C, H, W): `classes`, `size` and `channels` of the spec go before what the source has."""

    def describe(options: Options) -> Known:
        count = len(options.classes) if options.classes is not None else classes
        if shape is not None:
            return count, (options.channels or shape[0], *(options.size or shape[1:]))
        if options.size is not None:
            return count, (options.channels or 3, *options.size)
        return count, None

    return describe
