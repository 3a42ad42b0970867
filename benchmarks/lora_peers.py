"""Adapters (LoRA, DoRA, (IA)³) against PEFT: the same one from the same state, trained side by side, merged, and read from
each other's files.

    python -m benchmarks.lora_peers [--steps 50]

Needs `peft` (and with it transformers and accelerate). Everything in float64, one thread. A row: the largest difference of the loss over
the steps, of the merged weights, and of what either side computes with the other's files.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import netxform as nx
from benchmarks.machine import save
from netxform.capture.capture import capture
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


LAYERS = ("words", "line", "q", "k", "out")


def asked(form: str, rank: int, alpha: float) -> tuple[str, Any]:
    """The same adapters as a spec and as a configuration of PEFT."""
    peft: Any = importlib.import_module("peft")
    if form == "ia3":
        spec = "adapt line | q | k with ia3; adapt out with ia3 side=input"
        return spec, peft.IA3Config(target_modules=list(LAYERS[1:]), feedforward_modules=["out"])
    spec = f"adapt {' | '.join(LAYERS)} with lora rank={rank} alpha={alpha} dora={str(form == 'dora').lower()}"
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(LAYERS), lora_dropout=0.0, use_dora=form == "dora")
    return spec, config


def pairs(ours: nn.Module, theirs: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """What is trained on either side, in one shape, away from its start."""
    held, out = dict(theirs.named_parameters()), []
    for name, mine in ours.named_parameters():
        path, _, rest = name.partition("_lora.")
        if "_ia3" in name:
            out.append((mine, held[f"base_model.model.{name.partition('_ia3')[0]}.ia3_l.default"]))
        elif rest.startswith("M."):
            out.append((mine, held[f"base_model.model.{path}.lora_magnitude_vector.default.weight"]))
        elif rest:
            table = path == "words"
            ending = "" if table else ".weight"
            other = held[f"base_model.model.{path}.lora_{'embedding_' if table else ''}{rest[0]}.default{ending}"]
            out.append((mine, other.T if table and rest[0] == "A" else other))
    return out


def row(form: str, rank: int, alpha: float, steps: int, seed: int) -> dict[str, Any]:
    """One adapter on both sides."""
    peft: Any = importlib.import_module("peft")
    torch.manual_seed(seed)
    base = Mixed().double()
    ids, y = torch.randint(0, 30, (32, 9)), torch.randint(0, 5, (32,))
    spec, config = asked(form, rank, alpha)
    ours = nx.apply(spec, model=base, example_inputs=ids[:2]).model.train()
    theirs = peft.get_peft_model(copy.deepcopy(base), config).double().train()
    with torch.no_grad():  # the same factors, away from zero and one
        for mine, other in pairs(ours, theirs):
            mine.add_(torch.randn_like(mine) * 0.1)
            other.copy_(mine.reshape(other.shape))
    a, b = curve(ours, ids, y, steps), curve(theirs, ids, y, steps)
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
        "form": form,
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
    sizes = ((1, 1.0), (4, 16.0), (8, 4.0))
    found = [row(form, rank, alpha, steps, seed) for form in ("lora", "dora") for seed, (rank, alpha) in enumerate(sizes)]
    found += [row("ia3", 0, 0.0, steps, seed) for seed in range(len(sizes))]
    for one in found:
        print(one)
    save("lora_peers", {"rows": found})


if __name__ == "__main__":
    main()
