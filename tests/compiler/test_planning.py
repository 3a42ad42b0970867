"""Statement by statement on the twin: costs follow on from each other, decisions are made where their turn comes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netxform as nx
from netxform.zoo.cnn import SmallCNN

NET = 'model net = zoo.smallcnn() input="1x1x8x8"\n'
DATA = "data d = sklearn.digits(train=400)\n"
STATEMENTS = [
    "cut at layer4",
    "freeze conv1",
    "widen conv2 x2",
    "factorize fc1 using svd rank=4",
    "prune conv3 by magnitude amount=25%",
]


def code_of(text: str) -> str:
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan(text)
    return caught.value.diagnostics[0].code


@given(st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=3, unique=True))
@settings(max_examples=15)
def test_each_statement_begins_at_the_cost_where_the_last_one_ended(statements: list[str]) -> None:
    statements = sorted(statements, key=lambda s: s.startswith("cut"))  # what is cut off cannot be factorized behind it
    plan = nx.plan(NET + "\n".join(statements))
    assert [s.text for s in plan.steps] == statements
    ends = [plan.base, *(s.after for s in plan.steps)]
    assert all(step.before == end for step, end in zip(plan.steps, ends, strict=False))
    assert plan.final == ends[-1]


def test_planning_is_a_function_of_the_text() -> None:
    text = NET + "widen conv2 x2; factorize fc1 using svd rank=4"
    assert nx.plan(text).digest() == nx.plan(text).digest()
    assert nx.plan(text).digest() != nx.plan(text.replace("rank=4", "rank=5")).digest()


def test_the_plan_leaves_the_model_alone() -> None:
    model = SmallCNN()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    nx.plan("cut at layer4; freeze body; attach head classes=3", model=model, example_inputs=torch.zeros(1, 1, 8, 8))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("before", "taken"), [("", "freeze conv1"), ("cut at conv2\n", "freeze bn1")])
def test_an_if_is_decided_by_the_cost_at_its_place(before: str, taken: str) -> None:
    plan = nx.plan(NET + before + "if params > 50kparams { freeze conv1 } else { freeze bn1 }")
    assert plan.steps[-1].text == taken


def test_an_if_that_needs_a_metric_is_refused() -> None:
    assert code_of(NET + DATA + "if val_accuracy > 0.5 { freeze conv1 }") == "X0315"


def test_each_goes_over_the_modules_in_the_order_of_the_network() -> None:
    plan = nx.plan(NET + "each c in conv{1..3} { freeze c }")
    assert [s.text for s in plan.steps] == ["freeze `conv1`", "freeze `conv2`", "freeze `conv3`"]


def test_names_are_given_once() -> None:
    assert code_of(NET + "let a = conv1\nlet a = conv2\nfreeze a") == "X0303"
    assert code_of(NET + "snapshot net") == "X0303"


def test_what_a_verb_defined_shrinks_with_the_network() -> None:
    plan = nx.plan(NET + "cut at layer4; let inside = body; cut at conv2; freeze body")
    assert "conv3" in plan.steps[0].choice.defines["body"]
    frozen = {t for o in plan.steps[-1].edit.operations for t in o.parameters}  # type: ignore[attr-defined]
    assert frozen and all(t.startswith(("conv1.", "bn1.", "conv2.")) for t in frozen)


def test_asserts_are_judged_where_they_stand() -> None:
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan(NET + "assert params < 10params")
    assert caught.value.exit_code == 3
    plan = nx.plan(NET + "cut at layer4; assert params < 150kparams")
    assert plan.items[-1].held is True  # type: ignore[union-attr]


def test_what_needs_data_is_estimated_until_it_is_settled() -> None:
    plan = nx.plan(NET + DATA + "factorize fc1 until params <= 90% of base over d; freeze conv1")
    assert plan.steps[0].choice.provisional and all(s.estimated for s in plan.steps)
    deep = nx.plan(NET + DATA + "factorize fc1 until params <= 99% of base gate=none over d; freeze conv1", deep=True)
    assert not deep.steps[0].choice.provisional
