"""How long the axis analysis takes beside Torch-Pruning's dependency graph, in one process with one thread, CPU seconds.

    pip install torch-pruning; python -m benchmarks.analysis_time

Ours on meta tensors, with the capture of the graph stated beside it; theirs as it is used, on the real network.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torchvision

from benchmarks.machine import save
from netxform.axes.infer import infer
from netxform.capture.capture import capture

MODELS = ["resnet18", "resnet50", "resnet152", "densenet121", "vit_b_16", "swin_t"]
REPEATS = 5


def cpu(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The median CPU time."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return median(times)


def theirs(name: str) -> float | None:
    """Torch-Pruning's build of the dependency graph; None where it fails or would take minutes."""
    import torch_pruning

    if name == "swin_t":
        return None  # more than 60 s and several GB
    model = torchvision.models.get_model(name, weights=None).eval()
    x = torch.randn(1, 3, 224, 224)
    try:
        return cpu(lambda: torch_pruning.DependencyGraph().build_dependency(model, example_inputs=x), 3)
    except Exception:
        return None


def vit(depth: int) -> Any:
    return torchvision.models.VisionTransformer(224, 16, depth, 3, 192, 768)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name in MODELS:
        with torch.device("meta"):
            model = torchvision.models.get_model(name, weights=None).eval()
            x = torch.empty(1, 3, 224, 224)
        network = capture(model, x)
        row = {
            "model": name,
            "capture": cpu(lambda m=model, x=x: capture(m, x), 3),
            "analysis": cpu(lambda n=network: infer(n)),
            "torch_pruning": theirs(name),
        }
        rows.append(row)
        print(row, flush=True)
    growth = []
    for depth in (12, 24, 48, 96):
        with torch.device("meta"):
            network = capture(vit(depth).eval(), torch.empty(1, 3, 224, 224))
        growth.append({"blocks": depth, "analysis": cpu(lambda n=network: infer(n))})
        print(growth[-1], flush=True)
    known = [r for r in rows if r["torch_pruning"] is not None]
    ratios = [r["torch_pruning"] / r["analysis"] for r in known]
    whole = [r["torch_pruning"] / (r["analysis"] + r["capture"]) for r in known]
    lines = [
        f"| {r['model']} | {r['analysis']:.4f} | {r['capture']:.3f} | "
        + (
            f"{r['torch_pruning']:.3f} | {r['torch_pruning'] / r['analysis']:.0f}x | {r['torch_pruning'] / (r['analysis'] + r['capture']):.1f}x |"
            if r["torch_pruning"]
            else "over 60 s | | |"
        )
        for r in rows
    ]
    text = "# Axis analysis beside Torch-Pruning's dependency graph, CPU s, one thread\n\n"
    text += f"Median ratio {median(ratios):.0f}x; with the capture of the graph counted in, {median(whole):.1f}x.\n\n"
    text += (
        "| model | analysis | capture | Torch-Pruning | ratio | ratio with capture |\n|---|---|---|---|---|---|\n"
        + "\n".join(lines)
    )
    text += (
        "\n\n| ViT blocks | analysis |\n|---|---|\n"
        + "\n".join(f"| {g['blocks']} | {g['analysis']:.4f} |" for g in growth)
        + "\n"
    )
    save("analysis_time", {"rows": rows, "growth": growth}, text)
    print(text)


if __name__ == "__main__":
    main()
