"""What every result says of where it was measured."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    out: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    for name in ("netxform", "torch", "torchvision", "timm", "transformers", "lark", "scikit-learn"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


def save_table(name: str, table: str) -> None:
    """Write NAME.md alone: the table of a result that stands there."""
    (RESULTS / f"{name}.md").write_text(table)
    print(f"written: {RESULTS / name}.md")


def save(name: str, result: dict[str, Any], table: str = "") -> None:
    """Write NAME.json, and NAME.md where there is a table; print both places."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"environment": environment()} | result, indent=1) + "\n")
    if table:
        (RESULTS / f"{name}.md").write_text(table)
    print(f"written: {RESULTS / name}.json")
