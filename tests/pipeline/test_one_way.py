"""From text to bundle there is one way: one capture, one planning, and what was planned is what is carried out."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import netxform as nx
from netxform import api
from netxform.cli import main
from netxform.compiler import models as further
from netxform.compiler.plan import Plan, Step
from netxform.compiler.resolve import Planned, resolve
from netxform.language.verb import REGISTRY
from netxform.pipeline import subject
from netxform.pipeline.subject import Inputs

NET = 'model net = zoo.smallcnn() input="1x1x8x8"\ndata d = sklearn.digits(train=64)\n'
PLAIN = NET + "cut at layer4; freeze body\nattach head classes=10\nassert params < 1e9\ntrain head for 1epochs on d\n"
SETTLED = (
    NET
    + """freeze conv1
prune conv2 by magnitude amount=50%
freeze conv3
snapshot was
assert params < 1e9
unfreeze conv3
"""
)


class Calls:
    """How often a model was captured, and how often each statement was resolved, by its number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.captured = 0
        self.resolved: Counter[int] = Counter()
        self.planned = 0
        for module in (subject, further):
            monkeypatch.setattr(module, "capture", self._counting(module.capture))
        for entry in REGISTRY.values():
            monkeypatch.setattr(entry.cls, "resolve", self._recording(entry.cls.resolve))
        monkeypatch.setattr(subject, "resolve", self._planning)

    def _counting(self, capture: Any) -> Any:
        def counted(*args: Any) -> Any:
            self.captured += 1
            return capture(*args)

        return counted

    def _recording(self, verb_resolve: Any) -> Any:
        def recorded(verb: Any, network: Any, scope: Any) -> Any:
            self.resolved[scope.index] += 1
            return verb_resolve(verb, network, scope)

        return recorded

    def _planning(self, *args: Any, **keywords: Any) -> Planned:
        self.planned += 1
        return resolve(*args, **keywords)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@pytest.mark.parametrize("more", [[], ["--quiet"]])
def test_the_command_line_captures_and_plans_once(calls: Calls, tmp_path: Path, more: list[str]) -> None:
    path = tmp_path / "s.xform"
    path.write_text(PLAIN)
    assert main(["apply", str(path), "-o", str(tmp_path / "b"), *more]) == 0
    assert (calls.captured, calls.planned) == (1, 1)
    assert calls.resolved == {0: 1, 1: 1, 2: 1, 4: 1}
    assert main(["verify", str(tmp_path / "b")]) == 0


def test_only_what_stands_behind_another_choice_is_resolved_again(calls: Calls, tmp_path: Path) -> None:
    result = nx.apply(SETTLED, out=tmp_path / "b")
    assert (calls.captured, calls.planned) == (1, 1)
    assert calls.resolved == {0: 1, 1: 1, 2: 2, 3: 2, 5: 2}
    assert [s.estimated for s in result.plan.steps] == [False] * 5


def test_a_choice_that_stays_as_planned_resolves_nothing_again(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY["prune"].cls, "settle", lambda verb, network, choice, material: choice)
    prepared = api.prepare_spec(SETTLED)
    walk = prepared.planned.walk()
    for item in walk:
        if isinstance(item, Step) and item.verb == "prune":
            assert walk.settle(item.choice).choice == item.choice
    assert set(calls.resolved.values()) == {1}


def test_deep_planning_goes_on_from_the_plan(calls: Calls) -> None:
    plan = nx.plan(SETTLED, deep=True)
    assert (calls.captured, calls.planned) == (1, 1)
    assert calls.resolved == {0: 1, 1: 1, 2: 2, 3: 2, 5: 2}
    assert next(s for s in plan.steps if s.verb == "prune").measured


def test_what_is_prepared_can_be_applied_twice() -> None:
    prepared = api.prepare_spec(SETTLED)
    digest = prepared.plan.digest()
    first, second = api.apply_prepared(prepared), api.apply_prepared(prepared)
    assert first.plan.digest() == second.plan.digest()
    assert prepared.plan.digest() == digest != first.plan.digest()
    assert api.apply_spec(SETTLED).plan.digest() == first.plan.digest()


def test_a_plan_is_data() -> None:
    plan = nx.plan(SETTLED)
    held = [getattr(plan, f.name) for f in dataclasses.fields(Plan)]
    assert not [v for v in held if callable(v)]
    assert not hasattr(plan, "walk")


@pytest.mark.parametrize("function", [nx.plan, nx.apply])
def test_keywords_are_spelled_out(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
    handed = {f.name for f in dataclasses.fields(Inputs)} - {"trust"}
    trusted = {"root", "trust_code", "trust_pickle", "allow_outside", "max_memory"}
    assert handed | trusted | {"progress"} <= set(parameters)
    for name in (*handed, *trusted, "progress"):
        assert f"`{name}`" in function.__doc__, f"{name} is not documented"
    with pytest.raises(TypeError, match="parms"):
        function(PLAIN, parms={"n": 1})


def test_plan_and_apply_name_one_set_of_keywords() -> None:
    plan, apply = (set(inspect.signature(f).parameters) for f in (nx.plan, nx.apply))
    assert plan - apply == {"deep"}
    assert apply - plan == {"out", "overwrite", "resume", "sign", "keep_class"}


def test_progress_is_told_while_planning_deeply() -> None:
    told: list[str] = []

    class Told:
        def start(self, title: str, total: int) -> None:
            told.append(title)

        def step(self, text: str, advance: int = 1) -> None: ...

        def stop(self) -> None: ...

    nx.plan(NET + "prune conv2 by taylor amount=50%", deep=True, progress=Told())
    assert told
