"""Inputs of another kind: a grey image is the grey RGB image, new channels change nothing, tables follow the image's size."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.axes.position_tables import relative_index, stretched, window_mask
from netxform.errors import NetxformError
from netxform.graph.input_channels import matrix
from tests.strategies import randomized

QUICK = settings(max_examples=12, deadline=None, phases=[Phase.generate])


class Readers(nn.Module):
    """An image that several layers read: as it is, scaled, behind an activation, or normalised by channel."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a = nn.Conv2d(channels, 4, 3, padding=1, stride=2)
        self.b = nn.Conv2d(channels, 4, 2, stride=2, bias=False)
        self.act = nn.ReLU()
        self.norm = nn.BatchNorm2d(channels)
        self.register_buffer("mean", torch.randn(1, channels, 1, 1))
        self.twice = kind == "twice"
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, C, 8, 8) → (N, 3)."""
        match self.kind:
            case "scaled":
                x = 2 * x / 3
            case "shifted":
                x = self.act(2 * x - 1)
            case "norm":
                x = self.norm(x)
            case "mean":
                x = (x - self.mean) / 2
            case _:
                pass
        h = self.a(x) + self.b(x)
        if self.twice:
            h = h + self.b(x.flip(-1))
        return self.head(h.mean((2, 3)))


def reader(channels: int, kind: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return randomized(Readers(channels, kind)).double().eval()


KINDS = st.sampled_from(["plain", "scaled", "shifted", "norm", "mean", "twice"])


@given(st.integers(2, 5), KINDS, st.integers(0, 99))
@QUICK
def test_a_grey_image_is_the_grey_rgb_image(channels: int, kind: str, seed: int) -> None:
    model = reader(channels, kind, seed)
    made = nx.apply("adapt input channels=1", model=model, example_inputs=torch.randn(2, channels, 8, 8).double())
    grey = torch.randn(3, 1, 8, 8).double()
    wanted = model(grey.expand(-1, channels, -1, -1))
    assert (made.model.eval()(grey) - wanted).abs().max() <= 1e-12 * wanted.abs().max()
    assert all(c["held"] for s in made.certificate["statements"] for c in s["claims"])
    front = kind in (
        "norm",
        "mean",
        "twice",
    )  # what has numbers of its own for each channel, or no rule, is read behind a layer
    assert hasattr(made.model, "input_channels") == front
    assert made.model.get_parameter("a.weight").shape[1] == (channels if front else 1)


@given(st.integers(1, 4), st.integers(1, 3), KINDS, st.integers(0, 99))
@QUICK
def test_new_channels_change_nothing(channels: int, more: int, kind: str, seed: int) -> None:
    model = reader(channels, kind, seed)
    x = torch.randn(3, channels, 8, 8).double()
    made = nx.apply(f"adapt input channels={channels + more} how=zero", model=model, example_inputs=x[:1])
    whatever = torch.randn(3, more, 8, 8).double() * 100
    assert (made.model.eval()(torch.cat([x, whatever], 1)) - model(x)).abs().max() <= 1e-12 * model(x).abs().max()
    default = nx.apply(f"adapt input channels={channels + more}", model=model, example_inputs=x[:1])
    states = zip(made.model.state_dict().values(), default.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from(["sum", "mean", "repeat", "zero"]), KINDS, st.integers(0, 99))
@QUICK
def test_every_way_says_what_the_old_channels_read(old: int, new: int, how: str, kind: str, seed: int) -> None:
    model = reader(old, kind, seed)
    made = nx.apply(f"adapt input channels={new} how={how}", model=model, example_inputs=torch.randn(2, old, 8, 8).double())
    x = torch.randn(3, new, 8, 8).double()
    read = np.einsum("oi,nihw->nohw", np.array(matrix(old, new, how)), x.numpy())  # type: ignore[arg-type]
    wanted = model(torch.from_numpy(read))
    assert (made.model.eval()(x) - wanted).abs().max() <= 1e-12 * wanted.abs().max()
    if new > old:  # the old channels are exact where the new ones are dark
        kept = x.clone()
        kept[:, old:] = 0
        assert torch.allclose(made.model(kept), model(x[:, :old]), rtol=0, atol=1e-12 * float(wanted.detach().abs().max() + 1))


def test_what_each_way_is() -> None:
    assert matrix(3, 1, "sum") == ((1.0,), (1.0,), (1.0,))
    assert matrix(3, 1, "mean") == ((1 / 3,), (1 / 3,), (1 / 3,))
    assert matrix(2, 3, "zero") == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    assert matrix(2, 3, "mean") == ((1.0, 0.0, 0.5), (0.0, 1.0, 0.5))
    assert matrix(2, 3, "repeat") == ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0))


def library(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    if name.startswith("timm."):
        timm: Any = pytest.importorskip("timm")
        more = {"depth": 1, "embed_dim": 24, "num_heads": 3} if "vit" in name else {}
        size = {"img_size": 64} if "vit" in name else {}
        return timm.create_model(name[5:], num_classes=4, **more, **size), (2, 3, 64, 64)
    if name.startswith("tv."):
        return getattr(pytest.importorskip("torchvision").models, name[3:])(), (2, 3, 64, 64)
    t: Any = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32, "image_size": 64}
    return t.ViTForImageClassification(t.ViTConfig(**sizes)), (2, 3, 64, 64)


@pytest.mark.parametrize(
    "name", ["tv.resnet18", "tv.mobilenet_v3_small", "timm.vit_tiny_patch16_224", "timm.convnext_atto", "hf"]
)
def test_models_of_the_libraries(name: str, tmp_path: Path) -> None:
    model, shape = library(name)
    model = randomized(model).eval()
    x = torch.randn(shape)
    made = nx.apply("adapt input channels=1", model=model, example_inputs=x, out=tmp_path / "grey")
    grey = torch.randn(2, 1, *shape[2:])
    wanted = model(grey.expand(-1, 3, -1, -1))
    wanted, found = (getattr(w, "logits", w) for w in (wanted, made.model.eval()(grey)))
    assert torch.allclose(found, wanted, rtol=0, atol=1e-4 * float(wanted.detach().abs().max()))
    assert nx.verify(tmp_path / "grey").held
    assert not hasattr(made.model, "input_channels")


def test_the_rest_of_a_spec_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Readers(3, "plain").eval()
    data = (torch.randn(40, 1, 8, 8), torch.randint(0, 3, (40,)))
    spec = "freeze head; adapt input channels=1; train a for 2epochs batch=8; prune a by magnitude amount=25%; cast float16"
    result = nx.apply(spec, model=model, example_inputs=torch.randn(2, 3, 8, 8), data={"d": data}, out=tmp_path / "b")
    assert nx.verify(tmp_path / "b").held
    assert nx.load(tmp_path / "b").get_parameter("a.weight").shape[1] == 1
    before = result.certificate["statements"][0]["claims"]
    assert not before[0]["in_force"], "what was said of other inputs is superseded"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("adapt input channels=0", "from 1 to"),
        ("adapt input channels=2.5", "whole number"),
        ("adapt input channels=1 how=meen", "did you mean `mean`"),
        ("adapt input channels=1 size=4", "one thing to do"),
        ("adapt input", "one thing to do"),
        ("adapt input how=sum with ia3", "belongs to `channels`"),
        ("adapt depth channels=1", "no input of this network"),
        ("adapt input channels=1 rank=2", "`rank` belongs to `lora`"),
        ("adapt input size=0", "from 1 to"),
        ("adapt input size=[8, 8, 8]", "2 sizes"),
    ],
)
def test_what_is_refused(spec: str, said: str) -> None:
    with pytest.raises(NetxformError, match=said):
        nx.apply(spec, model=Readers(3, "plain").eval(), example_inputs=torch.randn(2, 3, 8, 8))


def test_words_have_no_channels_and_two_images_are_named() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 2, 1), nn.Conv2d(1, 2, 1)

        def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
            return (self.a(rgb) + self.b(depth)).mean((2, 3))

    given_ = (torch.randn(2, 3, 4, 4), torch.randn(2, 1, 4, 4))
    with pytest.raises(NetxformError, match="write `adapt rgb"):
        nx.apply("adapt input channels=1", model=Two().eval(), example_inputs=given_)
    made = nx.apply("adapt depth channels=2", model=Two().eval(), example_inputs=given_)
    assert made.model.get_parameter("b.weight").shape[1] == 2 and made.model.get_parameter("a.weight").shape[1] == 3
    words = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2))
    for way in ("channels=1", "size=4"):
        with pytest.raises(NetxformError, match="X0850"):
            nx.apply(f"adapt input {way}", model=words, example_inputs=torch.zeros(2, 3, dtype=torch.long))


def test_as_many_channels_and_the_same_size_are_nothing() -> None:
    model = Readers(3, "plain").eval()
    for way in ("channels=3", "size=8", "size=[8, 8]"):
        made = nx.apply(f"adapt input {way}", model=model, example_inputs=torch.randn(2, 3, 8, 8))
        assert all(
            torch.equal(a, b) for a, b in zip(made.model.state_dict().values(), model.state_dict().values(), strict=True)
        )
        assert "already" in str(made.plan.steps[0].choice.warnings)


# --- sizes -------------------------------------------------------------------------------------------------------------


class Positions(nn.Module):
    """A ViT by hand: patches, tokens of its own before or behind them, one table of positions."""

    def __init__(self, grid: tuple[int, int], before: int, behind: int, patch: int = 4, width: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.first = nn.Parameter(torch.randn(1, before, width)) if before else None
        self.last = nn.Parameter(torch.randn(1, behind, width)) if behind else None
        self.table = nn.Parameter(torch.randn(1, before + grid[0] * grid[1] + behind, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 8, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, 3, H, W) → (N, 3)."""
        h = self.patches(x).flatten(2).transpose(1, 2)
        several = [t.expand(len(x), -1, -1) for t in (self.first,) if t is not None]
        several += [h, *(t.expand(len(x), -1, -1) for t in (self.last,) if t is not None)]
        return self.head(self.block(torch.cat(several, 1) + self.table).mean(1))


