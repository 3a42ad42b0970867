"""The text and the tree: round trips, recovery, and what is said of mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import lark
import pytest
from hypothesis import given, settings

import netxform as nx
from netxform.codes import CODES
from netxform.syntax import ast, tables
from netxform.syntax.format import format as format_text
from netxform.syntax.parse import parse
from netxform.syntax.quantity import measure
from netxform.syntax.recover import mistakes
from netxform.syntax.scan import Places, scan
from tests.strategies import ONE_LINE, SPECS, mutated, programs


@given(programs)
@settings(max_examples=300)
def test_a_tree_comes_back_from_its_text(tree: ast.Program) -> None:
    text = format_text(tree)
    assert parse(text) == tree
    assert format_text(parse(text)) == text


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_samples_round_trip_with_their_comments(path) -> None:
    text = path.read_text()
    made = format_text(parse(text))
    assert parse(made) == parse(text)
    assert format_text(parse(made)) == made
    assert made.count("#") == text.count("#")


def test_the_one_line_sentence() -> None:
    verbs = [s.verb for s in parse(ONE_LINE).statements]
    assert verbs == ["cut", "freeze", "attach", "factorize", "prune", "widen", "distill"]
    assert parse(ONE_LINE) == parse(ONE_LINE.replace("; ", "\n"))
    assert parse("widen conv3 x2").statements[0].clauses == (ast.Factor(2),)


def test_any_text_gives_a_tree_or_diagnostics(fuzz: int) -> None:
    for seed in range(fuzz):
        text = mutated(seed)
        try:
            tree = parse(text)
        except nx.NetxformError as error:
            for d in error.diagnostics:
                assert d.code in CODES
                assert 0 <= d.span.start <= d.span.end <= len(text)
                assert d.span.line >= 1
                assert d.render(error.sources)
        else:
            made = format_text(tree)
            assert format_text(parse(made)) == made, seed


PARSERS = (tables.parser(), tables.built())


def test_the_grammar_has_no_conflict() -> None:
    source = tables.grammar("xform.lark")
    lark.Lark(source, parser="lalr", lexer="contextual", strict=True)


def test_the_tables_are_those_of_the_grammar() -> None:
    """After a change of the grammar: `python -W ignore -m netxform.syntax.tables > grammar/xform.tables.json`."""
    held, made = json.loads(tables.grammar(tables.TABLES)), json.loads(json.dumps(tables.written()))
    assert held["grammar"] == made["grammar"]
    if held["lark"] == made["lark"]:
        assert held == made


@pytest.mark.parametrize("held", ["", "{}", '{"lark": "0", "grammar": ""}'])
def test_tables_of_another_grammar_are_not_used(held, monkeypatch) -> None:
    whole = tables.grammar
    monkeypatch.setattr(tables, "grammar", lambda name: held if name == tables.TABLES else whole(name))
    found, made = tables.parser(), tables.built()
    assert found.parse("freeze conv1\n", "start") == made.parse("freeze conv1\n", "start")


@given(programs)
@settings(max_examples=30)
def test_the_tables_read_what_the_grammar_reads(program) -> None:
    text = format_text(program)
    scanned = scan(text, Places(text, "")).clean + "\n"
    assert PARSERS[0].parse(scanned, "start") == PARSERS[1].parse(scanned, "start")


@pytest.mark.parametrize(("kind", "texts"), mistakes().items(), ids=lambda v: v[0] if isinstance(v, tuple) else "")
def test_every_kind_of_mistake_is_known_again(kind, texts) -> None:
    code, _, repair = kind
    assert code in CODES
    assert texts
    # each example may match an earlier, more general kind; at least one is classified as what it stands for
    found = []
    for text in texts:
        with pytest.raises(nx.NetxformError) as caught:
            parse(text)
        first = caught.value.diagnostics[0]
        found.append(first.code)
        if first.code == code:
            assert repair in first.helps
    assert code in found


def test_every_error_is_reported_once_at_its_place() -> None:
    text = "cut after\nfreeze body\nassert params\nstage s {\n  train head for\n  freeze a |\n}\n"
    with pytest.raises(nx.NetxformError) as caught:
        parse(text)
    places = [(d.span.line, d.code) for d in caught.value.diagnostics]
    assert places == [(1, "X0116"), (3, "X0123"), (5, "X0116"), (6, "X0122")]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("freeze (a", "X0103"),
        ("freeze a)", "X0103"),
        ("freeze [a)", "X0103"),
        ('use "abc', "X0111"),
        ("freeze 'a'", "X0112"),
        ("train a for 5epoks", "X0113"),
        ("freeze " + "(" * 100 + "a" + ")" * 100, "X0102"),
        ("a b=" + "9" * 500, "X0115"),
        ("cut at a\nxform 1", "X0101"),
    ],
)
def test_codes_of_syntax(text: str, code: str) -> None:
    with pytest.raises(nx.NetxformError) as caught:
        parse(text)
    assert caught.value.diagnostics[0].code == code


def test_carets_stand_under_the_word() -> None:
    with pytest.raises(nx.NetxformError) as caught:
        parse("freeze a\nfreeze a b c\n", "s.xform")
    lines = str(caught.value).split("\n")
    row = next(i for i, line in enumerate(lines) if "freeze a b c" in line)
    assert lines[row + 1].index("^") == lines[row].index("b c")


def test_quantities() -> None:
    def value(text: str):
        node = parse(f"a b={text}").statements[0].clauses[0].value
        found = measure(node)
        return found.value, found.dimension

    assert value("2%") == (0.02, "share")
    assert value("30Mparams") == (30_000_000, "params")
    assert value("12MiB") == (12 * 2**20, "bytes")
    assert value("4Gflops") == (4 * 10**9, "flops")
    assert value("5epochs") == (5, "epochs")
    assert value("1k") == (1000, "number")


def test_checking_imports_no_torch() -> None:
    code = (
        "import sys, netxform as nx\n"
        "nx.check('model net = zoo.smallcnn()\\ncut at layer4; freeze body')\n"
        "assert not {'torch', 'numpy', 'sklearn', 'networkx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
