"""Products of groups of rows (mixtures of experts): in float64, on meta, in every exact verb, and in bundles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import netxform as nx
from netxform.precision.rounding import _grouped_mm as in_float64


class Experts(nn.Module):
    """Half of the rows for each of two experts."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.o = nn.Linear(16, 16), nn.Linear(16, 3)
        self.w = nn.Parameter(torch.randn(2, 16, 16) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        offs = torch.tensor([1, 1]).mul(x.shape[0] // 2).cumsum(0).to(torch.int32)
        return self.o(F.grouped_mm(self.l(x), self.w, offs=offs))


@pytest.mark.parametrize(
    ("a", "b", "offs"),
    [((8, 16), (2, 16, 32), (4, 8)), ((16, 8), (8, 16), (4, 8)), ((2, 8, 16), (2, 16, 32), None)],
    ids=["rows", "inner", "batched"],
)
def test_the_float64_products_are_those_of_torch(a: tuple[int, ...], b: tuple[int, ...], offs: tuple[int, ...] | None) -> None:
    x, y = torch.randn(a), torch.randn(b)
    given = None if offs is None else torch.tensor(offs, dtype=torch.int32)
    wanted = torch._grouped_mm(x, y, offs=given)
    assert torch.allclose(in_float64(x.double(), y.double(), offs=given), wanted.double(), atol=1e-5)


@pytest.mark.parametrize("spec", ["deepen l", "widen l x2", "freeze **"])
def test_networks_with_experts_are_measured_and_stored(spec: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Experts().eval(), torch.randn(4, 16)
    try:
        result = nx.apply(spec, model=model, example_inputs=(x,), out=tmp_path / "b")
    except nx.NetxformError as error:
        assert spec.startswith("widen") and error.diagnostics[0].code == "X0320"
        return
    with torch.no_grad():
        assert torch.allclose(result.model(x), model(x), atol=1e-5)
        assert torch.equal(nx.load(tmp_path / "b")(x), result.model(x))
    assert nx.verify(tmp_path / "b").held
