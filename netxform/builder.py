"""Python parity: a builder that makes the same tree as the text.

    s = nx.spec()
    s.model("net", "zoo.smallcnn()")
    s.cut(at="layer4").freeze("body")
    with s.stage("warmup"):
        s.train("head", for_="5epochs", using="adamw(lr=1e-3)")

Every verb is a method. Positional arguments are operands; a keyword that is a preposition (with a trailing `_` where Python
reserves the word) becomes that clause, `x=2` the factor, `block={…}` the block, and any other keyword an option. A text is
an expression of the language; `nx.builder.text("…")` is a quoted text.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from netxform.door import ArgumentError
from netxform.errors import Diagnostic
from netxform.syntax import ast
from netxform.syntax.format import format as format_text
from netxform.syntax.parse import parse, parse_expression

PREPOSITIONS = frozenset(
    "at after before to from into with within using by until where over expect keep via for on against regularize".split()
)


def text(value: str) -> ast.String:
    """A quoted text, where a plain `str` would be read as an expression."""
    return ast.String(value)


def spec(source: str | None = None) -> Builder:
    """A new builder, or one that begins with the statements of a text."""
    made = Builder()
    if source is not None:
        program = parse(source)
        made.edition = program.edition
        made.statements += program.statements
    return made


class Builder:
    """Collects statements. `tree()` is the Program, `str()` its canonical text."""

    def __init__(self) -> None:
        self.edition: int | None = None
        self.statements: list[ast.Statement] = []
        self._open: list[list[ast.Statement]] = [self.statements]

    def tree(self) -> ast.Program:
        """The syntax tree: the same as that of the text."""
        return ast.Program(self.edition, tuple(self.statements))

    def __str__(self) -> str:
        return format_text(self.tree())

    def _add(self, statement: ast.Statement) -> Builder:
        self._open[-1].append(statement)
        return self

    def model(self, name: str, source: Any, **options: Any) -> Builder:
        """`model NAME = SOURCE …`; a text option such as `weights` is given as a plain `str`."""
        return self._add(ast.Model(name, expression(source), _texts(options)))

    def data(self, name: str, source: Any, **options: Any) -> Builder:
        """`data NAME = SOURCE …`."""
        return self._add(ast.Data(name, expression(source), _options(options)))

    def param(self, name: str, default: Any = None, *, type: str | None = None, domain: Any = None) -> Builder:
        """`param NAME: type = default in [lo, hi]`."""
        limits = cast("ast.List | None", expression(list(domain)) if domain is not None else None)
        return self._add(ast.Param(name, type, None if default is None else expression(default), limits))

    def let(self, name: str, selection: Any) -> Builder:
        """`let NAME = SELECTION`."""
        return self._add(ast.Let(name, expression(selection)))

    def use(self, file: str, alias: str | None = None) -> Builder:
        """`use "file" as NAME`."""
        return self._add(ast.Use(file, alias))

    def check_that(self, condition: str, message: str | None = None) -> Builder:
        """`assert COND, "message"` (`assert` is a word of Python)."""
        statement = parse(f"assert {condition}").statements[0]
        assert isinstance(statement, ast.Assert)
        return self._add(ast.Assert(statement.condition, message))

    @contextmanager
    def stage(self, name: str) -> Generator[Builder]:
        """`stage NAME { … }`, as a `with` block."""
        with self._block() as body:
            yield self
        self._add(ast.Stage(name, tuple(body)))

    @contextmanager
    def each(self, name: str, selection: Any) -> Generator[Builder]:
        """`each NAME in SELECTION { … }`, as a `with` block."""
        with self._block() as body:
            yield self
        self._add(ast.Each(name, expression(selection), tuple(body)))

    @contextmanager
    def _block(self) -> Generator[list[ast.Statement]]:
        body: list[ast.Statement] = []
        self._open.append(body)
        try:
            yield body
        finally:
            self._open.pop()

    def verb(self, word: str, *operands: Any, **clauses: Any) -> Builder:
        """Any verb by its word: what `builder.WORD(…)` calls."""
        block = clauses.pop("block", None)
        made: list[ast.Clause] = []
        for key, value in clauses.items():
            plain = key.removesuffix("_")
            if key == "x":
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise _wrong(f"`x=` is a number, not a `{type(value).__name__}`")
                made.append(ast.Factor(value))
            elif plain in PREPOSITIONS:
                made.append(ast.Preposition(plain, expression(value)))
            else:
                made.append(ast.Option(plain, expression(value)))
        inner = None if block is None else _body(block)
        return self._add(ast.Command(word, tuple(expression(o) for o in operands), tuple(made), inner))

    def __getattr__(self, word: str) -> Any:
        if word.startswith("_"):
            raise AttributeError(word)
        return lambda *operands, **clauses: self.verb(word.removesuffix("_"), *operands, **clauses)


def expression(value: Any) -> Any:
    """A Python value as an expression: a `str` is parsed, numbers, bools, None and lists stand for themselves."""
    match value:
        case ast.Node():
            return value
        case bool():
            return ast.Path("true" if value else "false")
        case None:
            return ast.Path("none")
        case float() if not math.isfinite(value):
            raise _wrong(f"a spec holds finite numbers, not {value}")
        case int() | float():
            return ast.Number(value)
        case str():
            return parse_expression(value, "<builder>")
        case list() | tuple():
            return ast.List(tuple(expression(v) for v in cast("list[Any]", value)))
        case dict():
            return ast.Mapping(tuple(ast.Pair(str(k), _text(v)) for k, v in cast("dict[Any, Any]", value).items()))
        case _:
            raise _wrong(f"a spec holds numbers, texts, lists and expressions, not a `{type(value).__name__}`")


def _wrong(message: str) -> ArgumentError:
    return ArgumentError([Diagnostic("X0002", message, helps=("write the value as it stands in a spec, as a text",))])


def _options(options: Mapping[str, Any]) -> tuple[ast.Option, ...]:
    return tuple(ast.Option(k, expression(v)) for k, v in options.items())


def _texts(options: Mapping[str, Any]) -> tuple[ast.Option, ...]:
    return tuple(ast.Option(k, _text(v)) for k, v in options.items())


def _text(value: Any) -> ast.Expr:
    return ast.String(value) if isinstance(value, str) else expression(value)


def _body(block: Any) -> tuple[ast.Statement, ...]:
    if isinstance(block, Builder):
        return tuple(block.statements)
    if not isinstance(block, Mapping):
        raise _wrong(f"`block=` is a dict of layers by name, or a builder, not a `{type(block).__name__}`")
    return tuple(ast.Binding(k, expression(v)) for k, v in cast("Mapping[str, object]", block).items())
