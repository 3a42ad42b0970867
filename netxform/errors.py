"""Errors as values: a place, what is there, the rule, the repair; and how they are drawn.

A `Diagnostic` is data. `render` draws it with carets under the source text; `to_dict` is what `--json` prints.
`NetxformError` carries the diagnostics and is the only exception that a spec can cause.
"""

from __future__ import annotations

import difflib
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of text: offsets (0-based, end exclusive) and the line and column of both ends (1-based)."""

    file: str
    start: int
    end: int
    line: int
    column: int
    end_line: int
    end_column: int

    def to(self, other: Span) -> Span:
        """The stretch from the start of this span to the end of `other`."""
        return Span(self.file, self.start, other.end, self.line, self.column, other.end_line, other.end_column)


NOWHERE = Span("", 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Label:
    """A second place that explains the first (`removed here`)."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. `label` stands beside the carets; `notes` state the rule, `helps` the repair."""

    code: str
    message: str
    span: Span = NOWHERE
    label: str = ""
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    helps: tuple[str, ...] = ()
    severity: Severity = "error"

    @property
    def repairs(self) -> tuple[str, ...]:
        """`helps`, or where the page of the code stands."""
        return self.helps or (f"`netxform explain {self.code}` says what this means, and what to do",)

    def to_dict(self) -> dict[str, object]:
        """The diagnostic as plain data (JSON)."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "span": _span_dict(self.span),
            "label": self.label,
            "secondary": [{"span": _span_dict(s.span), "text": s.text} for s in self.secondary],
            "notes": list(self.notes),
            "helps": list(self.repairs),
        }

    def render(self, sources: Mapping[str, str] | None = None) -> str:
        """The diagnostic as text with carets; `sources` maps file names to their text."""
        sources = sources or {}
        width = len(str(max((s.end_line for s in (self.span, *(x.span for x in self.secondary))), default=1)))
        pad = " " * width
        out = [f"{self.severity}[{self.code}]: {self.message}"]
        if self.span.line:
            out += _excerpt(self.span, self.label, "^", "-->", pad, sources)
        for extra in self.secondary:
            out += _excerpt(extra.span, extra.text, "-", ":::", pad, sources)
        if self.notes and self.span.line:
            out.append(f"{pad} |")
        out += [f"{pad} = {note}" for note in self.notes]
        out += [f"{pad} help: {text}" for text in self.repairs]
        return "\n".join(out)


class NetxformError(Exception):
    """What a spec can cause. `diagnostics` holds every finding of the phase that stopped.

    `exit_code` is what the command line ends with: 1, or 3 where a contract or an assert fell short.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic], sources: Mapping[str, str] | None = None, exit_code: int = 1) -> None:
        self.diagnostics = tuple(dict.fromkeys(diagnostics))
        self.sources = dict(sources or {})
        self.exit_code = exit_code
        super().__init__("\n\n".join(d.render(self.sources) for d in self.diagnostics))


def fail(code: str, message: str, span: Span = NOWHERE, label: str = "", **more: Any) -> NetxformError:
    """A `NetxformError` of one diagnostic, to be raised: `raise fail("X0203", …)`."""
    return NetxformError([Diagnostic(code, message, span, label, **more)])


@dataclass(frozen=True, slots=True)
class Trail:
    """What was being done when an exception came that nobody expected: in words, the statement, and the texts of the spec."""

    doing: str = ""
    span: Span = NOWHERE
    sources: Mapping[str, str] = field(default_factory=dict[str, str])


@contextmanager
def during(doing: str, span: Span = NOWHERE, sources: Mapping[str, str] | None = None) -> Generator[None]:
    """While this is done: an exception that is no `NetxformError` is told so (see `door.unexpected`). The innermost counts."""
    try:
        yield
    except NetxformError:
        raise
    except Exception as error:
        old = trail(error)
        seen = Trail(old.doing or doing, old.span if old.span.line else span, {**(sources or {}), **old.sources})
        error.__dict__["netxform_trail"] = seen
        raise


def trail(error: BaseException) -> Trail:
    """What `during` told an exception."""
    found = getattr(error, "netxform_trail", None)
    return found if isinstance(found, Trail) else Trail()


@dataclass
class Findings:
    """Collects the diagnostics of one phase, so that all of them are reported at once."""

    items: list[Diagnostic] = field(default_factory=list[Diagnostic])

    def add(self, code: str, message: str, span: Span = NOWHERE, label: str = "", **more: Any) -> None:
        """Note one finding and go on."""
        self.items.append(Diagnostic(code, message, span, label, **more))

    def raise_if_any(self, sources: Mapping[str, str] | None = None) -> None:
        """Stop the phase when it found errors (warnings do not stop it)."""
        errors = [d for d in self.items if d.severity == "error"]
        if errors:
            raise NetxformError(errors, sources)


def closest(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The names most like `word`, for `did you mean`; none when nothing is near."""
    return difflib.get_close_matches(word, list(known), n=most, cutoff=0.6)


def did_you_mean(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """`("did you mean `conv3`?",)` or nothing."""
    return tuple(f"did you mean `{name}`?" for name in closest(word, known))


def _span_dict(span: Span) -> dict[str, object] | None:
    if not span.line:
        return None
    return {
        "file": span.file,
        "start": {"offset": span.start, "line": span.line, "column": span.column},
        "end": {"offset": span.end, "line": span.end_line, "column": span.end_column},
    }


_WIDE = 200


def _cut(row: str, carets: str, at: int, label: str) -> tuple[str, str]:
    """A row that is too wide to be read, around the place that is meant."""
    if len(row) <= _WIDE:
        return row, carets
    start = max(0, at - _WIDE // 3)
    end = start + _WIDE
    marks = carets[: len(carets) - len(label)].rstrip()[start:end]
    front, back = "…" if start else "", "…" if end < len(row) else ""
    return front + row[start:end] + back, f"{' ' * len(front)}{marks} {label}".rstrip()


def _excerpt(span: Span, label: str, mark: str, arrow: str, pad: str, sources: Mapping[str, str]) -> Sequence[str]:
    head = f"{pad[:-1]} {arrow} {span.file}:{span.line}:{span.column}"
    text = sources.get(span.file)
    if text is None:
        return [head + (f"  {label}" if label else "")]
    lines = text.split("\n")
    row = lines[span.line - 1] if span.line <= len(lines) else ""
    row = row.rstrip("\r")
    last = span.end_column if span.end_line == span.line else len(row) + 1
    count = max(1, last - span.column)
    # tabs stay tabs under tabs, so that the carets stand right in any terminal
    lead = "".join("\t" if c == "\t" else " " for c in row[: span.column - 1])
    carets = f"{lead}{mark * count} {label}".rstrip()
    number = str(span.line).rjust(len(pad))
    row, carets = _cut(row, carets, span.column - 1, label)
    return [head, f"{pad} |", f"{number} | {row}", f"{pad} | {carets}"]
