"""Masks that are added to scores hold −inf: a value like any other, in every verb and precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform.precision.rounding import HALF, moved, rounding


class Causal(nn.Module):
    """Attention whose mask is a buffer."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.l = nn.Linear(8, 8)
        self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        h = self.l(x)
        return (h @ h.transpose(1, 2) + self.mask).softmax(-1) @ h


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("spec", ["deepen l", "freeze **", "cast float16", "cast bfloat16", "factorize l using svd rank=4"])
def test_a_mask_with_infinity_is_no_damage(spec: str, persistent: bool) -> None:
    torch.manual_seed(0)
    model, x = Causal(persistent).eval(), torch.randn(2, 4, 8)
    result = nx.apply(spec, model=model, example_inputs=(x,))
    mask = result.model.get_buffer("mask").float()
    assert torch.equal(mask, model.mask)
    with torch.no_grad():
        assert result.model(x).isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_other_values_that_are_not_finite_are_refused(value: float) -> None:
    model = Causal(True).eval()
    model.mask[0, 0] = value
    with pytest.raises(nx.NetxformError, match="X0811"):
        nx.apply("freeze **", model=model, example_inputs=(torch.randn(2, 4, 8),))


def test_an_infinite_weight_is_refused() -> None:
    model = Causal(True).eval()
    with torch.no_grad():
        model.l.weight[0, 0] = -float("inf")
    with pytest.raises(nx.NetxformError, match="X0811"):
        nx.apply("freeze **", model=model, example_inputs=(torch.randn(2, 4, 8),))


def test_values_that_overflow_are_still_refused() -> None:
    model = Causal(False).eval()
    with torch.no_grad():
        model.l.weight.mul_(1e4)
    with pytest.raises(nx.NetxformError, match="X0329"):
        nx.apply("cast float16", model=model, example_inputs=(torch.randn(2, 4, 8) * 10,))


def test_infinity_is_neither_large_nor_moved() -> None:
    x = torch.tensor([float("-inf"), 2.0, -3.0])
    counts = rounding([x], HALF["float16"])
    assert (counts.largest, counts.overflow) == (3.0, 0)
    shaken = moved(x.double(), HALF["float16"], torch.Generator().manual_seed(0))
    assert shaken[0] == x[0] and not torch.equal(shaken[1:], x[1:].double())
