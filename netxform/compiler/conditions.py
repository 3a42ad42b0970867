"""Whether a condition holds: `assert`, and an `if` that only the network decides.

Condition, Cost, metrics ─judge→ yes, no, or not known yet
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netxform.compiler.check import COSTS
from netxform.graph.cost import Cost
from netxform.language.limit import compare
from netxform.language.methods import measured_as
from netxform.language.values import plain
from netxform.syntax import ast
from netxform.syntax.format import format_node
from netxform.syntax.quantity import measure


def judge(condition: ast.Condition, now: Cost, base: Cost, metrics: Mapping[str, float]) -> tuple[bool | None, str]:
    """Whether the condition holds, and the values seen; None where it needs a metric that is not known yet."""
    match condition:
        case ast.And() | ast.Or():
            parts = [judge(c, now, base, metrics) for c in condition.items]
            seen = ", ".join(p[1] for p in parts if p[1])
            verdicts = [p[0] for p in parts]
            absorbing = isinstance(condition, ast.Or)
            if absorbing in verdicts:
                return absorbing, seen
            return (None if None in verdicts else not absorbing), seen
        case ast.Not():
            held, seen = judge(condition.condition, now, base, metrics)
            return (None if held is None else not held), seen
        case ast.Member():
            value = _value(condition.item, now, base, metrics)
            if value is None:
                return None, ""
            return value in [_value(i, now, base, metrics) for i in condition.items.items], f"is {value}"
        case ast.Compare():
            left = _value(condition.left, now, base, metrics)
            if isinstance(condition.right, ast.Relative):
                name = condition.left.text if isinstance(condition.left, ast.Path) else ""
                share = measure(condition.right.quantity).value
                whole = cost_of(name, base)
                right: Any = None if whole is None else whole * share
            else:
                right = _value(condition.right, now, base, metrics)
            if left is None or right is None:
                return None, ""
            return compare(condition.op, left, right, condition.span), f"{format_node(condition.left)} is {_show(left)}"


def names_in(condition: ast.Condition) -> tuple[str, ...]:
    """The words that a condition speaks of."""
    match condition:
        case ast.And() | ast.Or():
            return tuple(n for c in condition.items for n in names_in(c))
        case ast.Not():
            return names_in(condition.condition)
        case ast.Member():
            sides = (condition.item,)
        case ast.Compare():
            sides = (condition.left, condition.right)
    return tuple(s.text for s in sides if isinstance(s, ast.Path))


def _value(expression: ast.Expr, now: Cost, base: Cost, metrics: Mapping[str, float]) -> Any:
    if isinstance(expression, ast.Path) and expression.text not in ("true", "false"):
        if expression.text in COSTS:
            return cost_of(expression.text, now)
        return metrics.get(measured_as(expression.text))
    return plain(expression)


def cost_of(name: str, of: Cost) -> int | None:
    """A cost by its name in the language: `params`, `macs`, `flops` or `bytes`; None for anything else."""
    return {"params": of.params, "macs": of.macs, "flops": 2 * of.macs, "bytes": of.bytes}.get(name)


def _show(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
