"""Every torchvision classifier, the smallest model of each timm module, tiny transformers: captured, equal, another batch?

python -m benchmarks.capture_sweep [tv] [timm] [hf] [--jobs 2]
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.machine import save
from benchmarks.models import answer, asked, make, sweep


def one(kind: str, name: str) -> dict[str, Any]:
    """Capture one model in this process."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, inputs = make(kind, name)
    from netxform.artifacts.emit import emit
    from netxform.capture.capture import _leaves, capture
    from netxform.capture.concrete import plain

    start = time.perf_counter()
    network = capture(model, *inputs)
    seconds = time.perf_counter() - start
    keys = list(network.module.state_dict()) == list(model.state_dict())
    row: dict[str, Any] = {"front_end": network.front_end, "islands": len(network.islands), "keys": keys, "seconds": seconds}
    row["nodes"] = len(network.module.graph.nodes)
    with torch.no_grad():
        for label, batch in (("equal", 1), ("batch", 2)):
            given = [torch.cat([t] * batch) for t in inputs]
            try:
                wanted = _leaves(plain(model(*given)))
            except Exception:
                row[label] = None
                continue
            try:
                got = _leaves(plain(network.module.eval()(*given)))
                row[label] = all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
            except Exception as error:
                row[label] = f"{type(error).__name__}"
    try:
        emit(network)
        row["emits"] = True
    except Exception as error:
        row["emits"] = str(error).split("\n")[0][:120]
    return row


def main() -> None:
    if answer(one):
        return
    kinds, jobs = asked(["tv", "timm", "hf"])
    for kind in kinds:
        mine = list(sweep("capture_sweep", kind, jobs))
        head = (
            "| model | front-end | nodes | equal | batch 2 | same keys | standalone | s |\n|---|---|---|---|---|---|---|---|\n"
        )
        lines = [
            f"| {r['name']} | {r['front_end']} | {r['nodes']} | {r['equal']} | {r['batch']} | {r['keys']} | {r['emits']} | {r['seconds']:.2f} |"
            if "error" not in r
            else f"| {r['name']} | {r['error']} | | | | | | |"
            for r in mine
        ]
        good = sum(r.get("equal") is True and r.get("batch") in (True, None) for r in mine)
        title = f"# Capture: {kind}\n\n{good} of {len(mine)} captured, equal to eager bit for bit, and running at another batch.\n\n"
        save(f"capture_{kind}", {"rows": mine, "good": good, "of": len(mine)}, title + head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
