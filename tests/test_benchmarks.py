"""The benchmarks are run by hand; that each still finds what it names is held here."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FILES = sorted(p.stem for p in (Path(__file__).parent.parent / "benchmarks").glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", FILES)
def test_a_benchmark_can_be_imported(name: str) -> None:
    try:
        importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] in ("netxform", "benchmarks", "tests"):
            raise
        pytest.skip(f"{error.name} is not installed")
