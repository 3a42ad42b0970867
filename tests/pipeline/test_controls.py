"""What becomes of a spec in a control run; the verbs say it, a verb from outside as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from netxform.api import check_spec
from netxform.compiler.bind import Bound
from netxform.compiler.check import StageItem
from netxform.graph.edits import Edit
from netxform.language.choice import Choice
from netxform.language.laws import Contract
from netxform.language.verb import REGISTRY, Control, Role, entry, key, verb
from netxform.pipeline.controls import controlled

HEAD = 'model net = zoo.smallcnn() input="1x1x8x8"\nmodel other = zoo.smallcnn()\ndata d = sklearn.digits(train=64)\n'
TEXT = (
    HEAD
    + """stage first { train ** for 1epochs; keep best by val_loss }
init conv1 from other
cut at layer4
freeze body
attach head classes=10
stage second { train head for 1epochs { group conv1 lr=1e-4 } }
distill from other for 1epochs
unfreeze body
"""
)


def statements(items: Any) -> list[str]:
    return [w for i in items for w in (statements(i.items) if isinstance(i, StageItem) else [i.entry.word])]


def bound(items: Any) -> Iterator[Bound]:
    for item in items:
        if isinstance(item, StageItem):
            yield from bound(item.items)
        elif isinstance(item, Bound):
            yield item


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("scratch", ["cut", "attach", "train", "distill"]),
        ("random", ["cut", "freeze", "attach", "train", "distill", "unfreeze"]),
        ("alone", ["train", "keep", "init", "cut", "freeze", "attach", "train", "distill", "unfreeze"]),
    ],
)
def test_what_is_left(kind: Control, left: list[str]) -> None:
    assert statements(controlled(check_spec(TEXT), kind).items) == left


def test_what_the_statements_become() -> None:
    spec = check_spec(TEXT)
    written = {b.entry.word: b.action for b in bound(spec.items)}
    scratch = {b.entry.word: b.action for b in bound(controlled(spec, "scratch").items)}
    alone = {b.entry.word: b.action for b in bound(controlled(spec, "alone").items)}
    assert str(written["train"].selection) == "head" and written["train"].groups
    assert str(scratch["train"].selection) == "**" and not scratch["train"].groups
    assert scratch["distill"] == written["distill"] and alone["train"] == written["train"]
    assert alone["distill"].hard == 1.0 != written["distill"].hard
    assert all(b.action == written[b.entry.word] for b in bound(controlled(spec, "random").items) if b.entry.word != "train")


def test_without_a_change_of_structure_there_is_no_pretraining() -> None:
    spec = check_spec(HEAD + "train ** for 1epochs on d")
    assert statements(controlled(spec, "scratch").items) == ["train"]


class _Empty:
    contract: ClassVar[Contract] = Contract.NONE

    def resolve(self, network: Any, scope: Any) -> Choice:
        return Choice()

    def rewrite(self, network: Any, choice: Choice) -> Edit:
        return Edit()

    def law(self, choice: Choice) -> tuple[()]:
        return ()


def test_a_verb_from_outside_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Severs(_Empty):
        """Cuts. Example: model net = zoo.smallcnn(); sever"""

        role: ClassVar[Role] = Role.CUTS

    @dataclass(frozen=True)
    class Pins(_Empty):
        """Freezes. Example: model net = zoo.smallcnn(); pin"""

        role: ClassVar[Role] = Role.FREEZES

    @dataclass(frozen=True)
    class Leans(_Empty):
        """Leans on a teacher, or not at all. Example: model net = zoo.smallcnn(); lean"""

        much: float = key(1.0)

        def control(self, kind: Control) -> Leans | None:
            return None if kind == "alone" else Leans(0.0)

    for word, cls in (("sever", Severs), ("pin", Pins), ("lean", Leans)):
        monkeypatch.setitem(REGISTRY, word, entry(word, cls))
    spec = check_spec(HEAD + "train ** for 1epochs on d\nsever\npin\nlean much=3")
    assert statements(controlled(spec, "scratch").items) == ["sever", "lean"]
    assert statements(controlled(spec, "random").items) == ["sever", "pin", "lean"]
    assert statements(controlled(spec, "alone").items) == ["train", "sever", "pin"]
    assert [b.action.much for b in bound(controlled(spec, "random").items) if b.entry.word == "lean"] == [0.0]


def test_a_role_that_is_none_is_refused_at_import() -> None:
    @dataclass(frozen=True)
    class Odd(_Empty):
        """Odd. Example: odd"""

        role: ClassVar[Any] = "cuts"

    with pytest.raises(TypeError, match="is a Role"):
        verb("odd")(Odd)
    assert "odd" not in REGISTRY
