"""Does a trunk that has learnt the digits 0-4 help with 5-9? Over seeds, for several numbers of samples a class.

    python -m benchmarks.similar [--seeds 20] [--few 2 5 10] [--length 100steps] [--table]

specs/low.xform, then specs/similar.xform: everything but the head comes from the bundle by name, and all of it is trained; beside
it the same network from scratch on the same samples, for as many steps. The difference is taken seed by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

import netxform as nx
from benchmarks.machine import RESULTS, save, save_table

SPECS = Path(__file__).parent.parent / "specs"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--few", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--length", default="100steps")
    parser.add_argument("--table", action="store_true", help="write the table from the result that stands there")
    options = parser.parse_args()
    if options.table:
        return save_table("similar", table(json.loads((RESULTS / "similar.json").read_text())["rows"]))
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        for name in ("low", "similar"):
            (folder / f"{name}.xform").write_text((SPECS / f"{name}.xform").read_text())
        nx.apply(folder / "low.xform", out=folder / "low.bundle")
        for few in options.few:
            params = {"seeds": options.seeds, "few": few, "length": options.length}
            found = nx.apply(folder / "similar.xform", params=params).certificate["comparisons"][0]
            said = {"samples a class": few, "length": options.length}
            rows.append({**said, **{k: found[k] for k in ("runs", "mean", "standard_error")}})
            print(table(rows), flush=True)
    save("similar", {"seeds": options.seeds, "rows": rows}, table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """A line a row: means over seeds, and the difference taken seed by seed."""
    out = "# A trunk carried over from the digits 0-4, on 5-9: test accuracy, mean ± s.e. over seeds\n\n"
    out += "| samples a class | seeds | carried over | from scratch | difference, seed by seed |\n|---|---|---|---|---|\n"
    for row in rows:
        pairs = list(zip(row["runs"]["spec"], row["runs"]["scratch"], strict=True))
        gaps = [a - b for a, b in pairs]
        cells = [f"{row['mean'][k]:.3f} ± {row['standard_error'][k]:.3f}" for k in ("spec", "scratch")]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5
        out += (
            f"| {row['samples a class']} | {len(pairs)} | {' | '.join(cells)} | {statistics.fmean(gaps):+.3f} ± {error:.3f} |\n"
        )
    return out


if __name__ == "__main__":
    main()
