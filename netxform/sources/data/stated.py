"""What is stated of a model's weights: how the images were normalised that they were learnt from.

module, where it came from ─stated→ Stated | None
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from netxform.sources.data.source import Normal, Stated

if TYPE_CHECKING:
    from torch import nn

_MOST = 1 << 20


def stated(module: nn.Module, provenance: Mapping[str, Any]) -> Stated | None:
    """By timm of the model's configuration, by torchvision of the weights that were named, by the image processor that lies in
    a folder of transformers; None where nobody states it.
    """
    held: Any = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if held is not None and isinstance(getattr(module, "default_cfg", None), Mapping):
        name = str(held.get("architecture") or type(module).__name__)
        return _of(held.get("mean"), held.get("std"), f"timm states of `{name}`", held.get("interpolation"))
    source = str(provenance.get("source", ""))
    if source.startswith("torchvision."):
        return _torchvision(source.removeprefix("torchvision."), str(provenance.get("weights")))
    config: Any = getattr(module, "config", None)
    folder = getattr(config, "_name_or_path", None)
    if source.startswith("hf.") and isinstance(folder, str) and folder:
        return _processor(Path(folder) / "preprocessor_config.json")
    return None


def _torchvision(name: str, weights: str) -> Stated | None:
    if weights in ("None", ""):
        return None
    from torchvision import models

    try:
        found: Any = models.get_model_weights(name)[weights.rpartition(".")[2]]
        transforms = found.transforms()
    except (KeyError, ValueError, TypeError):
        return None
    by = f"torchvision states of `{weights}`"
    how = getattr(getattr(transforms, "interpolation", None), "value", None)
    return _of(getattr(transforms, "mean", None), getattr(transforms, "std", None), by, how)


def _processor(file: Path) -> Stated | None:
    try:
        if not file.is_file() or file.stat().st_size > _MOST:
            return None
        held: Any = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(held, dict) or cast("dict[str, Any]", held).get("do_normalize", True) is not True:
        return None
    how = _PIL.get(cast(int, held.get("resample")))
    return _of(held.get("image_mean"), held.get("image_std"), f"`{file.name}` states", how)


_PIL = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def _of(mean: Any, std: Any, by: str, interpolation: Any) -> Stated | None:
    try:
        both = tuple(float(v) for v in mean), tuple(float(v) for v in std)
    except (TypeError, ValueError):
        return None
    if not both[0] or len(both[0]) != len(both[1]) or min(both[1]) <= 0:
        return None
    return Stated(Normal(*both), by, interpolation if isinstance(interpolation, str) else None)
