"""Graphs on the meta device: shapes where torch itself would want numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from netxform.graph.meta import MetaRun


class Filled(nn.Module):
    """Tables made of a number that a buffer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("stride", torch.tensor([8, 16]))

    def forward(self, x: Tensor) -> Any:
        s = self.stride[0]
        return torch.full((3, 2), s), torch.full((3,), s.double()), torch.full_like(x, s), x.new_full((4,), fill_value=s > 3)


class Groups(nn.Module):
    """Products of groups of rows, in both layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 16, 32))

    def forward(self, x: Tensor) -> Any:
        offs = torch.tensor([2, 4], dtype=torch.int32, device=x.device)
        return F.grouped_mm(x, self.w, offs=offs), F.grouped_mm(x.t(), x, offs=offs)


def encoder(cls: Any) -> nn.Module:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if cls is nn.TransformerEncoder:
                self.t: nn.Module = cls(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
            else:
                self.t = cls(nn.TransformerDecoderLayer(16, 2, 32, batch_first=True), 1)

        def forward(self, x: Tensor) -> Tensor:
            mask = torch.ones(4, 4, device=x.device).triu(1).bool()
            return self.t(x, mask) if cls is nn.TransformerEncoder else self.t(x, x, mask)

    return Masked()


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Filled(), (3, 3)),
        (Groups(), (4, 16)),
        (encoder(nn.TransformerEncoder), (2, 4, 16)),
        (encoder(nn.TransformerDecoder), (2, 4, 16)),
    ],
    ids=["filled", "groups", "encoder", "decoder"],
)
def test_shapes_and_dtypes_are_those_with_numbers(model: nn.Module, shape: tuple[int, ...]) -> None:
    graph = fx.symbolic_trace(model.eval())
    x = torch.randn(shape)
    with torch.no_grad():
        wanted = model(x)
        with torch.device("meta"):
            found = MetaRun(graph.to("meta")).run(x.to("meta"))
    one = isinstance(wanted, Tensor)
    pairs = zip((wanted,) if one else wanted, (found,) if one else found, strict=True)
    assert all(f.is_meta and (f.shape, f.dtype) == (w.shape, w.dtype) for w, f in pairs)
