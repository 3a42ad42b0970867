"""What a peer must be told of a model, the same in every benchmark: Torch-Pruning's `num_heads`."""

from __future__ import annotations

from typing import Any


def heads_of(model: Any) -> dict[Any, int]:
    """Of every attention the module that its queries come from, and how many heads it has: without it Torch-Pruning takes
    channels across heads. An `nn.MultiheadAttention` is named itself; elsewhere the Linear (or 1 × 1 convolution) of query, key
    and value, one for all three or one each, beside which a number of heads stands.
    """
    from torch import nn

    found: dict[Any, int] = {}
    for part in model.modules():
        heads = getattr(part, "num_heads", None) or getattr(part, "num_attention_heads", None)
        if not isinstance(heads, int) or heads < 1:
            continue
        if isinstance(part, nn.MultiheadAttention):
            found[part] = heads
            continue
        for name in ("qkv", "q", "k", "v", "kv", "query", "key", "value", "q_proj", "k_proj", "v_proj"):
            layer = getattr(part, name, None)
            if isinstance(layer, nn.Linear | nn.Conv2d):
                found[layer] = heads
    return found
