"""A bound verb printed back as its statement: what `bind` made of a text, as the text. No torch here.

Transform ─statement→ ast.Command ─sentence→ text        bind(parse(sentence(verb))) == verb, places in the text apart
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import cast

from netxform.graph.layer_spec import AUTO, Invocation, Layer
from netxform.language.limit import Limit
from netxform.language.named import Chosen
from netxform.language.rank import Rank
from netxform.language.regularizer import Regularizer
from netxform.language.values import CONSTANTS, Count, Layers, Name, Selection
from netxform.language.verb import REGISTRY, Slot, Transform, slots_of
from netxform.syntax import ast
from netxform.syntax.format import RESERVED, format_node

_UNITS = {"bytes": "B", "milliseconds": "ms", "factor": "x"}


def sentence(transform: Transform) -> str:
    """The canonical text of a bound verb, in one line; clauses that say what is the default are left out.

    Raises KeyError for an object of a class that is no registered verb.
    """
    return format_node(statement(transform))


def statement(transform: Transform) -> ast.Command:
    """The statement as a tree."""
    for entry in REGISTRY.values():
        if entry.cls is type(transform):
            return _command(entry.word, entry.slots, transform)
    raise KeyError(f"{type(transform).__name__} is no registered verb")


def _command(word: str, slots: Mapping[str, Slot], held: object) -> ast.Command:
    """The clauses that fill the slots, in the order of the fields."""
    operands: list[ast.Expr] = []
    clauses: list[ast.Clause] = []
    block: list[ast.Statement] = []
    for name, value in _said(held):
        slot = slots[name]
        match slot.kind:
            case "operand":
                operands.append(_call(value) if isinstance(value, Invocation) else _expression(value))
            case "comparison":
                operands.append(_expression(value))
            case "prep":
                clauses.append(ast.Preposition(slot.word, _expression(value)))
            case "key":
                clauses.append(ast.Option(name, _expression(value)))
            case "factor":
                clauses.append(ast.Factor(_whole(cast(float, value))))
            case "layers":
                block += [ast.Binding(one.name, _call(one.make)) for one in _layers(value)]
            case "lines":
                assert slot.of is not None
                block += [_command(slot.word, slots_of(slot.of)[0], one) for one in cast("tuple[object, ...]", value)]
            case "nested":
                inner = tuple(statement(t) for t in cast("tuple[Transform, ...]", value))
                block.append(ast.Command(slot.word, block=inner))
    return ast.Command(word, tuple(operands), tuple(clauses), tuple(block) if block else None)


def _said(held: object) -> Iterator[tuple[str, object]]:
    """The fields that differ from their default."""
    for one in dataclasses.fields(held):  # type: ignore[arg-type]
        value: object = getattr(held, one.name)
        if one.default is dataclasses.MISSING or value != one.default:
            yield one.name, value


def _layers(value: object) -> tuple[Layer, ...]:
    return cast(Layers, value).items


def _expression(value: object) -> ast.Expr:
    """The expression that `values.convert` reads as this value."""
    match value:
        case Selection():
            return value.expression
        case Name():
            return ast.Path(value.text)
        case Invocation():
            return _call(value) if value.arguments or value.keywords else ast.Path(value.name)
        case Limit():
            return ast.Compare(value.op, ast.Path(value.name), _bound(value))
        case Count():
            return ast.Quantity(value.value, value.unit)
        case Regularizer():
            target = value.target.expression
            inner = target if value.of == "parameters" else ast.Call(value.of, (ast.Argument(None, target),))
            return ast.Call(value.kind, (ast.Argument(None, inner), ast.Argument(None, ast.Number(value.weight))))
        case tuple():
            items = tuple(_expression(v) for v in cast("tuple[object, ...]", value))
            return items[0] if len(items) == 1 and not isinstance(items[0], ast.List) else ast.List(items)
        case Rank() if value.share:
            return ast.Number(float(value))
        case float():
            return ast.Number(_whole(value))
        case _:
            return _plain(value)


def _call(made: Invocation) -> ast.Call:
    arguments = [ast.Argument(None, _plain(a)) for a in made.arguments]
    return ast.Call(made.name, (*arguments, *(ast.Argument(k, _plain(v)) for k, v in made.keywords.items())))


def _chosen(value: Chosen) -> ast.Expr:
    """The name, with the settings that are not as they would be."""
    known = type(value).known(value.name)
    given = tuple(ast.Argument(k, _plain(v)) for k, v in value.settings.items() if v != known[k].default)
    return ast.Call(value.name, given) if given else ast.Path(value.name)


def _plain(value: object) -> ast.Expr:
    """The expression that `values.plain` reads as this value: a word stands bare where it can."""
    match value:
        case None:
            return ast.Path("none")
        case bool():
            return ast.Path("true" if value else "false")
        case float() if math.isinf(value):
            return ast.Path("inf")
        case int() | float():
            return ast.Number(value)
        case str():
            bare = value == AUTO or (value.isidentifier() and value not in RESERVED and value not in CONSTANTS)
            return ast.Path(value) if bare else ast.String(value)
        case tuple():
            return ast.List(tuple(_plain(v) for v in cast("tuple[object, ...]", value)))
        case Invocation():
            return _call(value)
        case Chosen():
            return _chosen(value)
        case _:
            raise TypeError(f"no expression for {type(value).__name__}: a field's type that `sentence` does not know")


def _bound(limit: Limit) -> ast.Expr:
    """The right side of a comparison: a number, a quantity with its unit, or a share of something."""
    if limit.dimension == "share":
        quantity = ast.Quantity(_percent(limit.value), "%")
    elif limit.dimension == "number":
        return ast.Number(limit.value)
    else:
        quantity = ast.Quantity(limit.value, _UNITS.get(limit.dimension, limit.dimension))
    return quantity if limit.of is None else ast.Relative(quantity, ast.Path(limit.of))


def _percent(share: float) -> int | float:
    """The shortest number whose hundredth is the share."""
    near = 100 * share
    for digits in range(17):
        if round(near, digits) / 100 == share:
            return _whole(round(near, digits))
    beside = (math.nextafter(near, -math.inf), near, math.nextafter(near, math.inf))
    return next((p for p in beside if p / 100 == share), near)


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value
