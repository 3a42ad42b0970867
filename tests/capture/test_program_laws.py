"""Programs of modules: equal for equal code, other ones for another number, order or place; names say nothing of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netxform.capture.equivalence import program


class Made(nn.Module):
    def __init__(self, of: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.w, self.of = nn.Parameter(torch.empty(4, device="meta")), of

    def forward(self, x: Tensor) -> Tensor:
        return self.of(x, self.w)


def steps(of: Callable[[Tensor, Tensor], Tensor]) -> list[Any]:
    model = Made(of)
    return program(model, (torch.empty(3, 4, device="meta"),), {}, model)


SAME: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda x, w: x * 2 + w,
    lambda x, w: torch.softmax(x, 1),
    lambda x, w: x.clamp(0.0, 1.5),
    lambda x, w: x.transpose(0, 1) @ x,
]
OTHER: list[tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = [
    (lambda x, w: x * 2, lambda x, w: x * 3),
    (lambda x, w: x + 1, lambda x, w: x + True),
    (lambda x, w: x * 0.5, lambda x, w: x * 0.25),
    (lambda x, w: torch.softmax(x, 1), lambda x, w: torch.softmax(x, 0)),
    (lambda x, w: x.sum(1, keepdim=True) * x, lambda x, w: x.mean(1, keepdim=True) * x),
    (lambda x, w: x - w, lambda x, w: w - x),
    (lambda x, w: x[:, :2], lambda x, w: x[:, 2:]),
    (lambda x, w: x + w, lambda x, w: x + x),
]


@pytest.mark.parametrize("of", SAME)
def test_the_same_code_has_the_same_program(of: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert steps(of) == steps(of)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_another_number_order_or_place_is_another_program(
    one: Callable[[Tensor, Tensor], Tensor], other: Callable[[Tensor, Tensor], Tensor]
) -> None:
    assert steps(one) != steps(other)
