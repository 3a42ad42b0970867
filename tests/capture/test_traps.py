"""What code may ask for beside values: dtype, device, grad mode, masks of ones. Each a branch or a guard."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from netxform.artifacts.emit import emit
from netxform.artifacts.graph import from_json, to_json
from netxform.capture.capture import capture
from tests.emitted import forms


class Asks(nn.Module):
    """A module that asks something, in the manner asked for, and decides by it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.how = how

    def forward(self, x):
        h = self.fc(x)
        match self.how:
            case "double":
                return h * 2 if x.dtype == torch.float64 else h
            case "halves":
                return h * 2 if h.dtype in (torch.float16, torch.bfloat16) else h
            case "kept":
                kind = x.dtype
                if kind != torch.float32:
                    h = h * 3
                return h
            case "is":
                return h if x.relu().dtype is torch.float32 else h * 2
            case "floats":
                return h if torch.is_floating_point(x) else h * 2
            case "accelerator":
                return h * 2 if x.is_cuda or h.device.type == "cuda" else h
            case "weight":
                return h * 2 if self.fc.weight.dtype == torch.float16 else h
            case "taken over":
                return h.to(x.dtype) + torch.ones(4, dtype=x.dtype, device=x.device)
            case "kind":
                return h if isinstance(x, torch.Tensor) and hasattr(x, "shape") and not hasattr(x, "lengths") else h * 2
            case "gradients":
                return h * 2 if torch.is_grad_enabled() else h
            case "gradients, added":
                if torch.is_grad_enabled():
                    h = torch.tanh(h) + 1
                return h
            case "gradients in training":
                if torch.is_grad_enabled() and self.training:
                    return torch.utils.checkpoint.checkpoint(self.fc, h, use_reentrant=False)
                return self.fc(h)
            case _:
                return h


GUARDED = {"double": 1, "halves": 1, "kept": 1, "is": 1, "floats": 1, "accelerator": 2}


@pytest.mark.parametrize("how", [*GUARDED, "weight", "taken over", "kind"])
def test_kinds_of_tensors_that_decide_are_guarded(how: str) -> None:
    model = Asks(how).eval()
    network = capture(model, torch.randn(3, 4))
    assert len([n for n in network.module.graph.nodes if n.name.startswith("require")]) == GUARDED.get(how, 0)
    again = from_json(to_json(network), dict(network.module.state_dict())).module
    emit(network)
    for module in (network.module, again):
        assert torch.equal(module(torch.ones(5, 4)), model(torch.ones(5, 4)))
    model.double(), network.module.double()  # its guards hold for the twin in float64 where that decides alike
    x = torch.randn(3, 4, dtype=torch.float64)
    if how in ("double", "kept", "is"):
        with pytest.raises(RuntimeError, match="would not here"):
            network.module(x)
    else:
        assert torch.equal(network.module(x), model(x))


@pytest.mark.parametrize("how", ["gradients", "gradients, added", "gradients in training"])
def test_both_branches_of_the_grad_mode_are_kept(how: str, tmp_path: Path) -> None:
    model = Asks(how).eval()
    network = capture(model, torch.randn(3, 4))
    assert network.guards == network.lost == ()
    x = torch.randn(5, 4)
    for module in forms(network, "Asks", tmp_path):
        for on in (True, False):
            for training in (True, False):
                with torch.set_grad_enabled(on):
                    assert torch.equal(module.train(training)(x), model.train(training)(x))
    assert torch.is_grad_enabled()


class Masked(nn.Module):
    """Attention that looks at its mask first, in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(9, 8), nn.Linear(8, 3)
        self.how = how

    def forward(self, ids, mask):
        h = self.words(ids)
        match self.how:
            case "attention":
                kept = None if mask.all() else mask[:, None, :].bool().expand(-1, ids.shape[1], -1)
                return self.out(F.scaled_dot_product_attention(h, h, h, attn_mask=kept))
            case "sum":
                if mask.sum() == mask.numel():
                    return self.out(h)
                return self.out(h * mask[..., None])
            case "item":
                if mask.min().item() < 1:
                    h = h.masked_fill(mask[..., None] == 0, 0.0)
                return self.out(h)
            case "other":  # the two branches are not one function
                return self.out(h) if mask.all() else self.out(h * mask[..., None]) + 1
            case _:
                return self.out(h)


@pytest.mark.parametrize("how", ["attention", "sum", "item"])
def test_a_mask_of_ones_leaves_no_guard_where_masking_says_the_same(how: str) -> None:
    model = Masked(how).eval()
    ids, ones = torch.randint(0, 9, (2, 6)), torch.ones(2, 6, dtype=torch.long)
    network = capture(model, ids, ones)
    assert network.guards == ()
    for length in (6, 9):
        for _ in range(4):
            words, mask = torch.randint(0, 9, (3, length)), (torch.rand(3, length) < 0.6).long()
            mask[:, 0] = 1
            for given in (mask, torch.ones_like(mask)):
                assert torch.equal(network.module(words, given), model(words, given))


def test_where_the_branches_differ_the_guard_stays() -> None:
    model = Masked("other").eval()
    ids, ones = torch.randint(0, 9, (2, 6)), torch.ones(2, 6, dtype=torch.long)
    network = capture(model, ids, ones)
    assert len(network.guards) == 1
    assert torch.equal(network.module(ids, ones), model(ids, ones))
    padded = ones.clone()
    padded[0, 3:] = 0
    with pytest.raises(RuntimeError, match="would not here"):
        network.module(ids, padded)


class Turned(nn.Module):
    """A layer on values that lie the other way round: torch multiplies them in another manner where weights learn."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 18)

    def forward(self, x):
        if x.max().item() > 1e6:
            x = x * 0
        return self.fc(x.transpose(1, 2))


