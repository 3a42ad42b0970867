"""Comments: each stays, in its order, above or beside its statement, whatever the formatter does to the text."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from netxform.syntax import ast
from netxform.syntax.format import format as format_text
from netxform.syntax.parse import parse
from tests.strategies import SPECS

STATEMENTS = ["cut   at a", "freeze body", "model net =  zoo.smallcnn()", "assert params<=3", "let k=conv1", "widen a   x2"]
BLOCKS = ["stage s {", "each m in convs {", "if params < 3 {"]


@st.composite
def texts(draw: st.DrawFn, depth: int = 0) -> list[str]:
    """Lines with statements, blocks and comments, each comment with a number of its own (put in later)."""
    out: list[str] = []
    pad = " " * draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 3))):
        out += [f"{pad}#§" for _ in range(draw(st.integers(0, 2)))]
        beside = "  #§" if draw(st.booleans()) else ""
        if depth < 2 and draw(st.integers(0, 3)) == 0:
            head = draw(st.sampled_from(BLOCKS))
            out += [pad + head, *draw(texts(depth=depth + 1)), pad + "}" + beside]
        else:
            out.append(pad + draw(st.sampled_from(STATEMENTS)) + beside)
    if draw(st.booleans()) and depth == 0:
        out.append("#§")
    return out


def numbered(lines: list[str]) -> str:
    count = iter(range(10**6))
    return re.sub("§", lambda _: f" note {next(count)}", "\n".join(lines)) + "\n"


def notes(text: str) -> list[str]:
    return re.findall(r"note \d+", text)


def placed(statements: tuple[ast.Statement, ...]) -> list[tuple[str, tuple[str, ...], str | None]]:
    """Each statement's kind, what stands above it and what beside it, in the order of the text."""
    out: list[tuple[str, tuple[str, ...], str | None]] = []
    for one in statements:
        out.append((type(one).__name__, tuple(c.strip() for c in one.comments), one.trailing and one.trailing.strip()))
        for name in ("body", "then", "otherwise", "block"):
            inner = getattr(one, name, None)
            if isinstance(inner, tuple):
                out += placed(inner)
    return out


@given(texts())
@settings(max_examples=150)
def test_every_comment_stays_with_its_statement(lines: list[str]) -> None:
    text = numbered(lines)
    tree = parse(text)
    made = format_text(tree)
    assert notes(made) == notes(text)
    again = parse(made)
    assert again == tree
    assert placed(again.statements) == placed(tree.statements)
    assert [c.strip() for c in again.tail] == [c.strip() for c in tree.tail]
    assert format_text(again) == made
    # beside in the text, beside in the tree
    beside = re.findall(r"\S +# (note \d+)", text)
    assert sorted(t for _, _, t in placed(tree.statements) if t is not None) == sorted(beside)


def test_the_comments_of_the_samples_stand_in_their_order() -> None:
    for path in SPECS:
        text = path.read_text()
        made = format_text(parse(text))
        words = lambda t: [c.strip() for c in re.findall(r"(?:^|\s)#(.*)$", t, re.M)]  # noqa: E731
        assert words(made) == words(text), path.name
