"""What the tests of several processes run: small trainings in float64, whose results the first process writes as JSON."""

from __future__ import annotations

import json
import sys

import torch
from torch import nn

import netxform as nx
from netxform.training.process import join, leave

CASES: dict[str, tuple[bool, bool, str]] = {
    "plain": (False, False, ""),
    "batch norm": (True, False, ""),
    "dropout": (False, True, ""),
    "accumulated": (True, True, "accumulate=3"),
    "mixed and augmented": (False, False, "mixup=0.5 augment=[shift(1), noise(0.1), flip, erase, scale]"),
    "penalised and clipped": (True, False, "clip=0.1 regularize [l1(activations(**), 1e-2), l2(**, 1e-2)]"),
    "weighed, drawn, cut and averaged": (
        True,
        False,
        "loss=cross_entropy(weight=[1, 2, 5]) draw=balanced metrics=[f1, auroc] ema=0.9 cutmix=0.5 augment=RandomVerticalFlip",
    ),
    "distilled": (True, True, "teacher"),
    "sharded": (True, True, "strategy=fsdp"),
}


def network(norm: bool, dropout: bool) -> nn.Module:
    torch.manual_seed(1)
    layers: list[nn.Module] = [nn.Conv2d(2, 4, 3, padding=1)]
    layers += [nn.BatchNorm2d(4)] if norm else []
    layers += [nn.ReLU(), nn.Flatten()]
    layers += [nn.Dropout(0.3)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(144, 3)).double()


def main(file: str) -> None:
    torch.set_num_threads(1)
    processes = join()
    # 61 samples in batches of 12: the last batch has one sample, and shares are of different size
    x = torch.randn(61, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(61) % 3
    out: dict[str, object] = {}
    for name, (norm, dropout, clause) in CASES.items():
        model = network(norm, dropout)
        verb = "train **" if clause != "teacher" else "distill from t temperature=2"
        more = clause if clause != "teacher" else ""
        result = nx.apply(
            f"{verb} for 3epochs batch=12 using sgd(lr=0.1, momentum=0.9) {more}",
            model=model,
            models={"t": network(True, False)},
            example_inputs=x[:1],
            data=(x, y),
        )
        state = {n: t.tolist() for n, t in result.model.state_dict().items()}
        out[name] = {"state": state, "metrics": result.metrics, "kinds": [type(m).__name__ for m in result.model.modules()]}
    if processes.first:
        with open(file, "w") as held:
            json.dump(out, held)
    leave()


if __name__ == "__main__":
    main(sys.argv[1])
