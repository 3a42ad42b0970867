"""`folder("photos")`: images in a folder a class."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from netxform.errors import NetxformError, Span, fail
from netxform.sources.data.parts import few, share, split
from netxform.sources.data.source import DATA, DataSet, DataSource, Options, images
from netxform.sources.files import regular
from netxform.sources.trust import Trust, no_links, read_path
from netxform.syntax import ast


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    """`folder("photos")`: a folder a class (torchvision's ImageFolder), loaded as it is read."""
    import numpy as np
    from torch.utils.data import Subset

    if options.path is None:
        raise fail("X0408", "`folder` needs the name of a folder", data.span, "which?", helps=('write `folder("FOLDER")`',))
    path = read_path(options.path, trust, data.span)
    if not trust.outside:
        no_links(path, data.span)
    try:
        from torchvision import datasets, transforms
    except ImportError as error:
        raise fail(
            "X0814", "`torchvision` is not installed", data.span, "needed here", helps=("pip install 'netxform[vision]'",)
        ) from error
    size = options.size or 224
    steps: list[Any] = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    if options.channels == 1:
        steps.insert(0, transforms.Grayscale())
    if options.normalize is not None:
        mean, std = options.normalize
        count = options.channels or 3
        steps.append(transforms.Normalize([mean] * count, [std] * count))
    if not path.is_dir():
        helps = ("it holds a folder for each class, with the images of that class",)
        raise fail("X0817", f"`{options.path}` is no folder", data.span, "no images", helps=helps)
    try:
        found: Any = datasets.ImageFolder(str(path), transform=transforms.Compose(steps))
    except (OSError, RuntimeError) as error:
        helps = ("it holds a folder for each class, with images in each",)
        text = str(error).split("\n")[0]
        raise fail("X0817", f"`{options.path}` is no folder of images: {text}", data.span, "no images", helps=helps) from error
    pictures: Any = Pictures(found, path, data.span)
    labels = np.array(found.targets)
    train, val, test = split(labels, share(options.val), share(options.test), options.seed or 0)
    if isinstance(options.val, int) and options.val > 1:
        val = val[: options.val]
    if isinstance(options.test, int) and options.test > 1:
        test = test[: options.test]
    if options.per_class is not None:
        rng = np.random.default_rng([seed, 17])
        train = few(train, labels, sorted(set(labels.tolist())), options.per_class, rng, data.name, data.span)
    if not len(train):
        helps = ("take fewer for `val` and `test`, or more images",)
        raise fail("X0817", f"data `{data.name}` leaves nothing to train on", data.span, "no training samples", helps=helps)
    digest = hashlib.sha256(repr([(Path(p).name, c) for p, c in found.samples]).encode()).hexdigest()
    parts = [Subset(pictures, p.tolist()) for p in (train, val, test)]
    shape = (options.channels or 3, size, size)
    return DataSet(data.name, parts[0], parts[1], parts[2], len(found.classes), shape, digest, tuple(found.classes))


class Pictures:
    """The images of a folder by number; one that cannot be read is named. The beginning of each is read when this is made.

    Raises NetxformError X0805, with the file.
    """

    def __init__(self, found: Any, root: Path, span: Span) -> None:
        from PIL import Image

        self.found, self.root, self.span = found, root, span
        for file, _ in found.samples:
            regular(Path(file), span)
            try:
                with Image.open(file):
                    pass
            except Exception as error:
                raise self._damaged(file, error) from error

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.found[index]
        except Exception as error:
            raise self._damaged(self.found.samples[index][0], error) from error

    def _damaged(self, file: str, error: Exception) -> NetxformError:
        name = Path(file).relative_to(self.root)
        text = (str(error).replace(file, "it").strip().splitlines() or [type(error).__name__])[0]
        helps = ("take the file out, or put a whole one in its place",)
        return fail("X0805", f"the image `{name}` cannot be read: {text}", self.span, "damaged image", helps=helps)


TAKES = ("path", "per_class", "val", "test", "size", "channels", "normalize", "seed")
DATA.register("folder")(DataSource(_load, images(None, None), takes=TAKES))
