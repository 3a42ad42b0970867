"""Text to tree: the only file that knows Lark.

    text ─scan→ cleaned text, statements, comments ─Lark (LALR)→ Program

A text with errors is parsed again statement by statement, so that every error is found; each is classified by the example in
`mistakes.xform` that fails in the same parser state.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, cast

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken, VisitError
from lark.tree import Meta

from netxform.collector import paused
from netxform.errors import Diagnostic, NetxformError, Span, closest
from netxform.syntax import ast
from netxform.syntax.scan import Piece, Places, Scanned, scan

N = TypeVar("N", bound=ast.Node)
KEYWORDS = ("model", "data", "param", "let", "use", "def", "each", "if", "stage", "assert")
_QTY = re.compile(r"(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(.+)")
_ESCAPE = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_DIGITS = 400


def parse(text: str, file: str = "<spec>") -> ast.Program:
    """The tree of a text. Raises NetxformError with every syntax error (X01xx), each at its place."""
    places = Places(text, file)
    scanned = scan(text, places)
    if scanned.faults:
        raise NetxformError(scanned.faults, {file: text})
    with paused():
        try:
            edition, statements = _tree(_lark("start").parse(scanned.clean + "\n"), places, 0)
        except (UnexpectedInput, VisitError):
            found = _recover(scanned, places)
            raise NetxformError(found, {file: text}) from None
        statements, tail = _comments(statements, scanned, places)
        return ast.Program(edition, statements, file, text, tail)


def parse_expression(text: str, file: str = "<value>") -> ast.Expr:
    """One expression (a selection or a value). Raises NetxformError X01xx."""
    places = Places(text, file)
    scanned = scan(text, places)
    if scanned.faults:
        raise NetxformError(scanned.faults, {file: text})
    try:
        return cast(ast.Expr, _tree(_lark("operand").parse(scanned.clean), places, 0))
    except (UnexpectedInput, VisitError) as error:
        raise NetxformError([_diagnose(error, "operand", scanned.clean, places, 0)], {file: text}) from None


def _grammar(name: str) -> str:
    """A file of the grammar: from the installed package, or from a checkout that is run in place."""
    try:
        return files("netxform.grammar").joinpath(name).read_text(encoding="utf-8")
    except ModuleNotFoundError:
        return (Path(__file__).parents[2] / "grammar" / name).read_text(encoding="utf-8")


@lru_cache(maxsize=4)
def _lark(start: str) -> Lark:
    source = _grammar("xform.lark")
    return Lark(
        source,
        parser="lalr",
        lexer="contextual",
        start=start,
        propagate_positions=True,
        maybe_placeholders=False,
    )


def _tree(tree: Any, places: Places, base: int) -> Any:
    if isinstance(tree, Token):
        raise AssertionError("no rule of the grammar is a bare token")
    return _Builder(places, base).transform(tree)


# --- errors ----------------------------------------------------------------------------------------------------------


def _recover(scanned: Scanned, places: Places) -> list[Diagnostic]:
    """Every statement by itself; a statement with blocks without their insides, then the insides."""
    found: list[Diagnostic] = []

    def visit(pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            text = scanned.clean[piece.start : piece.end]
            for start, end in piece.blocks:
                a, b = start - piece.start, end - piece.start
                text = text[:a] + " " * (b - a) + text[b:]
            try:
                _tree(_lark("start").parse(text + "\n"), places, piece.start)
            except (UnexpectedInput, VisitError) as error:
                found.append(_diagnose(error, "start", text, places, piece.start))
            visit(piece.inner)

    visit(scanned.pieces)
    if not found:  # each statement is right by itself: what is wrong is their order
        at = next((p for p in scanned.pieces if scanned.clean[p.start : p.end].split()[:1] == ["xform"]), None)
        span = places.span(at.start, at.end) if at else places.span(0, 1)
        found.append(Diagnostic("X0101", "`xform 1` stands on the first line", span, "not first"))
    return found


def _diagnose(error: Exception, start: str, text: str, places: Places, base: int) -> Diagnostic:
    if isinstance(error, VisitError):
        if isinstance(error.orig_exc, NetxformError):
            return error.orig_exc.diagnostics[0]
        raise error.orig_exc
    if isinstance(error, UnexpectedToken):
        token = cast(Token, error.token)  # pyright: ignore[reportUnknownMemberType]
        ended = token.type == "$END"
        stop = len(text.rstrip())
        at = stop if ended else cast(int, token.start_pos)
        word = "" if ended else str(token)
    else:
        at = cast(int, getattr(error, "pos_in_stream", len(text)))
        word = text[at : at + 1]
        if word and not word.isprintable():
            word = f"\\x{ord(word):02x}"
    word = word.strip("\n") if word.strip() else "end of the line" if word else ""
    span = places.span(base + at, base + at + max(1, len(word) if word in text[at:] else 1))
    code, message, help_ = _classify(cast(UnexpectedInput, error), start, text, at)
    helps = [help_] if help_ else []
    first = text.split(None, 1)[0] if text.split() else ""
    if start == "start" and code == "X0101" and isinstance(error, UnexpectedToken):
        near = [k for k in closest(first, KEYWORDS) if k != first]
        helps += [f"did you mean `{k}`?" for k in near]
    shown = word or "the end"
    return Diagnostic(
        code,
        message.replace("{word}", shown if shown == "the end" else f"`{shown}`"),
        span,
        "unexpected end" if not word else "not expected here",
        helps=tuple(helps),
    )


@lru_cache(maxsize=1)
def _mistakes() -> dict[tuple[str, str, str], list[str]]:
    """`mistakes.xform`: for each kind of mistake (code, message, repair) the texts that make it."""
    source = _grammar("mistakes.xform")
    kinds: dict[tuple[str, str, str], list[str]] = {}
    current: list[str] = []
    for line in source.split("\n"):
        if line.startswith("#:"):
            code, message, repair = (part.strip() for part in line[2:].split("||"))
            current = kinds.setdefault((code, message, repair), [])
        elif line.strip() and not line.startswith("#"):
            current.append(line.replace("\\n", "\n"))
    return kinds


@lru_cache(maxsize=1)
def _known_states() -> dict[tuple[int, str], tuple[str, str, str]]:
    """The parser state and the token at which each example fails."""
    states: dict[tuple[int, str], tuple[str, str, str]] = {}
    for kind, texts in _mistakes().items():
        for text in texts:
            try:
                _lark("start").parse(text + "\n")
            except UnexpectedInput as error:
                states.setdefault(_state(error, text), kind)
    return states


def _state(error: UnexpectedInput, text: str) -> tuple[int, str]:
    state = cast(Any, error).state
    number = cast(int, getattr(state, "position", state if isinstance(state, int) else -1))
    if isinstance(error, UnexpectedToken):
        return number, str(cast(Token, error.token).type)  # pyright: ignore[reportUnknownMemberType]
    at = cast(int, getattr(error, "pos_in_stream", 0))
    return number, f"char {_char_kind(text[at : at + 1])}"


def _char_kind(char: str) -> str:
    return "digit" if char.isdigit() else "letter" if char.isalpha() else char


def _classify(error: UnexpectedInput, start: str, text: str, at: int) -> tuple[str, str, str]:
    rest = text[at:]
    if isinstance(error, UnexpectedCharacters):
        if rest.startswith('"'):
            return "X0111", "a text is not closed", 'put `"` at its end, on the same line'
        if rest.startswith("`"):
            return "X0111", "a back-quote is not closed", "put a back-quote at the end of the name"
        if rest.startswith("'"):
            return "X0112", "texts stand in double quotes", 'write `"…"`'
        number = re.match(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?([A-Za-z_%]\w*)", rest)
        if number:
            from netxform.syntax.quantity import UNITS

            near = closest(number.group(1), UNITS)
            return (
                "X0113",
                f"`{number.group()}` has an unknown unit `{number.group(1)}`",
                f"did you mean `{near[0]}`?" if near else f"units: {', '.join(UNITS)}",
            )
    if start == "start":
        kind = _known_states().get(_state(error, text))
        if kind is not None:
            return kind
    if isinstance(error, UnexpectedEOF) or at >= len(text.rstrip()):
        return "X0114", "the statement ends too early", _expected(error)
    return "X0101", "{word} is not expected here", _expected(error)


_WORDS = {
    "PATH": "a name",
    "CALLEE": "a call",
    "NUMBER": "a number",
    "QTY": "a quantity",
    "STRING": "a text",
    "OPT": "`key=value`",
    "TYPE": "`:Type`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "RPAR": "`)`",
    "RSQB": "`]`",
    "EQUAL": "`=`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "CMP": "a comparison",
    "IN": "`in`",
    "_SEP": "the end of the line",
}


def _expected(error: UnexpectedInput) -> str:
    names = cast("Iterable[str]", getattr(error, "accepts", None) or getattr(error, "expected", None) or ())
    words = sorted({_WORDS[n] for n in names if n in _WORDS})
    return f"expected here: {', '.join(words)}" if words and len(words) < 8 else ""


# --- comments --------------------------------------------------------------------------------------------------------


def _comments(
    statements: tuple[ast.Statement, ...], scanned: Scanned, places: Places
) -> tuple[tuple[ast.Statement, ...], tuple[str, ...]]:
    """Give every comment to the statement that it stands above or beside; those after the last one are the tail."""
    if not scanned.comments:
        return statements, ()
    offsets = [c[0] for c in scanned.comments]
    texts = [c[1][1:].strip() for c in scanned.comments]
    taken = [False] * len(offsets)

    def between(start: int, end: int) -> range:
        return range(bisect_left(offsets, start), bisect_left(offsets, end))

    def visit(items: tuple[ast.Statement, ...], start: int, stop: int) -> tuple[ast.Statement, ...]:
        out: list[ast.Statement] = []
        for i, item in enumerate(items):
            above = [j for j in between(start, item.span.start) if not taken[j]]
            for j in above:
                taken[j] = True
            item = inside(item)
            follow = items[i + 1].span.start if i + 1 < len(items) else stop
            row = places.span(item.span.end, item.span.end).line
            beside = [j for j in between(item.span.end, follow) if places.span(offsets[j], offsets[j]).line == row]
            for j in beside[:1]:
                taken[j] = True
            out.append(replace(item, comments=tuple(texts[j] for j in above), trailing=texts[beside[0]] if beside else None))
            start = item.span.end
        return tuple(out)

    def inside(item: ast.Statement) -> ast.Statement:
        match item:
            case ast.Def() | ast.Each() | ast.Stage():
                return replace(item, body=visit(item.body, item.span.start, item.span.end))
            case ast.If():
                middle = item.then[-1].span.end if item.then else item.span.start
                then = visit(item.then, item.span.start, item.otherwise[0].span.start if item.otherwise else item.span.end)
                return replace(item, then=then, otherwise=visit(item.otherwise, middle, item.span.end))
            case ast.Command() if item.block is not None:
                return replace(item, block=visit(item.block, item.span.start, item.span.end))
            case _:
                return item

    done = visit(statements, 0, len(scanned.clean))
    return done, tuple(texts[j] for j in range(len(texts)) if not taken[j])


# --- tree ------------------------------------------------------------------------------------------------------------


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
        raise NetxformError([Diagnostic("X0115", "a number is too long", span, f"more than {_DIGITS} characters")])
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return float(text)


def _unquote(token: Any) -> str:
    return re.sub(r"\\(.)", lambda m: _ESCAPE.get(m.group(1), m.group(1)), str(token)[1:-1])
