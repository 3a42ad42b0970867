"""Detectors: the network between their Python code is captured under their own names, and the whole detector comes back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform.capture.detectors import tensor_part
from netxform.errors import NetxformError

detection = pytest.importorskip("torchvision.models.detection")
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator  # noqa: E402
from torchvision.ops import MultiScaleRoIAlign  # noqa: E402

SMALL = {"min_size": 48, "max_size": 64}


class Body(nn.Module):
    """Two maps of one width, as a backbone with a pyramid gives them."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.out_channels = width
        self.stem, self.norm = nn.Conv2d(3, width, 3, 4, 1), nn.BatchNorm2d(width)
        self.deep, self.neck = nn.Conv2d(width, 12, 3, 2, 1), nn.Conv2d(12, width, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = torch.relu(self.norm(self.stem(x)))
        return {"0": a, "1": self.neck(torch.relu(self.deep(a)))}


def anchors() -> Any:
    return AnchorGenerator(((8,), (16,)), ((1.0,), (1.0,)))


def retina() -> nn.Module:
    return detection.RetinaNet(Body(), 3, anchor_generator=anchors(), **SMALL)


def fcos() -> nn.Module:
    return detection.FCOS(Body(32), 3, anchor_generator=anchors(), **SMALL)


def ssd() -> nn.Module:
    body: Any = Body()
    body.out_channels = [8, 8]  # SSD asks for one number a map
    return detection.ssd.SSD(body, DefaultBoxGenerator([[2], [2]]), (48, 48), 3)


def faster() -> nn.Module:
    pool = MultiScaleRoIAlign(["0", "1"], 3, 2)
    heads = detection.faster_rcnn.TwoMLPHead(8 * 9, 16), detection.faster_rcnn.FastRCNNPredictor(16, 3)
    return detection.FasterRCNN(
        Body(), None, rpn_anchor_generator=anchors(), box_roi_pool=pool, box_head=heads[0], box_predictor=heads[1], **SMALL
    )


def keypoints() -> nn.Module:
    pools = [MultiScaleRoIAlign(["0", "1"], n, 2) for n in (3, 6)]
    kinds = detection.keypoint_rcnn
    heads = {"keypoint_head": kinds.KeypointRCNNHeads(8, (8,)), "keypoint_predictor": kinds.KeypointRCNNPredictor(8, 5)}
    box = {
        "box_head": detection.faster_rcnn.TwoMLPHead(72, 16),
        "box_predictor": detection.faster_rcnn.FastRCNNPredictor(16, 2),
    }
    return detection.KeypointRCNN(
        Body(), None, num_keypoints=None, rpn_anchor_generator=anchors(), box_roi_pool=pools[0], keypoint_roi_pool=pools[1],
        **heads, **box, **SMALL
    )  # fmt: skip


KINDS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "retina": (retina, "head.classification_head.cls_logits"), "fcos": (fcos, "head.regression_head.bbox_reg"),
    "ssd": (ssd, "backbone.deep"), "faster": (faster, "roi_heads.box_head.fc6"),
    "keypoints": (keypoints, "roi_heads.box_head.fc6"),
}  # fmt: skip


def images() -> list[Tensor]:
    return [torch.rand(3, 40, 50), torch.rand(3, 48, 36)]


def targets(kind: str) -> list[dict[str, Tensor]]:
    corner = torch.rand(2, 2) * 20
    one = {"boxes": torch.cat([corner, corner + 12], 1), "labels": torch.tensor([1, 1]), "keypoints": torch.rand(2, 5, 3) * 30}
    one["keypoints"][..., 2] = 1
    return [one, {n: t.clone() for n, t in one.items()}]


def ran(model: Any, given: list[Tensor], wanted: list[dict[str, Tensor]], training: bool) -> list[Tensor]:
    """Losses in training, what was found else; the model is left as it is."""
    torch.manual_seed(4)
    out: Any = copy.deepcopy(model).train(training)([t.clone() for t in given], wanted if training else None)
    several = [out] if training else out
    return [one[k] for one in several for k in sorted(one)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "spec", ["freeze backbone", "prune ** by magnitude amount=25%", "widen {layer} x2", "factorize {layer} using svd rank=2"]
)
def test_the_whole_detector_comes_back(kind: str, spec: str) -> None:
    torch.manual_seed(0)
    make, layer = KINDS[kind]
    model, given = make().eval(), images()
    layer = "backbone.deep" if "widen" in spec and layer.rpartition(".")[2] in ("cls_logits", "bbox_reg") else layer
    result = nx.apply(spec.format(layer=layer), model=model, example_inputs=given)
    made: Any = result.graft()
    assert type(made) is type(model)
    with torch.no_grad():
        batch = model.transform(given)[0].tensors
        for mode in (False, True):
            run = copy.deepcopy(made).train(mode)
            one, other = result.model.train(mode)(batch), tensor_part(run)(batch)
            assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one), mode
        wanted = targets(kind)
        for mode in (False, True):
            after = ran(made, given, wanted, mode)
            assert after and all(t.isfinite().all() for t in after)
            if "widen" in spec:  # the same function: the same losses; boxes may be cut off elsewhere by rounding
                before = ran(model, given, wanted, mode)
                assert not mode or all(torch.allclose(a, b, atol=1e-4) for a, b in zip(after, before, strict=True))
    if "freeze" in spec:
        assert {n for n, p in made.named_parameters() if not p.requires_grad} == {
            n for n, _ in model.named_parameters() if "backbone" in n
        }


@pytest.mark.parametrize("mode", [False, True])
def test_its_python_code_is_untouched(mode: bool) -> None:
    """The detector that comes back finds what the old one finds when its head says what the graph says."""
    torch.manual_seed(0)
    model: Any = retina().eval()
    given, wanted = images(), targets("retina")
    result = nx.apply("prune ** by magnitude amount=25%", model=model, example_inputs=given)
    old: Any = copy.deepcopy(model).train(mode)
    seen: list[Tensor] = []
    old.backbone.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    graph = copy.deepcopy(result.model).train(mode)
    old.head.forward = lambda _: graph(seen[-1])
    torch.manual_seed(4)
    theirs: Any = old([t.clone() for t in given], wanted if mode else None)
    ours: Any = result.graft().train(mode)([t.clone() for t in given], wanted if mode else None)  # type: ignore[operator]
    a, b = ([one] if mode else one for one in (theirs, ours))
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x)


def test_it_is_stated_and_stored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = faster().eval()
    given = images()
    result = nx.apply("freeze backbone", model=model, example_inputs=given, out=tmp_path / "b")
    for said in (result.plan.notes, tuple(result.certificate["notes"])):
        assert any("`transform` (GeneralizedRCNNTransform)" in n for n in said)
        assert any("`rpn` (RegionProposalNetwork)" in n and "untouched" in n for n in said)
    assert nx.verify(tmp_path / "b").held
    batch = model.transform(given)[0].tensors  # type: ignore[operator]
    with torch.no_grad():
        one, other = nx.load(tmp_path / "b")(batch), result.model.eval()(batch)
    assert all(torch.equal(one[n], other[n]) for n in other)


def test_a_list_of_something_else_is_refused() -> None:
    with pytest.raises(NetxformError, match="X0002"):
        nx.apply("freeze **", model=retina().eval(), example_inputs=[torch.rand(3, 40, 50), "picture"])  # type: ignore[list-item]
