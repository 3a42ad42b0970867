"""Masks and precisions that the code reads: a cast network fills with numbers of its own precision, or is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform.capture.capture import capture
from netxform.errors import NetxformError


class Masked(nn.Module):
    """Attention scores filled with the least number of their precision, in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.q, self.o = nn.Linear(8, 8), nn.Linear(8, 3)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        h = self.q(x)
        scores = h @ h.transpose(1, 2)
        later = torch.ones(x.shape[1], x.shape[1]).triu(1) > 0
        least = torch.finfo(scores.dtype).min
        match self.how:
            case "masked_fill":
                scores = scores.masked_fill(later, least)
            case "in place":
                scores = scores.clone().masked_fill_(later, least)
            case "where":
                scores = torch.where(later, least, scores)
            case "infinite":
                scores = scores.masked_fill(later, float("-inf"))
            case _:
                scores = scores + torch.full_like(scores, least).masked_fill(~later, 0.0)
        return self.o(scores.softmax(-1) @ h)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("how", ["masked_fill", "in place", "where", "infinite", "added"])
def test_a_mask_is_cast_with_its_network(how: str, dtype: str) -> None:
    torch.manual_seed(0)
    model, x = Masked(how).eval(), torch.randn(2, 5, 8)
    found = nx.apply(f"cast {dtype}", model=model, example_inputs=(x,)).model.eval()
    with torch.no_grad():
        near, wanted = found(x), model(x)
    assert near.isfinite().all()
    assert float((near - wanted).abs().max() / wanted.abs().max()) < 0.05
    other = x.clone()
    other[:, -1] += 1  # the last one is hidden from all others
    with torch.no_grad():
        assert torch.equal(found(other)[:, :-1], near[:, :-1])


class Decides(nn.Module):
    """A layer whose code decides by the precision of what it has computed."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.l(x)
        return h * 2 if h.dtype == torch.float16 else h


def test_a_cast_that_decides_otherwise_is_refused_with_the_repair() -> None:
    with pytest.raises(NetxformError) as error:
        nx.apply("cast float16", model=Decides(), example_inputs=(torch.randn(2, 4),))
    first = error.value.diagnostics[0]
    assert first.code == "X0801"
    assert "h.dtype == torch.float16" in first.message
    assert any("model.to(torch.float16)" in h for h in first.helps)


class TakesOver(nn.Module):
    """A mask is brought into the precision of other values, and asked whether it is there."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = torch.tanh(x)
        if mask is not None:
            mask = mask.to(h.dtype).unsqueeze(-1)
            other = torch.ones(1, dtype=h.dtype)
            if other is not None and mask is not None:
                h = h * mask * other
        if int(mask.sum()) > 10**6:
            h = h * 0
        return h


class Asks(TakesOver):
    """The same, and the code decides by that precision."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        kind = torch.tanh(x).dtype
        h = super().forward(x, mask)
        return h if kind == torch.float32 else h * 2


def test_a_precision_that_is_taken_over_decides_nothing() -> None:
    given = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.long)
    assert not [g for g in capture(TakesOver(), *given).guards if "dtype" in g.what]
    assert [g for g in capture(Asks(), *given).guards if g.what == "return h if kind == torch.float32 else h * 2"] or [
        g for g in capture(Asks(), *given).guards if "dtype" in g.what
    ]


class Chooses(nn.Module):
    """A branch on the precision of a value, in the manner asked for, after a branch on a value: the recorder captures it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.l, self.o = nn.Linear(8, 8), nn.Linear(8, 3)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        h = self.l(x)
        if x.max().item() > 1e6:
            h = h * 0
        usual = [torch.float16, torch.float32, torch.float64, torch.bfloat16]
        match self.how:
            case "in":
                h = torch.tanh(h) if h.dtype in usual else h
            case "not in":
                h = torch.tanh(h) if h.dtype not in (torch.int8, torch.uint8) else h
            case "halves":
                h = h if h.dtype in (torch.float16, torch.bfloat16) else torch.tanh(h)
            case _:
                h = torch.tanh(h) if h.dtype == torch.float32 else h
        return self.o(h)


@pytest.mark.parametrize("how", ["in", "not in", "halves", "float32"])
def test_claims_are_measured_in_float64_where_code_decides_by_the_precision(how: str) -> None:
    model, x = Chooses(how).eval(), torch.rand(3, 8)
    network = capture(model, x)
    assert sum("dtype" in g.what for g in network.guards) == 1
    for spec in ("widen l x2", "prune l by magnitude amount=50%", "factorize o using svd rank=2", "deepen l"):
        found = nx.apply(spec, model=model, example_inputs=(x,)).model.eval()
        if spec.startswith(("widen", "deepen")):
            assert torch.allclose(found(x), model(x), atol=1e-5)


@pytest.mark.parametrize("how", ["in", "not in"])
def test_one_of_several_precisions_is_as_good_as_another(how: str) -> None:
    model, x = Chooses(how).eval(), torch.rand(3, 8)
    found = nx.apply("cast float16", model=model, example_inputs=(x,)).model.eval()
    assert torch.allclose(found(x), model(x), atol=1e-2)
    network = capture(model, x)
    assert torch.allclose(network.module.double()(x.double()), model.double()(x.double()))
