"""The rules: of operations under every name by which torch knows them, of layers under the names of their classes.

    @rule("relu silu")                                    @layer("ReLU SiLU")
    def _(t: Context, x: Typed) -> Typed: ...             def _(t: Context, module: nn.Module, x: Typed) -> Typed: ...

A rule gets typed values and plain arguments, and returns typed values of the shapes in `t.shape`. Its signature says which
calls it covers: a call that does not bind to it, or that gives something else where it says `Typed`, is not covered. For
other uses that it does not cover it raises `Uncovered`. A package adds a file of rules by the entry point `netxform.rules`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from netxform.axes.rules.context import Typed, Uncovered

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
LAYERS: dict[str, Rule] = {}
VIEWS: set[str] = set()

_SIGNATURES: dict[Rule, tuple[inspect.Signature, tuple[tuple[str, str], ...]]] = {}
_TYPED = ("Typed", "Typed | None", "Sequence[Typed]")


def rule(names: str, view: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule under the names of operations. `view`: the result holds the operand's values, rearranged at most.

    Raises ValueError where a name has a rule already.
    """
    return _registered(RULES, names, VIEWS if view else set())


def layer(names: str) -> Callable[[Rule], Rule]:
    """Register a rule under the class names of layers; it gets the layer first. Raises ValueError where a name has one."""
    return _registered(LAYERS, names, set())


def _registered(table: dict[str, Rule], names: str, views: set[str]) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for name in names.split():
            if name in table:
                raise ValueError(f"`{name}` has a rule already: {table[name].__module__}.{table[name].__name__}")
            table[name] = function
            views.add(name)
        signature = inspect.signature(function)
        kinds = tuple((n, str(p.annotation)) for n, p in signature.parameters.items() if str(p.annotation) in _TYPED)
        _SIGNATURES[function] = signature, kinds
        return function

    return register


def covered(function: Rule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raises Uncovered where the call does not fit the rule's signature."""
    signature, kinds = _SIGNATURES[function]
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise Uncovered(f"called in another way: {error}") from None
    for name, kind in kinds:
        if name in given and not _is(given[name], kind):
            raise Uncovered(f"`{name}` is {type(given[name]).__name__}")


def _is(value: Any, kind: str) -> bool:
    if kind == "Sequence[Typed]":
        return isinstance(value, list | tuple) and all(isinstance(v, Typed) for v in cast("list[Any]", value))
    return isinstance(value, Typed) or (value is None and kind == "Typed | None")
