"""How much a spec may become: a bound on its statements and on their text, asked as it grows and told where it is crossed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, cast

from netxform.errors import Label, NetxformError, Span, fail
from netxform.syntax import ast

MOST_STATEMENTS = 10_000
MOST_EACH = 200_000
"""Characters of one statement, with everything put in."""
MOST_TEXT = 4_000_000
"""Characters of all statements together."""


def length(node: Any, most: int) -> int:
    """About how many characters a tree has as text; counting ends above `most`, for a tree may share its parts with itself."""
    total = 0
    stack: list[Any] = [node]
    while stack and total <= most:
        one = stack.pop()
        if isinstance(one, tuple):
            stack += cast("tuple[Any, ...]", one)
        elif isinstance(one, str):
            total += len(one)
        elif isinstance(one, ast.Node):
            total += 2
            stack += [getattr(one, f.name) for f in dataclasses.fields(one) if f.name not in ("span", "verb_span", "comments")]
        else:
            total += 1
    return total


@dataclass
class Budget:
    """What has been spent, and the calls and files that are open: `crossed` once it was too much."""

    statements: int = 0
    text: int = 0
    crossed: bool = False
    open: list[Span] = field(default_factory=list[Span])

    def statement(self, span: Span) -> None:
        """One statement more. Raises NetxformError X0107 at the one that is too many."""
        self.statements += 1
        if self.statements > MOST_STATEMENTS:
            raise self._error(f"the spec becomes more than {MOST_STATEMENTS:,} statements", span)

    def spend(self, node: Any, span: Span, most: int = MOST_EACH) -> None:
        """The text of a statement, or of what is put into one. Raises NetxformError X0107 where it is too much."""
        size = length(node, most)
        if size > most:
            raise self._error(f"this becomes more than {most:,} characters when everything is put in", span)
        self.text += size
        if self.text > MOST_TEXT:
            raise self._error(f"the spec becomes more than {MOST_TEXT:,} characters when everything is put in", span)

    def _error(self, message: str, span: Span) -> NetxformError:
        self.crossed = True
        labels = (Label(self.open[0], "put in from here"),) if self.open and self.open[0] != span else ()
        helps = ("what is put in twice, twice over, doubles each time: say it once, by a selection or by `each`",)
        return fail("X0107", message, span, "too much from here on", secondary=labels, helps=helps)
