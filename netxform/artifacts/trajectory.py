"""Trajectories in a bundle: `trajectory.safetensors` holds the points, `trajectory.json` what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from netxform.artifacts.manifest import place, sealed
from netxform.errors import fail
from netxform.language.trajectory import Trajectory
from netxform.sources.state_dicts import with_numbers

_FILES = ("trajectory.json", "trajectory.safetensors")


def store(folder: Path, trajectories: Sequence[Trajectory]) -> None:
    """Write the trajectories; no file where there are none."""
    if not trajectories:
        return
    save_file({str(i): t.points.contiguous() for i, t in enumerate(trajectories)}, place(folder, _FILES[1]))
    rows = [
        {
            "variant": t.variant,
            "seed": t.seed,
            "pretrained": t.pretrained,
            "statement": t.statement,
            "what": t.what,
            "epochs": list(t.epochs),
            "rows": list(t.rows),
        }
        for t in trajectories
    ]
    place(folder, _FILES[0]).write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")


def load(folder: Path) -> list[Trajectory]:
    """The trajectories of a bundle. Raises NetxformError X0815 (no bundle), X0824 (none recorded), X0822 (damaged)."""
    bundle = sealed(folder)
    if _FILES[0] not in bundle.texts:
        raise fail(
            "X0824",
            f"`{folder.name}` holds no trajectory",
            helps=("write `record trajectory` in the stage that is trained, and apply again",),
        )
    try:
        points = with_numbers(folder / _FILES[1])
        rows = bundle.json(_FILES[0])
        return [
            Trajectory(
                r["variant"],
                r["seed"],
                r["pretrained"],
                r["statement"],
                r["what"],
                tuple(r["epochs"]),
                points[str(i)],
                tuple(r["rows"]),
            )
            for i, r in enumerate(rows)
        ]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise fail("X0822", f"the bundle is damaged: {type(error).__name__}: {error}") from error
