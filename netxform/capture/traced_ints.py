"""Ints read off a shape while a forward pass is recorded: arithmetic goes into the graph, decisions become guards."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, fx

from netxform.capture.places import keyed


class Records(Protocol):
    """What a recorder is to the ints that it gives out. `depth`: how deep inside a layer that is recorded as one node."""

    graph: fx.Graph
    depth: int

    def add(self, node: fx.Node, scope: str | None = None) -> fx.Node:
        """Take a node into the graph, at its place in the model."""
        ...

    def require(self, condition: Any, value: Any) -> fx.Node:
        """A guard that the condition comes out as `value` again."""
        ...


ACTIVE: list[Records] = []
"""The recorders at work, the innermost last."""


class TracedInt(int):
    """An int read off a shape that knows how to become a node of the graph. Each has a hash of its own: no cache knows it."""

    make: Callable[[], fx.Node]
    made: fx.Node | None

    def __new__(cls, value: int, make: Callable[[], fx.Node]) -> TracedInt:
        """`make` writes the node when it is first needed."""
        self = int.__new__(cls, value)
        self.make = make
        self.made = None
        return self

    def node(self) -> fx.Node:
        """The node that computes this int."""
        if self.made is None:
            self.made = self.make()
        return self.made

    def __hash__(self) -> int:
        # a key of the model's own table is that number; a cache of a function must not take it for one
        return hash(self.settled()) if keyed() else id(self)

    def __bool__(self) -> bool:
        return bool(_decided(operator.ne, self, 0))

    def __int__(self) -> int:
        return self.settled()

    def __index__(self) -> int:
        return self.settled()

    def __float__(self) -> float:
        return float(self.settled())

    def settled(self) -> int:
        """The plain int, which the graph requires from here on."""
        value = plain_int(self)
        if ACTIVE and not ACTIVE[-1].depth:
            ACTIVE[-1].require(self.node(), value).meta["sizes"] = True
        return value

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return plain_int(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return (int, (plain_int(self),))


def plain_int(value: Any) -> Any:
    """The int without its node; anything else as it is."""
    return int.__add__(value, 0) if isinstance(value, TracedInt) else value


def _arithmetic(name: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    function = getattr(operator, name)

    def apply(left: Any, right: Any) -> Any:
        if not (isinstance(left, int | float) and isinstance(right, int | float)):  # a tensor, or a list that is repeated
            other = right if isinstance(left, TracedInt) else left
            return NotImplemented if isinstance(other, Tensor) else function(settled(left), settled(right))
        result = function(plain_int(left), plain_int(right))
        if not ACTIVE or ACTIVE[-1].depth:
            return result
        if type(result) is not INT:  # a quotient, a root: a number of Python from here on
            return function(settled(left), settled(right))
        recorder = ACTIVE[-1]
        return TracedInt(result, lambda: recorder.add(recorder.graph.call_function(function, (_node(left), _node(right)))))

    return (lambda self, other: apply(self, other)), (lambda self, other: apply(other, self))


def _comparison(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def apply(left: Any, right: Any) -> Any:
        return _decided(function, left, right) if isinstance(right, int | float) else NotImplemented

    return apply


def _decided(function: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """What a comparison of sizes says; while a pass is recorded, the graph requires that it says it again."""
    result = function(plain_int(left), plain_int(right))
    if ACTIVE and not ACTIVE[-1].depth:
        recorder = ACTIVE[-1]
        condition = recorder.add(recorder.graph.call_function(function, (_node(left), _node(right))))
        recorder.require(condition, result).meta["sizes"] = True
    return result


def settled(value: Any) -> Any:
    """A traced int as the plain int that the graph requires; anything else as it is."""
    return value.settled() if isinstance(value, TracedInt) else value


def _node(value: Any) -> Any:
    return value.node() if isinstance(value, TracedInt) else value


for _name in ("add", "sub", "mul", "floordiv", "mod", "truediv", "pow", "and_", "or_", "xor", "lshift", "rshift"):
    _left, _right = _arithmetic(_name)
    setattr(TracedInt, f"__{_name.rstrip('_')}__", _left)
    setattr(TracedInt, f"__r{_name.rstrip('_')}__", _right)
for _name in ("__round__", "__ceil__", "__floor__", "__trunc__", "__abs__", "__str__", "__repr__", "__format__", "__invert__"):
    setattr(TracedInt, _name, lambda self, *args, _name=_name: getattr(self.settled(), _name)(*args))
TracedInt.__neg__ = lambda self: 0 - self  # type: ignore[method-assign]
TracedInt.__pos__ = lambda self: self  # type: ignore[method-assign]
TracedInt.__divmod__ = lambda self, other: (self // other, self % other)  # type: ignore[method-assign]
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(TracedInt, f"__{_name}__", _comparison(_name))


class _Ranges(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, RANGE)

    def __call__(cls, *args: Any) -> Any:
        return RANGE(*(settled(v) for v in args))


RANGE = range
INT = int


class _Integers(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, INT)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, INT)

    def __eq__(cls, other: object) -> bool:
        return other is INT or other is cls

    def __hash__(cls) -> int:
        return hash(INT)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and isinstance(args[0], TracedInt) else INT(*args, **kwargs)


class TracedInteger(int, metaclass=_Integers):
    """`int` while a pass is recorded: what was read off a shape is one, and stays what it is."""


class TracedRange(metaclass=_Ranges):
    """`range` while a pass is recorded: a loop over a size settles it."""