@given(
    st.tuples(st.integers(2, 4), st.integers(2, 4)), st.tuples(st.integers(2, 6), st.integers(2, 6)),
    st.integers(0, 2), st.integers(0, 2), st.integers(0, 99),
)  # fmt: skip
@QUICK
def test_tables_follow_and_tokens_stay(old: tuple[int, int], new: tuple[int, int], before: int, behind: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = Positions(old, before, behind).eval()
    size = f"size=[{4 * new[0]}, {4 * new[1]}]"
    made = nx.apply(f"adapt input {size}", model=model, example_inputs=torch.randn(2, 3, 4 * old[0], 4 * old[1])).model.eval()
    whole, found = model.table.detach(), made.get_parameter("table").detach()
    count = new[0] * new[1]
    assert found.shape[1] == before + count + behind
    assert torch.equal(found[:, :before], whole[:, :before]) and torch.equal(
        found[:, before + count :], whole[:, -behind or 99 :]
    )
    grid = whole[:, before : before + old[0] * old[1]].unflatten(1, old).permute(0, 3, 1, 2).double()
    wanted = nn.functional.interpolate(grid, size=new, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    assert torch.allclose(found[:, before : before + count].double(), wanted, rtol=0, atol=1e-6)
    x = torch.randn(2, 3, 4 * new[0], 4 * new[1])
    by_hand = Positions(new, before, behind).eval()
    by_hand.load_state_dict(made.state_dict())
    assert torch.allclose(made(x), by_hand(x), atol=1e-6)
    again = nx.apply(f"adapt input {size}", model=made, example_inputs=x).model
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), made.state_dict().values(), strict=True))


