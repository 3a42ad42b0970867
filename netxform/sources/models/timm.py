"""`timm.NAME(…)`: the models of timm."""

from __future__ import annotations

from dataclasses import replace

from netxform.errors import did_you_mean, fail
from netxform.graph.layer_spec import Invocation
from netxform.sources.loaded import Loaded
from netxform.sources.models.source import MODELS, ModelSource, need, without_weights
from netxform.sources.trust import Trust, need_pickle, read_path

_KEYWORDS = frozenset(
    """
pretrained checkpoint_path num_classes in_chans global_pool drop_rate drop_path_rate drop_block_rate proj_drop_rate
attn_drop_rate pos_drop_rate head_dropout img_size output_stride act_layer norm_layer patch_size embed_dim depth depths dims
num_heads mlp_ratio qkv_bias class_token window_size dynamic_img_size init_values stem_width cardinality base_width layers
channels num_features
""".split()
)


def _settle(call: Invocation, trust: Trust) -> Invocation:
    """`checkpoint_path` is a file below the spec's folder, and a pickled one needs trust."""
    text = call.keywords.get("checkpoint_path")
    if text is None:
        return call
    path = read_path(str(text), trust, call.span)
    if path.suffix != ".safetensors":
        need_pickle(str(text), trust, call.span)
    return replace(call, keywords=call.keywords | {"checkpoint_path": str(path)})


def _load(name: str, call: Invocation) -> Loaded:
    timm = need("timm", "vision", call.span)
    known = timm.list_models()
    if name.split(".")[0] not in known:
        raise fail("X0211", f"timm has no model `{name}`", call.span, "unknown model", helps=did_you_mean(name, known))
    module = timm.create_model(name, **call.keywords)
    shape = tuple(module.default_cfg["input_size"])
    return module, (((1, *shape), "f32"),), {"source": call.name}


_bare = without_weights(_load, "pretrained", "checkpoint_path")
MODELS.register("timm")(ModelSource(_load, keywords=_KEYWORDS, settle=_settle, bare=_bare))
