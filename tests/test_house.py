"""What must be true of the house: sizes of files, what is named where, one version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import netxform
from tests.strategies import SPECS

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "netxform").rglob("*.py"))
MOST_LINES = 400
README_LINES = 35


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_long_file_says_why(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= MOST_LINES or any(line.startswith("# Long: ") for line in lines), f"{len(lines)} lines"


def test_readmes_of_folders_are_short() -> None:
    readmes = list((ROOT / "netxform").rglob("README.md"))
    assert readmes
    for path in readmes:
        assert len(path.read_text().splitlines()) <= README_LINES, path


def test_every_package_ships() -> None:
    held = {".".join(p.parent.relative_to(ROOT).parts) for p in FILES}
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert listed == held | {"netxform.grammar"}


def test_every_package_stands_on_a_floor() -> None:
    held = {p.parent.relative_to(ROOT / "netxform").parts[0] for p in FILES if p.parent != ROOT / "netxform"}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = next(c for c in contracts if c["name"] == "floors")["layers"]
    assert held <= {f.strip().removeprefix("netxform.") for row in floors for f in row.split("|")}


def test_the_page_of_the_specs_names_each_once() -> None:
    rows = re.findall(r"^\|[^|]*\| (\w+) \|", (ROOT / "specs" / "README.md").read_text(), re.M)
    assert sorted(r for r in rows if r != "spec") == sorted(p.stem for p in SPECS)


def test_the_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", netxform.__version__)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and "version" in project["project"]["dynamic"]
    stated = [p for p in FILES if f'"{netxform.__version__}"' in p.read_text()]
    assert stated == [ROOT / "netxform" / "__init__.py"]
