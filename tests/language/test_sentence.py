"""A bound verb prints itself back as its statement, and reads back as itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netxform.compiler.bind import Bound, bind
from netxform.compiler.check import EachItem, check_source
from netxform.errors import Findings, NetxformError
from netxform.language.limit import Limit
from netxform.language.sentence import sentence
from netxform.language.verb import REGISTRY
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.syntax.format import format_node
from netxform.syntax.parse import parse
from netxform.verbs.factorize import Factorize
from netxform.verbs.prune import Prune
from tests.strategies import SPECS

# every kind of slot, and values that could be read as something else
STATEMENTS = (
    "attach logistic_regression() after body",
    "attach head random_forest(500, max_depth=none) on d",
    "attach head { pool = AdaptiveAvgPool2d(1); act = ReLU; out = Linear(auto, 10, bias=false) }",
    "cast float16 keep [norms, head, `at`.0]",
    "cut after layer4 drops=[fc, avgpool]",
    "deepen conv3 name=`for` kernel=5 start=branch",
    "distill ** from [t1, t2] for 100steps mix=[0.6, 0.4] mean=geometric { match student.a.b to t1.c via conv1x1 weight=0.5 }",
    "factorize :Linear | conv* - fc using [svd, tucker2] until latency <= 5ms over d",
    "factorize a by vbmf", "factorize a rank=[128, 0.25]", "factorize a until bytes <= 3MiB",
    "factorize a rank=1.0", "factorize a until params <= 1.5Mparams",
    "factorize a until macs <= 37.3% of base gate=none when_smaller=false worst_case=1.5",
    "features at layer4 pool=none",
    'init embed from word2vec("a b.bin") vocabulary="true"',
    "init gru from other.net { map encoder.rnn to gru; map a to b }",
    'prune granularity="2:4"',
    "prune saliency < 1e-3 keep [a, b] by obd(method=monte-carlo, draws=4)",
    "prune amount=30% step=0.07 { stop_if val_accuracy < 7%; stop_if val_loss > 1.5;"
    " recover { train ** for 2epochs; train a for 3steps } }",
    "train ** for 5epochs on d using sgd(lr=1, momentum=0.9) "
    "regularize [l1(activations(a | b), 1e-4), weight_decay(fc::weight, 0.5)]"
    " augment=[shift(2), flip] device=\"cuda:0\" compile=true clip=1.0 { group a lr=1e-5; group b weight_decay=0 }",
    "train a for 3steps { head x loss=mse target=1; head y weight=0.5 }",
    "widen a[params > 1M]? x1.5 mode=copy", "widen op:relu to 512",
)  # fmt: skip


def _again(bound: Bound) -> Bound:
    text = sentence(bound.transform)
    program = parse(text)
    (command,) = program.statements
    assert isinstance(command, ast.Command)
    assert format_node(command) == text  # canonical
    findings = Findings()
    out = bind(command, bound.stage or "stage", findings)
    assert out is not None, (text, [d.message for d in findings.items])
    return out


def _bound(text: str) -> list[Bound]:
    items = list(check_source(text, {}, Trust()).walk())
    found = [i for i in items if isinstance(i, Bound)]
    for one in items:
        if isinstance(one, EachItem):
            made = (bind(s, one.stage, Findings()) for s in one.body if isinstance(s, ast.Command))
            found += [b for b in made if b is not None]
    return found


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_sample_specs_read_back(path: Path) -> None:
    try:
        found = [i for i in check_source(path, {}, Trust()).walk() if isinstance(i, Bound)]
    except NetxformError as error:
        assert error.diagnostics[0].code in ("X0807", "X0814")
        return
    assert found
    for bound in found:
        assert _again(bound).action == bound.action


@pytest.mark.parametrize("word", sorted(REGISTRY))
def test_the_example_of_every_page_reads_back(word: str) -> None:
    example = re.search(r"Example: (.*?)\n\n", REGISTRY[word].doc + "\n\n", re.S)
    assert example is not None
    found = _bound(example.group(1).replace("\n", " "))
    assert word in {b.entry.word for b in found}
    for bound in found:
        assert _again(bound).action == bound.action


@pytest.mark.parametrize("text", STATEMENTS)
def test_every_kind_of_clause_reads_back(text: str) -> None:
    (bound,) = _bound(text)
    again = _again(bound)
    assert again.action == bound.action
    assert sentence(again.transform) == sentence(bound.transform)


@given(st.floats(1e-9, 1.0), st.sampled_from(["<", "<="]))
def test_shares_are_exact(share: float, op: ast.CompareOp) -> None:
    value = 100 * share / 100  # a double that some percentage gives
    verb = Prune(below=Limit("saliency", op, value, "share"))
    (command,) = parse(sentence(verb)).statements
    assert isinstance(command, ast.Command)
    bound = bind(command, None, Findings())
    assert bound is not None
    assert bound.action == verb


def test_what_is_the_default_is_not_said() -> None:
    assert sentence(Prune(amount=0.3)) == "prune amount=0.3"
    with pytest.raises(KeyError, match="no registered verb"):
        sentence(Limit("a", "<", 1, "number"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "share"), [("1", False), ("1.0", True), ("100%", True), ("8", False), ("0.25", True)])
def test_a_rank_stays_a_number_or_a_share(text: str, share: bool) -> None:
    (bound,) = _bound(f"factorize a rank={text} using svd")
    for one in (bound, _again(bound)):
        transform = one.transform
        assert isinstance(transform, Factorize) and transform.rank is not None
        assert [r.share for r in transform.rank] == [share]
