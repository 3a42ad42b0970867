"""What is read back is what was written: brackets, quotes and digits of expressions that are drawn here."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from netxform.syntax import ast
from netxform.syntax.format import format as format_text
from netxform.syntax.parse import parse


def selection(rng: random.Random, depth: int) -> ast.Expr:
    """Sets of sets, with no operator directly inside itself where that has no brackets of its own."""
    if depth == 0:
        return ast.Path(rng.choice(["a", "b.c", "conv1", "layer2.0"]))
    kind = rng.choice([ast.Union, ast.Intersection, ast.Difference])
    parts = [selection(rng, rng.randrange(depth)) for _ in range(2)]
    if kind is ast.Difference:
        return ast.Difference(*parts)
    return kind((*(p for p in parts if not isinstance(p, kind)), ast.Path("z"), ast.Path("y")))


def condition(rng: random.Random, depth: int) -> ast.Condition:
    """Comparisons under `not`, `and`, `or`."""
    if depth == 0:
        return ast.Compare(rng.choice(["<", "<=", "==", "!="]), ast.Path("params"), ast.Number(rng.randrange(9)))
    kind = rng.choice([ast.Not, ast.And, ast.Or])
    parts = [condition(rng, rng.randrange(depth)) for _ in range(2)]
    if kind is ast.Not:
        return ast.Not(parts[0])
    return kind((*(p for p in parts if not isinstance(p, kind)), condition(rng, 0), condition(rng, 0)))


def value(rng: random.Random) -> ast.Expr:
    """A number of any size and length, or a text with marks that mean something."""
    if rng.random() < 0.5:
        return ast.Number(rng.choice([rng.uniform(-1, 1) * 10.0 ** rng.randrange(-30, 30), float(rng.randrange(10**6)), 0.1]))
    return ast.String("".join(rng.choice("ab \"\\'`#;\n\tё") for _ in range(rng.randrange(8))))


@given(st.integers(0, 10**9))
@settings(max_examples=200)
def test_the_text_of_an_expression_is_read_as_that_expression(seed: int) -> None:
    rng = random.Random(seed)
    tree = ast.Program(
        None,
        (
            ast.Command("freeze", (selection(rng, 3),), ()),
            ast.Assert(condition(rng, 3), None),
            ast.Command("train", (ast.Path("a"),), (ast.Option("k", value(rng)),)),
        ),
    )
    text = format_text(tree)
    same = parse(text) == tree
    assert same, text
