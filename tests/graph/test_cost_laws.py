"""What a network costs, by closed forms: one sample's work, whatever batch it was captured with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netxform as nx
from netxform.graph.cost import cost


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_macs_are_those_of_one_sample(batch: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 36, 4))
    found = cost(nx.capture(model.eval(), torch.randn(batch, 3, 6, 6)))
    assert found.macs == 36 * 5 * 3 * 9 + 5 * 36 * 4
    assert found.params == 5 * 3 * 9 + 2 * 5 + 5 * 36 * 4 + 4
    # float32 and the two statistics of the norm, beside its count of batches, a whole number of 8 bytes
    assert found.bytes == 4 * (found.params + 2 * 5) + 8


def test_a_tensor_with_two_names_is_counted_once() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    found = cost(nx.capture(model, torch.randn(3, 6)))
    assert (found.params, found.macs, found.bytes) == (36 + 12, 72, 4 * 48)
