"""Tree to text, canonically: `parse(format(tree)) == tree`, and formatting twice changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import assert_never, cast

from netxform.syntax import ast

_PLAIN = re.compile(
    r"\.?(\*\*|(?!\d)(?:[\w*]|\{[\w*.,]+\}|(?<=\w)-(?=[A-Za-z]))+|(?<=\.)\d+)(\.(?:[\w*]|\{[\w*.,]+\}|(?<=\w)-(?=[A-Za-z]))+)*"
)
RESERVED = frozenset(
    "model data param let use def each if else stage assert xform in of as and or not at after before to from into with "
    "within using by until where over expect keep via for on against regularize".split()
)


def format(program: ast.Program) -> str:
    """The canonical text of a program: one statement a line, blocks indented by two, blank lines kept as single ones."""
    lines: list[str] = []
    if program.edition is not None:
        lines.append(f"xform {program.edition}")
    lines += _lines(program.statements, "")
    lines += [f"# {c}".rstrip() for c in program.tail]
    return "\n".join(lines) + ("\n" if lines else "")


def format_node(node: ast.Node) -> str:
    """One expression, condition, clause or statement as text, without comments; a statement's block in one line."""
    if isinstance(node, ast.Line):
        return _statement(cast(ast.Statement, node), "; ")
    return _expression(cast("ast.Expr | ast.Condition | ast.Clause | ast.Argument", node))


def _lines(statements: tuple[ast.Statement, ...], indent: str) -> list[str]:
    out: list[str] = []
    last = 0
    for statement in statements:
        first = statement.span.line - len(statement.comments)
        if last and statement.span.line and first > last + 1:
            out.append("")
        out += [f"{indent}# {c}".rstrip() for c in statement.comments]
        text = _statement(statement, "\n" + indent)
        if statement.trailing is not None:
            head, newline, rest = text.partition("\n")
            # beside a block the comment stands after the closing brace: that is where it is read back from
            text = f"{text}  # {statement.trailing}".rstrip() if not newline else f"{head}\n{rest}  # {statement.trailing}"
        out += [line if i else indent + line for i, line in enumerate(text.split("\n"))]
        last = statement.span.end_line
    return out


def _statement(statement: ast.Statement, newline: str) -> str:
    match statement:
        case ast.Model():
            return _join(["model", _name(statement.name), "=", _expression(statement.source), *_each(statement.options)])
        case ast.Data():
            return _join(["data", _name(statement.name), "=", _expression(statement.source), *_each(statement.options)])
        case ast.Param():
            text = f"param {_name(statement.name)}" + (f": {statement.type}" if statement.type else "")
            text += f" = {_expression(statement.default)}" if statement.default is not None else ""
            return text + (f" in {_expression(statement.domain)}" if statement.domain is not None else "")
        case ast.Let():
            return f"let {_name(statement.name)} = {_expression(statement.value)}"
        case ast.Use():
            return f"use {_string(statement.file)}" + (f" as {_name(statement.alias)}" if statement.alias else "")
        case ast.Def():
            return f"def {statement.name}({', '.join(_name(p) for p in statement.parameters)}) " + _block(
                statement.body, newline
            )
        case ast.Each():
            return f"each {_name(statement.name)} in {_expression(statement.selection)} " + _block(statement.body, newline)
        case ast.If():
            text = f"if {_expression(statement.condition)} " + _block(statement.then, newline)
            return text + (" else " + _block(statement.otherwise, newline) if statement.otherwise else "")
        case ast.Stage():
            return f"stage {_name(statement.name)} " + _block(statement.body, newline)
        case ast.Assert():
            text = f"assert {_expression(statement.condition)}"
            return text + (f", {_string(statement.message)}" if statement.message is not None else "")
        case ast.Binding():
            return f"{statement.name} = {_expression(statement.value)}"
        case ast.Command():
            first = statement.operands[0] if statement.operands else None
            called = isinstance(first, ast.Call) and first.name == statement.verb
            parts = [] if called else [statement.verb]
            parts += [*_each(statement.operands), *_each(statement.clauses)]
            if statement.block is not None:
                parts.append(_block(statement.block, newline))
            return _join(parts)
        case _:
            assert_never(statement)


