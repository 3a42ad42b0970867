"""What is read back is what was written: brackets, quotes and digits. The trees are compared before anything is explained."""

from __future__ import annotations

from hypothesis import given, settings

from netxform.syntax import ast
from netxform.syntax.format import format as format_text
from netxform.syntax.parse import parse
from tests.strategies import programs


@given(programs)
@settings(max_examples=200)
def test_the_text_of_a_tree_is_read_as_that_tree(tree: ast.Program) -> None:
    text = format_text(tree)
    same = parse(text) == tree
    assert same, text
