"""The sample specs: every one is checked and planned, the quick ones are applied and verified; the README's are among them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import netxform as nx
from tests.strategies import SPECS

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_spec_plans(path: Path) -> None:
    if "tf_efficientnet" in path.read_text():
        nx.check(path)  # its weights are fetched by a script of their own
        return
    plan = nx.plan(path)
    assert plan.steps


@pytest.mark.parametrize("name", ["first", "sentence", "forest", "heads", "rates", "wider"])
def test_quick_specs_apply_and_verify(name: str, tmp_path: Path) -> None:
    nx.apply(ROOT / "specs" / f"{name}.xform", out=tmp_path / "b")
    assert nx.verify(tmp_path / "b").held


def test_the_readme_shows_a_sample_spec() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = re.findall(r"```xform\n(.*?)```", readme, re.S)
    texts = [p.read_text() for p in SPECS]
    assert shown
    for block in shown:
        assert block in texts


def test_the_public_names() -> None:
    assert nx.__all__ == [
        "Builder",
        "Diagnostic",
        "NetxformError",
        "Span",
        "apply",
        "capture",
        "check",
        "compare",
        "format",
        "load",
        "parse",
        "plan",
        "spec",
        "verify",
    ]
    assert all(hasattr(nx, n) for n in nx.__all__)
