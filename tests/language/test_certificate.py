"""Certificates as JSON, both ways: every kind of claim, every number, and nothing that is not a certificate."""

from __future__ import annotations

import copy
import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netxform as nx
from netxform.codes import CODES
from netxform.compiler.claims.registry import FAMILIES, detail_of, load
from netxform.language import certificate as cert
from netxform.language.laws import Contract, Detail, Real

load()
# the words that JSON lacks are ordinary words where a text is meant
texts = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.sampled_from(["inf", "nan", "-inf", "NaN"]))
numbers = st.one_of(st.floats(), st.sampled_from([float("inf"), float("-inf"), float("nan"), 0.0]))
counts = st.integers(0, 2**53)
tables = st.dictionaries(texts, numbers, max_size=3)


def of(wanted: Any) -> st.SearchStrategy[Any]:
    """Values of a declared type."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Real:
        return numbers
    if wanted is str:
        return texts
    if wanted is bool:
        return st.booleans()
    if wanted is int:
        return counts
    if wanted is type(None):
        return st.none()
    if origin is tuple:
        return st.lists(of(inner[0]), max_size=3).map(tuple) if inner[-1] is ... else st.tuples(*map(of, inner))
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin is None and issubclass(wanted, Detail):
        return records(wanted)
    return st.one_of([of(i) for i in inner])


def records(detail: type[Detail]) -> st.SearchStrategy[Detail]:
    hints = typing.get_type_hints(detail)
    return st.builds(detail, **{f.name: of(hints[f.name]) for f in msgspec.structs.fields(detail)})


@st.composite
def certificates(draw: st.DrawFn, kinds: tuple[str, ...]) -> cert.Certificate:
    claims = [
        cert.ClaimRecord(
            kind,
            draw(texts),
            draw(numbers),
            draw(numbers),
            draw(st.booleans()),
            draw(counts),
            draw(counts),
            draw(texts),
            draw(records(FAMILIES[kind].detail)),
            draw(st.booleans()),
            tuple(draw(st.lists(texts, max_size=2))),
        )
        for kind in kinds
    ]
    statement = cert.StatementRecord(0, draw(texts), "train", draw(st.sampled_from(Contract)), tuple(claims), draw(tables))
    cost = cert.Totals(*draw(st.tuples(counts, counts, counts)))
    runs = cert.ComparisonRecord("compare", "m", (0, 1), {"spec": (draw(numbers), draw(numbers))}, draw(tables), draw(tables))
    score = cert.ScoreRecord("test_accuracy", draw(numbers), 0, 3, 7, draw(st.one_of(st.none(), numbers)))
    said = cert.AssertRecord(1, draw(texts), draw(texts))
    both = cert.CostRecord(cost, cost)
    return cert.Certificate(
        cert.FORMAT, "m", "p", 0, both, (statement,), draw(tables), (runs,), (score,), (said,), {}, {"a": "b"}, {}
    )


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_every_kind_comes_back(kind: str) -> None:
    @given(certificates((kind,)))
    @settings(max_examples=10)
    def comes_back(made: cert.Certificate) -> None:
        text = made.dump()
        json.loads(text, parse_constant=lambda word: pytest.fail(word))
        read = cert.load(text, detail_of)
        # NaN is not equal to itself: the texts are compared, and what can be
        assert read.dump() == text
        assert json.dumps(read.plain(), sort_keys=True) == json.dumps(made.plain(), sort_keys=True)
        assert type(read.statements[0].claims[0].detail) is FAMILIES[kind].detail

    comes_back()


def test_the_names_of_a_detail_are_those_of_the_certificate() -> None:
    detail = FAMILIES["as stored"].detail(1e-7, float("inf"))
    assert detail.plain() == {"own noise": 1e-7, "one rounding": float("inf")}
    assert "own noise" in detail
    assert "own_noise" not in detail
    assert detail["one rounding"] == float("inf")
    with pytest.raises(AttributeError):
        detail.own_noise = 0.0
    assert "changed" not in FAMILIES["untouched"].detail("0", 1)


def test_the_public_certificate_is_plain() -> None:
    result = nx.apply("model net = zoo.mlp()\nfactorize fc1 rank=2")
    assert result.certificate == result.record.plain()
    assert isinstance(result.certificate["statements"], list)
    (_, moved) = result.certificate["statements"][0]["claims"]
    assert moved["bound"] == float("inf")
    assert json.loads(result.record.dump())["statements"][0]["claims"][1]["bound"] == "inf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bundles") / "b"
    nx.apply("model net = zoo.mlp()\nfactorize fc1 rank=2; freeze fc2", out=made)
    return made


def first(held: Any) -> Any:
    return held["statements"][0]["claims"][0]


WRONG = {
    "a number as a text": lambda h: first(h).update(bound="1.0"),
    "an unknown field": lambda h: h.update(more=1),
    "an unknown field of a claim": lambda h: first(h).update(more=1),
    "an unknown field of a detail": lambda h: first(h)["detail"].update(more=1),
    "a detail of another kind": lambda h: first(h).update(kind="rounded"),
    "no detail": lambda h: first(h).pop("detail"),
    "no claims": lambda h: h["statements"][0].pop("claims"),
    "a detail that is a list": lambda h: first(h).update(detail=[]),
    "statements by name": lambda h: h.update(statements={"a": 1}),
    "an unknown contract": lambda h: h["statements"][0].update(contract="maybe"),
    "a verdict as a number": lambda h: first(h).update(held=1),
    "no format": lambda h: h.pop("format"),
    "a format as a text": lambda h: h.update(format="2"),
    "no hashes": lambda h: h.pop("files"),
    "hashes of tensors missing": lambda h: h.pop("tensors"),
    "a word that is not JSON": lambda h: first(h).update(bound=float("inf")),
    "nothing of a kind, in format 1": lambda h: (h.update(format=1), first(h).pop("kind")),
    "superseded by a text": lambda h: first(h).update(superseded_by="4"),
    "no statements, in format 1": lambda h: (h.update(format=1), h.pop("statements")),
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_what_is_no_certificate_is_a_damaged_bundle(folder: Path, what: str) -> None:
    text = (folder / "certificate.json").read_text()
    cert.load(text, detail_of)
    held = json.loads(text)
    WRONG[what](held)
    with pytest.raises(nx.NetxformError) as caught:
        cert.load(json.dumps(held), detail_of)
    assert [d.code for d in caught.value.diagnostics] == ["X0822"]


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '{"format": 2', '"format"', "[" * 100_000])
def test_what_is_no_object_is_a_damaged_bundle(text: str) -> None:
    with pytest.raises(nx.NetxformError) as caught:
        cert.load(text, detail_of)
    assert caught.value.diagnostics[0].code == "X0822"


def test_later_formats_and_unknown_claims_have_a_page(folder: Path) -> None:
    held = json.loads((folder / "certificate.json").read_text())
    later, unknown = copy.deepcopy(held), copy.deepcopy(held)
    later["format"] = cert.FORMAT + 1
    first(unknown)["kind"] = "norm at most"
    for changed in (later, unknown):
        with pytest.raises(nx.NetxformError) as caught:
            cert.load(json.dumps(changed), detail_of)
        assert caught.value.diagnostics[0].code == "X0827"
    assert "Update" in CODES["X0827"][1]


@pytest.mark.parametrize("edition", [1, 2])
def test_earlier_formats_are_read_and_every_claim_is_named(folder: Path, tmp_path: Path, edition: int) -> None:
    import shutil

    old = tmp_path / "old"
    shutil.copytree(folder, old)
    held = json.loads((folder / "certificate.json").read_text())
    held["format"] = edition
    held["held_out"] = {"samples": 3, "right": 2}
    del held["scores"], held["asserts"]
    teacher = {"bound": 0.0, "claim": "teacher `t` untouched", "detail": {"answers": "remembered", "digest": "0"}}
    teacher |= {"dtype": "bits", "held": True, "in_force": False, "measured": 0.0, "samples": 0, "seed": 0, "tensors": []}
    held["statements"][1]["claims"].append(teacher | {"kind": "" if edition == 1 else "teacher"})
    later = ("digest", "nodes", "superseded_by", "made", "unmeasured")
    for claim in (c for s in held["statements"] for c in s["claims"]):
        for name in later:
            claim.pop(name, None)
        if edition == 1:
            claim["bound"] = float(claim["bound"])  # Infinity, as it was written then
    for statement in held["statements"]:
        statement.pop("nothing")
    text = json.dumps(held, indent=1, sort_keys=True) + "\n"
    assert ("Infinity" in text) == (edition == 1)
    (old / "certificate.json").write_text(text)
    verdict = nx.verify(old)
    assert verdict.held
    claims = [c for s in held["statements"] for c in s["claims"]]
    assert verdict.counts["not measurable"] == len(claims)
    assert f"format {edition}" in next(c.why for c in verdict.claims if c.state == "not measurable")
    read = cert.load(text, detail_of)
    assert read.statements[1].claims[-1].kind == "teacher"
    assert read.statements[0].claims[1].bound == float("inf")
    nx.load(old)
