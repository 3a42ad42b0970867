"""Low-rank adapters against PEFT: the same adapter from the same state, trained side by side, merged, and read from each other's files.

    python -m benchmarks.lora_peers [--steps 50]

Needs `peft` (and with it transformers and accelerate). Everything in float64, one thread. A row: the largest difference of the loss over
the steps, of the merged weights, and of what either side computes with the other's files.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import netxform as nx
from benchmarks.machine import save
from netxform.sources.peft_files import write


class Mixed(nn.Module):
    """A convolution, an embedding and dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.line = nn.Embedding(30, 12), nn.Conv2d(1, 6, 3, padding=1)
        self.q, self.k, self.out = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(72, 5)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.words(ids)
        h = h + (self.q(h) @ self.k(h).transpose(1, 2)).softmax(-1) @ h
        return self.out(self.line(h[:, None]).mean(2).flatten(1))


def curve(model: nn.Module, ids: Tensor, y: Tensor, steps: int) -> Tensor:
    """The losses of plain Adam."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(ids), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def row(rank: int, alpha: float, steps: int, seed: int) -> dict[str, Any]:
    """One adapter on both sides."""
    peft: Any = importlib.import_module("peft")
    torch.manual_seed(seed)
    base = Mixed().double()
    ids, y = torch.randint(0, 30, (32, 9)), torch.randint(0, 5, (32,))
    layers = ["words", "line", "q", "k", "out"]
    spec = f"adapt {' | '.join(layers)} with lora rank={rank} alpha={alpha}"
    ours = nx.apply(spec, model=base, example_inputs=ids[:2]).model.train()
    import copy

    theirs = (
        peft.get_peft_model(
            copy.deepcopy(base), peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, lora_dropout=0.0)
        )
        .double()
        .train()
    )
    held = dict(theirs.named_parameters())
    with torch.no_grad():  # the same factors, away from zero
        for path in layers:
            for part in "AB":
                mine = ours.get_parameter(f"{path}_lora.{part}.weight")
                mine.copy_(torch.randn_like(mine) * 0.1)
                table = path == "words"
                name = f"base_model.model.{path}.lora_{'embedding_' if table else ''}{part}.default{'' if table else '.weight'}"
                held[name].copy_(mine.T if table and part == "A" else mine)
    a, b = curve(ours, ids, y, steps), curve(theirs, ids, y, steps)
    from netxform.capture.capture import capture

    with tempfile.TemporaryDirectory() as folder:
        write(capture(ours.eval(), ids[:2]), Path(folder) / "ours")
        theirs.save_pretrained(str(Path(folder) / "theirs"))
        read = peft.PeftModel.from_pretrained(
            copy.deepcopy(base), str(Path(folder) / "ours"), autocast_adapter_dtype=False
        ).eval()
        here = nx.apply(f'{spec}; init ** from peft("theirs")', model=base, example_inputs=ids[:2], root=folder).model.eval()
        with torch.no_grad():
            files = max(float((read(ids) - ours.eval()(ids)).abs().max()), float((here(ids) - theirs.eval()(ids)).abs().max()))
    merged = nx.apply("merge **", model=ours.eval(), example_inputs=ids[:2]).model.state_dict()
    other = theirs.merge_and_unload().state_dict()
    return {
        "rank": rank,
        "alpha": alpha,
        "seed": seed,
        "steps": steps,
        "loss, first and last": [round(float(a[0]), 4), round(float(a[-1]), 4)],
        "largest difference of the loss": float((a - b).abs().max()),
        "of the merged weights": max(float((merged[n] - t).abs().max()) for n, t in other.items()),
        "through the files": files,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    found = [row(rank, alpha, steps, seed) for seed, (rank, alpha) in enumerate(((1, 1.0), (4, 16.0), (8, 4.0)))]
    for one in found:
        print(one)
    save("lora_peers", {"rows": found})


if __name__ == "__main__":
    main()
