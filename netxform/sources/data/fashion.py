"""`fashion_mnist()`: Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017) in its four files; its own test part is kept."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from netxform.errors import fail
from netxform.sources.data.parts import build
from netxform.sources.data.source import DATA, DataSet, DataSource, Options, images
from netxform.sources.trust import TEXT, Trust, read_path, too_large
from netxform.syntax import ast

if TYPE_CHECKING:
    import numpy as np

FASHION = "/usr/share/datasets/fashion-mnist"


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    import numpy as np

    folder = Path(FASHION) if options.root is None else read_path(options.root, trust, data.span)
    out: list[np.ndarray] = []
    for prefix in ("train", "t10k"):
        for kind, head in (("images-idx3", 16), ("labels-idx1", 8)):
            path = folder / f"{prefix}-{kind}-ubyte.gz"
            if not path.exists():
                raise fail(
                    "X0814",
                    f"Fashion-MNIST is not in `{folder}`: no {path.name}",
                    data.span,
                    "needed here",
                    helps=('apt-get install dataset-fashion-mnist, or name its folder: `fashion_mnist(root="…")`',),
                )
            if options.root is not None:
                path = read_path(str(Path(options.root) / path.name), trust, data.span, TEXT)
            with gzip.open(path) as file:
                held = file.read(TEXT + 1)
            if len(held) > TEXT:
                raise too_large(f"`{path.name}`, unpacked,", len(held), TEXT, data.span)
            raw = np.frombuffer(held, dtype=np.uint8, offset=head)
            out.append(raw.reshape(-1, 28, 28) if head == 16 else raw)
    pixels = np.concatenate([out[0], out[2]]).astype(np.float32) / 255.0
    labels = np.concatenate([out[1], out[3]]).astype(np.int64)
    return build(data.name, pixels, labels, options, seed, data.span, official=60_000)


DATA.register("fashion_mnist")(DataSource(_load, images(10, (1, 28, 28))))
