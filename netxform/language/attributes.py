"""Conditions on attributes of modules: `[stride == 2]`, `[out_channels > 64 and not bias]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from netxform.language.limit import compare
from netxform.language.values import CONSTANTS, plain
from netxform.syntax import ast
from netxform.syntax.quantity import measure


class _Absent:
    pass


ABSENT = _Absent()
"""What a module without the attribute answers; no condition holds of it."""


def holds(condition: ast.Condition, value: Callable[[str], Any]) -> bool:
    """Whether the condition holds of the attributes that `value` tells by name."""
    match condition:
        case ast.And():
            return all(holds(c, value) for c in condition.items)
        case ast.Or():
            return any(holds(c, value) for c in condition.items)
        case ast.Not():
            return not holds(condition.condition, value)
        case ast.Member():
            return any(_compare("==", condition.item, i, value) for i in condition.items.items)
        case ast.Compare():
            return _compare(condition.op, condition.left, condition.right, value)


def _compare(op: ast.CompareOp, left: ast.Expr, right: ast.Expr, value: Callable[[str], Any]) -> bool:
    a = value(left.text) if isinstance(left, ast.Path) else plain(left)
    if a is ABSENT:
        return False
    if isinstance(right, ast.Path) and right.text not in CONSTANTS:
        b: Any = right.text
    elif isinstance(right, ast.Quantity):
        b = measure(right).value
    else:
        b = plain(right)
    # `kernel_size == 3` holds for (3, 3): a number is compared with every element of a tuple
    if isinstance(a, tuple) and isinstance(b, int | float):
        return all(compare(op, item, b, left.span) for item in cast("tuple[Any, ...]", a))
    if op in ("==", "!=") and (isinstance(a, str) or isinstance(b, str)):
        a, b = str(a), str(b)
    return compare(op, a, b, left.span)
