"""`zoo.NAME(…)`: the small models of netxform."""

from __future__ import annotations

from netxform.graph.layer_spec import Invocation
from netxform.sources.loaded import Loaded
from netxform.sources.models.source import MODELS, ModelSource, without_weights
from netxform.zoo import REGISTRY, build


def _load(name: str, call: Invocation) -> Loaded:
    module = build(name, *call.arguments, **call.keywords)
    return module, ((REGISTRY[name].input, REGISTRY[name].dtype),), {"source": call.name}


MODELS.register("zoo")(ModelSource(_load, REGISTRY, "the zoo", bare=without_weights(_load), sure=True))
