"""What a syntax error means: a text with errors is parsed again statement by statement, so that every error is found.

Each error is classified by the example in `mistakes.xform` that fails in the same parser state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken, VisitError

from netxform.errors import Diagnostic, NetxformError, Span, closest
from netxform.syntax.scan import Piece, Places, Scanned
from netxform.syntax.tables import grammar
from netxform.syntax.tree import KEYWORDS, built, lark


def recover(scanned: Scanned, places: Places) -> list[Diagnostic]:
    """Every statement by itself; a statement with blocks without their insides, then the insides."""
    found: list[Diagnostic] = []

    def visit(pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            text = scanned.clean[piece.start : piece.end]
            for start, end in piece.blocks:
                a, b = start - piece.start, end - piece.start
                text = text[:a] + " " * (b - a) + text[b:]
            try:
                built(lark().parse(text + "\n", "start"), places, piece.start)
            except (UnexpectedInput, VisitError) as error:
                found.append(diagnose(error, "start", text, places, piece.start))
            visit(piece.inner)

    visit(scanned.pieces)
    if not found:  # each statement is right by itself: what is wrong is their order
        at = next((p for p in scanned.pieces if scanned.clean[p.start : p.end].split()[:1] == ["xform"]), None)
        span = places.span(at.start, at.end) if at else places.span(0, 1)
        found.append(Diagnostic("X0101", "`xform 1` stands on the first line", span, "not first"))
    return found


def deep(scanned: Scanned, places: Places) -> list[Diagnostic]:
    """The statements that hold too many parts in each other (`not not not …`, `a - b - c …`) to be read."""
    found: list[Diagnostic] = []
    for piece in scanned.pieces:
        try:
            built(lark().parse(scanned.clean[piece.start : piece.end] + "\n", "start"), places, piece.start)
        except RecursionError:
            found.append(too_deep(places.span(piece.start, piece.end)))
        except (UnexpectedInput, VisitError):
            continue
    return found or [too_deep(places.span(0, 1))]


def too_deep(span: Span) -> Diagnostic:
    """The error for a statement whose parts hold each other too deeply."""
    return Diagnostic(
        "X0102", "nested too deep", span, "too many parts in each other", helps=("take it apart by `let` or `def`",)
    )


def diagnose(error: Exception, start: str, text: str, places: Places, base: int) -> Diagnostic:
    """What Lark's error at a text means. `start` is the rule it was parsed from, `base` where it begins."""
    if isinstance(error, VisitError):
        if isinstance(error.orig_exc, NetxformError):
            return error.orig_exc.diagnostics[0]
        if isinstance(error.orig_exc, RecursionError):
            return too_deep(places.span(base, base + len(text)))
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
def mistakes() -> dict[tuple[str, str, str], list[str]]:
    """`mistakes.xform`: for each kind of mistake (code, message, repair) the texts that make it."""
    source = grammar("mistakes.xform")
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
    for kind, texts in mistakes().items():
        for text in texts:
            try:
                lark().parse(text + "\n", "start")
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
