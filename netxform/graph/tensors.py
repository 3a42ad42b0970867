"""The tensors that a module holds, by name, and others put in their place; the names of their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

NAMES = {
    torch.float16: "f16",
    torch.float32: "f32",
    torch.float64: "f64",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.bool: "bool",
    torch.uint8: "u8",
    torch.int8: "i8",
}
"""The short name of a type of numbers, in specs (`input="1x3x8x8:f32"`) and in stored graphs."""
DTYPES = {name: dtype for dtype, name in NAMES.items()}


def held(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and every buffer by name, shared ones under all their names."""
    return {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}


def put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Set a parameter or buffer by name; recurrent layers are told, for they keep a list of their own."""
    own: Any = module
    held = own._parameters if name in own._parameters else own._buffers
    held[name] = tensor
    if isinstance(module, nn.RNNBase):
        own._flat_weights = [getattr(own, n, None) for n in own._flat_weights_names]


def alike(old: Tensor, value: Tensor) -> Tensor:
    """The value as a parameter where `old` is one, trained or not as `old` is."""
    return nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value


def exchange(module: nn.Module, new: Mapping[int, Tensor]) -> None:
    """Put tensors in the place of those with these ids, wherever they are held."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):  # pyright: ignore[reportPrivateUsage]
            for name, tensor in list(held.items()):
                if tensor is not None and id(tensor) in new:
                    put(part, name, new[id(tensor)])
