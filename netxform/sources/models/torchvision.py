"""`torchvision.NAME(…)`: the models of torchvision, without weights unless `weights=` names some."""

from __future__ import annotations

from typing import Any

from netxform.errors import did_you_mean, fail
from netxform.graph.layer_spec import Invocation
from netxform.sources.loaded import Loaded, WeightsNeeded
from netxform.sources.models.source import MODELS, ModelSource, need, without_weights

_KEYWORDS = frozenset(
    """
weights weights_backbone progress num_classes dropout attention_dropout aux_logits aux_loss transform_input init_weights
width_mult image_size stochastic_depth_prob memory_efficient groups width_per_group replace_stride_with_dilation
zero_init_residual growth_rate num_init_features bn_size drop_rate trainable_backbone_layers min_size max_size num_keypoints
""".split()
)


def _load(name: str, call: Invocation) -> Loaded:
    models = need("torchvision.models", "vision", call.span)
    known = models.list_models()
    if name not in known:
        raise fail("X0211", f"torchvision has no model `{name}`", call.span, "unknown model", helps=did_you_mean(name, known))
    keywords: dict[str, Any] = {"weights": None} | call.keywords
    if name in ("googlenet", "inception_v3") and keywords["weights"] is None:
        keywords.setdefault("init_weights", True)
    module = models.get_model(name, **keywords)
    size = 299 if name == "inception_v3" else 256 if name == "swin_v2_t" else 224
    return module, (((1, 3, size, size), "f32"),), {"source": call.name, "weights": str(keywords["weights"])}


def _bare(name: str, call: Invocation) -> Loaded:
    if call.keywords.get("weights") or call.keywords.get("weights_backbone"):
        raise WeightsNeeded("torchvision takes sizes of a model from its stored weights")
    return without_weights(_load)(name, call)


MODELS.register("torchvision")(ModelSource(_load, keywords=_KEYWORDS, bare=_bare))
