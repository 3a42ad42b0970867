"""A graft is the user's own class with the spec's edits, and gives the graph's bits in both modes; otherwise it is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.errors import NetxformError


class Attention(nn.Module):
    """Reads its sizes from itself, as most code does."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.embed_dim = heads, width // heads, width
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (t.view(n, length, self.num_heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        h = (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(-1) @ v
        return self.drop(self.out(h.transpose(1, 2).reshape(n, length, -1)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.a, self.b = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.up, self.down = Attention(width, heads), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.a(x))
        return x + self.down(torch.relu(self.up(self.b(x))))


class Mine(nn.Module):
    """A model with a method of its own and a part that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(3, 12, 1), nn.BatchNorm1d(12)
        self.blocks = nn.ModuleList(Block(12, 3, 20) for _ in range(3))
        self.scale = nn.Parameter(torch.rand(12))
        self.head = nn.Linear(12, 4)
        self.history: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.stem(x)).transpose(1, 2)
        for block in self.blocks:
            h = block(h)
        return self.head((h * self.scale).mean(1))

    def describe(self) -> str:
        return f"mine, {len(self.blocks)} blocks"


STATEMENTS = [
    "prune blocks.*.up by magnitude amount=30%",
    "widen blocks.0.up x2",
    "factorize blocks.*.down using svd rank=3",
    "freeze stem",
    "remove blocks.1",
    "adapt head with lora rank=2; merge **",
    "factorize head using svd rank=2",
]


@given(st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=3, unique=True), st.booleans())
@settings(max_examples=10, deadline=None)
def test_the_same_class_the_same_bits(statements: list[str], training: bool) -> None:
    torch.manual_seed(0)
    model, x = Mine().train(training), torch.randn(2, 3, 5)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    try:
        result = nx.apply("; ".join(statements), model=model, example_inputs=x)
    except NetxformError:
        return  # two statements that do not go together
    made = result.graft()
    assert type(made) is Mine and made.training is training and made.describe().startswith("mine")
    for mode in (False, True):
        one, other = result.model.train(mode), made.train(mode)
        torch.manual_seed(3)
        a = one(x)
        torch.manual_seed(3)
        assert torch.equal(a, other(x)), mode
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items()), "the user's model is as it was"
    if any(s.startswith("remove") for s in statements):
        assert made.describe() == "mine, 2 blocks"


def test_numbers_in_the_code_follow() -> None:
    """Pruned and widened attention reads `num_heads` from itself."""
    torch.manual_seed(0)

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = Attention(12, 3), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(x))

    model, x = Heads().eval(), torch.randn(2, 5, 12)
    result = nx.apply("freeze inner", model=model, example_inputs=x)
    from dataclasses import replace

    from netxform.artifacts.graft import graft
    from netxform.capture.capture import capture

    other = Heads().eval()
    with torch.no_grad():  # the same module with two heads of four, written by hand
        keep = torch.tensor([i for h in (0, 2) for i in range(4 * h, 4 * h + 4)])
        rows = torch.cat([keep + 12 * i for i in range(3)])
        other.inner.num_heads = 2
        other.inner.qkv.weight = nn.Parameter(model.inner.qkv.weight[rows])
        other.inner.qkv.bias = nn.Parameter(model.inner.qkv.bias[rows])
        other.inner.out.weight = nn.Parameter(model.inner.out.weight[:, keep])
        other.inner.qkv.out_features, other.inner.out.in_features = 24, 8
        other.inner.out.bias, other.head = model.inner.out.bias, model.head
    assert result.origin is not None
    origin = replace(result.origin, after=capture(other, x))
    made: Any = graft(origin.model, origin.before, origin.after, (x,))
    assert made.inner.num_heads == 2
    with torch.no_grad():
        assert torch.equal(made(x), other(x))


@pytest.mark.parametrize(
    "spec", ["cut at norm", "attach more after head classes=2", "adapt head with lora rank=1", "cast bfloat16"]
)
def test_what_the_class_cannot_follow_is_refused(spec: str) -> None:
    result = nx.apply(spec, model=Mine().eval(), example_inputs=torch.randn(2, 3, 5))
    with pytest.raises(NetxformError, match="X0849"):
        result.graft()
    with pytest.raises(NetxformError, match="X0849"):
        nx.apply(spec, model=Mine().eval(), example_inputs=torch.randn(2, 3, 5), keep_class=True)


def test_a_size_in_the_code_is_named() -> None:
    class Baked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x)).view(-1, 2, 3).flatten(1))

    result = nx.apply("widen a x2", model=Baked().eval(), example_inputs=torch.randn(2, 4))
    with pytest.raises(NetxformError, match=r"test_graft.py:\d+: .*view\(-1, 2, 3\)"):
        result.graft()


class Matrix(nn.Module):
    """A layer that is none of torch.nn: its width is a number that its own code reads."""

    def __init__(self, wide: int, out: int) -> None:
        super().__init__()
        self.nf, self.weight = out, nn.Parameter(torch.randn(wide, out))

    def forward(self, x: Tensor) -> Tensor:
        return (x.reshape(-1, x.shape[-1]) @ self.weight).view(*x.shape[:-1], self.nf)


class Splits(nn.Module):
    """Widths as a row of numbers, a function that has no layer, and a layer of a class of its own."""

    class Mine(nn.Linear):
        pass

    def __init__(self) -> None:
        super().__init__()
        self.widths = (6, 6)
        self.inner, self.a, self.b = Matrix(5, 12), self.Mine(6, 4), self.Mine(6, 4)
        self.middle, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.split(self.inner(x), list(self.widths), -1)
        h = nn.functional.dropout(torch.relu(self.middle(self.a(a) + self.b(b))), 0.3, self.training)
        return self.head(h)


@pytest.mark.parametrize(
    "spec", ["prune ** by magnitude amount=30%", "widen middle x2", "prune middle by magnitude amount=50%"]
)
def test_layers_and_rows_of_the_model_itself(spec: str) -> None:
    """Widths that no layer of torch.nn holds follow; the user's own kinds of layer stay; functions without a layer do too."""
    torch.manual_seed(0)
    model, x = Splits().eval(), torch.randn(4, 5)
    result = nx.apply(spec, model=model, example_inputs=x)
    made: Any = result.graft()
    assert type(made.a) is Splits.Mine and made.middle.weight.shape == result.model.get_submodule("middle").weight.shape
    other = torch.randn(7, 5)
    for mode in (False, True):
        torch.manual_seed(3)
        one = result.model.train(mode)(other)
        torch.manual_seed(3)
        assert torch.equal(one, made.train(mode)(other)), mode


def test_where_values_differ_the_module_is_named() -> None:
    """A number that the code reads, and that no shape gives away."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.up(x)
            return self.down(h) / h.shape[-1]

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.head = Scaled(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.part(x))

    try:
        result = nx.apply("widen part.up x2", model=Outer().eval(), example_inputs=torch.randn(2, 4))
    except NetxformError:
        return  # the axis is not free where its size is a value
    with pytest.raises(NetxformError, match=r"`part`: .*test_graft.py:\d+: `Scaled.forward`"):
        result.graft()


def test_training_is_compared_too() -> None:
    """A size that the code reads in training alone."""

    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.up(x))
            return self.down(h.view(-1, 2, 3).flatten(1) if self.training else h)

    result = nx.apply("freeze down", model=Apart().eval(), example_inputs=torch.randn(2, 4))
    from dataclasses import replace

    from netxform.artifacts.graft import graft
    from netxform.capture.capture import capture

    class Wide(Apart):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.relu(self.up(x)))

    assert result.origin is not None
    x = torch.randn(2, 4)
    origin = replace(result.origin, after=capture(Wide().eval(), x))
    with pytest.raises(NetxformError, match=r"test_graft.py:\d+: .*view\(-1, 2, 3\)"):
        graft(origin.model, origin.before, origin.after, (x,))
