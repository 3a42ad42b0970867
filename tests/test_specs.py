"""The sample specs: every one is checked and planned, the quick ones are applied and verified; the README's are among them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import netxform as nx
from benchmarks.specs import MADE, run
from tests.strategies import SPECS

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_spec_plans(path: Path) -> None:
    try:
        plan = nx.plan(path, trust_code=True)
    except nx.NetxformError as error:
        # weights and texts are fetched by scripts of their own; bundles are made by the spec that is named in the comment
        assert error.diagnostics[0].code in ("X0807", "X0814")
        text = path.read_text()
        assert "Needs `python -m benchmarks.fetch_" in text or MADE in text or ".bundle" in text
        nx.check(path)
        return
    assert plan.steps


def quick() -> list[str]:
    """What is applied here: not what needs fetched files or minutes."""
    slow = {"transfer", "resnet152"}
    return [p.stem for p in SPECS if p.stem not in slow and "Needs `python -m benchmarks.fetch_" not in p.read_text()]


@pytest.mark.parametrize("name", quick())
def test_specs_apply_and_verify(name: str) -> None:
    found = run(name, quick=True)
    assert "absent" not in found
    assert found["held"]
    assert found["verdict"], found["verified"]


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
        "DataSet",
        "Diagnostic",
        "NetxformError",
        "Span",
        "apply",
        "capture",
        "check",
        "compare",
        "dataset",
        "export",
        "format",
        "load",
        "parse",
        "plan",
        "sign",
        "spec",
        "verify",
    ]
    assert all(hasattr(nx, n) for n in nx.__all__)
