"""What lies below the grammar: comments, brackets, and where statements end. One linear pass over the text.

The grammar gets a text of the same length, in which comments and the newlines inside ( ) and [ ] are blanks, so that every
offset is that of the source. The same pass cuts the text into statements, for recovery after an error.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from netxform.errors import Diagnostic, Label, Span

DEPTH = 64
_TOKEN = re.compile(
    r"""(?P<string>"[^"\\\n]*(?:\\.[^"\\\n]*)*")
      | (?P<comment>\#[^\n]*)
      | (?P<regex>/(?![\ *])(?:\\/|[^/\n])+/)
      | (?P<quoted>`[^`\n]*`)
      | (?P<glob>\{(?:[\w*.]+(?:,[\w*.]+)+|[\w*.]+\.\.[\w*.]+)\})
      | (?P<open>[({\[])
      | (?P<close>[)}\]])
      | (?P<sep>[;\n])
      | (?P<blank>[\r\ufeff\f\v])
      | (?P<rest>[^"\#/`{}()\[\];\n\r\ufeff\f\v]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_MAPPING = re.compile(r'\s*"')
_LINE = re.compile(r"[^\n]{20001}")
MOST_LINES = 30_000
_FLAT = ("take it apart by `let` or `def`",)
_CLOSE = ("close every `(`, `[` and `{` by its partner, in the right order",)
_PAIR = {")": ("(",), "]": ("[",), "}": ("{", "map")}


class Places:
    """Offsets of a text as spans with lines and columns."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.length = len(text)
        self.starts = [0] + [m.end() for m in re.finditer("\n", text)]

    def span(self, start: int, end: int) -> Span:
        """The stretch from `start` to `end` (exclusive)."""
        start, end = min(start, self.length), min(end, self.length)
        a, b = bisect_right(self.starts, start) - 1, bisect_right(self.starts, end) - 1
        return Span(self.file, start, end, a + 1, start - self.starts[a] + 1, b + 1, end - self.starts[b] + 1)


@dataclass(frozen=True, slots=True)
class Piece:
    """A statement's stretch; `inner` are the statements of its blocks, `blocks` the stretches between the braces."""

    start: int
    end: int
    blocks: tuple[tuple[int, int], ...]
    inner: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Scanned:
    """The cleaned text, the comments (offset, text), the statements, and what is wrong with the brackets."""

    clean: str
    comments: tuple[tuple[int, str], ...]
    pieces: tuple[Piece, ...]
    faults: tuple[Diagnostic, ...]


@dataclass
class _Open:
    start: int
    blocks: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    inner: list[Piece] = field(default_factory=list[Piece])


def scan(text: str, places: Places) -> Scanned:
    """One pass: comments, brackets, statements."""
    out: list[str] = []
    comments: list[tuple[int, str]] = []
    faults: list[Diagnostic] = []
    brackets: list[tuple[str, int]] = []
    levels: list[list[Piece]] = [[]]
    current: list[_Open] = [_Open(0)]
    count = 0

    def finish(end: int) -> None:
        nonlocal count
        piece = current[-1]
        count += 1
        if clean_so_far(piece.start, end):
            levels[-1].append(Piece(piece.start, end, tuple(piece.blocks), tuple(piece.inner)))
        current[-1] = _Open(end + 1)

    def clean_so_far(start: int, end: int) -> bool:
        return (bool(text[start:end].strip()) and not text[start:end].lstrip(" \t\r").startswith("#")) or bool(
            current[-1].blocks
        )

    long = _LINE.search(text)
    if long is not None:
        faults.append(_too_long("a line has more than 20,000 characters", places.span(long.start(), long.start() + 1)))
        return Scanned("", (), (), tuple(faults))
    for found in _TOKEN.finditer(text):
        kind, piece, at = found.lastgroup, found.group(), found.start()
        match kind:
            case "comment":
                comments.append((at, piece))
                out.append(" " * len(piece))
                if not text[current[-1].start : at].strip(" \t\r\n;"):
                    current[-1].start = found.end()
            case "blank":
                out.append(" ")
            case "open":
                if len(brackets) >= DEPTH:
                    faults.append(Diagnostic("X0102", f"nested more than {DEPTH} deep", places.span(at, at + 1), helps=_FLAT))
                    return Scanned("".join(out), tuple(comments), (), tuple(faults))
                mapping = piece == "{" and _MAPPING.match(text, at + 1) is not None
                brackets.append(("map" if mapping else piece, at))
                out.append(piece)
                if piece == "{" and not mapping:
                    levels.append([])
                    current.append(_Open(at + 1))
            case "close":
                out.append(piece)
                if brackets and brackets[-1][0] in _PAIR[piece]:
                    opening, opened = brackets.pop()
                    if opening == "{":
                        finish(at)
                        current.pop()
                        inner = levels.pop()
                        current[-1].blocks.append((opened + 1, at))
                        current[-1].inner += inner
                else:
                    labels = (Label(places.span(brackets[-1][1], brackets[-1][1] + 1), "opened here"),) if brackets else ()
                    message = (
                        f"`{piece}` closes nothing" if not brackets else f"`{piece}` does not close `{text[brackets[-1][1]]}`"
                    )
                    faults.append(Diagnostic("X0103", message, places.span(at, at + 1), "here", labels, helps=_CLOSE))
                    return Scanned("".join(out), tuple(comments), (), tuple(faults))
            case "sep":
                inside = bool(brackets) and brackets[-1][0] != "{"
                if inside and piece == "\n":
                    out.append(" ")
                elif inside:
                    out.append(piece)
                else:
                    out.append(piece)
                    finish(at)
                    if count > MOST_LINES:
                        message = f"the text has more than {MOST_LINES:,} lines and statements"
                        faults.append(_too_long(message, places.span(at, at + 1)))
                        return Scanned("".join(out), tuple(comments), (), tuple(faults))
            case _:
                out.append(piece)
    if brackets:
        at = brackets[-1][1]
        message = f"`{text[at]}` is never closed"
        faults.append(Diagnostic("X0103", message, places.span(at, at + 1), "opened here", helps=_CLOSE))
        return Scanned("".join(out), tuple(comments), (), tuple(faults))
    finish(len(text))
    return Scanned("".join(out), tuple(comments), tuple(levels[0]), tuple(faults))


def _too_long(message: str, span: Span) -> Diagnostic:
    return Diagnostic(
        "X0107", message, span, "too much", helps=("a spec says what is done; data and weights are files beside it",)
    )
