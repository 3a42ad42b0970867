"""The table of what people ask for: every line is applied, and what it claims holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import netxform as nx

PAGE = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| `([^`]+)` \|$", PAGE, re.M)
CNN = 'model net = zoo.smallcnn(channels=3) input="1x3x16x16"\n'
VIT = "model net = zoo.vit_small()\n"


def test_the_table_is_read_whole() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| asked")]
    assert len(ROWS) == len(lines) >= 20


@pytest.mark.parametrize(("asked", "line"), ROWS, ids=lambda v: v[:40])
def test_every_line_is_applied(asked: str, line: str) -> None:
    attention = "along=" in line or "size=" in line
    result = nx.apply((VIT if attention else CNN) + line)
    claims = [c for s in result.certificate["statements"] for c in s["claims"]]
    assert claims and all(c["held"] or not c["in_force"] for c in claims), asked
