"""`sklearn.digits()`: 1797 digits of 8 x 8, by scikit-learn."""

from __future__ import annotations

from typing import Any, cast

from netxform.sources.data.parts import build
from netxform.sources.data.source import DATA, PICTURES, DataSet, DataSource, Options, images
from netxform.sources.trust import Trust
from netxform.syntax import ast


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    import numpy as np
    from sklearn.datasets import load_digits

    found = cast(Any, load_digits())
    x, y = (found.images / 16.0).astype(np.float32), found.target.astype(np.int64)
    return build(data.name, x, y, options, seed, data.span)


DATA.register("sklearn.digits")(DataSource(_load, images(10, (1, 8, 8)), takes=PICTURES))
