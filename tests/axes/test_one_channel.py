"""Axes of one index: they become wider like others, or the true reason is said: what a size of 1 meets in the code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform.axes.reindex import axes_of
from netxform.capture.capture import capture


class One(nn.Module):
    """A layer with one output, and what reads it, in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.a, self.n, self.b = nn.Conv2d(3, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Conv2d(1, 4, 1)
        self.f, self.g, self.p = nn.Linear(4, 1), nn.Linear(1, 3), nn.PReLU()
        self.scale, self.wide = nn.Parameter(torch.rand(1, 1, 1, 1) + 1), nn.Linear(36, 3)
        self.other, self.only = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 5, 1)
        self.group, self.deep = nn.GroupNorm(1, 1), nn.Conv2d(5, 5, 3, padding=1, groups=5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        match self.how:
            case "chain":
                h = torch.relu(self.n(h))
            case "sum":
                h = h + self.other(x)
            case "slopes":
                h = self.p(h)
            case "scaled":
                h = h * self.scale
            case "grouped":
                h = self.group(h)
            case "flat":
                return self.wide(h.flatten(1))
            case "mean":
                return self.g(h.mean((2, 3)))
            case "squeezed":
                h = h.squeeze(1).unsqueeze(1)
            case "gate":
                return self.deep(self.only(x) * torch.sigmoid(h)).mean((2, 3))
            case "picked":
                h = h[:, 0][:, None]
            case "repeated":
                return self.deep(h.expand(-1, 5, -1, -1)).mean((2, 3))
            case "end":
                return h
            case _:
                h = torch.cat([h, self.other(x)], 1)[:, :1]
        return self.g(torch.relu(self.f(torch.relu(self.b(h)).mean((2, 3)))))


FREE = ["chain", "sum", "scaled", "grouped", "flat", "mean", "slopes", "joined"]
KEPT = {
    "squeezed": "a size of 1 that the code fixes", "gate": "a size of 1 that the code fixes",
    "picked": "positions along it", "repeated": "a size of 1", "end": "an output of the network",
}  # fmt: skip


def made(how: str) -> tuple[One, Tensor]:
    torch.manual_seed(0)
    return One(how).double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("spec", ["widen a to 4", "widen a x2", "widen a x3 mode=copy"])
@pytest.mark.parametrize("how", FREE)
def test_one_channel_becomes_several(how: str, spec: str) -> None:
    model, x = made(how)
    result = nx.apply(spec, model=model, example_inputs=x)
    assert result.model.get_submodule("a").weight.shape[0] == {"4": 4, "2": 2, "y": 3}[spec[-1]]
    with torch.no_grad():
        assert float((result.model(x) - model(x)).abs().max()) <= 1e-10


@pytest.mark.parametrize("how", KEPT)
def test_what_keeps_it_at_one_is_said(how: str) -> None:
    model, x = made(how)
    with pytest.raises(nx.NetxformError) as caught:
        nx.apply("widen a x2", model=model, example_inputs=x)
    text = str(caught.value)
    assert KEPT[how] in text
    assert "positions in space" not in text and "an input of the network" not in text


@pytest.mark.parametrize("how", [*FREE, *KEPT])
def test_one_index_is_never_removed(how: str) -> None:
    model, x = made(how)
    singles = [a for a in axes_of(capture(model, x)) if a.locked is None and a.size == 1]
    assert all(a.name.startswith("u") for a in singles)
    try:
        result = nx.apply("prune ** by magnitude amount=40%", model=model, example_inputs=x)
    except nx.NetxformError as error:  # nothing else is there to prune
        assert error.diagnostics[0].code == "X0331"
    else:
        assert all(0 not in p.shape for p in result.model.parameters())


def test_linear_layers_of_one_number() -> None:
    model, x = made("chain")
    result = nx.apply("widen f to 4", model=model, example_inputs=x)
    with torch.no_grad():
        assert float((result.model(x) - model(x)).abs().max()) <= 1e-10
