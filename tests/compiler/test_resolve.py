"""Planning as a walk over states: it can go on from any statement, and nothing that it has made changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from netxform.api import prepare_spec
from netxform.compiler.conditions import judge
from netxform.compiler.plan import Check, Step
from netxform.compiler.resolve import Planned
from netxform.errors import NetxformError
from netxform.graph.cost import Cost
from netxform.syntax import ast
from netxform.syntax.parse import parse

TEXT = """model net = zoo.smallcnn() input="1x1x8x8"
data d = sklearn.digits(train=64)
let early = conv1 | conv2
stage one { freeze early; each m in early { unfreeze m }; freeze early }
snapshot was
if params > 10 { prune conv2 by magnitude amount=50% } else { freeze ** }
assert params < 1e9
cut at layer4
attach head classes=10
unfreeze early
"""


@pytest.fixture(scope="module")
def planned() -> Planned:
    return prepare_spec(TEXT).planned


def test_it_goes_on_from_any_place(planned: Planned) -> None:
    digest = planned.plan.digest()
    for i, place in enumerate(planned.places):
        ahead = [p.item for p in planned.resolver.onward(place.behind, place.rest)]
        assert ahead == list(planned.plan.items[i + 1 :])
    assert planned.plan.digest() == digest


def test_a_state_is_what_the_statements_before_it_left(planned: Planned) -> None:
    for before, behind in zip(planned.places, planned.places[1:], strict=False):
        assert before.behind.network is behind.before.network
    steps = [p for p in planned.places if isinstance(p.item, Step)]
    assert [p.before.count for p in planned.places] == list(range(len(planned.places)))
    assert [p.item.stage for p in steps[:5]] == ["one", "one", "one", "one", None]
    snapshot, cut, attach = (next(p for p in steps if p.item.verb == v) for v in ("snapshot", "cut", "attach"))
    assert not snapshot.before.snapshots and set(snapshot.behind.snapshots) == {"was"}
    assert "fc" not in cut.before.removed and "fc" in cut.behind.removed
    assert "head" not in attach.before.names and attach.behind.names["head"][0] == "head"
    assert "early" in steps[0].before.names


def test_behind_a_provisional_choice_all_is_estimated(planned: Planned) -> None:
    at = next(i for i, p in enumerate(planned.places) if isinstance(p.item, Step) and p.item.verb == "prune")
    assert not any(p.before.estimated for p in planned.places[: at + 1])
    assert all(p.behind.estimated for p in planned.places[at:])
    check = next(i for i in planned.plan.items if isinstance(i, Check))
    assert check.held is None and check.seen.endswith("estimated")


def test_a_settled_choice_leads_to_another_way(planned: Planned) -> None:
    walk = planned.walk()
    seen: list[Any] = []
    for item in walk:
        if isinstance(item, Step) and item.verb == "prune":
            item = walk.settle(replace(item.choice, provisional=""))
        seen.append(item)
    assert [i.text for i in seen] == [i.text for i in planned.plan.items]
    assert not any(i.estimated for i in seen if isinstance(i, Step))
    assert next(i for i in seen if isinstance(i, Check)).held is True
    assert any(s.estimated for s in planned.plan.steps)


def test_what_fails_behind_a_settled_choice_is_placed() -> None:
    text = 'model net = zoo.smallcnn() input="1x1x8x8"\nprune conv2 by magnitude amount=50%\nlet found = conv2\nfreeze fc'
    planned = prepare_spec(text).planned
    walk = planned.walk()
    item = next(walk)
    assert isinstance(item, Step)
    walk.settle(replace(item.choice, provisional="", defines={"found": ("conv1",)}))
    with pytest.raises(NetxformError) as caught:
        next(walk)
    assert caught.value.diagnostics[0].code == "X0303" and caught.value.diagnostics[0].span.line == 3


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        ("params < 100", True),
        ("params < 50% of base", False),
        ("params <= 60% of base and macs > 5", True),
        ("val_accuracy > 90%", None),
        ("val_accuracy > 90% or params < 100", True),
        ("not params < 100", False),
        ("val_accuracy > 90% and params > 100", False),
    ],
)
def test_conditions(condition: str, held: bool | None) -> None:
    statement = parse(f"assert {condition}").statements[0]
    assert isinstance(statement, ast.Assert)
    now, base = Cost(60, 10, 240), Cost(100, 10, 400)
    assert judge(statement.condition, now, base, {})[0] is held


def test_a_second_name_is_refused_in_its_text() -> None:
    text = 'model net = zoo.smallcnn() input="1x1x8x8"\nlet a = conv1\nsnapshot net'
    with pytest.raises(NetxformError) as caught:
        prepare_spec(text)
    assert caught.value.diagnostics[0].code == "X0303" and caught.value.sources["<spec>"] == text
