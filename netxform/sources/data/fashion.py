"""`fashion_mnist()`: Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017) in its four files; its own test part is kept."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from netxform.errors import NetxformError, fail
from netxform.sources.data.parts import build
from netxform.sources.data.source import DATA, PICTURES, DataSet, DataSource, Options, images
from netxform.sources.files import regular
from netxform.sources.trust import TEXT, Trust, read_path
from netxform.syntax import ast

if TYPE_CHECKING:
    import numpy as np

FASHION = "/usr/share/datasets/fashion-mnist"
OFFICIAL = 60_000
_MOST = 100_000_000


def _unpacked(path: Path, data: ast.Data) -> bytes:
    """The bytes of a file, at most as many as Fashion-MNIST has."""
    regular(path, data.span)
    try:
        with gzip.open(path) as file:
            raw = file.read(_MOST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, data, str(error)) from error
    if not 16 < len(raw) <= _MOST:
        raise _damaged(path, data, f"{len(raw):,} bytes or more, when it is unpacked")
    return raw


def _damaged(path: Path, data: ast.Data, why: str) -> NetxformError:
    helps = ("fetch the file again",)
    return fail("X0808", f"`{path.name}` is not the file of Fashion-MNIST: {why}", data.span, "damaged?", helps=helps)


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
            raw = np.frombuffer(_unpacked(path, data), dtype=np.uint8, offset=head)
            if head == 16 and len(raw) % 784:
                raise _damaged(path, data, "it holds no whole number of images")
            out.append(raw.reshape(-1, 28, 28) if head == 16 else raw)
        if len(out[-2]) != len(out[-1]) or (len(out[-1]) and out[-1].max() > 9):
            raise _damaged(path, data, f"{len(out[-2])} images and {len(out[-1])} labels from 0 to 9 do not fit")
    if len(out[0]) != OFFICIAL:
        raise _damaged(folder, data, f"its training part has {len(out[0])} images, not {OFFICIAL}")
    pixels = np.concatenate([out[0], out[2]]).astype(np.float32) / 255.0
    labels = np.concatenate([out[1], out[3]]).astype(np.int64)
    return build(data.name, pixels, labels, options, seed, data.span, official=OFFICIAL)


DATA.register("fashion_mnist")(DataSource(_load, images(10, (1, 28, 28)), takes=(*PICTURES, "root")))
