"""Half of the channels of large networks: time and memory from the model in hand to the pruned one, against Torch-Pruning.

python -m benchmarks.prune_speed [--only resnet50,vgg16_bn]    (needs `pip install --no-deps torch-pruning==1.6.1`)

Each tool and model runs in a process of its own, both on one thread: CPU seconds of analysis and edit (not of building the
model), the best of `--repeats`, and the peak resident memory. Both remove half of the channels of every class by L1 norm.
netxform first captures the model, and proves at two batch sizes that the graph is the model's program: that part is given apart,
and counted in. Sizes of both results stand beside the times: the two choose by the same norms, and group differently. Both have
the same clock (CPU seconds), thread, and limit of 900 s for all repeats. `plan + apply`: types, scores, the choice, the edit on the weightless twin, and the edit on the network.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.machine import RESULTS, save, save_table
from benchmarks.peers import heads_of

MODELS = ("resnet50", "resnet152", "vgg16_bn", "densenet121", "vit_b_16")


def build(name: str) -> tuple[Any, Any]:
    import torch
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, 224, 224)


def ours(model: Any, x: Any) -> tuple[Any, float]:
    from netxform.axes.index_maps import Reindex
    from netxform.capture.capture import capture
    from netxform.graph.edits import Edit
    from netxform.graph.network import twin
    from netxform.graph.surgery import perform
    from netxform.pruning.gates import free
    from netxform.pruning.ranking import Ranking, kept
    from netxform.pruning.scores import Request, known

    start = time.process_time()
    network = capture(model, x)
    captured = time.process_time() - start
    shadow = twin(network)
    free(shadow)
    scores = known("magnitude")(network, Request(lambda: iter(())))
    rank = Ranking(scores.values, "layer")
    names = {a.atom: a.name for a in free(network)}
    edit = Edit((Reindex(tuple((names[a], tuple(i)) for a, i in kept(rank.lowest(rank.total // 2)).items())),))
    return perform(network, edit, perform(shadow, edit)).module, captured


def theirs(model: Any, x: Any) -> tuple[Any, float]:
    import torch
    import torch_pruning as tp

    ignored = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1000]
    pruner = tp.pruner.MagnitudePruner(
        model, x, importance=tp.importance.MagnitudeImportance(p=1), pruning_ratio=0.5, ignored_layers=ignored,
        num_heads=heads_of(model),
    )  # fmt: skip
    pruner.step()
    return model, 0.0


def one(tool: str, name: str, repeats: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    if tool == "ours":
        import netxform.pruning.scores  # noqa: F401
    else:
        import torch_pruning  # noqa: F401
    times, captures, base = [], [], 0.0
    params, error, shape = 0, "", ()
    for _ in range(repeats):
        model, x = build(name)
        with torch.no_grad():
            model(x)
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if not base else base
        start = time.process_time()
        try:
            pruned, captured = ours(model, x) if tool == "ours" else theirs(model, x)
        except Exception as failure:
            return {"error": f"{type(failure).__name__}: {str(failure)[:120]}"}
        times.append(time.process_time() - start - captured)
        captures.append(captured)
        params = sum(p.numel() for p in pruned.parameters())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        try:
            with torch.no_grad():
                shape = tuple(pruned.eval()(x).shape)
        except Exception as failure:
            error = f"forward fails: {str(failure)[:80]}"
        del pruned, model
    out = {
        "seconds": min(times),
        "capture": min(captures),
        "all": times,
        "peak MB": peak,
        "eager MB": base,
        "params": params,
        "output": shape,
    }
    return out | ({"error": error} if error else {})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--name", default="prune_speed")
    parser.add_argument("--table", action="store_true", help="write the table from the result that stands there")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one, options.repeats)))
        return
    rows = []
    for name in [] if options.table else options.only.split(","):
        row: dict[str, Any] = {"model": name}
        for tool in ("ours", "theirs"):
            command = [sys.executable, "-m", "benchmarks.prune_speed", "--one", tool, name, "--repeats", str(options.repeats)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=900)
            try:
                row[tool] = json.loads(done.stdout.strip().split("\n")[-1])
            except (ValueError, IndexError):
                row[tool] = {"error": (done.stderr.strip().split("\n") or [""])[-1][:160]}
        if "seconds" in row["ours"] and "seconds" in row["theirs"]:
            row["times faster"] = row["theirs"]["seconds"] / (row["ours"]["seconds"] + row["ours"]["capture"])
            row["without capture"] = row["theirs"]["seconds"] / row["ours"]["seconds"]
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.table:
        rows = json.loads((RESULTS / f"{options.name}.json").read_text())["rows"]
    text = [
        "| model | capture and proof, CPU s | plan + apply, CPU s | in all | Torch-Pruning CPU s | times faster | without the capture "
        "| params left, M | params left, M (TP) | peak MB | peak MB (TP) | notes |",
        "|---" * 12 + "|",
    ]
    for row in rows:
        a, b = row["ours"], row["theirs"]
        cells = [row["model"], _n(a.get("capture")), _n(a.get("seconds")), _n(_sum(a)), _n(b.get("seconds")),
                 _n(row.get("times faster")), _n(row.get("without capture")), _n(_millions(a)), _n(_millions(b)), _n(a.get("peak MB"), 0),
                 _n(b.get("peak MB"), 0), "; ".join(f"{t}: {row[t]['error']}" for t in ("ours", "theirs") if "error" in row[t])]  # fmt: skip
        text.append("| " + " | ".join(cells) + " |")
    if options.table:
        return save_table(options.name, "\n".join(text) + "\n")
    save(options.name, {"rows": rows}, "\n".join(text) + "\n")


def _sum(found: dict[str, Any]) -> float | None:
    return found["capture"] + found["seconds"] if "seconds" in found else None


def _millions(found: dict[str, Any]) -> float | None:
    return found["params"] / 1e6 if found.get("params") else None


def _n(value: Any, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
