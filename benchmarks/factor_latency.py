"""Where factorizing pays on this processor: latency of dense layers and convolutions against their factors, batch 1 and 64.

    python -m benchmarks.factor_latency [--threads 1]

For each layer, form and rank: time of the layer over time of the factors (above 1: the factors are faster), beside the ratio of
the multiply-accumulates. Then what `auto` chooses under `by rel_error` on a network of such layers: it must leave those that
do not pay.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

import torch
from torch import nn

import netxform as nx
from benchmarks.machine import save

DENSE = (256, 512, 1024, 4096)
SHARES = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2)
CONVS = {"512×256×3×3 at 14×14": (256, 512, 14), "64×64×3×3 at 56×56": (64, 64, 56), "32×32×3×3 at 28×28": (32, 32, 28)}


def seconds(module: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        for _ in range(3):
            module(x)
        times = []
        start = time.perf_counter()
        while len(times) < 7 or (len(times) < 200 and time.perf_counter() - start < 0.3):
            before = time.perf_counter()
            module(x)
            times.append(time.perf_counter() - before)
    return median(times)


def compared(layer: nn.Module, shape: tuple[int, ...], text: str) -> dict[str, Any]:
    model = nn.Sequential(layer).eval()
    result = nx.apply(text, model=model, example_inputs=torch.zeros(1, *shape))
    cost = result.certificate["cost"]
    row: dict[str, Any] = {
        "params": cost["after"]["params"] / cost["before"]["params"],
        "MAC ratio": cost["before"]["macs"] / cost["after"]["macs"],
    }
    for batch in (1, 64):
        x = torch.randn(batch, *shape)
        row[f"batch {batch}"] = seconds(model, x) / seconds(result.model, x)
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for n in DENSE:
        for share in SHARES:
            row = compared(nn.Linear(n, n), (n,), f"factorize .0 rank={int(n * share)} when_smaller=false")
            rows.append({"layer": f"{n}×{n}", "form": "svd", "rank": int(n * share)} | row)
            print(rows[-1], flush=True)
    for name, (i, o, size) in CONVS.items():
        for form in ("svd", "svd_in", "spatial", "tucker2", "cp"):
            for share in (0.125, 0.25, 0.5):
                rank = f"[{int(o * share)}, {int(i * share)}]" if form == "tucker2" else str(int(i * share))
                text = f"factorize .0 using {form} rank={rank} when_smaller=false"
                row = compared(nn.Conv2d(i, o, 3, padding=1), (i, size, size), text)
                rows.append({"layer": name, "form": form, "rank": rank} | row)
                print(rows[-1], flush=True)
    lines = [
        f"# Latency of factors, {options.threads} thread: time of the layer / time of its factors",
        "",
        "| layer | form | rank | parameters | MACs before / after | batch 1 | batch 64 | pays |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        pays = " and ".join(f"at {b}" for b in (1, 64) if r[f"batch {b}"] > 1) or "never"
        lines.append(
            f"| {r['layer']} | {r['form']} | {r['rank']} | {r['params']:.2f} | {r['MAC ratio']:.2f} | {r['batch 1']:.2f} | {r['batch 64']:.2f} | {pays} |"
        )
    save("factor_latency", {"threads": options.threads, "rows": rows}, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