@pytest.mark.parametrize("learns", [True, False])
def test_a_graph_is_compared_with_weights_that_learn_as_the_models_do(learns: bool) -> None:
    torch.manual_seed(0)
    model = Turned().double().requires_grad_(learns).eval()
    for length in (12, 33, 64):
        x = torch.randn(2, 16, length, dtype=torch.float64)
        found = capture(model, x)
        assert all(p.requires_grad is learns for p in found.module.parameters())
        with torch.no_grad():
            assert torch.equal(found.module(x), model(x))
            assert torch.equal(found.module(x[:1]), model(x[:1]))


class Windows(nn.Module):
    """Overlapping windows by `as_strided`, with strides that the code reads in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.how = how

    def forward(self, x):
        h = self.fc(x).transpose(0, 1)  # what lies where depends on the batch
        n, b, d = h.size()
        if self.how == "all":
            first, second, third = h.stride()
        elif self.how == "list":
            first, second, third = list(h.stride())
        else:
            first, second, third = (h.stride(i) if self.how == "each" else h.stride(dim=i) for i in range(3))
        return h.contiguous().as_strided((n - 1, b, 2 * d), (b * d, third * d, 1)) + h.as_strided((1,), (first,)) * second


@pytest.mark.parametrize("how", ["all", "list", "each", "keyword"])
def test_strides_follow_the_sizes(how: str) -> None:
    model = Windows(how).eval()
    found = capture(model, torch.randn(2, 6, 4))
    for batch, length in ((1, 6), (3, 6), (5, 6), (2, 9)):
        x = torch.randn(batch, length, 4)
        with torch.no_grad():
            assert torch.equal(found.module(x), model(x))


class Lengths(nn.Module):
    """Sizes by `len`, in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)
        self.how = how

    def forward(self, x):
        h = self.fc(x)
        rows = len(h) if self.how == "len" else h.__len__()
        first, *rest = h.chunk(2, 1)
        half = torch.cat([first, *rest], 1).reshape(rows, 2, 3, -1)
        if half.sum().item() > 1e9:
            half = half * 0
        return half.transpose(1, 2).reshape(rows * 2, -1) * len([x, h]) * len(self.fc.weight)


@pytest.mark.parametrize("how", ["len", "__len__"])
def test_the_length_of_a_tensor_follows_the_batch(how: str) -> None:
    model = Lengths(how).eval()
    found = capture(model, torch.randn(2, 4))
    assert found.front_end == "recorder"
    to_json(found)
    for batch in (1, 3, 5):
        x = torch.randn(batch, 4)
        with torch.no_grad():
            assert torch.equal(found.module(x), model(x))
    assert len.__name__ == "len"
    assert type(len).__name__ == "builtin_function_or_method"


class Given(nn.Module):
    """A part that gives a view of its parameter, as class tokens are made."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.o = Token(), nn.Linear(4, 2)

    def forward(self, x):
        return self.o(torch.cat([self.token(x.shape[:1]), x], 1))


class Token(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))

    def forward(self, sizes):
        if not sizes:
            raise ValueError
        return self.weight.expand(len([0] * sizes[0]), 1, -1)


def test_a_part_that_is_kept_whole_and_gives_its_parameter_is_counted() -> None:
    from netxform.graph.cost import cost
    from netxform.graph.network import twin

    model = Given().eval()
    network = capture(model, torch.randn(2, 3, 4))
    assert [i.path for i in network.islands] == ["token"]
    for one in (network, twin(network)):
        flags = [p.requires_grad for p in one.module.parameters()]
        assert cost(one).macs == 4 * 4 * 2
        assert [p.requires_grad for p in one.module.parameters()] == flags == [True] * 3