@given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 99))
@QUICK
def test_stretching_keeps_constants_and_the_middle_of_lines(old: int, new: int, seed: int) -> None:
    """A cubic kernel gives back constants, and lines away from the ends (Keys, 1981)."""
    torch.manual_seed(seed)
    value = torch.randn(3, 1).double().expand(3, old)
    assert torch.allclose(stretched(value, 1, new), torch.full((3, new), 1.0).double() * value[:, :1], atol=1e-12)
    assert torch.equal(stretched(value, 1, old), value)
    line = torch.arange(16).double()[None]
    places = (torch.arange(32).double() + 0.5) / 2 - 0.5
    assert torch.allclose(stretched(line, 1, 32)[0, 4:-4], places[4:-4], atol=1e-12)


def test_masks_and_indices_are_those_of_the_libraries() -> None:
    beit: Any = pytest.importorskip("timm.layers.pos_embed_rel")
    for grid in ((2, 3), (4, 4)):
        for token in (False, True):
            assert torch.equal(relative_index(grid, token), beit.gen_relative_position_index(grid, class_token=token))
    swin: Any = importlib.import_module("timm").create_model(
        "swin_tiny_patch4_window7_224", img_size=112, window_size=7, depths=(2,), num_heads=(2,), embed_dim=8
    )
    mask = swin.get_buffer("layers.0.blocks.1.attn_mask")
    assert torch.equal(window_mask((4, 4), (7, 7), -100.0), mask)


