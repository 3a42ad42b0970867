"""`net.matrix`: rows of numbers in a text file, as one linear layer."""

from __future__ import annotations

from netxform.sources.formats import FORMATS, Asked, Format
from netxform.sources.loaded import Loaded


def _read(asked: Asked) -> Loaded:
    path = asked.path()
    import torch
    from torch import nn

    weight = torch.tensor([[float(n) for n in line.split()] for line in path.read_text().splitlines()])
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight)
    return nn.Sequential(layer), (((1, weight.shape[1]), "f32"),), {"source": asked.text}


FORMATS.register("matrix")(Format(_read))
