"""Blocks taken out: what is left is the network that somebody would write without them; the ones that go do least."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.errors import NetxformError


class Block(nn.Module):
    """A residual block of one of several kinds; some write into what they are given."""

    def __init__(self, kind: str, width: int = 6, scale: float = 1.0) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=kind != "plain")

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "before":  # the block begins by rewriting its input
            x = self.act(x)
            return x + self.scale * self.conv(x)
        if self.kind == "into":
            h = self.scale * self.norm(self.conv(x))
            h += x
            return self.act(h)
        return x + self.scale * self.act(self.norm(self.conv(x)))


class Net(nn.Module):
    def __init__(self, kinds: list[str], scales: list[float] | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(k, scale=s) for k, s in zip(kinds, scales or [1.0] * len(kinds), strict=True)))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor, without: tuple[int, ...] = ()) -> Tensor:
        h = self.stem(x)
        for i, block in enumerate(self.blocks):
            if i not in without:
                h = block(h)
        return self.head(h.mean((2, 3)))


@given(st.lists(st.sampled_from(["plain", "before", "into"]), min_size=2, max_size=4), st.data())
@settings(max_examples=12, deadline=None)
def test_the_network_without_them(kinds: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.lists(st.sampled_from(range(len(kinds))), min_size=1, unique=True).map(sorted))
    torch.manual_seed(0)
    model, x = Net(kinds).eval(), torch.randn(3, 1, 8, 8)
    spec = "remove " + " | ".join(f"blocks.{i}" for i in gone)
    made = nx.apply(spec, model=model, example_inputs=x).model.eval()
    with torch.no_grad():
        assert torch.equal(made(x), model(x, tuple(gone)))
    left = {n.split(".")[1] for n, _ in made.named_parameters() if n.startswith("blocks.")}
    assert left == {str(i) for i in range(len(kinds)) if i not in gone}


@pytest.mark.parametrize("by", ["", "by cosine", "by loss"])
def test_those_that_do_least_go(by: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = Net(["plain"] * 4, [1.0, 0.001, 0.9, 0.002])
    x, y = torch.randn(60, 1, 8, 8), torch.randint(0, 3, (60,))
    spec = f"remove blocks.* {by} over d count=2"
    result = nx.apply(spec, model=model, example_inputs=x[:2], data={"d": (x, y)}, out=tmp_path / "b")
    assert {n.split(".")[1] for n, _ in result.model.named_parameters() if n.startswith("blocks.")} == {"0", "2"}
    claims = {c["kind"]: c for c in result.certificate["statements"][0]["claims"]}
    assert set(claims) == {"bypassed", "output error", "loss change"}
    assert len(result.certificate["statements"][0]["chosen"]) == 4
    if by == "by loss":
        assert claims["loss change"]["detail"]["predicted"] is not None
    assert nx.verify(tmp_path / "b").held


def test_what_cannot_go() -> None:
    class Down(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x)))

    x = torch.randn(2, 4)
    for spec, said in (
        ("remove b", "is given 2 x 4 and gives 2 x 5"),
        ("remove a count=2 over d", "1 blocks|X0406"),
        ("remove a count=1", "over DATA"),
        ("remove a by loss", "how many"),
        ("remove a count=0 over d", "at least 1"),
    ):
        with pytest.raises(NetxformError, match=said):
            nx.apply(spec, model=Down().eval(), example_inputs=x, data={"d": (torch.randn(30, 4), torch.randint(0, 3, (30,)))})
    assert nx.apply("remove a", model=Down().eval(), example_inputs=x).model(x).shape == (2, 3)


def test_a_transformer_block() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    x = torch.randn(2, 5, 8)
    made = nx.apply("remove layers.1", model=model, example_inputs=x).model.eval()
    with torch.no_grad():
        assert torch.equal(made(x), model.layers[2](model.layers[0](x)))


def test_the_claim_can_be_broken() -> None:
    from netxform.capture.capture import capture
    from netxform.compiler.claims.blocks import bypassed
    from netxform.compiler.evidence import Case
    from netxform.graph.edits import Bypass, Edit
    from netxform.graph.surgery import perform
    from netxform.language.claims import Bypassed

    torch.manual_seed(0)
    x = torch.randn(2, 1, 8, 8)
    before = capture(Net(["plain", "into"]).eval(), x)
    after = perform(before, Edit((Bypass(("blocks.0",)),)))
    assert bypassed(Bypassed(("blocks.0",)), Case(before, after, (x,), 0)).evidence.held
    assert not bypassed(Bypassed(("blocks.1",)), Case(before, after, (x,), 0)).evidence.held
