"""`timm.NAME(…)`: the models of timm."""

from __future__ import annotations

from netxform.errors import did_you_mean, fail
from netxform.graph.layer_spec import Invocation
from netxform.sources.loaded import Loaded
from netxform.sources.models.source import MODELS, ModelSource, need


def _load(name: str, call: Invocation) -> Loaded:
    timm = need("timm", "vision", call.span)
    known = timm.list_models()
    if name.split(".")[0] not in known:
        raise fail("X0211", f"timm has no model `{name}`", call.span, "unknown model", helps=did_you_mean(name, known))
    module = timm.create_model(name, **call.keywords)
    shape = tuple(module.default_cfg["input_size"])
    return module, (((1, *shape), "f32"),), {"source": call.name}


MODELS.register("timm")(ModelSource(_load))
