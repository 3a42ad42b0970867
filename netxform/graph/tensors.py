"""The tensors that a module holds, by name; and others put in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


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
