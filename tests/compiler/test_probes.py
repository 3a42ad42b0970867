"""One set of inputs for a whole run: what a statement is measured on is what its claim is looked at again with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import netxform as nx


class Decides(nn.Module):
    """Its last part decides on values: the graph that is cut before it has no guard any more."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if x.sum() > 0:
            y = y * 2
        return self.head(y)


def test_a_cut_that_takes_a_guard_away_leaves_the_claims_in_force() -> None:
    torch.manual_seed(0)
    x = torch.rand(3, 4)
    result = nx.apply("cut at body", model=Decides().eval(), example_inputs=x)
    (claim,) = result.certificate["statements"][0]["claims"]
    assert claim["held"] and claim["in_force"] and claim["probes"] == "3 given, 5 varied"
