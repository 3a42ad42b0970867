"""`hf.CLASS("name")`: a class of transformers, with the weights of that name, or of a folder beside the spec."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from netxform.errors import fail
from netxform.graph.layer_spec import Invocation
from netxform.sources import companions
from netxform.sources.loaded import Loaded, Shapes
from netxform.sources.models.source import MODELS, ModelSource, need
from netxform.sources.trust import Trust, no_links, read_path

_HUB = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
_KEYWORDS = frozenset(
    """
revision variant dtype num_labels num_hidden_layers hidden_size num_attention_heads intermediate_size vocab_size dropout
attention_dropout hidden_dropout_prob attention_probs_dropout_prob output_hidden_states output_attentions return_dict
use_cache add_pooling_layer ignore_mismatched_sizes attn_implementation problem_type
""".split()
)
_DTYPES = {
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
}
_MOST = 6


def _settle(call: Invocation, trust: Trust) -> Invocation:
    """A name of the hub, or a folder below the spec's. Pickled weights need trust, as everywhere."""
    text = call.arguments[0] if len(call.arguments) == 1 else None
    if not isinstance(text, str):
        raise fail("X0411", f"`{call.name}` takes one name", call.span, 'write `hf.AutoModel("name")`')
    if call.keywords.get("attn_implementation", "eager") not in ("eager", "sdpa"):
        raise fail("X0411", "`attn_implementation` is eager or sdpa", call.span, "others are fetched as code")
    dtype = str(call.keywords.get("dtype", "float32")).removeprefix("torch.")
    if dtype not in (*_DTYPES, "auto"):
        raise fail("X0411", f"`dtype` is one of {', '.join(_DTYPES)}, or auto, not `{dtype}`", call.span, "no such dtype")
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
    if "dtype" in keywords:
        keywords["dtype"] = _DTYPES.get(dtype, dtype)
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
    keywords = call.keywords if auto else {k: v for k, v in call.keywords.items() if k != "trust_remote_code"}
    try:
        module, told = made.from_pretrained(*call.arguments, output_loading_info=True, **keywords, **more)
    except (RuntimeError, ValueError) as error:
        raise _named(call, str(error)) or error from error
    return module, _inputs(module), {"source": call.name, "warnings": _fresh(call, told)}


def _named(call: Invocation, text: str) -> Exception | None:
    """The two refusals of transformers that have a repair here."""
    if "trust_remote_code" in text:
        return fail(
            "X0902",
            f"the model of `{call.arguments[0]}` is Python code that comes with its weights",
            call.span,
            "would be run",
            helps=("read that code; if you trust it: `trust_remote_code=true` in the spec, and `--trust-code`",),
        )
    if "ignore_mismatched_sizes" in text or "size mismatch" in text:
        asked = call.keywords.get("num_labels")
        helps = (
            f"leave `num_labels` out, then `cut before classifier; attach head classes={asked}` (`netxform ls` names the head)"
            if asked is not None
            else "leave out what changes the sizes of the model",
        )
        message = f"the weights of `{call.arguments[0]}` have other shapes than the model that is asked for"
        return fail("X0809", message, call.span, "do not fit", helps=helps)
    return None


def _fresh(call: Invocation, told: dict[str, Any]) -> tuple[str, ...]:
    """What the weights did not hold, in words."""
    out: list[str] = []
    given = Path(str(call.arguments[0]))
    source = given.name if given.is_dir() else str(given)
    kinds = (
        ("missing_keys", "are not among the weights and are as drawn"),
        ("mismatched_keys", "have another shape there and are as drawn"),
    )
    for key, text in kinds:
        names = sorted(n if isinstance(n, str) else str(n[0]) for n in told.get(key, ()))
        if names:
            more = f" … ({len(names)} in all)" if len(names) > _MOST else ""
            out.append(f"`{source}`: {len(names)} tensors {text}: {', '.join(names[:_MOST])}{more}")
    return tuple(out)


def _inputs(module: Any) -> Shapes:
    """What the model takes first, as its class and configuration say: words, pictures or sound."""
    config = module.config
    kind = getattr(module, "main_input_name", "input_ids")
    if kind == "pixel_values":
        of = getattr(config, "vision_config", config)
        size = getattr(of, "image_size", None) or 224
        height, width = (size, size) if isinstance(size, int) else tuple(size)[:2]
        return (((1, int(getattr(of, "num_channels", 3)), int(height), int(width)), "f32"),)
    if kind == "input_values":
        return (((1, 16000), "f32"),)
    if kind == "input_features" and hasattr(config, "num_mel_bins"):
        return (((1, int(config.num_mel_bins), 2 * int(getattr(config, "max_source_positions", 1500))), "f32"),)
    return (((1, 16), "i64"),)


def _beside(call: Invocation) -> dict[str, bytes]:
    """Tokenizer, image processor and configuration: of the folder, or as transformers finds them under the name."""
    text = str(call.arguments[0])
    if Path(text).is_dir():
        return companions.of_folder(Path(text), call.span)
    hub: Any = need("transformers.utils", "text", call.span)

    def where(name: str) -> Path | None:
        quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
        found = hub.cached_file(text, name, revision=call.keywords.get("revision"), **quiet)
        return None if found is None else Path(found)

    return companions.gathered(where, call.span)


def _bare(name: str, call: Invocation) -> Loaded:
    return _load(name, call, device_map="meta")


MODELS.register("hf")(ModelSource(_load, keywords=_KEYWORDS, settle=_settle, beside=_beside, bare=_bare))
