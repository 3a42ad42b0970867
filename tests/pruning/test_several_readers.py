"""A unit that several layers read: what it matters is summed over all of them, and one reading may lie behind another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform.axes.reindex import axes_of
from netxform.pruning.curvature import saliency
from netxform.pruning.exactness import curved
from netxform.pruning.gates import gates


class Twice(nn.Module):
    """The units of `a` are read by `b` as they are, and by `c` behind another function."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.a, self.b, self.c = nn.Linear(5, 7), nn.Linear(7, 3), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return self.b(h) + self.c(torch.relu(0.7 - h))


@pytest.mark.parametrize("method", ["gauss-newton", "exact"])
def test_what_a_unit_matters_is_summed_over_its_readers(method: str) -> None:
    model = Twice().double()
    x, y = torch.randn(60, 5).double(), torch.arange(60) % 3
    network = nx.capture(model, x[:2])
    atom = next(a.atom for a in axes_of(network) if ("a.weight", 0) in a.sites)
    found = saliency(network, [(x[:25], y[:25]), (x[25:], y[25:])], method=method)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        h = torch.relu(model.a(x))
        rows, others, z = h.numpy(), torch.relu(0.7 - h).numpy(), model(x).numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    v = rows[:, :, None] * model.b.weight.detach().numpy().T + others[:, :, None] * model.c.weight.detach().numpy().T
    q = p[:, None]
    second = 0.5 * ((q * v**2).sum(2) - (q * v).sum(2) ** 2).mean(0)
    first = -((q - np.eye(3)[y][:, None]) * v).sum(2).mean(0)
    np.testing.assert_allclose(found.second[atom].numpy(), second, rtol=1e-8)
    np.testing.assert_allclose(found.first[atom].numpy(), first, rtol=1e-8)


class Stream(nn.Module):
    """Straight lines alone, but the stream is read again behind what read it: a gate times itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.stem, self.up, self.down, self.head = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        return self.head(y + self.down(torch.relu(self.up(y))))


def test_a_stream_that_is_read_again_is_not_said_to_be_exact() -> None:
    model = Stream().double()
    x, y = torch.randn(40, 5).double(), torch.arange(40) % 3
    network = nx.capture(model, x[:2])
    reasons = curved(network, gates(network))
    one, two = (saliency(network, [(x, y)], method=m) for m in ("gauss-newton", "exact"))
    assert {a.size: bool(why) for a, why in reasons.items()} == {6: True, 4: False}
    for atom, why in reasons.items():
        close = np.allclose(one.second[atom].numpy(), two.second[atom].numpy(), rtol=1e-9, atol=1e-12)
        assert close == (not why), why
