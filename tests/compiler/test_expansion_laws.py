"""Expansion and conditions: parameters and their ranges, macros, branches; and the logic of what is not known yet."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netxform.compiler.conditions import cost_of, judge
from netxform.compiler.expand import decide, expand
from netxform.errors import NetxformError
from netxform.graph.cost import Cost
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.syntax.format import format as format_text
from netxform.syntax.parse import parse

OPERATORS = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


def expanded(text: str, **given: Any) -> str:
    found = expand(parse(text), given, Trust()).program
    return format_text(ast.Program(None, found.statements)).strip()


def codes(text: str, **given: Any) -> list[str]:
    with pytest.raises(NetxformError) as caught:
        expanded(text, **given)
    return [d.code for d in caught.value.diagnostics]


@given(st.integers(-3, 3), st.integers(-3, 3), st.sampled_from(sorted(OPERATORS)))
def test_an_if_takes_the_branch_that_its_condition_says(a: int, b: int, op: str) -> None:
    text = f"param a = 0\nif $a {op} {b} {{\n  freeze one\n}} else {{\n  freeze two\n}}"
    assert expanded(text, a=a) == ("freeze one" if OPERATORS[op](a, b) else "freeze two")
    assert expanded(f"param a = {a}\nif not $a {op} {b} {{\n  freeze one\n}}") == ("" if OPERATORS[op](a, b) else "freeze one")
    left = parse(f"assert {a} {op} {b} and {b} {op} {a}").statements[0]
    assert isinstance(left, ast.Assert)
    assert decide(left.condition) is (OPERATORS[op](a, b) and OPERATORS[op](b, a))


def test_an_if_that_the_network_decides_is_kept_with_its_branches_expanded() -> None:
    text = "param n = x\nif params < 3 {\n  freeze $n\n} else {\n  freeze two\n}"
    assert expanded(text) == "if params < 3 {\n  freeze x\n} else {\n  freeze two\n}"


def test_a_macro_is_its_body_with_its_arguments() -> None:
    text = "def grow(what, by) {\n  widen what to $by\n  freeze what.bias\n}\n"
    wanted = "widen conv1 to 64\nfreeze conv1.bias"
    assert expanded(text + "grow(conv1, 64)") == wanted
    assert expanded(text + "grow(by=64, what=conv1)") == wanted
    assert expanded(text + "grow(conv1, by=64)") == wanted
    assert expanded(text + "stage s {\n  grow(conv1, 64)\n}") == "stage s {\n  widen conv1 to 64\n  freeze conv1.bias\n}"
    for wrong in ("grow(conv1)", "grow(conv1, 2, 3)", "grow(conv1, other=3)"):
        assert codes(text + wrong) == ["X0106"], wrong
    assert codes("def a() {\n  b()\n}\ndef b() {\n  a()\n}\na()") == ["X0105"]


@given(st.integers(-5, 12))
def test_a_given_value_counts_and_has_its_range(value: int) -> None:
    text = "param n: int = 4 in [0, 8]\nwiden conv1 to $n"
    assert expanded(text) == "widen conv1 to 4"
    if 0 <= value <= 8:
        assert expanded(text, n=value) == f"widen conv1 to {value}"
    else:
        assert codes(text, n=value) == ["X0406"]
    assert codes(text, m=value) == ["X0403"]
    assert codes(text, n="word") == ["X0401"]
    assert codes("param n: int") == ["X0403"]


# --- conditions ------------------------------------------------------------------------------------------------------

TRUTH = {"params < 100": True, "params > 100": False, "val_accuracy > 90%": None}


def logic(word: str, parts: list[bool | None]) -> bool | None:
    """Kleene: what holds whatever the unknown ones are."""
    ways = itertools.product(*[(p,) if p is not None else (True, False) for p in parts])
    found = {(all if word == "and" else any)(way) for way in ways}
    return found.pop() if len(found) == 1 else None


@given(st.sampled_from(["and", "or"]), st.lists(st.sampled_from(sorted(TRUTH)), min_size=2, max_size=4), st.booleans())
def test_conditions_are_those_of_logic(word: str, parts: list[str], turned: bool) -> None:
    text = f" {word} ".join(parts)
    wanted = logic(word, [TRUTH[p] for p in parts])
    text, wanted = (f"not ({text})", None if wanted is None else not wanted) if turned else (text, wanted)
    statement = parse(f"assert {text}").statements[0]
    assert isinstance(statement, ast.Assert)
    now, base = Cost(60, 10, 240), Cost(100, 10, 400)
    assert judge(statement.condition, now, base, {})[0] is wanted
    known = {"val_accuracy": 0.95}
    sure = logic(word, [TRUTH[p] is not False for p in parts])
    assert judge(statement.condition, now, base, known)[0] is (not sure if turned else sure)


def test_costs_by_name() -> None:
    one = Cost(60, 10, 240)
    assert [cost_of(n, one) for n in ("params", "macs", "flops", "bytes", "ms")] == [60, 10, 20, 240, None]