def _block(body: tuple[ast.Statement, ...], newline: str) -> str:
    if not body:
        return "{ }"
    if newline == "; ":
        return "{ " + "; ".join(_statement(s, newline) for s in body) + " }"
    inner = newline.removeprefix("\n") + "  "
    return "{\n" + "\n".join(_lines(body, inner)) + newline + "}"


def _each(nodes: Iterable[ast.Node]) -> list[str]:
    return [_expression(cast("ast.Expr", n)) for n in nodes]


def _join(parts: list[str]) -> str:
    return " ".join(parts)


def _expression(node: ast.Expr | ast.Condition | ast.Clause | ast.Argument | ast.Pair, tight: int = 0) -> str:
    """`tight`: 0 whole value, 1 inside `|`, 2 inside `&`, 3 right of `-`, 4 before a suffix."""
    match node:
        case ast.Path():
            return _path(node)
        case ast.OfType():
            base = "" if node.base is None else _expression(node.base, 4)
            return f"{base}:{node.type}"
        case ast.Tensors():
            return f"{_expression(node.base, 4)}::{node.name}"
        case ast.Filter():
            return f"{_expression(node.base, 4)}[{_expression(node.condition)}]"
        case ast.Maybe():
            return f"{_expression(node.base, 4)}?"
        case ast.Regex():
            return f"/{node.pattern.replace('/', chr(92) + '/')}/"
        case ast.Op():
            return f"op:{node.name}"
        case ast.Call():
            return f"{node.name}({', '.join(_expression(a) for a in node.arguments)})"
        case ast.Argument():
            return (f"{node.key}=" if node.key is not None else "") + _expression(node.value)
        case ast.Union():
            return _wrap(" | ".join(_expression(i, 1) for i in node.items), tight > 0)
        case ast.Intersection():
            return _wrap(" & ".join(_expression(i, 2) for i in node.items), tight > 1)
        case ast.Difference():
            return _wrap(f"{_expression(node.left, 2)} - {_expression(node.right, 3)}", tight > 2)
        case ast.Number():
            return _number(node.value)
        case ast.Quantity():
            return _number(node.value) + node.unit
        case ast.Relative():
            return f"{_expression(node.quantity)} of {_path(node.of)}"
        case ast.String():
            return _string(node.value)
        case ast.Var():
            return f"${node.name}"
        case ast.List():
            return f"[{', '.join(_expression(i) for i in node.items)}]"
        case ast.Mapping():
            return "{" + ", ".join(_expression(i) for i in node.items) + "}"
        case ast.Pair():
            return f"{_string(node.key)}: {_expression(node.value)}"
        case ast.Compare():
            return f"{_expression(node.left)} {node.op} {_expression(node.right)}"
        case ast.Member():
            return f"{_expression(node.item)} in {_expression(node.items)}"
        case ast.Not():
            return f"not {_condition(node.condition, 2)}"
        case ast.And():
            return " and ".join(_condition(i, 1) for i in node.items)
        case ast.Or():
            return " or ".join(_condition(i, 0) for i in node.items)
        case ast.Preposition():
            return f"{node.word} {_expression(node.operand)}"
        case ast.Option():
            return f"{node.key}={_expression(node.value)}"
        case ast.Factor():
            return f"x{_number(node.value)}"
        case _:
            assert_never(node)


def _condition(node: ast.Condition, level: int) -> str:
    loose = isinstance(node, ast.Or) or (level > 0 and isinstance(node, ast.And))
    return _wrap(_expression(node), loose)


def _wrap(text: str, needed: bool) -> str:
    return f"({text})" if needed else text


def _path(node: ast.Path) -> str:
    text = node.text
    if not node.quoted and text not in RESERVED and _PLAIN.fullmatch(text):
        return text
    lead = "." if text.startswith(".") else ""
    body = text.removeprefix(".")
    return lead + ".".join(f"`{s}`" for s in body.split("."))


def _name(text: str) -> str:
    return _path(ast.Path(text))


def _number(value: int | float) -> str:
    if isinstance(value, int):
        return str(value)
    text = repr(value)
    for digits in range(17):
        mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
        short = f"{mantissa}e{int(exponent)}"
        if float(short) == value:
            return short if len(short) < len(text) else text
    return text


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
