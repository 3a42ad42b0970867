"""Whether a change of the code changed what sample specs give: certificates made before and after, field by field.

    python -m benchmarks.same_certificates make FOLDER [NAME …]      in the checkout of before, and in that of after
    python -m benchmarks.same_certificates compare BEFORE AFTER      prints every field that differs; exit code 1 where one does

Specs are applied in the small settings of `benchmarks.specs --quick`. What belongs to the form of the files and not to the
result is left out: format, versions, digests of files other than the model's. Words may change (`--words` shows those too).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netxform as nx
from benchmarks.specs import QUICK, SPECS, prepare

FORM = {"format", "versions", "files", "evidence"}
WORDS = {"claim", "chosen", "warnings", "notes"}


def make(folder: Path, names: list[str]) -> None:
    """Apply the specs, each into a bundle of its own; one that is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or sorted(p.stem for p in SPECS.glob("*.xform")):
        out = folder / name
        if out.exists():
            continue
        with tempfile.TemporaryDirectory() as held:
            try:
                prepare(Path(held), name, quick=True)
                nx.apply(Path(held) / f"{name}.xform", params=QUICK.get(name, {}), out=out, allow_outside=True)
                print(name, flush=True)
            except nx.NetxformError as error:
                print(name, error.diagnostics[0].message, flush=True)


def differences(before: Any, after: Any, words: bool, path: str = "") -> Iterator[str]:
    """Every leaf that is not the same on both sides."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            if key in FORM or (not words and key in WORDS):
                continue
            if key not in before or key not in after:
                yield f"{path}.{key}: only {'after' if key in after else 'before'}"
            else:
                yield from differences(before[key], after[key], words, f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (a, b) in enumerate(zip(before, after, strict=True)):
            yield from differences(a, b, words, f"{path}[{i}]")
    elif before != after and not (before != before and after != after):
        yield f"{path}: {str(before)[:100]} → {str(after)[:100]}"


def compare(before: Path, after: Path, words: bool) -> bool:
    """Whether the certificates and plans of two folders say the same."""
    same = True
    names = sorted(p.name for p in before.iterdir() if (p / "certificate.json").exists())
    for name in names:
        if not (after / name / "certificate.json").exists():
            print(f"{name}: nothing after")
            same = False
            continue
        found: list[str] = []
        for file in ("certificate.json", "plan.json"):
            left, right = (json.loads((side / name / file).read_text()) for side in (before, after))
            found += differences(left, right, words, file.partition(".")[0])
        same &= not found
        print(f"{name}: {'the same' if not found else f'{len(found)} differ'}")
        for line in found[:12]:
            print(f"    {line}")
    print(f"{len(names)} specs compared")
    return same


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("make", "compare"))
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--words", action="store_true")
    options = parser.parse_args()
    if options.what == "make":
        make(Path(options.arguments[0]), options.arguments[1:])
    else:
        sys.exit(0 if compare(*map(Path, options.arguments[:2]), options.words) else 1)


if __name__ == "__main__":
    main()
