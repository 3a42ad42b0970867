"""One kind of axis alone: the others keep their sizes, and what is left is the masked network."""

from __future__ import annotations

import importlib
from collections import Counter

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.axes.kinds import KINDS, kind_of
from netxform.axes.reindex import axes_of
from netxform.capture.capture import capture
from netxform.errors import NetxformError
from tests.strategies import randomized


class Hand(nn.Module):
    """Blocks of attention and dense layers written out, under names that say nothing."""

    def __init__(self, heads: int, within: int, inner: int, width: int, layers: int, grouped: bool, written: bool) -> None:
        super().__init__()
        self.heads, self.within, self.written = heads, within, written
        self.keys = heads // 2 if grouped else heads
        self.start = nn.Linear(3, width)
        for i in range(layers):
            self.add_module(f"a{i}", nn.Linear(width, heads * within))
            self.add_module(f"b{i}", nn.Linear(width, 2 * self.keys * within, bias=False))
            self.add_module(f"c{i}", nn.Linear(heads * within, width))
            self.add_module(f"d{i}", nn.Linear(width, inner))
            self.add_module(f"e{i}", nn.Linear(inner, width))
            self.add_module(f"n{i}", nn.LayerNorm(width))
        self.layers = layers
        self.end = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, L, 3) → (N, L, 2)."""
        h = self.start(x)
        for i in range(self.layers):
            part = {n: getattr(self, f"{n}{i}") for n in "abcden"}
            z = part["n"](h)
            q = part["a"](z).unflatten(-1, (self.heads, self.within)).transpose(1, 2)
            k, v = part["b"](z).unflatten(-1, (2, self.keys, self.within)).permute(2, 0, 3, 1, 4)
            k, v = (t.repeat_interleave(self.heads // self.keys, 1) if self.keys != self.heads else t for t in (k, v))
            if self.written:
                mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
            else:
                mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            h = h + part["c"](mixed.transpose(1, 2).flatten(2))
            u = part["d"](h)
            u = 0.5 * u * (1 + torch.tanh(u + 0.04 * u**3))  # an activation that adds a value to its own function
            h = h + part["e"](u)
        return self.end(h)


def sizes(model: nn.Module, x: Tensor) -> Counter[tuple[str | None, int]]:
    """How many free axes there are of each kind and size."""
    network = capture(model, x)
    return Counter((kind_of(network, a.atom), a.size) for a in axes_of(network) if a.locked is None)


def others(found: Counter[tuple[str | None, int]], kind: str) -> Counter[tuple[str | None, int]]:
    """Those of other kinds."""
    return Counter({k: n for k, n in found.items() if k[0] != kind})


def total(found: Counter[tuple[str | None, int]], kind: str) -> int:
    """The indices of one kind."""
    return sum(n * size for (k, size), n in found.items() if k == kind)


@given(
    st.sampled_from([2, 4]), st.integers(2, 5), st.integers(3, 9), st.integers(1, 2), st.booleans(), st.booleans(),
    st.sampled_from(KINDS), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=8, deadline=None, phases=[Phase.generate])
def test_the_other_axes_keep_their_sizes(
    heads: int, within: int, inner: int, layers: int, grouped: bool, written: bool, kind: str, seed: int
) -> None:
    torch.manual_seed(seed)
    width = 7
    model = randomized(Hand(heads, within, inner, width, layers, grouped, written)).double().eval()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    before = sizes(model, x)
    kv = heads // 2 if grouped else heads
    wanted = {"heads": (layers, kv), "within": (layers, within), "mlp": (layers, inner), "residual": (1, width)}
    for name, (count, size) in wanted.items():
        if size > 1:
            assert before[name, size] == count, name
    if kind in ("heads", "within") and wanted[kind][1] < 2:
        return
    result = nx.apply(f"prune ** by magnitude amount=40% along={kind}", model=model, example_inputs=x)
    after = sizes(result.model, x)
    if before[kind, 2]:  # heads of which one is left are no axis any more, and what stood within them is the width alone
        after += Counter({(kind, 1): before[kind, 2]})
    else:
        assert others(before, kind) == others(after, kind)
    assert total(after, kind) < total(before, kind)
    claims = [c for s in result.certificate["statements"] for c in s["claims"]]
    assert str(claims[0]["claim"]).startswith("same function as with the removed indices read as zero")
    assert all(c["held"] for c in claims)


def masked(model: nn.Module, x: Tensor) -> Tensor:
    """The model with the second half of every MLP's inner units read as zero: what pruning by these indices computes."""
    for name, part in model.named_modules():
        if name.endswith("fc2"):
            part.weight.data[:, part.weight.shape[1] // 2 :] = 0  # type: ignore[union-attr, index]
    return model(x)


def test_a_vit_keeps_all_but_its_mlp() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5, img_size=32, embed_dim=24, num_heads=3).eval()
    x = torch.randn(2, 3, 32, 32)
    for name, part in model.named_modules():  # the second half is the smaller one
        if name.endswith("fc1"):
            half = part.weight.shape[0] // 2
            part.weight.data[half:] *= 1e-3
            part.bias.data[half:] *= 1e-3
        if name.endswith("fc2"):
            part.weight.data[:, part.weight.shape[1] // 2 :] *= 1e-3
    result = nx.apply("prune ** by magnitude amount=50% along=mlp ranking=layer", model=model, example_inputs=x)
    assert torch.allclose(result.model(x), masked(model, x), atol=1e-5)
    changed = {n for n, p in model.named_parameters() if p.shape != result.model.get_parameter(n).shape}
    assert changed == {f"blocks.{i}.mlp.{n}" for i in (0, 1) for n in ("fc1.weight", "fc1.bias", "fc2.weight")}


CONFIG = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20, "vocab_size": 30}


