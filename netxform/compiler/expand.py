"""Text-level meaning: inclusion, parameters and macros are put in; what is left is statements about networks.

Program ─expand→ Program (no `use`, no `def`, no `$name`; `if` gone where the text alone decides it)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from netxform.compiler.budget import MOST_TEXT, Budget
from netxform.errors import NOWHERE, Findings, Label, NetxformError, Span, closest
from netxform.language.limit import compare
from netxform.language.values import number, plain, unbound
from netxform.sources.files import read_text
from netxform.sources.trust import Trust, read_path
from netxform.syntax import ast
from netxform.syntax.format import format_node
from netxform.syntax.parse import parse, parse_expression

N = TypeVar("N")
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
_DEPTH = 32
_CALLS = 64
_CIRCLE = ("take the common part into a file of its own",)


@dataclass(frozen=True, slots=True)
class ParamValue:
    """The value of a `param` and where it came from: `default`, `-p` or `argument`."""

    name: str
    value: ast.Expr
    origin: str
    span: Span


@dataclass
class _State:
    trust: Trust
    overrides: Mapping[str, Any]
    findings: Findings = field(default_factory=Findings)
    params: dict[str, ParamValue] = field(default_factory=dict[str, ParamValue])
    macros: dict[str, ast.Def] = field(default_factory=dict[str, ast.Def])
    sources: dict[str, str] = field(default_factory=dict[str, str])
    budget: Budget = field(default_factory=Budget)
    parsed: dict[str, tuple[ast.Statement, ...]] = field(default_factory=dict[str, "tuple[ast.Statement, ...]"])


@dataclass(frozen=True, slots=True)
class Expanded:
    """The expanded program, its parameters, and the text of every file that it was read from."""

    program: ast.Program
    params: dict[str, ParamValue]
    sources: dict[str, str]


def expand(program: ast.Program, overrides: Mapping[str, Any], trust: Trust) -> Expanded:
    """Put in files, parameters and macros. Raises NetxformError with every finding (X0104–X0107, X04xx, X09xx)."""
    state = _State(trust, overrides)
    state.sources[program.file] = program.source
    try:
        statements = _block(program.statements, state, (program.file,), ())
    except NetxformError as error:
        state.findings.items += error.diagnostics
        statements = ()
    known = list(state.params)
    for name in overrides:
        if name not in state.params:
            near = closest(name, known)
            state.findings.add(
                "X0403",
                f"`-p {name}=…`: the spec has no parameter `{name}`",
                helps=tuple(f"did you mean `{n}`?" for n in near) or (f"parameters: {', '.join(known) or 'none'}",),
            )
    state.findings.raise_if_any(state.sources)
    return Expanded(replace(program, statements=statements), state.params, state.sources)


def _block(
    statements: tuple[ast.Statement, ...], state: _State, files: tuple[str, ...], calls: tuple[str, ...]
) -> tuple[ast.Statement, ...]:
    out: list[ast.Statement] = []
    for statement in statements:
        if state.budget.crossed:
            break
        try:
            state.budget.statement(statement.span)
            out += _statement(statement, state, files, calls)
        except NetxformError as error:
            state.findings.items += error.diagnostics
    return tuple(out)


def _statement(
    statement: ast.Statement, state: _State, files: tuple[str, ...], calls: tuple[str, ...]
) -> tuple[ast.Statement, ...]:
    match statement:
        case ast.Param():
            _declare(statement, state)
            return ()
        case ast.Def():
            if statement.name in state.macros:
                state.findings.add(
                    "X0303",
                    f"macro `{statement.name}` is defined twice",
                    statement.span,
                    "second definition",
                    helps=("give one of them another name",),
                    secondary=(Label(state.macros[statement.name].span, "first definition"),),
                )
            state.macros[statement.name] = statement
            return ()
        case ast.Use():
            return _include(statement, state, files, calls)
        case ast.Command() if statement.verb in state.macros:
            return _call(statement, state, files, calls)
        case ast.If():
            condition = _values(statement.condition, state)
            decided = decide(condition)
            if decided is None:
                return (
                    replace(
                        statement,
                        condition=condition,
                        then=_block(statement.then, state, files, calls),
                        otherwise=_block(statement.otherwise, state, files, calls),
                    ),
                )
            return _block(statement.then if decided else statement.otherwise, state, files, calls)
        case ast.Each():
            body = _block(statement.body, state, files, calls)
            return (replace(statement, selection=_values(statement.selection, state), body=body),)
        case ast.Stage():
            return (replace(statement, body=_block(statement.body, state, files, calls)),)
        case _:
            return (_values(statement, state),)


def _declare(statement: ast.Param, state: _State) -> None:
    name = statement.name
    if name in state.params:
        first = state.params[name].span
        state.findings.add(
            "X0303",
            f"parameter `{name}` is declared twice",
            statement.span,
            "second time",
            secondary=(Label(first, "first"),),
            helps=("give one of them another name",),
        )
        return
    if name in state.overrides:
        given = state.overrides[name]
        value = parse_expression(given, f"<-p {name}>") if isinstance(given, str) else literal(given)
        if statement.type == "str" and isinstance(given, str):
            value = ast.String(given)
        origin = "-p"
    elif statement.default is not None:
        value, origin = _values(statement.default, state), "default"
    else:
        state.findings.add(
            "X0403", f"parameter `{name}` has no value", statement.span, "no default", helps=(f"give it: -p {name}=…",)
        )
        return
    _check_param(statement, value, origin, state)
    state.params[name] = ParamValue(name, value, origin, statement.span)


def _check_param(statement: ast.Param, value: ast.Expr, origin: str, state: _State) -> None:
    shown = format_node(value)
    place = statement.span if origin == "-p" else value.span if value.span.line else statement.span
    if statement.type is not None:
        kinds = _TYPES.get(statement.type)
        if kinds is None:
            state.findings.add(
                "X0405",
                f"`{statement.type}` is not a type of parameters",
                statement.span,
                "unknown type",
                helps=tuple(f"did you mean `{n}`?" for n in closest(statement.type, _TYPES))
                or (f"types: {', '.join(_TYPES)}",),
            )
            return
        found = plain(value)
        if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
            state.findings.add(
                "X0401",
                f"parameter `{statement.name}` is `{shown}`, which is no {statement.type}",
                place,
                f"from {origin}",
                helps=(f"write a value of that type, or declare another: `param {statement.name}: TYPE`",),
            )
            return
    if statement.domain is not None:
        low_high = tuple(number(i) for i in statement.domain.items)
        if len(low_high) != 2:
            helps = ("write the least and the greatest value: `in [1, 10]`",)
            state.findings.add("X0401", "a range has two ends: `in [lo, hi]`", statement.domain.span, "not two", helps=helps)
        elif not low_high[0] <= number(value) <= low_high[1]:
            state.findings.add(
                "X0406",
                f"parameter `{statement.name}` is {shown}, outside [{low_high[0]}, {low_high[1]}]",
                place,
                f"from {origin}",
                secondary=(Label(statement.domain.span, "the range"),) if origin != "-p" else (),
                helps=(f"choose a value from {low_high[0]} to {low_high[1]}, or widen the range",),
            )


def literal(value: Any) -> ast.Expr:
    """A plain Python value as an expression of the tree. Raises TypeError for anything else."""
    if isinstance(value, bool):
        return ast.Path("true" if value else "false")
    if value is None:
        return ast.Path("none")
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return ast.Number(value)
    if isinstance(value, str):
        return ast.String(value)
    if isinstance(value, list | tuple):
        return ast.List(tuple(literal(v) for v in cast("list[Any]", value)))
    raise TypeError(f"a parameter is a number, a text, a bool or a list of them, not {type(value).__name__}")


def _include(statement: ast.Use, state: _State, files: tuple[str, ...], calls: tuple[str, ...]) -> tuple[ast.Statement, ...]:
    path = read_path(statement.file, state.trust, statement.span)
    name = str(path)
    if name in files:
        state.findings.add("X0104", f"`{statement.file}` includes itself", statement.span, "a circle of `use`", helps=_CIRCLE)
        return ()
    if len(files) > _DEPTH:
        state.findings.add("X0104", "files include each other too deeply", statement.span, f"more than {_DEPTH}", helps=_CIRCLE)
        return ()
    if name not in state.parsed:
        state.sources[name] = read_text(path, statement.span, statement.file)
        state.parsed[name] = parse(state.sources[name], name).statements
    inner = state.parsed[name]
    if statement.alias is not None:
        inner = _namespace(inner, statement.alias)
    state.budget.open.append(statement.span)
    try:
        state.budget.spend(inner, statement.span, MOST_TEXT)
        return _block(inner, state, (*files, name), calls)
    finally:
        state.budget.open.pop()


def _namespace(statements: tuple[ast.Statement, ...], alias: str) -> tuple[ast.Statement, ...]:
    """Prefix every declared name, and every mention of one, with `alias.`."""
    named = (ast.Model, ast.Data, ast.Param, ast.Let, ast.Def)
    names = {s.name for s in statements if isinstance(s, named)}

    def visit(node: Any) -> Any:
        match node:
            case ast.Path() if node.text.split(".")[0] in names:
                return replace(node, text=f"{alias}.{node.text}")
            case ast.Var() if node.name in names:
                return replace(node, name=f"{alias}.{node.name}")
            case ast.Command() if node.verb in names:
                return replace(node, verb=f"{alias}.{node.verb}")
            case ast.Model() | ast.Data() | ast.Param() | ast.Let() | ast.Def() if node.name in names:
                return replace(node, name=f"{alias}.{node.name}")
            case _:
                return node

    return tuple(rebuild(s, visit) for s in statements)


def _call(statement: ast.Command, state: _State, files: tuple[str, ...], calls: tuple[str, ...]) -> tuple[ast.Statement, ...]:
    macro = state.macros[statement.verb]
    if statement.verb in calls:
        state.findings.add(
            "X0105",
            f"macro `{statement.verb}` calls itself",
            statement.span,
            "recursion",
            helps=("repeat by `each NAME in SELECTION { … }`",),
            secondary=(Label(macro.span, "defined here"),),
        )
        return ()
    given = (
        statement.operands[0].arguments if len(statement.operands) == 1 and isinstance(statement.operands[0], ast.Call) else ()
    )
    arguments = {a.key or macro.parameters[i]: a.value for i, a in enumerate(given) if i < len(macro.parameters)}
    wrong = set(arguments) ^ set(macro.parameters)
    if len(given) != len(macro.parameters) or wrong:
        state.findings.add(
            "X0106",
            f"macro `{statement.verb}` takes ({', '.join(macro.parameters)})",
            statement.span,
            f"{len(given)} given",
            helps=(f"write `{statement.verb}({', '.join(macro.parameters)})`",),
            secondary=(Label(macro.span, "defined here"),),
        )
        return ()

    def visit(node: Any) -> Any:
        match node:
            case ast.Path() if not node.quoted and node.text in arguments:
                return arguments[node.text]
            case ast.Path() if not node.quoted and node.text.split(".")[0] in arguments:
                head, _, rest = node.text.partition(".")
                base = arguments[head]
                return replace(node, text=f"{base.text}.{rest}") if isinstance(base, ast.Path) else node
            case ast.Var() if node.name in arguments:
                return arguments[node.name]
            case _:
                return node

    if len(calls) >= _CALLS:
        message, helps = f"macros call each other more than {_CALLS} deep", ("write what they do in fewer steps",)
        state.findings.add("X0102", message, statement.span, "here", helps=helps)
        return ()
    state.budget.open.append(statement.span)
    try:
        body = tuple(rebuild(s, visit) for s in macro.body)
        state.budget.spend(body, statement.span, MOST_TEXT // 4)
        return _block(body, state, files, (*calls, statement.verb))
    finally:
        state.budget.open.pop()


def _values(node: N, state: _State) -> N:
    """Replace every `$name` by its value."""

    def visit(inner: Any) -> Any:
        if isinstance(inner, ast.Var):
            if inner.name not in state.params:
                error = unbound(inner)
                near = closest(inner.name, state.params)
                first = replace(error.diagnostics[0], helps=tuple(f"did you mean `${n}`?" for n in near))
                raise NetxformError([first if near else error.diagnostics[0]])
            return replace(state.params[inner.name].value, span=inner.span)
        return inner

    made = rebuild(node, visit)
    state.budget.spend(made, getattr(made, "span", NOWHERE))
    return made


def rebuild(node: Any, visit: Callable[[Any], Any]) -> Any:
    """The tree with `visit` applied to every node, children first; unchanged nodes are kept as they are."""
    if isinstance(node, tuple):
        items = cast("tuple[Any, ...]", node)
        made = tuple(rebuild(i, visit) for i in items)
        return made if any(a is not b for a, b in zip(made, items, strict=True)) else items
    if not isinstance(node, ast.Node):
        return node
    changes: dict[str, object] = {}
    for item in dataclasses.fields(node):
        old = getattr(node, item.name)
        if isinstance(old, ast.Node | tuple):
            new = rebuild(old, visit)
            if new is not old:
                changes[item.name] = new
    return visit(replace(node, **changes) if changes else node)


def decide(condition: ast.Condition) -> bool | None:
    """What plain values alone decide; None where a name has to be looked up later."""
    match condition:
        case ast.And(items=items) | ast.Or(items=items):
            parts = [decide(i) for i in items]
            absorbing = isinstance(condition, ast.Or)
            if absorbing in parts:
                return absorbing
            return None if None in parts else not absorbing
        case ast.Not():
            inner = decide(condition.condition)
            return None if inner is None else not inner
        case ast.Compare():
            left, right = _plain(condition.left), _plain(condition.right)
            if left is None or right is None:
                return None
            return compare(condition.op, left[0], right[0], condition.span)
        case ast.Member():
            item = _plain(condition.item)
            others = [_plain(i) for i in condition.items.items]
            if item is None or None in others:
                return None
            return item[0] in [o[0] for o in others if o is not None]


def _plain(expression: ast.Expr) -> tuple[Any] | None:
    if isinstance(expression, ast.Number | ast.Quantity | ast.String):
        return (plain(expression),)
    if isinstance(expression, ast.Path) and expression.text in ("true", "false"):
        return (expression.text == "true",)
    return None
