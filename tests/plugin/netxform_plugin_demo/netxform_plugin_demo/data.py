"""`demo.blobs(spread=0.3)`: two clouds of 100 points in 8 dimensions."""

from __future__ import annotations

from netxform.sources.data.parts import from_tensors
from netxform.sources.data.source import DATA, DataSet, DataSource, Options
from netxform.sources.trust import Trust
from netxform.syntax import ast


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    import torch

    rng = torch.Generator().manual_seed(options.seed or 0)
    y = torch.arange(200) % 2
    x = (2.0 * y[:, None] - 1) + float(options.more.get("spread", 1.0)) * torch.randn(200, 8, generator=rng)
    return from_tensors(data.name, x, y, val=options.val, test=options.test, classes=2)


DATA.register("demo.blobs")(DataSource(_load, lambda options: (2, (8,)), more=("spread",)))
