"""Worst cases that are reached: layers are multiples of the identity, so that the true change is known and each rule counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from netxform.capture.capture import capture
from netxform.factorization.worst_case import worst_case

WIDTH, MOVED = 4, 0.5


class Plain(nn.Module):
    """A layer, a function, and a layer: both layers the identity until they change."""

    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.of = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False), of
        for layer in (self.first, self.last):
            nn.init.eye_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.of(self.first(x)))


STRAIGHT: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "alpha": (lambda h: torch.add(h, h, alpha=3), 4.0),
    "minus alpha": (lambda h: torch.sub(h, h, alpha=-2), 3.0),
    "times": (lambda h: 5 * h, 5.0),
    "over": (lambda h: h / 0.25, 4.0),
    "sum": (lambda h: h + h, 2.0),
    "leaky": (lambda h: nn.functional.leaky_relu(h, 2.0), 2.0),
}


@pytest.mark.parametrize("name", sorted(STRAIGHT))
@pytest.mark.parametrize("radius", [0.1, 7.0])
def test_a_straight_function_passes_the_change_on(name: str, radius: float) -> None:
    of, factor = STRAIGHT[name]
    model = Plain(of).eval()
    stated = worst_case(capture(model, torch.randn(2, WIDTH)), {"first": MOVED}, radius)
    assert factor * MOVED * radius <= stated <= factor * MOVED * radius * (1 + 1e-6)
    x = -torch.ones(1, WIDTH) * radius / WIDTH**0.5
    with torch.no_grad():
        reached = float((model.of((1 + MOVED) * x) - model.of(x)).norm())
    assert reached == pytest.approx(factor * MOVED * radius, rel=1e-5)


AT_ZERO: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hardsigmoid": nn.functional.hardsigmoid,
    "hardtanh": lambda h: nn.functional.hardtanh(h, 0.5, 2.0),
    "number": lambda h: h + 0.5,
    "softmax": lambda h: torch.softmax(h, 1),
}


@pytest.mark.parametrize("name", sorted(AT_ZERO))
def test_what_a_function_makes_of_nothing_is_what_the_next_layer_changes(name: str) -> None:
    """The input is next to nothing; what the last layer sees is not."""
    model = Plain(AT_ZERO[name]).eval()
    stated = worst_case(capture(model, torch.randn(2, WIDTH)), {"last": MOVED}, 1e-6)
    reached = MOVED * float(model.of(torch.zeros(1, WIDTH)).norm())
    assert reached > 0.2 and stated >= reached * (1 - 1e-6)
