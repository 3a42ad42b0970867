"""What a model keeps between calls in attributes of Python: counters, lists, caches. A graph keeps none of it.

Attributes are compared before and after a traced call. Where some have changed the model is called again and again: if what it
gives stays the same, they are put back and noted; if it changes, they are part of what is computed, and that is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from netxform.capture.concrete import plain
from netxform.capture.places import located
from netxform.capture.symbolic import is_leaf
from netxform.errors import Diagnostic, NetxformError
from netxform.graph.copies import own, structure

State = dict[tuple[str, str], None]
"""Attributes that a call changes: path of the module, name."""

_ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_BASE = frozenset(vars(nn.Module()))
_CALLS = 4
_OF_TRACING = ("_tensor_constant", "_param_constant")
_DEPTH, _MOST = 4, 256


class Attributes:
    """The attributes of a module and its parts, as they are now."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.alive: list[Any] = []  # an `id` is a name only as long as its object lives
        self.held = self._taken()

    def _taken(self) -> dict[tuple[str, str], tuple[Any, Any]]:
        seen: dict[int, Any] = {}
        found: dict[tuple[str, str], tuple[Any, Any]] = {}
        for path, part in self.model.named_modules():
            if not is_leaf(part):
                for name, value in vars(part).items():
                    if name not in _BASE and not name.startswith(_OF_TRACING):
                        found[path, name] = value, self._told(value, _DEPTH, seen)
        return found

    def _told(self, value: Any, depth: int, seen: dict[int, Any]) -> Any:
        """The value as something that compares: numbers by value, containers by what they hold, the rest by who it is."""
        if isinstance(value, _ATOMS):
            return (type(value), value)
        self.alive.append(value)
        if isinstance(value, Tensor):
            return (id(value), 0 if value.is_inference() else value._version)
        if depth == 0 or id(value) in seen or isinstance(value, nn.Module | fx.Proxy | type) or callable(value):
            return id(value)
        seen[id(value)] = None
        if isinstance(value, dict):
            items = list(cast("dict[Any, Any]", value).items())
            return (len(items), [(str(k), self._told(v, depth - 1, seen)) for k, v in items[-_MOST:]])
        if isinstance(value, list | tuple | set | frozenset) or type(value).__name__ == "deque":
            several = list(cast("list[Any]", value))
            return (len(several), [self._told(v, depth - 1, seen) for v in several[-_MOST:]])
        return (id(value), self._told(vars(value), depth - 1, seen)) if hasattr(value, "__dict__") else id(value)

    def changed(self) -> State:
        """What differs by now; attributes that were bound anew are bound as before again."""
        now, found = self._taken(), State()
        for key in now.keys() | self.held.keys():
            if key in now and key in self.held and now[key][1] == self.held[key][1]:
                continue
            found[key] = None
            part, name = self.model.get_submodule(key[0]), key[1]
            if key in self.held:
                vars(part)[name] = self.held[key][0]
            else:
                vars(part).pop(name, None)
        return found


class _Asked(int):
    """A counter that knows who decides by it. `other`: decisions come out the other way."""

    asked: list[tuple[str, str]]
    other: bool


def _counter(value: int, asked: list[tuple[str, str]], other: bool) -> _Asked:
    made = int.__new__(_Asked, value)
    made.asked, made.other = asked, other
    return made


def _decides(name: str) -> Callable[..., Any]:
    def decide(self: _Asked, *args: Any) -> Any:
        result = getattr(int, name)(int.__add__(self, 0), *args)
        if result is NotImplemented:
            return result
        self.asked.append(located())
        return result is not True if self.other else result

    return decide


def _counts(name: str) -> Callable[..., Any]:
    def count(self: _Asked, *args: Any) -> Any:
        result = getattr(int, name)(int.__add__(self, 0), *args)
        return _counter(result, self.asked, self.other) if type(result) is int else result

    return count


for _name in "eq ne lt le gt ge bool".split():
    setattr(_Asked, f"__{_name}__", _decides(f"__{_name}__"))
for _name in "add radd sub rsub mul rmul mod rmod floordiv neg and or xor".split():
    setattr(_Asked, f"__{_name}__", _counts(f"__{_name}__"))
_Asked.__hash__ = int.__hash__  # type: ignore[method-assign]


class StateError(NetxformError):
    """What the model gives depends on how often it was called: no graph computes that."""


def refuse_state(model: nn.Module, given: tuple[tuple[Tensor, ...], ...], state: State) -> None:
    """Raises StateError X0802 where what the model gives depends on earlier calls. `given`: inputs, and others."""
    for training in (False, True):
        fresh = [(inputs, _calls(model, (inputs,), training)[0]) for inputs in given]
        ran = [(inputs, found) for inputs, found in fresh if found is not None]
        if not ran:
            continue  # the model does not run in this mode
        inputs, wanted = ran[0]
        asked: list[tuple[str, str]] = []
        others = (ran[-1][0], *(inputs,) * _CALLS)
        for other in (False, True):
            if other and not asked:
                continue
            found = _calls(model, others, training, state, asked, other)
            if any(f is None or not _same(f, wanted) for f in found[1:]):
                raise StateError(
                    [
                        Diagnostic(
                            "X0802",
                            f"{named(state)} of the model changes from call to call, and with it what the model gives",
                            notes=tuple(dict.fromkeys(f"{where}: `{what}`" for where, what in asked)),
                            helps=("keep it in a buffer (`register_buffer`), or pass it in as an input",),
                        )
                    ]
                )


def named(state: State) -> str:
    """The attributes in words."""
    names = [f"`{f'{path}.{name}' if path else name}`" for path, name in sorted(state)]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _calls(
    model: nn.Module,
    several: tuple[tuple[Tensor, ...], ...],
    training: bool,
    state: State | None = None,
    asked: list[tuple[str, str]] | None = None,
    other: bool = False,
) -> list[list[Tensor] | None]:
    """What one copy of the model gives, call after call, each with the same buffers and random state; None where it fails."""
    copied = structure(model, own).train(training)
    for path, name in state or ():
        part = copied.get_submodule(path)
        if asked is not None and type(vars(part).get(name)) is int:
            setattr(part, name, _counter(getattr(part, name), asked, other))
    held = [(t, t.detach().clone()) for t in (*copied.parameters(), *copied.buffers())]
    out: list[list[Tensor] | None] = []
    with torch.no_grad():
        for inputs in several:
            try:
                torch.manual_seed(0)
                found = plain(copied(*(t.clone() for t in inputs)))
                out.append([t.clone() for t in pytree.tree_leaves(found) if isinstance(t, Tensor)])
            except Exception:  # whatever the model raises when it is called again
                out.append(None)
            for tensor, value in held:
                tensor.copy_(value)
    return out


def _same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    pairs = list(zip(ours, theirs, strict=False))
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and (a.is_meta or torch.equal(a.nan_to_num(), b.nan_to_num())) for a, b in pairs
    )
