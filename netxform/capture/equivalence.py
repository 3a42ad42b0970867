"""What a module computes, as a list of ATen operations: modules with the same list compute the same bits on one machine.

A module is run on meta tensors (nothing is computed) and every operation is noted with its arguments: numbers as they are,
tensors by where they come from: an input, a tensor that the module holds, a result of an earlier operation. Where the lists of
two modules are equal, so are their results, for all weights and all inputs of these shapes. This holds unless code depends on
values or on the device; the first fails on meta tensors, and what is known for the second is left out (`provable`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from netxform.capture.concrete import plain
from netxform.graph.copies import tensors_of
from netxform.graph.shape_cache import PLAIN, Kernels, memory

# these run other kernels where no gradient is asked for, depending on the device
_BY_DEVICE = (nn.TransformerEncoderLayer, nn.TransformerEncoder)


class UnknownError(Exception):
    """The operations do not say all: random numbers, or a tensor of unknown origin."""


class RandomError(UnknownError):
    """A random number was drawn."""


def provable(module: nn.Module) -> bool:
    """Whether equal programs of such modules mean equal results: usual tensors, and no layer that looks at the device."""
    usual = (Tensor, nn.Parameter, nn.Buffer)
    plain = all(type(t) in usual and t.layout == torch.strided and not t.is_quantized for t in tensors_of(module))
    return plain and not any(isinstance(m, _BY_DEVICE) for m in module.modules())


def program(
    module: nn.Module, inputs: tuple[Tensor, ...], known: dict[Any, Any], call: Callable[..., Any], drawn: bool = False
) -> list[Any]:
    """The operations of `call(*inputs)`, which runs the module, what its buffers are bound to anew, and where each result comes
    from, all on meta tensors.

    Tensors of the module go by their names. `known` remembers shapes (see `graph.shape_cache`). `drawn`: random numbers are
    operations like others, equal under one state of the generator. Raises UnknownError, and whatever the module raises.
    """
    run = _Recording(known, module, inputs)
    run.drawn = drawn
    bound = _buffers(module)
    with torch.no_grad(), run:
        result = call(*inputs)
    anew = [(name, run.told(held)) for name, held in _buffers(module).items() if held is not bound.get(name)]
    return [*run.steps, anew, [run.told(t) for t in pytree.tree_leaves(plain(result)) if isinstance(t, Tensor)]]


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_buffers(remove_duplicate=False))


def _names(module: nn.Module) -> dict[int, str]:
    """What each tensor is called that hangs on the module or its parts; the first name of several."""
    names: dict[int, str] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for held in (part._parameters, part._buffers, vars(part)):  # pyright: ignore[reportPrivateUsage]
            for name, value in held.items():
                if isinstance(value, Tensor):
                    names.setdefault(id(value), f"{path}.{name}")
    return names


class _Recording(Kernels):
    drawn = False

    def __init__(self, known: dict[Any, Any], module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__(known)
        self.names = _names(module) | {id(t): f"input {i}" for i, t in enumerate(inputs)}
        self.steps: list[Any] = []
        # memory → how many lie there: tensors of this run; and for what came from outside, the owner too
        self.sharing = {memory(t): 2 for t in (*tensors_of(module), *inputs)}
        self.alive: list[Any] = []  # an `id` is a name only as long as its tensor lives

    def told(self, value: Any) -> Any:
        """An argument as what can be compared."""
        kind = type(value)
        if kind in PLAIN:
            return (kind, value)
        if isinstance(value, Tensor):
            name = self.names.get(id(value))
            if name is None:
                raise UnknownError
            return name
        if isinstance(value, list | tuple):
            return tuple(self.told(v) for v in cast("list[Any]", value))
        return (kind, value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.drawn and torch.Tag.nondeterministic_seeded in func.tags:
            raise RandomError
        # where a result lies is no part of a program: here all lie on meta
        said = (self.told(args), {k: self.told(v) for k, v in kwargs.items() if k != "device"})
        result = self.answer(func, args, kwargs | {"device": "meta"} if _places(func) else kwargs)
        made = [t for t in (result if isinstance(result, list | tuple) else (result,)) if isinstance(t, Tensor)]
        if func is torch.ops.aten.detach.default and id(args[0]) in self.names:  # the same numbers, whoever learns by them
            self.names[id(result)] = self.names[id(args[0])]
            self.alive.append(result)
            return result
        alone = len(made) == 1 and args and made[0] is args[0] and self.sharing.get(memory(made[0])) == 1
        if alone:
            # `x += y` is `x = x + y` where nothing else lies in that memory; tracing knows the latter alone
            func = _out_of_place(func)
            self.names[id(made[0])] = f"{len(self.steps)}.0"
        for i, tensor in enumerate(made):
            if id(tensor) not in self.names:
                self.names[id(tensor)] = f"{len(self.steps)}.{i}"
                self.sharing[memory(tensor)] = self.sharing.get(memory(tensor), 0) + 1
        self.alive.append(result)
        self.steps.append((func, *said, [(t.dtype, t.shape, t.stride()) for t in made]))
        return result


@cache
def _places(func: Any) -> bool:
    """Whether the operation says on which device its result lies."""
    return any(a.name == "device" for a in func._schema.arguments)


def _out_of_place(func: Any) -> Any:
    """`add` of `add_`; the operation itself where there is none."""
    name = func._schema.name.removeprefix("aten::")
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, func._overloadname, func)
