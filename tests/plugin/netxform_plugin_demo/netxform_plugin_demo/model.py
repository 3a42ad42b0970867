"""`demo.stack(width=6)`: two layers on 8 numbers, with a function between them that netxform has no rule for."""

from __future__ import annotations

from collections import OrderedDict

from netxform.graph.layer_spec import Invocation
from netxform.sources.loaded import Loaded
from netxform.sources.models.source import MODELS, ModelSource


def _load(name: str, call: Invocation) -> Loaded:
    import torch
    from torch import nn

    class Sinc(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sinc(x)

    width = call.keywords.get("width", 6)
    layers = OrderedDict(first=nn.Linear(8, width), act=Sinc(), second=nn.Linear(width, 2))
    return nn.Sequential(layers), (((1, 8), "f32"),), {"source": call.name}


MODELS.register("demo")(ModelSource(_load, ("stack",)))