TIMM = {
    "vit": ("vit_tiny_patch16_224", {"depth": 1}, (64, 64), [(96, 96), (96, 64), (32, 48)]),
    "deit": ("deit_tiny_distilled_patch16_224", {"depth": 1}, (64, 64), [(96, 128)]),
    "registers": ("vit_base_patch16_reg4_gap_256", {"depth": 1, "embed_dim": 24, "num_heads": 3}, (64, 64), [(96, 64)]),
    "swin": ("swin_tiny_patch4_window7_224", {"window_size": 7, "depths": (2, 2), "num_heads": (2, 4), "embed_dim": 16},
             (112, 112), [(168, 168), (168, 140), (96, 128)]),
}  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_timm_resizes_its_models_alike(name: str) -> None:
    timm: Any = pytest.importorskip("timm")
    full, more, old, sizes = TIMM[name]
    for new in sizes:
        torch.manual_seed(0)
        model = timm.create_model(full, img_size=old, num_classes=4, **more).eval()
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.2)
        spec = f"adapt input size=[{new[0]}, {new[1]}]"
        made = nx.apply(spec, model=model, example_inputs=torch.randn(2, 3, *old)).model.eval()
        model.set_input_size(img_size=new, **({"window_size": 7} if name == "swin" else {}))
        x = torch.randn(2, 3, *new)
        assert torch.allclose(made(x), model(x), rtol=0, atol=1e-5 * float(model(x).detach().abs().max())), new


def test_relative_positions_over_the_whole_image(tmp_path: Path) -> None:
    timm: Any = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("beit_base_patch16_224", img_size=64, depth=2, embed_dim=32, num_heads=2, num_classes=3)
    model = randomized(model).eval()
    made = nx.apply("adapt input size=[96, 64]", model=model, example_inputs=torch.randn(2, 3, 64, 64), out=tmp_path / "b")
    again = timm.create_model(
        "beit_base_patch16_224", img_size=(96, 64), depth=2, embed_dim=32, num_heads=2, num_classes=3
    ).eval()
    held = made.model.state_dict()
    again.load_state_dict({n: held[n] for n in again.state_dict()})
    x = torch.randn(2, 3, 96, 64)
    assert torch.allclose(made.model.eval()(x), again(x), atol=1e-5)
    name = "blocks.0.attn.relative_position_bias_table"
    assert torch.equal(held[name][-3:], model.state_dict()[name][-3:])
    assert nx.verify(tmp_path / "b").held


def test_torchvision_and_transformers_take_the_size_too(tmp_path: Path) -> None:
    tv: Any = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    sizes = (16, 1, 2, 24, 32)
    model = randomized(tv.VisionTransformer(64, *sizes, num_classes=3)).eval()
    made = nx.apply(
        "adapt input size=96", model=model, example_inputs=torch.randn(2, 3, 64, 64), out=tmp_path / "v"
    ).model.eval()
    again = tv.VisionTransformer(96, *sizes, num_classes=3).eval()
    again.load_state_dict(made.state_dict())
    x = torch.randn(2, 3, 96, 96)
    assert torch.allclose(made(x), again(x), atol=1e-6)
    assert nx.verify(tmp_path / "v").held
    held, _ = library("hf")
    back = nx.apply("adapt input size=96", model=held.eval(), example_inputs=torch.randn(2, 3, 64, 64))
    assert back.model.get_parameter("vit.embeddings.position_embeddings").shape[1] == 37


def test_networks_that_take_any_size_say_so(tmp_path: Path) -> None:
    model = Readers(3, "norm").eval()
    result = nx.apply("adapt input size=12", model=model, example_inputs=torch.randn(2, 3, 8, 8), out=tmp_path / "b")
    assert "takes any size" in str(result.plan.to_dict()["items"][0])
    assert all(torch.equal(a, b) for a, b in zip(result.model.state_dict().values(), model.state_dict().values(), strict=True))
    assert result.certificate["statements"][0]["contract"] == "bounded"
    assert nx.verify(tmp_path / "b").held


def test_a_head_for_every_position_is_refused_with_the_repair() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    with pytest.raises(NetxformError, match="cut before 2"):
        nx.apply("adapt input size=16", model=model, example_inputs=torch.randn(2, 3, 8, 8))
    with pytest.raises(NetxformError, match="nearest sizes: 8, 12"):
        nx.apply("adapt input size=10", model=Positions((2, 2), 1, 0).eval(), example_inputs=torch.randn(2, 3, 8, 8))


def test_code_that_decides_by_the_size_is_refused_with_its_place() -> None:
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return (self.a(x) if x.shape[2] > 10 else self.b(x)).mean((2, 3))

    with pytest.raises(NetxformError, match=r"decides otherwise at this size.*x.shape\[2\] > 10"):
        nx.apply("adapt input size=16", model=Decides().eval(), example_inputs=torch.randn(2, 3, 8, 8))
