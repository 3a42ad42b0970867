"""Bounds as a spec writes them, `params <= 40% of base`, and how values are compared. No torch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from netxform.errors import NOWHERE, Diagnostic, Span, fail
from netxform.language.values import Own, wrong
from netxform.syntax import ast
from netxform.syntax.quantity import measure


@dataclass(frozen=True, slots=True)
class Limit(Own):
    """`params <= 40% of base`, `rel_error <= 2%`, `zeros >= 99%`: name, sign, value; a share of `of`, where given."""

    name: str
    op: ast.CompareOp
    value: int | float
    dimension: str
    of: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        share = f"{100 * self.value:g}%" if self.dimension == "share" else f"{self.value:g}"
        return f"{self.name} {self.op} {share}" + (f" of {self.of}" if self.of else "")

    @classmethod
    def read(cls, expression: ast.Expr) -> Limit:
        """The bound. Raises NetxformError X0401."""
        if not (isinstance(expression, ast.Compare) and isinstance(expression.left, ast.Path)):
            raise wrong(expression, "a comparison, such as `params <= 40% of base`")
        right, of = expression.right, None
        if isinstance(right, ast.Relative):
            of, right = right.of.text, right.quantity
        if not isinstance(right, ast.Number | ast.Quantity):
            raise wrong(expression.right, "a number")
        found = measure(right)
        return cls(expression.left.text, expression.op, found.value, found.dimension, of, expression.span)

    def divides(self, low: float, high: float) -> Iterator[Diagnostic]:
        """X0406 where the comparison holds for all values from `low` to `high`, or for none: then it chooses nothing."""
        ends = [compare(self.op, value, self.value) for value in (low, high)]
        if ends[0] != ends[1] or (low < self.value < high and self.op in ("==", "!=")):
            return
        which = "every" if ends[0] else "no"
        span = f"from {low:g} on" if high == float("inf") else f"from {low:g} to {high:g}"
        message = f"`{self}` holds for {which} value: `{self.name}` goes {span}"
        helps = ("write a bound that some values keep and others do not",)
        yield Diagnostic("X0406", message, self.span, f"{which} one", helps=helps)

    @classmethod
    def words(cls) -> str:
        """The type in words."""
        return "a comparison"


def compare(op: ast.CompareOp, left: Any, right: Any, span: Span = NOWHERE) -> bool:
    """`left op right` on plain values. Raises NetxformError X0402 where they cannot be compared."""
    try:
        return bool(_OPERATORS[op](left, right))
    except Exception:  # what is compared may be anything that a module holds: a tensor, a function
        shown = [str(v) if isinstance(v, bool | int | float | str | tuple) else type(v).__name__ for v in (left, right)]
        helps = ("compare a number with a number, a text with a text",)
        message = f"`{shown[0][:60]}` and `{shown[1][:60]}` cannot be compared by `{op}`"
        raise fail("X0402", message, span, "of different kinds", helps=helps) from None


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
