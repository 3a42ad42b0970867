"""Where in the model's own code something happens, and what the code does with it there."""

from __future__ import annotations

import ast
import dis
import linecache
import operator
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from types import FrameType
from typing import Any

import torch

_OURS = tuple(os.path.dirname(os.path.abspath(f)) + os.sep for f in (__file__, torch.__file__))
_GRADIENTS = torch.is_grad_enabled
_CARRIES = tuple(os.path.join("torch", *p) for p in (("autograd", "function.py"), ("utils", "checkpoint.py")))
_SIGNS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _frame() -> FrameType | None:
    """The innermost frame of code that is neither torch's nor of this package."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None and frame.f_code.co_filename.startswith((*_OURS, "<")):
        frame = frame.f_back
    return frame


def still() -> bool:
    """Whether the model's code has turned gradients off. Functions with a backward of their own do it too: those carry them."""
    if _GRADIENTS():
        return False
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if frame.f_code.co_filename.endswith(_CARRIES):
            return False
        frame = frame.f_back
    return True


def located() -> tuple[str, str]:
    """File and line of the model's code that is running, and the text of that line."""
    frame = _frame()
    if frame is None:
        return "the model", "a decision"
    file, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, line, frame.f_globals).split("  #")[0].strip().rstrip(":")
    return f"{os.path.basename(file)}:{line}", text.replace("`", "'") or "a decision"


_KEYS = {
    "BINARY_SUBSCR",
    "STORE_SUBSCR",
    "DELETE_SUBSCR",
    "CONTAINS_OP",
    "BUILD_MAP",
    "BUILD_SET",
    "BUILD_CONST_KEY_MAP",
    "MAP_ADD",
}


def keyed() -> bool:
    """Whether the code uses a value as the key of a table just now: writes, reads or looks for it there."""
    frame = _frame()
    if frame is None:
        return False
    code = frame.f_code.co_code
    return dis.opname[code[frame.f_lasti]] in _KEYS


def compared(value: Any) -> tuple[Callable[[Any, Any], Any], Any, bool] | None:
    """What the code compares the number with that it reads just now: how, with what, and whether the number stands first.

    None where it does something else with it, or where the other side is no plain number.
    """
    frame = _frame()
    if frame is None:
        return None
    place = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    tree = _tree(frame.f_code.co_filename)
    if place is None or tree is None:
        return None
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _SIGNS):
            continue
        for side, other, first in ((node.left, node.comparators[0], True), (node.comparators[0], node.left, False)):
            if (side.lineno, side.end_lineno, side.col_offset, side.end_col_offset) == place:
                found = _number(other, frame)
                return None if found is None else (_SIGNS[type(node.ops[0])], found, first)
    return None


def _number(node: ast.expr, frame: FrameType) -> int | float | None:
    """A number that is written down, or held by a local or global variable."""
    try:
        found: Any = ast.literal_eval(node)
    except ValueError:
        found = {**frame.f_globals, **frame.f_locals}.get(node.id) if isinstance(node, ast.Name) else None
    return found if type(found) in (int, float) else None


@lru_cache(maxsize=64)
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return None


_OPERATORS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    **_SIGNS,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
}


def asked() -> list[tuple[Callable[[Any, Any], Any], tuple[Any, ...]]] | None:
    """What the attribute of a tensor that is read just now is asked for: comparisons, each with all that it is compared with.

    An empty list: it decides, in another way. None: it decides nothing.
    """
    frame = _frame()
    if frame is None:
        return None
    place = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    tree = _tree(frame.f_code.co_filename)
    if place is None or tree is None or place[0] is None:
        return None
    names: set[str] = set()
    found: list[tuple[Callable[[Any, Any], Any], tuple[Any, ...]]] = []
    decides = False
    code = next((n for n in ast.walk(tree) if _defines(n, frame)), tree)
    for node in ast.walk(code):
        if (
            isinstance(node, ast.Assign)
            and _covers(node.value, place)
            and not isinstance(node.value, ast.Compare | ast.IfExp)
            and not _tensor_of(node.value, place)
        ):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    for node in ast.walk(code):
        if isinstance(node, ast.Compare) and (_covers(node, place) or _speaks(node, names)):
            one = _comparison(node, place, names, frame)
            decides = True
            found += [one] if one else []
        elif isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert) and _covers(node.test, place):
            decides = True
    return found if decides else None


def _defines(node: ast.AST, frame: FrameType) -> bool:
    named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == frame.f_code.co_name
    return named and node.lineno <= frame.f_lineno <= (node.end_lineno or 0)  # type: ignore[attr-defined]


def _covers(node: ast.expr, place: tuple[Any, ...]) -> bool:
    """Whether the code at this place lies in the expression."""
    line, end_line, column, end_column = place
    return (node.lineno, node.col_offset) <= (line, column) and (end_line, end_column) <= (
        node.end_lineno or 0,
        node.end_col_offset or 0,
    )


def _tensor_of(node: ast.expr, place: tuple[Any, ...]) -> bool:
    """Whether it makes a tensor of the kind that is read here: `x.to(y.dtype)`, `zeros(3, dtype=y.dtype)`."""
    if not isinstance(node, ast.Call):
        return False
    named = any(k.arg in ("dtype", "device") and _covers(k.value, place) for k in node.keywords)
    converts = isinstance(node.func, ast.Attribute) and node.func.attr in ("to", "type", "new_tensor")
    return named or (converts and any(_covers(a, place) for a in node.args)) or _inner(node, place)


def _inner(node: ast.Call, place: tuple[Any, ...]) -> bool:
    """The same where more is done to that tensor: `x.to(y.dtype).flatten()`."""
    return isinstance(node.func, ast.Attribute) and _tensor_of(node.func.value, place)


def _speaks(node: ast.Compare, names: set[str]) -> bool:
    return any(isinstance(n, ast.Name) and n.id in names for n in (node.left, *node.comparators))


def _comparison(
    node: ast.Compare, place: tuple[Any, ...], names: set[str], frame: FrameType
) -> tuple[Callable[[Any, Any], Any], tuple[Any, ...]] | None:
    if len(node.ops) != 1:
        return None
    left, right = node.left, node.comparators[0]
    ours = [_covers(n, place) or (isinstance(n, ast.Name) and n.id in names) for n in (left, right)]
    try:
        other = _value(right if ours[0] else left, frame)
    except (AttributeError, KeyError, ValueError):
        return None
    kind = type(node.ops[0])
    if kind in (ast.In, ast.NotIn) and ours[0] and isinstance(other, list | tuple | set):
        return (operator.eq if kind is ast.In else operator.ne), tuple(other)
    if kind in (ast.Eq, ast.NotEq, ast.Is, ast.IsNot) and isinstance(other, torch.dtype):
        return _OPERATORS[kind], (other,)
    return None


def _value(node: ast.expr, frame: FrameType) -> Any:
    """What names, attributes of modules and lists of them stand for. Raises ValueError for anything else."""
    if isinstance(node, ast.Name):
        return {**frame.f_globals, **frame.f_locals}[node.id]
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, frame)
        if isinstance(owner, torch.Tensor):
            raise ValueError("another tensor")
        return getattr(owner, node.attr)
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return tuple(_value(n, frame) for n in node.elts)
    return ast.literal_eval(node)