def built(name: str) -> tuple[nn.Module, Tensor]:
    """A small model of a library, with inputs."""
    torch.manual_seed(0)
    if name in ("swin", "vit"):
        timm = importlib.import_module("timm")
        more = {"depths": (1, 1), "num_heads": (2, 4), "embed_dim": 16} if name == "swin" else {"depth": 2, "embed_dim": 24}
        full = "swin_tiny_patch4_window7_224" if name == "swin" else "vit_tiny_patch16_224"
        return timm.create_model(full, img_size=56, num_classes=4, **more), torch.randn(2, 3, 56, 56)
    if name == "torch":
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        return nn.Sequential(nn.Linear(3, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 2)), torch.randn(2, 5, 3)
    t = importlib.import_module("transformers")
    ids = torch.arange(12).reshape(2, 6)
    if name == "bert":
        return t.BertForMaskedLM(t.BertConfig(**CONFIG)), ids
    return t.LlamaForCausalLM(t.LlamaConfig(**CONFIG, num_key_value_heads=2)), ids


@pytest.mark.parametrize("name", ["torch", "vit", "swin", "bert", "llama"])
@pytest.mark.parametrize("kind", KINDS)
def test_models_of_the_libraries(name: str, kind: str) -> None:
    if name in ("vit", "swin", "bert", "llama"):
        pytest.importorskip("timm" if name in ("vit", "swin") else "transformers")
    model, x = built(name)
    model = model.eval()
    before = sizes(model, x)
    result = nx.apply(f"prune ** by magnitude amount=50% along={kind}", model=model, example_inputs=x)
    after = sizes(result.model, x)
    assert others(before, kind) == others(after, kind)
    # of grouped queries with one head of keys left, the queries' own heads are an axis now: count numbers, not axes
    assert sum(p.numel() for p in result.model.parameters()) < sum(p.numel() for p in model.parameters())
    assert all(c["held"] for s in result.certificate["statements"] for c in s["claims"])


@pytest.mark.parametrize("kind", ["heads", "mlp", "residual"])
def test_widened_along_one_kind(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Hand(4, 3, 6, 8, 2, False, False).eval(), torch.randn(2, 5, 3)
    before = sizes(model, x)
    result = nx.apply(f"widen ** x2 along={kind}", model=model, example_inputs=x)
    after = sizes(result.model, x)
    assert others(before, kind) == others(after, kind) and total(after, kind) == 2 * total(before, kind)
    assert torch.allclose(result.model(x), model(x), atol=1e-5)


@pytest.mark.parametrize("verb", ["prune ** by magnitude amount=30%", "widen ** x2"])
def test_a_network_without_such_axes(verb: str) -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(NetxformError, match=r"heads") as caught:
        nx.apply(f"{verb} along=heads", model=model, example_inputs=torch.randn(1, 3))
    assert caught.value.diagnostics[0].code in ("X0331", "X0320")
    with pytest.raises(NetxformError, match="did you mean `heads`"):
        nx.check(f"{verb} along=head")
