"""Code that no rule knows, kept whole: run once on meta tensors, its ATen operations typed by the same rules."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from netxform.axes.algebra import Lock, lock, size
from netxform.axes.names import normal_name
from netxform.axes.notes import Notes, all_locked, leaves
from netxform.axes.rules.context import Int, Typed, Uncovered, locked
from netxform.axes.types import Stated
from netxform.graph.copies import structure, weightless
from netxform.graph.meta import on_meta


def run_whole(t: Notes, module: nn.Module | None, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run on the meta device, operation by operation; lock everything where that fails."""
    assert t.node is not None
    found: dict[int, Typed] = {}
    mode = _Dispatch(t, found)
    call, plain_args, plain_kwargs = _prepared(t, module, path, args, kwargs, mode)
    outer, t.inside = t.shape, True
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), torch.device("meta"), mode:
            result = call(*plain_args, **plain_kwargs)
    except Exception as error:  # the model's own code, where there are no values
        if mode.broken is not None:
            raise mode.broken from None
        t.types.uncovered[t.node.name] = reason(error)
        _give_up(t, module, path, args, kwargs)
        return all_locked(outer, t.node.name, t.node.meta.get("dtype"))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        t.shape, t.at, t.inside = outer, t.node.name, False
    return pytree.tree_map_only(Tensor, lambda x: found.get(id(x)) or locked(tuple(x.shape), "constant", t.at, x.dtype), result)


def _give_up(t: Notes, module: nn.Module | None, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Lock every operand and every tensor of the module."""
    why = Lock("unknown", t.node.name if t.node is not None else "")
    for operand in leaves((args, kwargs)):
        t.touch(operand)
        for dim in operand.dims:
            lock(dim, why)
    if module is not None:
        for name in _inner_names(t, path):
            for dim in t.of(name).dims:
                lock(dim, why)


def _inner_names(t: Notes, path: str) -> list[str]:
    return list(dict.fromkeys(c for n, c in t.types.names.items() if n.startswith(path + ".") or not path))


def _prepared(
    t: Notes, module: nn.Module | None, path: str, args: tuple[Any, ...], kwargs: dict[str, Any], mode: _Dispatch
) -> tuple[Any, Any, Any]:
    """What is run on the meta device, and its arguments there; `mode` is told the types of their tensors."""
    assert t.node is not None

    def empty(x: Typed) -> Tensor:
        made = torch.empty(x.shape, dtype=x.dtype or torch.float32, device="meta")
        mode.known[id(made)] = x
        mode.keep.append(made)
        return made

    plain = pytree.tree_map_only(Typed, empty, (args, kwargs), is_leaf=lambda v: isinstance(v, Typed))
    plain_args, plain_kwargs = on_meta(pytree.tree_map_only(Int, int, plain))
    if module is not None:
        memo: dict[int, Any] = {}
        call: Any = structure(module, weightless, memo).eval()
        for name in _inner_names(t, path):
            mode.known[id(memo[id(t.held[name])])] = t.of(name)
        mode.keep += memo.values()
    elif t.node.op == "call_method":
        call = lambda x, *a, **k: getattr(x, str(t.node.target))(*a, **k)  # noqa: E731 # pyright: ignore
    else:
        call = t.node.target
    return call, plain_args, plain_kwargs


class _Dispatch(TorchDispatchMode):
    """Every ATen operation of a run on meta tensors, typed. `broken`: what a rule raised, so that it is no code's failure."""

    def __init__(self, owner: Notes, known: dict[int, Typed]) -> None:
        super().__init__()
        self.owner, self.known = owner, known
        self.keep: list[Tensor] = []
        self.broken: Exception | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        try:
            self.type(func, out, args, kwargs)
        except Exception as error:
            self.broken = error
            raise
        return out

    def type(self, func: Any, out: Any, args: Any, kwargs: Any) -> None:
        """Type the results of one operation."""
        name = func._schema.name.split("::")[1]
        owner = self.owner
        owner.types.ops += 1
        node = owner.node.name if owner.node is not None else ""
        owner.shape = pytree.tree_map(lambda x: tuple(x.shape) if isinstance(x, Tensor) else None, out)
        if isinstance(out, Tensor):
            owner.shape = tuple(out.shape)
        owner.at = f"{node}: {name}"
        targs, tkwargs = pytree.tree_map_only(Tensor, self.of, (args, kwargs))
        made, why = None, "no result"
        try:
            made = owner.rule(normal_name(name), targs, tkwargs)
        except Uncovered as error:
            why = str(error)
        if made is None:
            owner.types.uncovered[owner.at] = why
            for operand in leaves((targs, tkwargs)):
                owner.touch(operand)
                for dim in operand.dims:
                    lock(dim, Lock("unknown", owner.at))
            made = all_locked(owner.shape, owner.at, None)
        self.bind(out, made)
        for dim in (d for x in leaves(made) for d in x.dims):
            owner.types.stated.append(Stated(owner.at, None, (dim,), size(dim)))

    def of(self, tensor: Tensor) -> Typed:
        found = self.known.get(id(tensor))
        if found is None:
            found = locked(tuple(tensor.shape), "constant", self.owner.at, tensor.dtype)
            self.known[id(tensor)] = found
            self.keep.append(tensor)
        return found

    def bind(self, out: Any, made: Any) -> None:
        if isinstance(out, Tensor):
            if isinstance(made, tuple | list):
                made = cast("list[Any]", made)[0]
            if id(out) not in self.known or not isinstance(made, Typed):
                self.known[id(out)] = made
            made.dtype = out.dtype
            self.keep.append(out)
        elif isinstance(out, list | tuple) and isinstance(made, list | tuple):
            for one, other in zip(cast("list[Any]", out), cast("list[Any]", made), strict=False):
                self.bind(one, other)


def reason(error: Exception) -> str:
    """The first line of what code that is not ours said when it failed."""
    return (str(error).strip() or type(error).__name__).split("\n")[0][:120]
