"""Images with their targets as a map-style data set, and what their headers say.

files, names ─survey→ Survey (sizes, what is damaged)       files, View, targets ─Pictures→ samples (x, y)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from netxform.errors import NetxformError, Span, fail
from netxform.sources.data.images import SUFFIXES, Header, Image, MaskOf, View, header, seen, values_in
from netxform.sources.data.names import Names, printable
from netxform.sources.data.options import normal_of
from netxform.sources.data.source import Options
from netxform.sources.files import regular
from netxform.sources.models.source import need

SIZE = (224, 224)
"""Of images whose sizes differ and of which the spec says none: that of most networks for ImageNet."""
_LOOKED = 1000
_TOLD = 3


class Files(Protocol):
    """Images by number: the file or its bytes, and what it is called in messages."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def file(self, index: int) -> Image:
        """The file, or its bytes."""
        ...

    def name(self, index: int) -> str:
        """What it is called."""
        ...


class Below:
    """Files below a folder, by their names from there. Each must be a plain file when it is read."""

    def __init__(self, root: Path, names: Names, span: Span) -> None:
        self.root, self.names, self.span = root, names, span

    def __len__(self) -> int:
        return len(self.names)

    def file(self, index: int) -> Path:
        """The path. Raises NetxformError X0807 (missing, no plain file)."""
        path = self.root / self.names[index]
        regular(path, self.span, self.name(index))
        return path

    def name(self, index: int) -> str:
        """From the folder on."""
        return printable(self.names[index])


class Chosen:
    """Some of the files, by number."""

    def __init__(self, files: Files, places: Any) -> None:
        self.files, self.places = files, places

    def __len__(self) -> int:
        return len(self.places)

    def file(self, index: int) -> Image:
        """As the files have it."""
        return self.files.file(int(self.places[index]))

    def name(self, index: int) -> str:
        """As the files have it."""
        return self.files.name(int(self.places[index]))


@dataclass(frozen=True)
class Pictures:
    """Samples (x, y) by number: x (C, h, w); y is the target, or the mask (h, w), which is cut and scaled with the image."""

    files: Files
    view: View
    span: Span
    targets: Any = None
    masks: Files | None = None
    values: tuple[int, ...] = ()
    ignored: int | None = None
    without_chance: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        index = int(index)
        name = self.files.name(index)
        if self.masks is None:
            y = None if self.targets is None else self.targets[index]
            return seen(self.files.file(index), self.view, name, self.span), y
        mask = MaskOf(self.masks.file(index), self.masks.name(index), self.values, self.ignored)
        return seen(self.files.file(index), self.view, name, self.span, mask)


@dataclass
class Survey:
    """What the headers of `looked` images say."""

    looked: int = 0
    least: tuple[int, int] = (0, 0)  # height, width
    most: tuple[int, int] = (0, 0)
    alpha: int = 0
    deep: int = 0
    bad: dict[int, str] = field(default_factory=dict[int, str])

    def add(self, head: Header) -> None:
        """One image more."""
        size = (head.height, head.width)
        first = self.looked == 0
        self.least = size if first else (min(self.least[0], size[0]), min(self.least[1], size[1]))
        self.most = size if first else (max(self.most[0], size[0]), max(self.most[1], size[1]))
        self.looked += 1
        self.alpha += head.alpha
        self.deep += head.mode.startswith("I")

    def words(self, count: int, channels: int) -> tuple[str, ...]:
        """Sizes, and what is left out of what the images hold."""
        if not self.looked:
            return ()
        sizes = f"{self.least[0]} x {self.least[1]}"
        if self.least != self.most:
            sizes += f" to {self.most[0]} x {self.most[1]}"
        of = "" if self.looked == count else f" ({self.looked:,} of {count:,} looked at)"
        out = [f"images of {sizes} pixels (height x width){of}"]
        if self.alpha and channels != 4:
            out.append(f"transparency is left out: {self.alpha:,} of {self.looked:,} images have it")
        return tuple(out)


