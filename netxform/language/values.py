"""What a clause of a verb may hold, and how an expression of the tree becomes it. No torch here.

The annotation of a verb's field is its type: `int`, `float`, `bool`, `str`, `Literal[…]`, a tuple of one of them, or one
of the classes below. `convert` turns an expression into a value of that type or returns what is wrong with it.
"""

# Long: one function a kind of value.
from __future__ import annotations

import math
import types
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin

from netxform.errors import NOWHERE, Diagnostic, NetxformError, Span, closest, fail
from netxform.graph.layer_spec import Invocation, Layer
from netxform.language.named import REQUIRED, Chosen, Registered, Setting
from netxform.language.rank import Rank
from netxform.syntax import ast
from netxform.syntax.format import format_node
from netxform.syntax.quantity import Measure, measure

CONSTANTS: dict[str, object] = {"true": True, "false": False, "none": None, "auto": "auto", "inf": math.inf}


@dataclass(frozen=True, slots=True)
class Selection:
    """A selection as written, to be evaluated against the network when the statement's turn comes."""

    expression: ast.Expr
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return format_node(self.expression)


@dataclass(frozen=True, slots=True)
class Name:
    """A bare word: the name of a declaration, of a metric, of a new module."""

    text: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Layers:
    """A block of layers, in order."""

    items: tuple[Layer, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Count:
    """A number of something that has a unit: `5epochs`, `1000steps`."""

    value: int
    unit: str


class Own:
    """The base of types that read an expression by themselves."""

    @classmethod
    def read(cls, expression: ast.Expr) -> Any:
        """The value. Raises NetxformError where the expression is none."""
        raise NotImplementedError

    @classmethod
    def words(cls) -> str:
        """The type in words."""
        raise NotImplementedError


def convert(expression: ast.Expr, want: Any) -> Any:
    """The value of `expression` as type `want`.

    Raises NetxformError X0401 (wrong kind of value) or X0402 (wrong unit), at the expression.
    """
    origin = get_origin(want)
    if origin in (Union, types.UnionType):
        return _one_of(expression, get_args(want))
    if want is None or want is type(None):
        if isinstance(expression, ast.Path) and expression.text == "none":
            return None
        raise wrong(expression, "`none`")
    if isinstance(want, type) and issubclass(want, Registered):
        return choice(expression, want.registry.names())
    if isinstance(want, type) and issubclass(want, Chosen):
        return named(expression, want)
    if isinstance(want, type) and issubclass(want, Own):
        return want.read(expression)
    if origin is Literal:
        return choice(expression, get_args(want))
    if origin is tuple:
        inner = get_args(want)[0]
        items = expression.items if isinstance(expression, ast.List) else (expression,)
        return tuple(convert(item, inner) for item in items)
    return _simple(expression, want)


def _simple(expression: ast.Expr, want: Any) -> Any:
    span = expression.span
    match want:
        case _ if want is Selection:
            if isinstance(expression, ast.Number | ast.Quantity | ast.String | ast.Relative | ast.Compare):
                raise wrong(expression, "a selection of modules")
            return Selection(expression, span)
        case _ if want is Name:
            if isinstance(expression, ast.Path):
                return Name(expression.text, span)
            raise wrong(expression, "a name")
        case _ if want is Invocation:
            return invocation(expression)
        case _ if want is bool:
            if isinstance(expression, ast.Path) and expression.text in ("true", "false"):
                return expression.text == "true"
            raise wrong(expression, "`true` or `false`")
        case _ if want is str:
            if isinstance(expression, ast.String):
                return expression.value
            if isinstance(expression, ast.Path):
                return expression.text
            raise wrong(expression, "a text")
        case _ if want is int:
            value = number(expression)
            if value != int(value):
                raise wrong(expression, "a whole number")
            return int(value)
        case _ if want is float:
            return float(number(expression))
        case _ if want is Rank:
            found = number(expression)
            return Rank(found, isinstance(found, float) or (isinstance(expression, ast.Quantity) and expression.unit == "%"))
        case _ if want is Count:
            return _count(expression)
        case _ if want is Measure:
            if isinstance(expression, ast.Number | ast.Quantity):
                return measure(expression)
            raise wrong(expression, "a quantity")
        case _:
            raise TypeError(f"no conversion to {want!r}: a verb's field has a type that `values` does not know")


def named(expression: ast.Expr, want: type[Chosen]) -> Chosen:
    """A name with its settings, each of the type that the thing states.

    Raises NetxformError X0401 (unknown name, wrong kind), X0404 (unknown setting), X0406 (out of range), X0408 (one is
    missing).
    """
    call = expression if isinstance(expression, ast.Call) else None
    name = call.name if call is not None else choice(expression, want.registry.names())
    if name not in want.registry:
        name = choice(ast.Path(name, span=expression.span), want.registry.names())
    known = want.known(name)
    settings = {n: s.default for n, s in known.items()}
    for argument in call.arguments if call is not None else ():
        if argument.key is None:
            helps = tuple(f"write `{name}({n}=…)`" for n in known)[:1]
            raise fail("X0401", f"settings of `{name}` are named", argument.value.span, "without a name", helps=helps)
        if argument.key not in known:
            helps = tuple(f"did you mean `{n}`?" for n in closest(argument.key, list(known)))
            helps = helps or (f"settings: {', '.join(known)}" if known else f"write `{name}`",)
            raise fail("X0404", f"`{name}` has no setting `{argument.key}`", argument.span, "unknown", helps=helps)
        settings[argument.key] = _set(argument.value, known[argument.key], argument.key)
    for key, value in settings.items():
        if value is REQUIRED:
            form = f"write `{name}({key}={known[key].example or '…'})`"
            raise fail("X0408", f"`{name}` needs `{key}`", expression.span, "incomplete", helps=(form,))
    return want(name, settings)


def _set(expression: ast.Expr, setting: Setting, key: str) -> Any:
    if setting.default is None and isinstance(expression, ast.Path) and expression.text == "none":
        return None
    if setting.kind == "switch":
        return convert(expression, bool)
    if setting.kind == "weights":
        if isinstance(expression, ast.Path) and expression.text == "balanced":
            return "balanced"
        several = isinstance(expression, ast.List)
        values = tuple(float(number(i)) for i in (expression.items if isinstance(expression, ast.List) else (expression,)))
        value: Any = values if several else values[0]
    else:
        value = convert(expression, int if setting.kind == "whole" else float)
        values = (value,)
    for one in values:
        if not setting.low <= one <= setting.high:
            top = "" if setting.high == math.inf else f" and at most {setting.high:g}"
            raise fail("X0406", f"`{key}` is at least {setting.low:g}{top}, not {one:g}", expression.span, key)
    return value


def number(expression: ast.Expr) -> int | float:
    """A number without a unit (`10`, `1e-3`, `10k`, `5%` as a share)."""
    if isinstance(expression, ast.Number):
        value = expression.value
    elif isinstance(expression, ast.Quantity):
        found = measure(expression)
        if found.dimension not in ("number", "share"):
            raise fail(
                "X0402",
                f"`{format_node(expression)}` is a quantity of {found.dimension}; here stands a plain number",
                expression.span,
                "has a unit",
                helps=(f"write `{expression.value}`",),
            )
        value = found.value
    else:
        raise wrong(expression, "a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(expression, "a finite number")
    return value


def plain(expression: ast.Expr) -> Any:
    """An expression as plain data: numbers, texts, lists, words. Calls inside become `Invocation`."""
    match expression:
        case ast.Number():
            return number(expression)
        case ast.Quantity():
            return measure(expression).value
        case ast.String():
            return expression.value
        case ast.List():
            return tuple(plain(item) for item in expression.items)
        case ast.Mapping():
            return {item.key: plain(item.value) for item in expression.items}
        case ast.Path():
            return CONSTANTS.get(expression.text, expression.text)
        case ast.Call():
            return invocation(expression)
        case ast.Var():
            raise unbound(expression)
        case _:
            raise wrong(expression, "a value")


def invocation(expression: ast.Expr) -> Invocation:
    """`adamw(lr=1e-3)`, or a bare `adamw`, with its arguments as plain data."""
    if isinstance(expression, ast.Path):
        return Invocation(expression.text, span=expression.span)
    if not isinstance(expression, ast.Call):
        raise wrong(expression, "a name with arguments, such as `adamw(lr=1e-3)`")
    positional: list[Any] = []
    keywords: dict[str, object] = {}
    for argument in expression.arguments:
        if argument.key is None:
            if keywords:
                raise fail(
                    "X0401",
                    "a positional argument after a named one",
                    argument.value.span,
                    "after a named one",
                    helps=("move it forward",),
                )
            positional.append(plain(argument.value))
        elif argument.key in keywords:
            raise fail("X0401", f"`{argument.key}` is given twice", argument.span, "second time", helps=("leave one of them",))
        else:
            keywords[argument.key] = plain(argument.value)
    return Invocation(expression.name, tuple(positional), keywords, expression.span)


def unbound(expression: ast.Var) -> NetxformError:
    """The error for a `$name` without a `param`."""
    return fail(
        "X0403",
        f"`${expression.name}` is not declared",
        expression.span,
        "unknown parameter",
        helps=(f"declare it: `param {expression.name} = …`",),
    )


def describe(want: Any) -> str:
    """A type in words, for messages and `explain`."""
    origin = get_origin(want)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in get_args(want) if a is not type(None))
    if origin is Literal:
        return "|".join(str(a) for a in get_args(want))
    if isinstance(want, type) and issubclass(want, Own):
        return want.words()
    if isinstance(want, type) and issubclass(want, Registered | Chosen):
        return "|".join(want.registry.names())
    if origin is tuple:
        return f"a list of {describe(get_args(want)[0])}"
    names: dict[Any, str] = {
        Selection: "a selection",
        Name: "a name",
        Invocation: "a name with arguments",
        Layers: "a block of layers",
        Count: "a number of epochs or steps",
        Measure: "a quantity",
        int: "a whole number",
        float: "a number",
        Rank: "a number",
        bool: "true or false",
        str: "a text",
    }
    return names.get(want, str(want))


def _one_of(expression: ast.Expr, options: tuple[Any, ...]) -> Any:
    literals = [o for o in options if get_origin(o) is Literal]
    kept = wrong(expression, "a value")
    for option in (*literals, *(o for o in options if o not in literals)):
        try:
            return convert(expression, option)
        except NetxformError as error:
            kept = error
            if error.diagnostics[0].code == "X0402":
                raise
    real = tuple(o for o in options if o is not type(None))
    if len(real) == 1:
        return convert(expression, real[0])
    if real:
        raise wrong(expression, " or ".join(describe(o) for o in real))
    raise kept


def choice(expression: ast.Expr, options: tuple[Any, ...]) -> Any:
    """The word of the expression, one of the options. Raises NetxformError X0401."""
    text = None
    if isinstance(expression, ast.Path):
        text = expression.text
    elif isinstance(expression, ast.String):
        text = expression.value
    if text in options:
        return text
    near = closest(text or "", [str(o) for o in options])
    raise NetxformError(
        [
            Diagnostic(
                "X0401",
                f"`{format_node(expression)}` is not one of {', '.join(f'`{o}`' for o in options)}",
                expression.span,
                "not a choice here",
                helps=tuple(f"did you mean `{n}`?" for n in near) or ("choose one of these",),
            )
        ]
    )


def _count(expression: ast.Expr) -> Count:
    if isinstance(expression, ast.Quantity):
        found = measure(expression)
        if found.dimension in ("epochs", "steps"):
            if found.value < 1 or found.value != int(found.value):
                raise wrong(expression, f"a whole number of {found.dimension}, at least 1")
            return Count(int(found.value), found.dimension)
        raise fail(
            "X0402",
            f"`{format_node(expression)}` is a quantity of {found.dimension}; here stands a number of epochs or steps",
            expression.span,
            "wrong unit",
            helps=("write `5epochs` or `1000steps`",),
        )
    if isinstance(expression, ast.Number):
        raise fail(
            "X0402",
            f"`{format_node(expression)}` has no unit; here stands a number of epochs or steps",
            expression.span,
            "epochs or steps?",
            helps=(f"write `{format_node(expression)}epochs` or `{format_node(expression)}steps`",),
        )
    raise wrong(expression, "a number of epochs or steps")


def wrong(expression: ast.Expr, wanted: str) -> NetxformError:
    """The error for an expression of another kind than `wanted`."""
    if isinstance(expression, ast.Var):
        return unbound(expression)
    return fail(
        "X0401",
        f"`{format_node(expression)}` stands where {wanted} is expected",
        expression.span,
        f"expected {wanted}",
        helps=(f"write {wanted}",),
    )
