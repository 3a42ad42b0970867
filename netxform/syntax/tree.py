"""The grammar and what its rules become: Lark's parser, and the nodes of the tree.

text ─Lark (LALR)→ parse tree ─Builder→ nodes of `syntax.ast`
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

from lark import Lark, Token, Transformer, v_args
from lark.tree import Meta

from netxform.errors import Diagnostic, NetxformError, Span
from netxform.syntax import ast
from netxform.syntax.scan import Places
from netxform.syntax.tables import parser

N = TypeVar("N", bound=ast.Node)
KEYWORDS = ("model", "data", "param", "let", "use", "def", "each", "if", "stage", "assert")
_QTY = re.compile(r"(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(.+)")
_ESCAPE = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_DIGITS = 400


@cache
def lark() -> Lark:
    """The parser of specs (`start`), and of single values (`operand`)."""
    return parser()


def built(tree: Any, places: Places, base: int) -> Any:
    """The nodes of a parse tree; `base` is where its text begins."""
    if isinstance(tree, Token):
        raise AssertionError("no rule of the grammar is a bare token")
    return _Builder(places, base).transform(tree)


def _spanned(build: Callable[..., Any]) -> Callable[..., Any]:
    return cast("Callable[..., Any]", v_args(meta=True)(build))  # pyright: ignore[reportUnknownMemberType]


@dataclass(frozen=True, slots=True)
class _Domain:
    items: ast.List


class _Builder(Transformer[Token, Any]):
    """Every rule of the grammar as a node of the tree."""

    def __init__(self, places: Places, base: int) -> None:
        super().__init__(visit_tokens=False)
        self.places = places
        self.base = base

    def at(self, meta: Meta) -> Span:
        if meta.empty:
            return self.places.span(self.base, self.base)
        return self.places.span(self.base + meta.start_pos, self.base + meta.end_pos)

    def token(self, token: Token) -> Span:
        start, end = cast(int, token.start_pos), cast(int, token.end_pos)
        return self.places.span(self.base + start, self.base + end)

    @_spanned
    def start(self, meta: Meta, items: list[Any]) -> tuple[int | None, tuple[ast.Statement, ...]]:
        edition = items[0] if items and isinstance(items[0], int) else None
        return edition, tuple(i for i in items if not isinstance(i, int))

    @_spanned
    def header(self, meta: Meta, items: list[Any]) -> int:
        if not str(items[0]).isdigit():
            raise NetxformError([Diagnostic("X0108", "an edition is a whole number", self.at(meta), "not one")])
        return int(items[0])

    @_spanned
    def block(self, meta: Meta, items: list[Any]) -> tuple[ast.Statement, ...]:
        return tuple(items)

    @_spanned
    def model(self, meta: Meta, items: list[Any]) -> ast.Model:
        return ast.Model(_name(items[0]), items[1], tuple(items[2:]), span=self.at(meta))

    @_spanned
    def data(self, meta: Meta, items: list[Any]) -> ast.Data:
        return ast.Data(_name(items[0]), items[1], tuple(items[2:]), span=self.at(meta))

    @_spanned
    def param(self, meta: Meta, items: list[Any]) -> ast.Param:
        name, rest = _name(items[0]), items[1:]
        kind = next((str(i).removeprefix(":") for i in rest if isinstance(i, Token)), None)
        nodes: list[Any] = [i for i in rest if not isinstance(i, Token)]
        domain = next((i.items for i in nodes if isinstance(i, _Domain)), None)
        values = [i for i in nodes if not isinstance(i, _Domain)]
        return ast.Param(name, kind, values[0] if values else None, domain, span=self.at(meta))

    @_spanned
    def domain(self, meta: Meta, items: list[Any]) -> _Domain:
        return _Domain(items[0])

    @_spanned
    def let(self, meta: Meta, items: list[Any]) -> ast.Let:
        return ast.Let(_name(items[0]), items[1], span=self.at(meta))

    @_spanned
    def use(self, meta: Meta, items: list[Any]) -> ast.Use:
        alias = _name(items[1]) if len(items) > 1 else None
        return ast.Use(_unquote(items[0]), alias, span=self.at(meta))

    @_spanned
    def define(self, meta: Meta, items: list[Any]) -> ast.Def:
        return ast.Def(_name(items[0]), tuple(_name(i) for i in items[1:-1]), items[-1], span=self.at(meta))

    @_spanned
    def each(self, meta: Meta, items: list[Any]) -> ast.Each:
        return ast.Each(_name(items[0]), items[1], items[2], span=self.at(meta))

    @_spanned
    def branch(self, meta: Meta, items: list[Any]) -> ast.If:
        return ast.If(items[0], items[1], items[2] if len(items) > 2 else (), span=self.at(meta))

    @_spanned
    def stage(self, meta: Meta, items: list[Any]) -> ast.Stage:
        return ast.Stage(_name(items[0]), items[1], span=self.at(meta))

    @_spanned
    def assertion(self, meta: Meta, items: list[Any]) -> ast.Assert:
        message = _unquote(items[1]) if len(items) > 1 else None
        return ast.Assert(items[0], message, span=self.at(meta))

    @_spanned
    def binding(self, meta: Meta, items: list[Any]) -> ast.Binding:
        key = cast(Token, items[0])
        if str(key) in KEYWORDS:
            repair = f"write `{key} NAME = …`"
            found = Diagnostic("X0119", "a declaration needs a name", self.token(key), "no name follows", helps=(repair,))
            raise NetxformError([found])
        return ast.Binding(str(key), items[1], span=self.at(meta))

    @_spanned
    def command(self, meta: Meta, items: list[Any]) -> ast.Command:
        verb, rest = cast(Token, items[0]), items[1:]
        if str(verb) == "xform":
            raise NetxformError([Diagnostic("X0101", "`xform 1` stands on the first line", self.at(meta), "not first")])
        if str(verb) == "else":
            repair = "write `if COND { … } else { … }`, with `else` on the line of the `}`"
            raise NetxformError([Diagnostic("X0124", "`else` without an `if`", self.token(verb), "no `if`", helps=(repair,))])
        block = rest.pop() if rest and isinstance(rest[-1], tuple) else None
        clauses = tuple(i for i in rest if isinstance(i, ast.Preposition | ast.Option | ast.Factor))
        operands = tuple(i for i in rest if not isinstance(i, ast.Preposition | ast.Option | ast.Factor))
        return ast.Command(str(verb), operands, clauses, cast(Any, block), span=self.at(meta), verb_span=self.token(verb))

    @_spanned
    def invocation(self, meta: Meta, items: list[Any]) -> ast.Command:
        call = cast(ast.Call, items[0])
        block = items[1] if len(items) > 1 else None
        start = call.span.start
        place = self.places.span(start, start + len(call.name))
        return ast.Command(call.name, (call,), (), block, span=self.at(meta), verb_span=place)

    @_spanned
    def word(self, meta: Meta, items: list[Any]) -> str:
        return str(items[0])

    @_spanned
    def preposition(self, meta: Meta, items: list[Any]) -> ast.Preposition:
        return ast.Preposition(items[0], items[1], span=self.at(meta))

    @_spanned
    def option(self, meta: Meta, items: list[Any]) -> ast.Option:
        return ast.Option(str(items[0]), items[1], span=self.at(meta))

    @_spanned
    def factor(self, meta: Meta, items: list[Any]) -> ast.Factor:
        return ast.Factor(_number(str(items[0])[1:], self.at(meta)), span=self.at(meta))

    @_spanned
    def path(self, meta: Meta, items: list[Any]) -> ast.Path:
        text = str(items[0])
        return ast.Path(text.replace("`", ""), "`" in text, span=self.at(meta))

    @_spanned
    def typed(self, meta: Meta, items: list[Any]) -> ast.OfType:
        return ast.OfType(None, str(items[0])[1:], span=self.at(meta))

    @_spanned
    def of_type(self, meta: Meta, items: list[Any]) -> ast.OfType | ast.Op:
        base, name = items[0], str(items[1])[1:]
        if isinstance(base, ast.Path) and base.text == "op" and not base.quoted:
            return ast.Op(name, span=self.at(meta))
        return ast.OfType(base, name, span=self.at(meta))

    @_spanned
    def tensors(self, meta: Meta, items: list[Any]) -> ast.Tensors:
        return ast.Tensors(items[0], str(items[1])[2:], span=self.at(meta))

    @_spanned
    def regex(self, meta: Meta, items: list[Any]) -> ast.Regex:
        return ast.Regex(str(items[0])[1:-1].replace("\\/", "/"), span=self.at(meta))

    @_spanned
    def filtered(self, meta: Meta, items: list[Any]) -> ast.Filter:
        return ast.Filter(items[0], items[1], span=self.at(meta))

    @_spanned
    def maybe(self, meta: Meta, items: list[Any]) -> ast.Maybe:
        return ast.Maybe(items[0], span=self.at(meta))

    @_spanned
    def group(self, meta: Meta, items: list[Any]) -> Any:
        return items[0]

    @_spanned
    def call(self, meta: Meta, items: list[Any]) -> ast.Call:
        return ast.Call(str(items[0]), tuple(items[1:]), span=self.at(meta))

    @_spanned
    def named(self, meta: Meta, items: list[Any]) -> ast.Argument:
        return ast.Argument(str(items[0]), items[1], span=self.at(meta))

    @_spanned
    def positional(self, meta: Meta, items: list[Any]) -> ast.Argument:
        return ast.Argument(None, items[0], span=self.at(meta))

    @_spanned
    def sequence(self, meta: Meta, items: list[Any]) -> ast.List:
        return ast.List(tuple(items), span=self.at(meta))

    @_spanned
    def mapping(self, meta: Meta, items: list[Any]) -> ast.Mapping:
        return ast.Mapping(tuple(items), span=self.at(meta))

    @_spanned
    def pair(self, meta: Meta, items: list[Any]) -> ast.Pair:
        return ast.Pair(_unquote(items[0]), items[1], span=self.at(meta))

    @_spanned
    def number(self, meta: Meta, items: list[Any]) -> ast.Number:
        return ast.Number(_number(str(items[0]), self.at(meta)), span=self.at(meta))

    @_spanned
    def quantity(self, meta: Meta, items: list[Any]) -> ast.Quantity:
        found = _QTY.fullmatch(str(items[0]))
        assert found is not None
        return ast.Quantity(_number(found.group(1), self.at(meta)), found.group(2), span=self.at(meta))

    @_spanned
    def relative(self, meta: Meta, items: list[Any]) -> ast.Relative:
        place = self.token(items[1])
        return ast.Relative(items[0], ast.Path(str(items[1]).replace("`", ""), "`" in items[1], span=place), span=self.at(meta))

    @_spanned
    def string(self, meta: Meta, items: list[Any]) -> ast.String:
        return ast.String(_unquote(items[0]), span=self.at(meta))

    @_spanned
    def var(self, meta: Meta, items: list[Any]) -> ast.Var:
        return ast.Var(str(items[0])[1:], span=self.at(meta))

    @_spanned
    def union(self, meta: Meta, items: list[Any]) -> ast.Union:
        return ast.Union(tuple(items), span=self.at(meta))

    @_spanned
    def both(self, meta: Meta, items: list[Any]) -> ast.Intersection:
        return ast.Intersection(tuple(items), span=self.at(meta))

    @_spanned
    def minus(self, meta: Meta, items: list[Any]) -> ast.Difference:
        return ast.Difference(items[0], items[1], span=self.at(meta))

    @_spanned
    def comparison(self, meta: Meta, items: list[Any]) -> ast.Compare:
        return ast.Compare(cast(ast.CompareOp, str(items[1])), items[0], items[2], span=self.at(meta))

    @_spanned
    def member(self, meta: Meta, items: list[Any]) -> ast.Member:
        return ast.Member(items[0], items[1], span=self.at(meta))

    @_spanned
    def not_(self, meta: Meta, items: list[Any]) -> ast.Not:
        return ast.Not(items[0], span=self.at(meta))

    @_spanned
    def every(self, meta: Meta, items: list[Any]) -> ast.And:
        return ast.And(tuple(items), span=self.at(meta))

    @_spanned
    def either(self, meta: Meta, items: list[Any]) -> ast.Or:
        return ast.Or(tuple(items), span=self.at(meta))


def _name(token: Any) -> str:
    return str(token).replace("`", "")


def _number(text: str, span: Span) -> int | float:
    if len(text) > _DIGITS:
        raise NetxformError(
            [
                Diagnostic(
                    "X0115", "a number is too long", span, f"more than {_DIGITS} characters", helps=("write it as `1e30`",)
                )
            ]
        )
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        helps = ("write a smaller number",)
        raise NetxformError([Diagnostic("X0115", f"`{text}` is too large a number", span, "too large", helps=helps)])
    return value


def _unquote(token: Any) -> str:
    return re.sub(r"\\(.)", lambda m: _ESCAPE.get(m.group(1), m.group(1)), str(token)[1:-1])
