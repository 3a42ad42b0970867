"""The page of the architecture is true: what it names exists and is called in its order, and its floors are the contract's."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from netxform.cli import main

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = re.compile(r"\b([a-z_/]+\.py):([A-Za-z_.]+\b)")
SPEC = """model net = zoo.smallcnn() input="1x1x8x8"
data d = sklearn.digits(train=64)
cut at layer4
attach head classes=10
train head for 1epochs on d
prune conv2 by magnitude amount=50%
assert params < 1e9
"""


def rows() -> list[tuple[str, str]]:
    """The calls of the table, in order."""
    return [NAMED.findall(line)[0] for line in PAGE.splitlines() if line.startswith("| `")]


def definitions(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("place", sorted(set(NAMED.findall(PAGE))), ids=":".join)
def test_what_is_named_exists(place: tuple[str, str]) -> None:
    file, name = place
    assert (ROOT / "netxform" / file).is_file()
    assert name in definitions(ROOT / "netxform" / file)


def test_the_calls_are_made_in_this_order(tmp_path: Path) -> None:
    path = tmp_path / "s.xform"
    path.write_text(SPEC)
    wanted = set(rows())
    names = {name for _, name in wanted}
    house = str(ROOT / "netxform") + "/"
    seen: dict[tuple[str, str], None] = {}

    def called(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_qualname in names and code.co_filename.startswith(house):
            seen.setdefault((code.co_filename.removeprefix(house), code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        assert main(["apply", str(path), "-o", str(tmp_path / "b")]) == 0
    finally:
        sys.setprofile(before)
    assert [place for place in seen if place in wanted] == rows()


def test_the_floors_are_those_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    floors = [" | ".join(part.strip().removeprefix("netxform.") for part in layer.split("|")) for layer in layers]
    picture = PAGE.split("## The floors")[1]
    labels = dict(re.findall(r'(\w+)\["([^"]+)"\]', picture))
    arrows = re.findall(r"^\s*(\w+) --> (\w+)", picture, re.M)
    assert [(labels.get(a, a), labels.get(b, b)) for a, b in arrows] == list(pairwise(floors))
