"""`folder("photos")`: images in a folder a class."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from netxform.errors import fail
from netxform.sources.data.parts import few, share, split
from netxform.sources.data.source import DATA, DataSet, DataSource, Options, images
from netxform.sources.trust import Trust, no_links, read_path
from netxform.syntax import ast


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    """`folder("photos")`: a folder a class (torchvision's ImageFolder), loaded as it is read."""
    import numpy as np
    from torch.utils.data import Subset

    if options.path is None:
        raise fail("X0408", "`folder` needs the name of a folder", data.span, "which?")
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
    try:
        found: Any = datasets.ImageFolder(str(path), transform=transforms.Compose(steps))
    except (FileNotFoundError, RuntimeError) as error:
        raise fail("X0817", f"`{options.path}` is no folder of images: {error}", data.span, "no images") from error
    labels = np.array(found.targets)
    train, val, test = split(labels, share(options.val), share(options.test), options.seed or 0)
    if options.per_class is not None:
        rng = np.random.default_rng([seed, 17])
        train = few(train, labels, sorted(set(labels.tolist())), options.per_class, rng, data.name, data.span)
    digest = hashlib.sha256(repr([(Path(p).name, c) for p, c in found.samples]).encode()).hexdigest()
    parts = [Subset(found, p.tolist()) for p in (train, val, test)]
    shape = (options.channels or 3, size, size)
    return DataSet(data.name, parts[0], parts[1], parts[2], len(found.classes), shape, digest, tuple(found.classes))


DATA.register("folder")(DataSource(_load, images(None, None)))
