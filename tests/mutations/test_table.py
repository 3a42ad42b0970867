"""Every defect of the table can be put in: its text stands once in its file, and its tests exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations.__main__ import verdict
from tests.mutations.defect import ROOT, Defect
from tests.mutations.table import DEFECTS


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_it_can_be_put_in(defect: Defect) -> None:
    assert defect.problem() is None
    assert defect.old != defect.new and defect.law
    assert all((ROOT / t.partition("::")[0]).exists() for t in defect.tests) and defect.tests


def test_names_are_given_once() -> None:
    assert len({d.name for d in DEFECTS}) == len(DEFECTS)


def test_a_defect_that_nothing_notices_survives(tmp_path: Path) -> None:
    (tmp_path / "netxform").mkdir()
    (tmp_path / "netxform" / "__init__.py").touch()
    (tmp_path / "netxform" / "thing.py").write_text("ANSWER = 42\n")
    (tmp_path / "test_thing.py").write_text(
        "from netxform.thing import ANSWER\n\n\ndef test_it() -> None:\n    assert ANSWER\n"
    )
    assert verdict(Defect("a", "thing.py", "42", "43", "it is 42", ("test_thing.py",)), tmp_path) == (
        False,
        "survived: every test passed",
    )
    killed, _ = verdict(Defect("b", "thing.py", "42", "0", "it is not 0", ("test_thing.py",)), tmp_path)
    assert killed
    found, why = verdict(Defect("c", "thing.py", "nowhere", "0", "", ("test_thing.py",)), tmp_path)
    assert not found and "0 times" in why
    assert (tmp_path / "netxform" / "thing.py").read_text() == "ANSWER = 42\n"
