"""The table of activations, each column against the functions themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netxform.graph.activations import ACTIVATIONS, Activation, activation_of

X = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
each = pytest.mark.parametrize("row", ACTIVATIONS, ids=lambda r: r.layer.__name__)


def layer(row: Activation) -> Any:
    more: dict[Any, tuple[float, ...]] = {nn.Threshold: (0.5, 2.0)}
    return row.layer(*more.get(row.layer, ())).double().eval()


def applied(row: Activation, x: Tensor) -> Tensor:
    with torch.no_grad():
        return layer(row)(x)


@each
def test_the_slope_is_the_largest_and_no_larger(row: Activation) -> None:
    steep = float((applied(row, X).diff() / X.diff()).abs().max())
    if row.slope is None:
        return
    assert steep <= row.slope * (1 + 1e-9)
    assert row.slope <= steep * 1.02


@each
def test_zero_at_zero(row: Activation) -> None:
    assert (float(applied(row, torch.zeros(1, dtype=torch.float64))) == 0.0) == row.zero


@each
def test_idempotent(row: Activation) -> None:
    once = applied(row, X)
    same = torch.equal(applied(row, once), once)
    assert same or not row.idempotent
    if row.layer not in (nn.Threshold,):  # idempotent or not by its arguments
        assert same == row.idempotent


@each
def test_piecewise(row: Activation) -> None:
    bends = (applied(row, X).diff().diff().abs() > 1e-13).sum()
    assert (int(bends) <= 12) == row.piecewise


@each
def test_the_function_of_each_name_is_the_layer(row: Activation) -> None:
    for name in row.names:
        function = getattr(F, name, None) or getattr(torch, name, None)
        if name == "log_sigmoid":
            function = torch.ops.aten.log_sigmoid
        assert function is not None
        extra: tuple[Any, ...] = (0.5, 2.0) if row.layer is nn.Threshold else ()
        if row.layer is nn.PReLU:
            extra = (torch.full((1,), 0.25, dtype=torch.float64),)
        assert torch.equal(function(X, *extra), applied(row, X))


def test_rows_are_found_by_layer_by_name_and_by_name_in_place() -> None:
    class Mine(nn.ReLU):
        pass

    assert activation_of(nn.ReLU6()) is activation_of("relu6") is activation_of("relu6_")
    assert activation_of(Mine()) is activation_of("relu")
    assert activation_of(nn.Linear(2, 2)) is None
    assert activation_of("softmax") is None
    assert len({n for r in ACTIVATIONS for n in r.names}) == sum(len(r.names) for r in ACTIVATIONS)
