"""Whole networks to a quarter of their parameters: how long it takes, and how much memory, from the model to the certificate.

    python -m benchmarks.factor_large [--nets alexnet vgg16]

Each network in a process of its own; weights are random with the spectrum of trained ones (σ_i ∝ 1/(i+5)), for random weights
have a flat spectrum and tell nothing of errors. Peak memory is the operating system's, minus what an idle process of the same
imports uses, over the bytes of the model. Beside it, tensorly on the same layers at the same ranks.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.machine import save

BUDGET = 25


def decayed(model: Any) -> None:
    """Give every large matrix a decaying spectrum: a sum of few Gaussian factors of falling weight, without any decomposition."""
    import torch

    with torch.no_grad():
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if weight is None or weight.dim() < 2 or min(weight.shape[:2]) < 16:
                continue
            flat = weight.flatten(1)
            rank = min(flat.shape[0], 256)
            scale = 1 / torch.arange(5.0, rank + 5)
            smooth = (torch.randn(flat.shape[0], rank) * scale) @ torch.randn(rank, flat.shape[1])
            norm = flat.norm()
            flat.add_(smooth * (3 * norm / smooth.norm()))
            flat.mul_(norm / flat.norm())


def one(net: str, what: str) -> dict[str, Any]:
    import torch
    import torchvision

    import netxform as nx
    from netxform import api  # noqa: F401  (everything that the work imports is there before it is measured)

    torch.manual_seed(0)
    model = getattr(torchvision.models, net)(weights=None).eval()
    decayed(model)
    x = torch.zeros(1, 3, 224, 224)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start, cpu = time.perf_counter(), time.process_time()
    if what == "idle":
        model(x)
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "model": size}
    text = {
        "all": f"factorize ** until params <= {BUDGET}% of base",
        "dense": "factorize classifier rank=0.1",
        "convs": "factorize features using tucker2 rank=0.3",
    }[what]
    result = nx.apply(text, model=model, example_inputs=x)
    found = result.certificate["cost"]
    claims = result.certificate["statements"][0]["claims"]
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "before": before,
        "model": size,
        "params": [found[k]["params"] for k in ("before", "after")],
        "macs": [found[k]["macs"] for k in ("before", "after")],
        "held": all(c["held"] for c in claims),
        "largest": max(math.prod(p.shape) * 4 for p in model.parameters()),
        "factors": result.plan.steps[0].choice.values.entries()["factors"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nets", nargs="+", default=["alexnet", "vgg16"])
    parser.add_argument("--what", nargs="+", default=["all", "dense", "convs"])
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    found: dict[str, Any] = {}
    lines = [
        "# Whole networks factorized",
        "",
        "| network | what | seconds | CPU s | parameters | MACs | peak memory over an idle process, in models |",
        "|---|---|---|---|---|---|---|",
    ]
    for net in options.nets:
        idle = _run(net, "idle")
        for what in options.what:
            row = _run(net, what)
            over = (row["peak"] - idle["peak"]) / row["model"]
            found[f"{net} {what}"] = row | {"peak over idle": over}
            p, m = row["params"], row["macs"]
            lines.append(
                f"| {net} | {what} | {row['seconds']:.1f} | {row['cpu']:.1f} | {p[0] / 1e6:.1f}M → {p[1] / 1e6:.1f}M | {m[0] / 1e9:.2f}G → {m[1] / 1e9:.2f}G | {over:.2f} + the model itself |"
            )
            print(lines[-1], flush=True)
    save("factor_large", {"found": found}, "\n".join(lines) + "\n")


def _run(net: str, what: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.factor_large", "--one", net, what], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().split("\n")[-1])


if __name__ == "__main__":
    main()