def survey(files: Files, span: Span, every: bool, skip: bool) -> Survey:
    """Read the headers of all images, or of a thousand that lie evenly among them. `skip`: damaged ones are noted.

    Raises NetxformError X0862, X0906, X0807.
    """
    count = len(files)
    places: Iterable[int] = range(count)
    if not every and count > _LOOKED:
        places = [i * count // _LOOKED for i in range(_LOOKED)]
    out = Survey()
    for i in places:
        try:
            out.add(header(files.file(i), files.name(i), span))
        except NetxformError as error:
            if not skip:
                raise
            out.bad[i] = error.diagnostics[0].message
    return out


def ready(span: Span) -> None:
    """Import what decodes images, here once and not in every worker anew. Raises NetxformError X0814."""
    need("torchvision.transforms.v2.functional", "vision", span)


def whole(files: Files, make: Callable[[Files], Pictures], workers: int) -> dict[int, str]:
    """Decode every image, and say which cannot be: their numbers, and what is wrong."""
    from torch.utils.data import DataLoader

    tried: Any = _Tried(make(files))
    loader = DataLoader(tried, batch_size=32, num_workers=workers, collate_fn=_as_it_is)
    found = [text for batch in loader for text in batch]
    return {i: text for i, text in enumerate(found) if text is not None}


class _Tried:
    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> str | None:
        try:
            _ = self.pictures[index]
        except NetxformError as error:
            return error.diagnostics[0].message
        return None


def _as_it_is(batch: list[Any]) -> list[Any]:
    return batch


def left_out(bad: dict[int, str], files: Files) -> str:
    """What is said of files that are skipped."""
    names = [f"`{files.name(i)}`" for i in list(bad)[:_TOLD]]
    more = f" and {len(bad) - _TOLD} more" if len(bad) > _TOLD else ""
    one = len(bad) == 1
    return f"{len(bad):,} damaged file{' is' if one else 's are'} left out: {', '.join(names)}{more}"


def view_of(options: Options, survey_: Survey | None, span: Span, default: tuple[int, int] = SIZE) -> View:
    """How the images are shown: in the size that is asked for; else in their own, if they have one; else 224 x 224.

    Raises NetxformError X0406 (channels).
    """
    channels = options.channels or 3
    if channels not in (1, 3, 4):
        helps = ("write `channels=1`, `channels=3`, or `channels=4` with the transparency",)
        raise fail("X0406", f"images have 1, 3 or 4 channels, not {channels}", span, "channels", helps=helps)
    size = options.size
    if size is None:
        own = survey_ is not None and survey_.looked and survey_.least == survey_.most
        size = survey_.least if own and survey_ is not None else default
    normal = options.normalize
    if isinstance(normal, str):
        helps = ("write `normalize=imagenet`, or numbers: `normalize=[0.5, 0.25]`",)
        raise fail("X0406", f"`normalize={normal}` is not for these images", span, "normalize", helps=helps)
    mean, std = normal_of(normal, channels, span) or ([], [])
    return View(size, channels, options.fit, options.interpolation, tuple(mean), tuple(std))


def masks_of(options: Options, masks: Files, span: Span) -> tuple[tuple[int, ...], int | None]:
    """The pixel values of the classes, and the one that is not counted. Raises NetxformError X0408 where none are named."""
    if options.values:
        if len(set(options.values)) != len(options.values) or len(options.values) < 2 or options.ignore in options.values:
            helps = ("name each class once, two at least: `values=[0, 255]`; `ignore` is none of them",)
            raise fail("X0406", "`values` are the pixel values of the classes in order", span, "values", helps=helps)
        return options.values, options.ignore
    few = [(masks.file(i), masks.name(i)) for i in range(min(len(masks), 32))]
    found = [v for v in values_in(few, span) if v != options.ignore]
    listed = ", ".join(str(v) for v in found[:20]) + (", …" if len(found) > 20 else "")
    helps = (f"write `values=[{listed}]`; a value that is not counted is named by `ignore=`",)
    text = f"the masks need the pixel value of each class; the first {len(few)} hold {listed}"
    raise fail("X0408", text, span, "which classes?", helps=helps)


def is_image(name: str) -> bool:
    """Whether a file is called like an image."""
    return name.lower().endswith(SUFFIXES)


def others(names: Sequence[str]) -> tuple[str, ...]:
    """What is said of files that are no images by their names."""
    if not names:
        return ()
    kinds = Counter(Path(n).suffix.lower() or "without an ending" for n in names)
    listed = ", ".join(printable(k) for k, _ in kinds.most_common(5))
    one = len(names) == 1
    return (
        f"{len(names):,} file{'' if one else 's'} that {'is no image is' if one else 'are no images are'} left out ({listed})",
    )
