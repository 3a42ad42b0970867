"""A verb's values: their keys in the plan, what a reader is shown, and what a choice becomes when it is settled."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from netxform.language.choice import AS_TEXT, HIDDEN, IF_KNOWN, Choice, Part, Values, named


@dataclass(frozen=True)
class Some(Values):
    largest_step: float
    curvature: str = field(metadata=named("gauss-newton"))
    node: str = field(metadata=HIDDEN)
    indices: Part = field(metadata=AS_TEXT)
    names: tuple[str, ...]
    mix: tuple[float, ...]
    data: str | None
    bound: float | None = field(default=None, metadata=IF_KNOWN)
    bounds: tuple[float, ...] | None = field(default=None, metadata=HIDDEN | IF_KNOWN)


SOME = Some(0.0, "exact", "relu", Part(3, 8), ("a", "b"), (0.5, 0.5), None)


def test_entries_have_the_keys_of_the_plan_and_leave_out_what_is_not_known() -> None:
    assert SOME.entries() == {
        "largest step": 0.0, "gauss-newton": "exact", "node": "relu", "indices": "3 of 8", "names": ("a", "b"),
        "mix": (0.5, 0.5), "data": None,
    }  # fmt: skip
    known = Some(1.0, "", "", Part(0, 1), (), (), "d", 2.0, (1.0,))
    assert known.entries()["bound"] == 2.0 and known.entries()["bounds"] == (1.0,)
    json.dumps(known.entries())


def test_a_reader_sees_what_is_shown_and_neither_zeros_nor_nothing() -> None:
    assert SOME.lines() == ("gauss-newton exact, indices 3 of 8, names a, b, mix [0.5, 0.5]",)
    assert Values().lines() == () and Values().entries() == {}


def test_settling_keeps_what_was_said_and_leaves_nothing_open() -> None:
    first = Choice(Values(), ("a",), {"x": "default"}, warnings=("one",), provisional="all of it")
    last = first.settled(SOME, metrics={"loss": 1.0}, warnings=("two",))
    assert last.values is SOME and last.targets == ("a",) and last.origins == {"x": "default"}
    assert last.warnings == ("one", "two") and last.provisional == "" and last.metrics == {"loss": 1.0}
    assert not last.trains
