"""Detectors of torchvision: the part that computes on tensors, as a network of its own.

    images ─(Python: resize, batch)→ tensor ─backbone, neck, heads→ tensors ─(Python: anchors, boxes, suppression)→ boxes

A detector takes lists of images and decides in Python how many boxes there are; no graph holds that. Its layers are a network
of tensors in between. That network is captured under the detector's own names; what stands before and behind it is left as it
is, and `Result.graft` gives the whole detector back. The second stage of a two-stage detector reads pooled regions: in the
network it reads the pooled feature maps, which have the same channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netxform.graph.network import Island

_HOME = "torchvision.models.detection."
_POOLED = (("box", "box"), ("mask", "mask"), ("keypoint", "keypoint"))


def is_detector(model: nn.Module) -> bool:
    """Whether it is a detector of torchvision, or of a class that is made from one."""
    ours = any(c.__module__.startswith(_HOME) for c in type(model).__mro__)
    parts = dict(model.named_children())
    return ours and {"transform", "backbone"} <= parts.keys() and ("head" in parts or {"rpn", "roi_heads"} <= parts.keys())


def tensor_part(model: nn.Module) -> nn.Module:
    """The network between a detector's Python code, which shares its modules; any other model as it is."""
    if not is_detector(model):
        return model
    made = OneStage(model) if hasattr(model, "head") else TwoStage(model)
    return made.train(model.training) if made.training is not model.training else made


def islands_of(model: nn.Module) -> tuple[Island, ...]:
    """What of a detector is left as it is."""
    if not is_detector(model):
        return ()
    before = Island(
        "transform", type(_part(model, "transform")).__name__, "Python before the network: images of any size become one batch"
    )
    behind = "rpn" if hasattr(model, "rpn") else "anchor_generator"
    text = (
        "Python behind the network: anchors, boxes, suppression; not in the graph, untouched, and whole again after `graft()`"
    )
    return (before, Island(behind, type(_part(model, behind)).__name__, text))


def batch_of(model: nn.Module | None, value: Any) -> Any:
    """A list of images as the detector's own code makes a batch of it; anything else as it is."""
    if model is None or not is_detector(model):
        return value
    several = value[0] if isinstance(value, list | tuple) and len(cast("Sequence[Any]", value)) == 1 else value
    if not isinstance(several, list | tuple) or not all(
        isinstance(t, Tensor) and t.dim() == 3 for t in cast("Sequence[Any]", several)
    ):
        return value
    with torch.no_grad():
        found, _ = cast(Any, _part(model, "transform"))(list(cast("Sequence[Tensor]", several)))
    return found.tensors


def _part(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name)


class _Part(nn.Module):
    """Holds the children of a detector that have weights, under their names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            if any(True for _ in child.parameters()):
                self.add_module(name, child)
        self.training = model.training

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The feature maps of the backbone, by name."""
        found: Any = cast(Any, self).backbone(x)
        return dict(found) if isinstance(found, Mapping) else {"0": found}  # pyright: ignore[reportUnknownArgumentType]


class OneStage(_Part):
    """RetinaNet, FCOS, SSD: heads on the feature maps."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images: (N, 3, H, W), normalised → what the head gives, each (N, anchors, …)."""
        return dict(cast(Any, self).head(list(self.maps(images).values())))


class TwoStage(_Part):
    """Faster, Mask and Keypoint R-CNN: the proposals' head on the feature maps, the others on what is pooled from them."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        heads = model.roi_heads
        self.pooled: dict[str, tuple[tuple[str, ...], tuple[int, int]]] = {}
        for kind, _ in _POOLED:
            pool = getattr(heads, f"{kind}_roi_pool", None)
            if pool is not None:
                size = pool.output_size
                self.pooled[kind] = (tuple(pool.featmap_names), (size, size) if isinstance(size, int) else tuple(size))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images: (N, 3, H, W), normalised → objectness and deltas of every map, (N, anchors, h, w); of each head, (N, …)."""
        own: Any = self
        maps = self.maps(images)
        objectness, deltas = own.rpn.head(list(maps.values()))
        out = {f"objectness_{n}": t for n, t in zip(maps, objectness, strict=True)}
        out |= {f"deltas_{n}": t for n, t in zip(maps, deltas, strict=True)}
        heads = own.roi_heads
        for kind, (names, size) in self.pooled.items():
            read = [F.adaptive_avg_pool2d(maps[n], size) for n in names if n in maps]
            pooled = read[0]
            for one in read[1:]:
                pooled = pooled + one
            if kind == "box":
                out["class_logits"], out["box_regression"] = heads.box_predictor(heads.box_head(pooled / len(read)))
            else:
                head, predictor = getattr(heads, f"{kind}_head"), getattr(heads, f"{kind}_predictor")
                out[f"{kind}_logits"] = predictor(head(pooled / len(read)))
        return out
