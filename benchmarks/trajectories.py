"""Where training leads in function space, with and without pre-training (Erhan et al., 2010): the pictures, and the purities.

    python -m benchmarks.trajectories [--seeds 10] [--epochs 20]

Two questions on digits: one shared pre-trained network under all pre-trained runs (specs/low.xform, then specs/shared.xform), and
a pre-training of its own for every run (specs/trajectories.xform). Writes results/trajectories_*.png, .svg and a table.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import netxform as nx
from benchmarks.machine import RESULTS, save
from netxform import api
from netxform.artifacts import picture

SPECS = Path(__file__).parent.parent / "specs"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    params = {"seeds": options.seeds, "length": f"{options.epochs}epochs"}
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for spec in ("low", "shared", "trajectories"):
            shutil.copy(SPECS / f"{spec}.xform", folder)
        nx.apply(folder / "low.xform", out=folder / "low.bundle")
        for spec in ("shared", "trajectories"):
            result = nx.apply(folder / f"{spec}.xform", params=params)
            scores = result.certificate["comparisons"][0]
            for method in picture.METHODS:
                found = api.compare_runs([result], method=method)
                rows.setdefault(spec, []).append(found.numbers() | {"mean": scores["mean"], "s.e.": scores["standard_error"]})
                if method == "tsne":
                    figure = picture.draw(found)
                    for kind in ("png", "svg"):
                        picture.save(figure, RESULTS / f"trajectories_{spec}.{kind}")
                print(spec, rows[spec][-1])
    table = "Nearest neighbour among the other runs is of the same kind (pre-trained or not): share of the points.\n\n"
    table += "| pre-training | runs | points | purity | last epochs | in the plane: t-SNE, PCA, Isomap | chance | "
    table += "test accuracy, pre-trained | from scratch |\n|---|---|---|---|---|---|---|---|---|\n"
    for spec, found in rows.items():
        one = found[0]
        plane = ", ".join(f"{r['purity in the plane']:.2f}" for r in found)
        scores = " | ".join(f"{one['mean'][v]:.3f} ± {one['s.e.'][v]:.3f}" for v in ("spec", "scratch"))
        kind = "one network, shared" if spec == "shared" else "each run its own"
        table += (
            f"| {kind} | {one['pretrained']} + {one['runs'] - one['pretrained']} | {one['points']} | {one['purity']:.2f} | "
        )
        table += f"{one['purity of the last epochs']:.2f} | {plane} | {one['chance']:.2f} | {scores} |\n"
    table += "\nt-SNE: perplexity 30, seed 0. ![shared](trajectories_shared.png) ![own](trajectories_trajectories.png)\n"
    save("trajectories", {"seeds": options.seeds, "epochs": options.epochs, "rows": rows}, table)


if __name__ == "__main__":
    main()
