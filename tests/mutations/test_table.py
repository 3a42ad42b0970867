"""Every defect of the table can be put in: its text stands once in its file, and its tests exist."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mutations.__main__ import verdict
from tests.mutations.defect import ROOT, Defect
from tests.mutations.nursery import Nursery
from tests.mutations.table import DEFECTS


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_it_can_be_put_in(defect: Defect) -> None:
    assert defect.problem() is None
    assert defect.old != defect.new and defect.law
    assert all((ROOT / t.partition("::")[0]).exists() for t in defect.tests) and defect.tests


def test_names_are_given_once() -> None:
    assert len({d.name for d in DEFECTS}) == len(DEFECTS)


def test_a_defect_that_nothing_notices_survives(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "mutations", tmp_path / "tests" / "mutations")
    (tmp_path / "netxform").mkdir()
    (tmp_path / "netxform" / "__init__.py").touch()
    (tmp_path / "netxform" / "thing.py").write_text("ANSWER = 42\n")
    (tmp_path / "test_thing.py").write_text(
        "from netxform.thing import ANSWER\n\n\ndef test_it() -> None:\n    assert ANSWER\n"
    )
    tests, made = ("test_thing.py",), Nursery(tmp_path, "pytest")
    try:
        survived = verdict(Defect("a", "thing.py", "42", "43", "it is 42", tests), tmp_path, made.run)
        assert survived == (False, "survived: every test passed")
        assert verdict(Defect("b", "thing.py", "42", "0", "it is not 0", tests), tmp_path, made.run)[0]
        found, why = verdict(Defect("c", "thing.py", "nowhere", "0", "", tests), tmp_path, made.run)
        assert not found and "0 times" in why
        # code that cannot be imported is no law that was broken
        found, why = verdict(Defect("d", "thing.py", "42", "(", "it is 42", tests), tmp_path, made.run)
        assert not found and why.startswith("pytest ended with")
        assert made.run(tests)[0] == 0
    finally:
        made.close()
    assert (tmp_path / "netxform" / "thing.py").read_text() == "ANSWER = 42\n"
