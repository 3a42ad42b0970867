"""Does a skip-thought encoder help a sentiment head? Six ways to begin, on movie snippets, over seeds.

    python -m benchmarks.skip_thought [--seeds 5] [--epochs 6] [--head 20] [--few 500] [--story stories] [--first 0]

Needs `python -m benchmarks.fetch_text`. The encoder's GRU is trained with its decoders on neighbouring sentences
(Kiros et al., NIPS 2015; the word vectors, which know more text, stand still), cut out, and a linear head is put on it; `few` labelled snippets a class, the best epoch by validation
loss. Beside it, what each part of that carries: the word vectors alone (GloVe; the GRU as drawn), nothing; each with the encoder
frozen and with everything trained. The sentences of the test snippets are among the neighbouring sentences, without labels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import netxform as nx
from benchmarks.machine import save
from netxform.zoo.text import SkipThought

SPECS = Path(__file__).parent.parent / "specs"
X = torch.zeros(1, 72, dtype=torch.int64)
DATA = """
data story = neighbours("text/{story}.txt", length=24, words=4000, corpus="text/snippets.tsv")
data snippets = text("text/snippets.tsv", length=24, words=4000, corpus="text/snippets.tsv", per_class={few})
"""
VECTORS = 'init embed from npy("text/glove.npy", vocabulary="text/glove_words.txt") on story'
HEAD = """
cut at encoder
{freeze}
attach sentiment on snippets classes=2
stage tune {{
  train {what} for {epochs}epochs on snippets using adamw(lr={lr})
  keep best by val_loss
}}
"""


def fresh(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return SkipThought(words=4000, length=24, embed=50, width=100)


def run(seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    data = DATA.format(story=options.story, few=options.few)

    def apply(text: str, model: nn.Module) -> Any:
        return nx.apply(data + text, model=model, example_inputs=X, root=SPECS, seed=seed)

    start = time.process_time()
    drawn = fresh(seed)
    words = apply(VECTORS, drawn).model
    pretrained = apply(f"train ** - embed for {options.epochs}epochs on story using adamw(lr=2e-3)", words)
    told = {k: v for k, v in pretrained.metrics.items() if k.startswith(("train", "val"))}
    rows: dict[str, dict[str, float]] = {"pre-training": told | {"cpu_seconds": time.process_time() - start}}
    for name, model in (("skip-thought", pretrained.model), ("GloVe", words), ("random", drawn)):
        for way, freeze, what, lr in (("frozen", "freeze body", "sentiment", "5e-3"), ("all trained", "", "**", "1e-3")):
            result = apply(HEAD.format(freeze=freeze, what=what, epochs=options.head, lr=lr), model)
            rows[f"{name}, {way}"] = {k: result.metrics[k] for k in ("val_accuracy", "test_accuracy", "test_loss")}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--head", type=int, default=20)
    parser.add_argument("--few", type=int, default=500)
    parser.add_argument("--story", default="stories")
    parser.add_argument("--log", type=Path, help="a line a seed, as it is found; what is there is taken up")
    parser.add_argument("--name", default="skip_thought")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {k: v for k, v in vars(options).items() if k in ("epochs", "head", "few", "story")}
    done: dict[int, Any] = {}
    if options.log and options.log.exists():
        held = [json.loads(line) for line in options.log.read_text().splitlines()]
        done = {h["seed"]: h["rows"] for h in held if h["settings"] == settings}
    for seed in range(options.first, options.first + options.seeds):
        if seed not in done:
            done[seed] = run(seed, options)
            if options.log:
                with options.log.open("a") as file:
                    file.write(json.dumps({"seed": seed, "settings": settings, "rows": done[seed]}) + "\n")
        print(seed, {k: round(v.get("test_accuracy", 0.0), 3) for k, v in done[seed].items()}, flush=True)
    wanted = [done[s] for s in range(options.first, options.first + options.seeds)]
    table = (
        f"# Sentiment of movie snippets: {options.few} labelled a class, {options.seeds} seeds, mean ± s.e. of the test accuracy\n\n"
        f"Skip-thought: {options.epochs} epochs on `{options.story}.txt`; heads: {options.head} epochs, the best by validation loss.\n\n"
        "| encoder | frozen, linear head | all trained |\n|---|---|---|\n"
    )
    for name in ("skip-thought", "GloVe", "random"):
        cells: list[str] = []
        for way in ("frozen", "all trained"):
            values = [w[f"{name}, {way}"]["test_accuracy"] for w in wanted]
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            cells.append(f"{statistics.fmean(values):.3f} ± {error:.3f}")
        table += f"| {name} | {' | '.join(cells)} |\n"
    table += "\n`skip-thought`: GloVe in the embedding, then the rest trained on neighbours. `GloVe`: the same vectors, the GRU as drawn.\n"
    save(options.name, {"settings": settings, "seeds": {str(s): done[s] for s in sorted(done)}}, table)
    print(table)


if __name__ == "__main__":
    main()
