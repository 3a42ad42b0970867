"""`hf.CLASS("name")`: a class of transformers, with the weights of that name, or of a folder beside the spec."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from netxform.errors import fail
from netxform.graph.layer_spec import Invocation
from netxform.sources.loaded import Loaded
from netxform.sources.models.source import MODELS, ModelSource, need
from netxform.sources.trust import Trust, no_links, read_path

_HUB = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
_KEYWORDS = frozenset(
    """
revision variant num_labels num_hidden_layers hidden_size num_attention_heads intermediate_size vocab_size dropout
attention_dropout hidden_dropout_prob attention_probs_dropout_prob output_hidden_states output_attentions return_dict
use_cache add_pooling_layer ignore_mismatched_sizes attn_implementation problem_type
""".split()
)


def _settle(call: Invocation, trust: Trust) -> Invocation:
    """A name of the hub, or a folder below the spec's. Pickled weights need trust, as everywhere."""
    text = call.arguments[0] if len(call.arguments) == 1 else None
    if not isinstance(text, str):
        raise fail("X0411", f"`{call.name}` takes one name", call.span, 'write `hf.AutoModel("name")`')
    if call.keywords.get("attn_implementation", "eager") not in ("eager", "sdpa"):
        raise fail("X0411", "`attn_implementation` is eager or sdpa", call.span, "others are fetched as code")
    if not _HUB.fullmatch(text) or (trust.root / text).exists():
        folder = read_path(text, trust, call.span)
        if folder.is_dir():
            no_links(folder, call.span)
        text = str(folder)
    elif Path(text).exists():  # transformers would take it, wherever the spec lies
        raise fail(
            "X0901",
            f"`{text}` is a folder beside the current one, not beside the spec",
            call.span,
            "not allowed",
            helps=("move it beside the spec, or run in another folder to have it fetched",),
        )
    safe = {} if trust.pickle else {"use_safetensors": True}
    keywords = {k: v for k, v in call.keywords.items() if k != "checkpoint_path"}
    return replace(call, arguments=(text,), keywords={"trust_remote_code": False} | keywords | safe)


def _load(name: str, call: Invocation, **more: Any) -> Loaded:
    transformers = need("transformers", "text", call.span)
    cls: Any = getattr(transformers, name, None)
    auto = name.startswith("Auto") and "Model" in name
    from torch import nn

    model = isinstance(cls, type) and (auto or issubclass(cls, nn.Module)) and hasattr(cls, "from_pretrained")
    if not model or cls.__module__.partition(".")[0] != "transformers":
        raise fail("X0211", f"transformers has no model class `{name}`", call.span, "unknown model")
    made: Any = cls
    module = made.from_pretrained(*call.arguments, **call.keywords, **more)
    return module, (((1, 16), "i64"),), {"source": call.name}


def _bare(name: str, call: Invocation) -> Loaded:
    return _load(name, call, device_map="meta")


MODELS.register("hf")(ModelSource(_load, keywords=_KEYWORDS, settle=_settle, bare=_bare))
