"""A rank of 1 is one; 1.0 and 100% are all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netxform as nx


@pytest.mark.parametrize(
    ("text", "rank"), [("0.5", 15), ("0.9", 27), ("1", 1), ("1.0", 30), ("100%", 30), ("50%", 15), ("30", 30), ("2.0", 2)]
)
def test_ranks_as_they_are_written(text: str, rank: int) -> None:
    model = nn.Sequential(nn.Identity(), nn.Linear(40, 30))
    x = torch.randn(3, 40)
    made = nx.apply(f"factorize .`1` rank={text} when_smaller=false", model=model, example_inputs=(x,)).model
    first = next(m for m in made.modules() if isinstance(m, nn.Linear))
    assert first.weight.shape[0] == rank
