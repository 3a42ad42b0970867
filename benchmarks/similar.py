"""Does a trunk that has learnt the digits 0-4 help with 5-9? Over seeds, for several numbers of samples a class.

    python -m benchmarks.similar [--seeds 20] [--few 2 5 10]

specs/low.xform, then specs/similar.xform: everything but the head comes from the bundle by name, and all of it is trained; beside
it the same network from scratch on the same samples, for as many steps. The difference is taken seed by seed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

import netxform as nx
from benchmarks.machine import save

SPECS = Path(__file__).parent.parent / "specs"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--few", type=int, nargs="+", default=[2, 5, 10])
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    table = (
        f"# A trunk carried over from the digits 0-4, on 5-9: test accuracy, {options.seeds} seeds, mean ± s.e.\n\n"
        "| samples a class | carried over | from scratch | difference, seed by seed |\n|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        for name in ("low", "similar"):
            (folder / f"{name}.xform").write_text((SPECS / f"{name}.xform").read_text())
        nx.apply(folder / "low.xform", out=folder / "low.bundle")
        for few in options.few:
            params = {"seeds": options.seeds, "few": few}
            found = nx.apply(folder / "similar.xform", params=params).certificate["comparisons"][0]
            gaps = [a - b for a, b in zip(found["runs"]["spec"], found["runs"]["scratch"], strict=True)]
            rows.append({"samples a class": few, **{k: found[k] for k in ("runs", "mean", "standard_error")}})
            cells = [f"{found['mean'][k]:.3f} ± {found['standard_error'][k]:.3f}" for k in ("spec", "scratch")]
            error = statistics.stdev(gaps) / len(gaps) ** 0.5
            table += f"| {few} | {' | '.join(cells)} | {statistics.fmean(gaps):+.3f} ± {error:.3f} |\n"
            print(table, flush=True)
    save("similar", {"seeds": options.seeds, "rows": rows}, table)


if __name__ == "__main__":
    main()
