"""A bundle that was just written holds: whatever the sizes of its tensors, its numbers are found again bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import netxform as nx


class Odd(nn.Module):
    """Inputs and layers of odd sizes: in a file, none of them begins where PyTorch would let it begin."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.sizes = [3 + int(n) for n in torch.randint(0, 9, (4,))]
        a, b, hidden, out = self.sizes
        self.left, self.right = nn.Linear(a, 13), nn.Linear(b, 7)
        self.both, self.head = nn.Linear(20, 2 * hidden + 1), nn.Linear(2 * hidden + 1, out)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(torch.relu(self.both(torch.cat([torch.tanh(self.left(x)), torch.relu(self.right(y))], 1))))


@pytest.mark.parametrize("text", ["prune ** by magnitude amount=30%", "widen both x2", "factorize both rank=2"])
@pytest.mark.parametrize("seed", range(4))
def test_a_bundle_holds_where_it_was_written(seed: int, text: str, tmp_path: Path) -> None:
    model = Odd(seed).eval()
    inputs = tuple(torch.randn(2, n) for n in model.sizes[:2])
    nx.apply(text, model=model, example_inputs=inputs, out=tmp_path / "b")
    found = nx.verify(tmp_path / "b")
    assert found.held, [(c.what, c.why) for c in found.claims if not c.evidence.held]
