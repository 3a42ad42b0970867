"""Copies of a module's structure: containers, attributes and graph of their own, tensors as the caller says.

`copy.deepcopy` does the same for any module and is the last word here; but it walks every attribute of every layer, and plans
copy a network many times. What layers of the usual kind hold (numbers, text, empty dictionaries of hooks) is taken as it is.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, fx, nn

M = TypeVar("M", bound=nn.Module)
_ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size))
_EMPTY = frozenset((dict, list, set, OrderedDict))


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Every tensor that hangs on a module or its parts, registered or not."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):  # pyright: ignore[reportPrivateUsage]
            yield from (cast(Tensor, t) for t in held.values() if t is not None)
        for value in vars(part).values():
            if isinstance(value, Tensor):
                yield value


def structure(module: M, tensor: Callable[[Tensor], Tensor], memo: dict[int, Any] | None = None) -> M:
    """The module with parts of its own, holding `tensor(t)` wherever it holds the tensor t. `memo` is as in deepcopy."""
    memo = {} if memo is None else memo
    for held in tensors_of(module):
        if id(held) not in memo:
            memo[id(held)] = tensor(held)
    if not isinstance(module, fx.GraphModule):
        return cast(M, _duplicate(module, memo))
    for child in module.children():  # the rest of a graph module, it copies itself
        _duplicate(child, memo)
    return copy.deepcopy(module, memo)


def parts(module: nn.Module, tensor: Callable[[Tensor], Tensor]) -> nn.Module:
    """What a graph module holds, copied as `structure` copies it, without the graph: enough for an interpreter to run on."""
    memo = {id(t): tensor(t) for t in tensors_of(module)}
    made = nn.Module()
    for name, child in module.named_children():
        made.add_module(name, _duplicate(child, memo))
    for held in (module._parameters, module._buffers, vars(module)):  # pyright: ignore[reportPrivateUsage]
        for name, value in held.items():
            if isinstance(value, Tensor):
                setattr(made, name, memo[id(value)])
    return made.eval()


def same(tensor: Tensor) -> Tensor:
    """The tensor itself."""
    return tensor


def lent(tensor: Tensor) -> Tensor:
    """Of a parameter the same memory, under a parameter with `grad` and `requires_grad` of its own; of others a copy."""
    if type(tensor) is nn.Parameter:
        return nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
    return tensor.detach().clone() if type(tensor) is Tensor else copy.deepcopy(tensor)


def own(tensor: Tensor) -> Tensor:
    """A tensor with the same numbers in memory of its own, whose history is forgotten."""
    made = tensor.detach().clone()
    if type(tensor) is nn.Parameter:
        return nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made if type(tensor) is Tensor else copy.deepcopy(tensor)


def weightless(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and strides on the meta device."""
    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


@cache
def _usual(kind: type[nn.Module]) -> bool:
    """Whether `copy.deepcopy` would copy such a module attribute by attribute."""
    own: Any = kind
    methods = ("__reduce_ex__", "__reduce__", "__getstate__")
    plain = all(getattr(own, n) is getattr(nn.Module, n) for n in methods) and not hasattr(own, "__deepcopy__")
    return plain and not any(vars(c).get("__slots__") for c in kind.__mro__)


def _duplicate(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    known = memo.get(id(module))
    if known is not None:
        return known
    if not _usual(type(module)):
        for child in module.children():
            _duplicate(child, memo)
        return copy.deepcopy(module, memo)
    made = type(module).__new__(type(module))
    memo[id(module)] = made
    held = dict(vars(module))
    for name, value in held.items():
        kind = type(value)
        if kind in _ATOMS:
            continue
        if name == "_modules":
            held[name] = {n: None if m is None else _duplicate(m, memo) for n, m in value.items()}
        elif name in ("_parameters", "_buffers"):
            held[name] = {n: None if t is None else memo[id(t)] for n, t in value.items()}
        elif kind in _EMPTY and not value and id(value) not in memo:
            memo[id(value)] = held[name] = kind()
        elif not (kind is tuple and all(type(v) in _ATOMS for v in value)):
            held[name] = copy.deepcopy(value, memo)
    cast(Any, made).__setstate__(held)
    return made
