"""Models of every kind that people bring: segmentation, detection by queries, speech, pairs of coders. Each takes the verbs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import netxform as nx

transformers = pytest.importorskip("transformers")
tv = pytest.importorskip("torchvision")
Made = tuple[nn.Module, tuple[Tensor, ...]]


class Down(nn.Sequential):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())


class Unet(nn.Module):
    """Two depths, a skip by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = Down(3, 8), Down(8, 16), Down(24, 8)
        self.pool, self.up, self.head = nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.a(x)
        return {"mask": self.head(self.c(torch.cat([a, self.up(self.b(self.pool(a)))], 1)))}


class Yolo(nn.Module):
    """Backbone, neck and two heads; what they give is decoded in the model, by its own code."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.deep = nn.Sequential(Down(3, 8), nn.MaxPool2d(2)), nn.Sequential(Down(8, 16), nn.MaxPool2d(2))
        self.neck = nn.Conv2d(16, 8, 1)
        self.boxes, self.classes = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        a = self.backbone(x)
        maps = [a, self.neck(self.deep(a))]
        out = [torch.cat([self.boxes(m), self.classes(m)], 1) for m in maps]
        if self.training:
            return torch.cat([o.flatten(2) for o in out], 2), out
        flat = torch.cat([o.flatten(2) for o in out], 2)
        return torch.cat([flat[:, :4].exp(), flat[:, 4:].sigmoid()], 1), out


def picture() -> Tensor:
    return torch.randn(2, 3, 32, 32)


def words(length: int = 7) -> Tensor:
    return torch.randint(3, 30, (2, length))


def unet() -> Made:
    return Unet(), (picture(),)


def yolo() -> Made:
    return Yolo(), (picture(),)


def fcn() -> Made:
    body = tv.models._utils.IntermediateLayerGetter(tv.models.resnet18(weights=None), {"layer1": "out"})
    kinds = tv.models.segmentation
    return kinds.fcn.FCN(body, kinds.fcn.FCNHead(64, 3)), (picture(),)


def deeplab() -> Made:
    body = tv.models._utils.IntermediateLayerGetter(tv.models.resnet18(weights=None), {"layer1": "out"})
    kinds = tv.models.segmentation
    return kinds.DeepLabV3(body, kinds.deeplabv3.DeepLabHead(64, 3, (2, 4))), (picture(),)


TINY = {
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
}


def detr() -> Made:
    body = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=body, d_model=16,
        decoder_ffn_dim=24, num_queries=5, **TINY,
    )  # fmt: skip
    return transformers.DetrForObjectDetection(config), (picture(),)


def speech() -> Made:
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, vocab_size=9,
        conv_dim=(8, 8), conv_kernel=(10, 3), conv_stride=(5, 2), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        apply_spec_augment=False, layerdrop=0.0,
    )  # fmt: skip
    return transformers.Wav2Vec2ForCTC(config), (torch.randn(2, 400),)


def seq2seq() -> Made:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0, "use_cache": False}
    config = transformers.BartConfig(d_model=16, decoder_ffn_dim=24, vocab_size=30, max_position_embeddings=16, **TINY, **ids)
    return transformers.BartForConditionalGeneration(config), (words(), torch.ones(2, 7, dtype=torch.long), words(5))


# how it is made; a layer inside, a layer that may be widened, the value before the head
KINDS: dict[str, tuple[Callable[[], Made], str, str, str]] = {
    "unet": (unet, "a", "b.`0`", "c"), "yolo": (yolo, "backbone", "deep.`0`.`0`", "neck"),
    "fcn": (fcn, "backbone.layer1", "classifier.`0`", "classifier.`0`"),
    "deeplab": (deeplab, "backbone.layer1", "classifier.`1`", "classifier.`1`"),
    "detr": (detr, "model.backbone", "model.decoder.layers.`0`.mlp.fc1", "model.decoder.layers.`0`.final_layer_norm"),
    "speech": (speech, "wav2vec2.feature_extractor",
               "wav2vec2.encoder.layers.`0`.feed_forward.intermediate_dense", "wav2vec2.encoder.layers.`0`.final_layer_norm"),
    "seq2seq": (seq2seq, "model.encoder", "model.decoder.layers.`0`.fc1", "model.decoder.layers.`0`.final_layer_norm"),
}  # fmt: skip


def leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    several = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else []
    return [t for v in several for t in leaves(v)]


def given(kind: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    model, inputs = KINDS[kind][0]()
    return model.eval(), inputs


def ran(model: nn.Module, inputs: tuple[Tensor, ...], training: bool) -> list[Tensor]:
    torch.manual_seed(5)
    with torch.no_grad():
        return leaves(model.train(training)(*inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_is_the_model_and_takes_the_verbs(kind: str) -> None:
    """Frozen: the same bits in both modes. Widened: the same function. Pruned, factorized: smaller, and grafted bit for bit."""
    model, inputs = given(kind)
    _, inside, layer, _ = KINDS[kind]
    frozen = nx.apply("freeze **", model=model, example_inputs=inputs).model
    for a, b in zip(ran(frozen, inputs, False), ran(model, inputs, False), strict=True):
        assert torch.equal(a, b)
    wide = nx.apply(f"widen {layer} x2", model=model, example_inputs=inputs).model
    for a, b in zip(ran(wide, inputs, False), ran(model, inputs, False), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    spec = f"freeze {inside}; prune {layer} by magnitude amount=25%; factorize {layer} using svd rank=0.5"
    result = nx.apply(spec, model=model.eval(), example_inputs=inputs)
    assert sum(p.numel() for p in result.model.parameters()) < sum(p.numel() for p in model.parameters())
    made = result.graft()  # compared in both modes; here once more, on what it was not made with
    inputs = tuple(t.flip(-1) if t.is_floating_point() else t for t in inputs)
    for training in (False, True):
        for a, b in zip(ran(made, inputs, training), ran(result.model, inputs, training), strict=True):
            assert torch.equal(a, b), training


RELOAD = """
import sys
sys.modules["netxform"] = None
sys.path.insert(0, sys.argv[1])
import torch, model
out = model.load().eval()(*torch.load(sys.argv[2]))
torch.save(out, sys.argv[3])
"""


@pytest.mark.parametrize("kind", KINDS)
def test_cut_and_attach_into_a_bundle(kind: str, tmp_path: Path) -> None:
    """A head of one's own on the features, stored, verified, and read by plain torch."""
    model, inputs = given(kind)
    neck = KINDS[kind][3]
    spec = f"cut after {neck}; attach more {{ out = Linear(auto, 4) }}" if kind in ("detr", "speech", "seq2seq") else (
        f"cut after {neck}; attach head classes=4"
    )  # fmt: skip
    result = nx.apply(spec, model=model, example_inputs=inputs, out=tmp_path / "b")
    wanted = ran(result.model, inputs, False)
    assert wanted[0].shape[-1] == 4 and nx.verify(tmp_path / "b").held
    torch.save(inputs, tmp_path / "x.pt")
    done = subprocess.run(
        [sys.executable, "-I", "-c", RELOAD, *(str(tmp_path / n) for n in ("b", "x.pt", "y.pt"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1500:]
    for a, b in zip(leaves(torch.load(tmp_path / "y.pt")), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_what_training_draws_in_python_is_named() -> None:
    """Masks that the model draws in training are in no graph: the graft says where, and does not guess."""
    model, inputs = given("speech")
    model.config.apply_spec_augment = True  # type: ignore[union-attr]
    result = nx.apply("freeze wav2vec2.feature_extractor", model=model, example_inputs=inputs)
    with pytest.raises(nx.NetxformError, match=r"X0849[\s\S]*eval mode alone: .*\.py:\d+"):
        result.graft()
