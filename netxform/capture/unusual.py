"""Models that are wrapped, compiled or not finished: what to hand in instead, in one sentence each."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from netxform.errors import fail

_WRAPPERS = {"DataParallel", "DistributedDataParallel", "FullyShardedDataParallel"}


def refuse_unusual(model: nn.Module) -> None:
    """Raises NetxformError X0802 for models of which no graph can be made as they are."""
    for path, part in model.named_modules():
        kind: Any = type(part)
        place = f"`{path}` ({kind.__name__})" if path else f"`{kind.__name__}`"
        inner = f"model.{path}" if path else "model"
        if isinstance(part, torch.jit.ScriptModule):
            raise fail(
                "X0802",
                f"{place} is compiled by TorchScript: its code cannot be traced",
                helps=("hand in the Python module that it was made from; its weights load by `load_state_dict`",),
            )
        if kind.__name__ == "OptimizedModule":
            raise fail(
                "X0802",
                f"{place} is compiled: its code cannot be traced",
                helps=(f"hand in what was compiled, `{inner}._orig_mod`, and compile the result",),
            )
        if kind.__name__ in _WRAPPERS and kind.__module__.startswith("torch."):
            raise fail(
                "X0802",
                f"{place} only spreads a model over devices",
                helps=(f"hand in the model itself, `{inner}.module`",),
            )
        own: Any = part
        for name, held in (*own._parameters.items(), *own._buffers.items()):
            if isinstance(held, UninitializedParameter | UninitializedBuffer):
                raise fail(
                    "X0802",
                    f"{place} is lazy: the shape of its `{name}` is not known yet",
                    helps=("run the model once on an input before it is handed in",),
                )
