"""`hf.CLASS("name")`: a class of transformers, with the weights of that name."""

from __future__ import annotations

from typing import Any

from netxform.errors import fail
from netxform.graph.layer_spec import Invocation
from netxform.sources.loaded import Loaded
from netxform.sources.models.source import MODELS, ModelSource, need


def _load(name: str, call: Invocation) -> Loaded:
    transformers = need("transformers", "text", call.span)
    cls: Any = getattr(transformers, name, None)
    if cls is None or not callable(getattr(cls, "from_pretrained", None)):
        raise fail("X0211", f"transformers has no model class `{name}`", call.span, "unknown model")
    module = cls.from_pretrained(*call.arguments, **{"trust_remote_code": False} | call.keywords)
    return module, (((1, 16), "i64"),), {"source": call.name}


MODELS.register("hf")(ModelSource(_load))
