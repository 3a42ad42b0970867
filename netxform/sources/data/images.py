"""Images as samples: a file or bytes → a tensor of one size, its mask with it. Decoded where it is asked for, one at a time.

View, file ─seen→ (C, h, w) float32       View, file of a mask ─seen_mask→ (h, w) int64
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from netxform.errors import NOWHERE, NetxformError, Span, fail
from netxform.language.methods import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".pbm", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jfif")
MOST_PIXELS = 1 << 27
"""The largest image that is decoded: 134 million pixels. PIL warns from 89 million on."""
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_SEVERAL = ("GIF", "PNG", "WEBP", "TIFF")
"""Formats that hold several pictures in one file; what phones keep beside the one picture of a JPEG is no second sample."""


@dataclass(frozen=True, slots=True)
class View:
    """How an image is shown: (height, width), channels, what is cut or stretched, and the numbers of each channel.

    `fit=crop`: scaled until it covers the size, then the middle is cut out (torchvision's Resize and CenterCrop);
    `fit=stretch`: scaled to the size in both directions.
    """

    size: tuple[int, int]
    channels: int = 3
    fit: str = "crop"
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a sample: (C, h, w)."""
        return (self.channels, *self.size)


@dataclass(frozen=True, slots=True)
class Header:
    """What the beginning of an image says: width, height, mode, format."""

    width: int
    height: int
    mode: str
    format: str
    alpha: bool = False


Image: TypeAlias = "Path | bytes | Any"
"""A file, its bytes, or an image of PIL."""


def header(file: Image, name: str, span: Span = NOWHERE) -> Header:
    """Read the beginning of an image alone. Raises NetxformError X0862 (no image, or damaged), X0906 (too many pixels)."""
    with _reading(file, name, span) as image:
        alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        return Header(image.width, image.height, image.mode, str(image.format), alpha)


def seen(file: Image, view: View, name: str, span: Span = NOWHERE, mask: MaskOf | None = None) -> Any:
    """The image (C, h, w) float32 in [0, 1], less the mean and divided by the spread of each channel.

    `mask`: its mask, cut and scaled with it; then a pair with (h, w) int64. Raises NetxformError X0862, X0906, X0861 (a mask of
    another size or with other values).
    """
    import torch

    with _reading(file, name, span) as opened:
        image = _whole(opened, name, span, view.channels)
        deep = image.mode == "F"
        shape = (image.height, image.width)
        x = _tensor(_fitted(image, view, view.interpolation))
    x = x.expand(view.channels, -1, -1).to(torch.float32, copy=True) if deep else x.to(torch.float32).div_(255)
    if view.mean:
        x.sub_(_column(view.mean)).div_(_column(view.std))
    return x if mask is None else (x, mask.seen(view, shape, name, span))


@dataclass(frozen=True, slots=True)
class MaskOf:
    """The mask of one image. `values`: the pixel value of each class in order; `ignored`: one that is not counted (−100)."""

    file: Image
    name: str
    values: tuple[int, ...]
    ignored: int | None = None

    def seen(self, view: View, shape: tuple[int, int], of: str, span: Span) -> Tensor:
        """Class numbers (h, w) int64, nearest pixels. Raises NetxformError X0861, X0862, X0906."""
        import numpy as np
        import torch

        with _reading(self.file, self.name, span) as opened:
            image = plane(opened, self.name, span)
            image.load()
            if (image.height, image.width) != shape:
                text = f"the mask `{self.name}` is {image.height} x {image.width}, the image `{of}` {shape[0]} x {shape[1]}"
                raise fail("X0861", text, span, "another size", helps=("a mask has the size of its image",))
            found = np.asarray(_fitted(image, view, "nearest")).astype(np.int64)
        table = np.full(int(found.max()) + 1, -1, dtype=np.int64)
        for number, value in enumerate(self.values):
            if value < len(table):
                table[value] = number
        if self.ignored is not None and self.ignored < len(table):
            table[self.ignored] = IGNORED
        out = table[found]
        if (out == -1).any():
            strange = sorted({int(v) for v in found[out == -1].ravel()[:1000]})[:5]
            listed = ", ".join(str(v) for v in strange)
            helps = (f"name every value: `values=[{', '.join(map(str, sorted({*self.values, *strange})))}]`",
                     f"or leave one out of count: `ignore={strange[0]}`")  # fmt: skip
            raise fail("X0861", f"the mask `{self.name}` holds {listed}, which is no class", span, "unknown", helps=helps)
        return torch.from_numpy(out)


def plane(image: Any, name: str, span: Span) -> Any:
    """A mask as one plane of numbers: palette images by their index. Raises NetxformError X0861 for colours."""
    if image.mode == "1":
        return image.convert("L").point(lambda v: v // 255)
    if image.mode in ("L", "P", "I", *_DEEP):
        return image
    helps = ("save it with one channel, in which each pixel has the number of its class",)
    raise fail("X0861", f"the mask `{name}` is an image in {image.mode}, not one plane of numbers", span, "", helps=helps)


def values_in(files: Sequence[tuple[Image, str]], span: Span) -> list[int]:
    """The different pixel values of some masks, in order. Raises NetxformError X0861, X0862, X0906."""
    import numpy as np

    out: set[int] = set()
    for file, name in files:
        with _reading(file, name, span) as opened:
            out |= {int(v) for v in np.unique(np.asarray(plane(opened, name, span)))}
    return sorted(out)


@contextlib.contextmanager
def _reading(file: Image, name: str, span: Span) -> Generator[Any]:
    """The image, closed afterwards. What a library raises meanwhile is said of that file: X0862; too many pixels: X0906."""
    import PIL.Image as pil

    given = isinstance(file, pil.Image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pil.DecompressionBombWarning)
            image = file if given else pil.open(io.BytesIO(file) if isinstance(file, bytes) else file)
        with contextlib.nullcontext() if given else image:
            _one_of_a_size(image, name, span)
            yield image
    except NetxformError:
        raise
    except pil.DecompressionBombError as error:
        raise _too_many(name, str(error).split(",")[0], span) from error
    except Exception as error:
        raise damaged(name, error, span) from error


def _one_of_a_size(image: Any, name: str, span: Span) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise _too_many(name, f"{image.width:,} x {image.height:,} pixels", span)
    if image.format in _SEVERAL and getattr(image, "is_animated", False):
        helps = ("save the one that counts as a file of its own", "or leave such files out, counted: `bad=skip`")
        raise fail("X0862", f"`{name}` holds {image.n_frames} pictures", span, "which one?", helps=helps)


def _too_many(name: str, what: str, span: Span) -> NetxformError:
    text = f"the image `{name}` is too large to be decoded: {what}"
    notes = (f"an image has at most {MOST_PIXELS / 1e6:.0f} million pixels",)
    return fail("X0906", text, span, "too large", notes=notes, helps=("make it smaller, or take it out",))


def _whole(image: Any, name: str, span: Span, channels: int) -> Any:
    """The image decoded, upright, in the mode of so many channels; 16 bits a pixel as float in [0, 1], mode F."""
    import numpy as np
    from PIL import Image, ImageOps

    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP or image.mode == "I":
        found = np.asarray(image)
        if found.min() < 0 or found.max() > 65_535:
            text = f"`{name}` holds numbers from {found.min()} to {found.max()}: no image of 16 bits"
            raise fail("X0862", text, span, "no image", helps=("save it with 8 or 16 bits a pixel",))
        return Image.fromarray(found.astype(np.float32) / 65_535)
    if image.mode == "F":
        helps = ("save it with 8 or 16 bits a pixel, or hand the numbers in as `npz(…)`",)
        raise fail("X0862", f"`{name}` holds float numbers of no known range", span, "no image", helps=helps)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Any, view: View, interpolation: str) -> Any:
    """The image in the size of the view, as PIL has it."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    height, width = view.size
    if view.fit == "crop":
        scale = max(height / image.height, width / image.width)
        target = [max(height, int(image.height * scale + 1e-6)), max(width, int(image.width * scale + 1e-6))]
    else:
        target = [height, width]
    if target != [image.height, image.width]:
        image = functional.resize(image, target, interpolation=InterpolationMode(interpolation))
    return functional.center_crop(image, [height, width]) if target != [height, width] else image


def _tensor(image: Any) -> Tensor:
    from torchvision.transforms.v2 import functional

    return functional.pil_to_tensor(image)


def _column(values: Sequence[float]) -> Tensor:
    import torch

    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)


def damaged(name: str, error: Exception | str, span: Span = NOWHERE) -> NetxformError:
    """X0862: the file by its name, and what is wrong with it."""
    if isinstance(error, OSError) and error.strerror is not None:
        text = error.strerror
    else:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        text = "it is no image, or a damaged one" if "cannot identify" in text else text[:200]
    helps = ("take the file out, or put a whole one in its place", "or leave such files out, counted: `bad=skip`")
    return fail("X0862", f"the image `{name}` cannot be read: {text}", span, "damaged image", helps=helps)
