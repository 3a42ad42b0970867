"""Text to tree. Lark is known here, in `tree` (grammar and nodes) and in `recover` (errors), and nowhere else.

text ─scan→ cleaned text, statements, comments ─Lark (LALR)→ Program
"""

from __future__ import annotations

from typing import cast

from lark.exceptions import UnexpectedInput, VisitError

from netxform.collector import paused
from netxform.errors import NetxformError
from netxform.syntax import ast
from netxform.syntax.comments import attached
from netxform.syntax.recover import deep, diagnose, recover, too_deep
from netxform.syntax.scan import Places, scan
from netxform.syntax.tree import built, lark


def parse(text: str, file: str = "<spec>") -> ast.Program:
    """The tree of a text. Raises NetxformError with every syntax error (X01xx), each at its place."""
    places = Places(text, file)
    scanned = scan(text, places)
    if scanned.faults:
        raise NetxformError(scanned.faults, {file: text})
    with paused():
        try:
            edition, statements = built(lark().parse(scanned.clean + "\n", "start"), places, 0)
        except RecursionError:
            raise NetxformError(deep(scanned, places), {file: text}) from None
        except (UnexpectedInput, VisitError):
            found = recover(scanned, places)
            raise NetxformError(found, {file: text}) from None
        statements, tail = attached(statements, scanned, places)
        return ast.Program(edition, statements, file, text, tail)


def parse_expression(text: str, file: str = "<value>") -> ast.Expr:
    """One expression (a selection or a value). Raises NetxformError X01xx."""
    places = Places(text, file)
    scanned = scan(text, places)
    if scanned.faults:
        raise NetxformError(scanned.faults, {file: text})
    try:
        return cast(ast.Expr, built(lark().parse(scanned.clean, "operand"), places, 0))
    except RecursionError:
        raise NetxformError([too_deep(places.span(0, len(text)))], {file: text}) from None
    except (UnexpectedInput, VisitError) as error:
        raise NetxformError([diagnose(error, "operand", scanned.clean, places, 0)], {file: text}) from None
