"""Every sample spec applied and verified: how long it takes, and what its certificate claims.

    python -m benchmarks.specs [NAME …] [--quick]

Names put their rows in the place of those that stand in the result. In a fresh folder; specs that name the bundle of another are run behind it. `--quick` takes the settings of the tests. Specs
whose data was not fetched (`python -m benchmarks.fetch_lite0`, `fetch_text`) or is not installed are listed as such.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import netxform as nx
from benchmarks import sample_data
from benchmarks.machine import RESULTS, save

SPECS = Path(__file__).parent.parent / "specs"
# small settings of specs that would take long; what a spec needs before it
QUICK: dict[str, dict[str, Any]] = {
    "trajectories": {"seeds": 2, "length": "2epochs"},
    "shared": {"seeds": 2, "length": "2epochs"},
    "similar": {"seeds": 2, "length": "10steps"},
    "vectors": {"length": "3epochs"},
    "skipthought": {"length": "1epochs"},
    "skip_movies": {"seeds": 2, "few": 100, "told": "1epochs", "length": "2epochs"},
    "lite0": {"seeds": 2, "count": 100, "told": "1epochs", "length": "1epochs"},
    "low": {"length": "1epochs"},
    "chain": {"length": "1epochs"},
    "cifar": {"length": "1epochs"},
    "multilabel": {"length": "2epochs"},
    "masks": {"length": "1epochs"},
    "regression": {"length": "3epochs"},
}
BEFORE = {"shared": "low", "similar": "low"}
MADE = "Needs `python -m benchmarks.sample_data`"
"""What stands in specs whose data is made, of what installed packages carry, by a script that needs no network."""
ABSENT = ("X0807", "X0814")


def prepare(folder: Path, name: str, quick: bool) -> None:
    """Copy the specs and their files; make the bundle that the spec begins with."""
    for path in SPECS.iterdir():
        if path.suffix == ".xform":
            shutil.copy(path, folder)
        elif path.suffix != ".bundle" and path.name != "data":
            (folder / path.name).symlink_to(path)
    if MADE in (folder / f"{name}.xform").read_text():
        sample_data.make(folder / "data")
    if name in BEFORE:
        first = BEFORE[name]
        params = QUICK.get(first, {}) if quick else {}
        nx.apply(folder / f"{first}.xform", params=params, out=folder / f"{first}.bundle")


def run(name: str, quick: bool) -> dict[str, Any]:
    """Apply and verify one spec."""
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        try:
            prepare(folder, name, quick)
            start = time.process_time()
            params = QUICK.get(name, {}) if quick else {}
            trust = {"allow_outside": True, "trust_code": True}  # its files are links; its code is ours
            result = nx.apply(folder / f"{name}.xform", params=params, out=folder / "out", **trust)
            seconds = time.process_time() - start
            verdict = nx.verify(folder / "out")
        except nx.NetxformError as error:
            if error.diagnostics[0].code in ABSENT:
                return {"spec": name, "absent": error.diagnostics[0].message}
            raise
    claims = [c for s in result.certificate["statements"] for c in s["claims"]]
    kinds = Counter(c["claim"].split(",")[0] for c in claims)
    return {
        "spec": name,
        "cpu_seconds": round(seconds, 1),
        "statements": len(result.certificate["statements"]),
        "claims": dict(kinds),
        "held": all(c["held"] for c in claims if c["superseded_by"] is None),
        "verified": verdict.summary(),
        "verdict": verdict.held,
        "warnings": [
            f"{w['statement']}: {w['text']}{'; made good' if w['made_good'] else ''}" for w in result.certificate["warnings"]
        ],
        "metrics": {k: round(v, 4) for k, v in result.metrics.items() if k.startswith(("test", "val"))},
        "cost": result.certificate["cost"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    out = "| spec | CPU s | params | verify | claims | test accuracy |\n|---|---|---|---|---|---|\n"
    for r in rows:
        if "absent" in r:
            out += f"| {r['spec']} | | | {r['absent']} | | |\n"
            continue
        claims = "; ".join(f"{k} ({n})" if n > 1 else k for k, n in r["claims"].items())
        cost = f"{r['cost']['before']['params']:,} → {r['cost']['after']['params']:,}"
        score = r["metrics"].get("test_accuracy", "")
        out += f"| {r['spec']} | {r['cpu_seconds']} | {cost} | {r['verified']} | {claims} | {score} |\n"
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rows = []
    for name in options.names or sorted(p.stem for p in SPECS.glob("*.xform")):
        rows.append(run(name, options.quick))
        print(rows[-1], flush=True)
    held = RESULTS / "specs.json"
    if options.names and held.exists():
        old = json.loads(held.read_text())
        if old["quick"] == options.quick:
            kept = [r for r in old["rows"] if r["spec"] not in options.names]
            rows = sorted([*kept, *rows], key=lambda r: r["spec"])
    save("specs", {"quick": options.quick, "rows": rows}, table(rows))


if __name__ == "__main__":
    main()
