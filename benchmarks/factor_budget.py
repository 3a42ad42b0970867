"""Accuracy under a budget: `auto` (forms and ranks allocated together, on data) against one form at one uniform rank share.

    python -m benchmarks.factor_budget [--seeds 3] [--budgets 80 60 40 25] [--costs params macs]

Networks trained on Fashion-MNIST at 14 x 14; accuracy on 2,000 test images before and after one epoch of recovery on 4,000 images. Every
method sees the same calibration data: the bias of each layer is corrected by the mean error, and svd keeps the outputs.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

import netxform as nx
from benchmarks.machine import RESULTS, save
from netxform.sources.data import DataSet, load_data
from netxform.sources.trust import Trust

LARGE, LITTLE = 12000, 4000
FORMS = ("svd", "spatial", "tucker2", "cp")
NETS = ("vgg_small", "resnet_small")


def loaded(train: int, seed: int) -> DataSet:
    """Fashion-MNIST, read once."""
    spec = nx.check(f"data d = fashion_mnist(train={train}, val=500, test=2000, size=14)")
    return load_data(spec.data["d"], Trust(), seed)


def trained(net: str, seed: int) -> tuple[Any, float]:
    text = f'model net = zoo.{net}() input="1x1x14x14"\ntrain ** for 4epochs using adamw(lr=2e-3) batch=64 schedule=onecycle'
    result = nx.apply(text, seed=seed, data={"d": loaded(LARGE, seed)})
    return result.model, result.metrics["test_accuracy"]


def uniform(form: str, share: float) -> str:
    rank = f"rank={share:.4f}"
    return f"factorize :Conv2d using [{form}, svd] {rank} over d samples=1024\nfactorize :Linear using svd {rank} over d samples=1024"


def fitted(form: str, cost: str, budget: float, model: Any, x: torch.Tensor, data: DataSet) -> str | None:
    """The largest uniform share of the ranks that meets the budget."""
    low, high = 0.0, 1.0
    for _ in range(9):
        middle = (low + high) / 2
        plan = nx.plan(uniform(form, max(middle, 1e-3)), model=model, example_inputs=x, data={"d": data})
        now, base = (getattr(c, cost) for c in (plan.final, plan.base))
        low, high = (middle, high) if now <= budget * base else (low, middle)
    return uniform(form, low) if low > 0 else None


def score(text: str, model: Any, x: torch.Tensor, seed: int, data: DataSet) -> tuple[float, float, Any]:
    """Accuracy before and after recovery, and the cost."""
    more: dict[str, Any] = {"example_inputs": x, "seed": seed, "data": {"d": data}}
    changed = nx.apply(text, model=model, **more)
    before = accuracy(changed.model, data)
    recover = "train ** for 1epochs using adamw(lr=5e-4) batch=64"
    after = nx.apply(recover, model=changed.model, **more).metrics["test_accuracy"]
    return before, after, changed.certificate["cost"]["after"]


@torch.no_grad()
def accuracy(model: Any, data: DataSet) -> float:
    x, y = data.test.tensors
    return float((torch.cat([model.eval()(part) for part in x.split(500)]).argmax(1) == y).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=int, nargs="+", default=[80, 60, 40, 25])
    parser.add_argument("--costs", nargs="+", default=["params", "macs"])
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    x = torch.zeros(1, 1, 14, 14)
    rows: list[dict[str, Any]] = []
    for net in options.nets:
        for seed in range(options.seeds):
            model, base = trained(net, seed)
            data = loaded(LITTLE, seed)
            print(f"{net} seed {seed}: {base:.3f}", flush=True)
            for cost in options.costs:
                for budget in options.budgets:
                    for method in ("auto", *FORMS):
                        if method == "auto":
                            text: str | None = f"factorize ** until {cost} <= {budget}% of base over d samples=1024 gate=none"
                        else:
                            text = fitted(method, cost, budget / 100, model, x, data)
                        if text is None:
                            continue
                        before, after, total = score(text, model, x, seed, data)
                        rows.append({"net": net, "seed": seed, "cost": cost, "budget": budget, "method": method, "dense": base,
                                     "before": before, "after": after, "params": total["params"], "macs": total["macs"]})  # fmt: skip
                        print(f"  {cost} {budget}% {method:8} {before:.3f} → {after:.3f}", flush=True)
    save("factor_budget", {"rows": rows}, table(rows, options.seeds))
    picture(rows)


def table(rows: list[dict[str, Any]], seeds: int) -> str:
    out = [f"# Accuracy under a budget, Fashion-MNIST, {seeds} seeds: mean ± s.e., before → after one epoch of recovery", ""]
    for net, cost in dict.fromkeys((r["net"], r["cost"]) for r in rows):
        part = [r for r in rows if (r["net"], r["cost"]) == (net, cost)]
        budgets = list(dict.fromkeys(r["budget"] for r in part))
        dense = statistics.fmean(r["dense"] for r in part)
        out += [
            f"## {net}, by {cost} (dense {dense:.3f})",
            "",
            "| | " + " | ".join(f"{b} %" for b in budgets) + " |",
            "|---" * (len(budgets) + 1) + "|",
        ]
        for method in dict.fromkeys(r["method"] for r in part):
            cells = []
            for budget in budgets:
                some = [r for r in part if r["method"] == method and r["budget"] == budget]
                cells.append(" → ".join(_mean([r[k] for r in some]) for k in ("before", "after")) if some else "")
            out.append(f"| {method} | " + " | ".join(cells) + " |")
        out.append("")
    return "\n".join(out)


def _mean(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.3f} ± {error:.3f}"


def picture(rows: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys((r["net"], r["cost"]) for r in rows))
    figure, axes = plt.subplots(2, len(panels), figsize=(4 * len(panels), 6.5), squeeze=False, sharey="row")
    for column, (net, cost) in enumerate(panels):
        part = [r for r in rows if (r["net"], r["cost"]) == (net, cost)]
        for line, when in enumerate(("before", "after")):
            ax = axes[line][column]
            for method in dict.fromkeys(r["method"] for r in part):
                budgets = sorted({r["budget"] for r in part if r["method"] == method})
                runs = [[r[when] for r in part if r["method"] == method and r["budget"] == b] for b in budgets]
                errors = [statistics.stdev(v) / len(v) ** 0.5 if len(v) > 1 else 0 for v in runs]
                ax.errorbar(budgets, [statistics.fmean(v) for v in runs], errors, marker="o", capsize=2, label=method,
                            linewidth=2.2 if method == "auto" else 1.0)  # fmt: skip
            ax.axhline(statistics.fmean(r["dense"] for r in part), color="grey", linestyle=":")
            ax.set(title=f"{net}, {when} recovery", xlabel=f"% of the {cost}", ylabel="test accuracy" if not column else "")
            ax.grid(alpha=0.3)
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "factor_budget.png", dpi=110)


if __name__ == "__main__":
    main()
