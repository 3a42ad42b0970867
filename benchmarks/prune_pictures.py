"""Tables and plots of `prune_curves`: mean ± standard error over seeds, made from the rows alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.machine import RESULTS, save

Row = dict[str, Any]
Key = tuple[str, str, str, int]  # net, score, how, amount
TABLE = (10, 30, 50, 70, 90)
PLAIN = ("one shot", "rounds", "rounds of 7 %", "rounds, all samples")
RECOVERED = ("one shot, recovered", "rounds, recovered")
TRAINED = (30, 50, 70, 80, 90)  # amounts at which rounds with recovery end with as much training as one shot
COLOURS: dict[str, str] = dict(
    zip(
        ("obd f+s", "obd s", "taylor", "obd-weights", "magnitude", "activation", "bn-scale", "random"),
        ("tab:red", "tab:orange", "tab:green", "tab:brown", "tab:blue", "tab:purple", "tab:cyan", "grey"),
        strict=True,
    )
)


def mean(values: Iterable[float]) -> tuple[float, float]:
    """The mean and its standard error (0 for one value)."""
    v = list(values)
    return statistics.fmean(v), statistics.stdev(v) / len(v) ** 0.5 if len(v) > 1 else 0.0


def by_seed(rows: list[Row], value: str) -> dict[Key, dict[int, float]]:
    """Key → seed → value."""
    out: dict[Key, dict[int, float]] = {}
    for r in rows:
        if r.get(value) is not None:
            out.setdefault((r["net"], r["score"], r["how"], r["amount"]), {})[r["seed"]] = r[value]
    return out


def write(name: str, rows: list[Row]) -> None:
    """NAME.json (means and standard errors), NAME.md and NAME.png."""
    rows = [r for r in rows if r["how"] not in RECOVERED or r["amount"] in TRAINED]
    summary: list[Row] = []
    for value in ("accuracy", "loss", "params", "predicted", "measured", "dead"):
        for key, found in by_seed(rows, value).items():
            m, e = mean(found.values())
            named = dict(zip(("net", "score", "how", "amount"), key, strict=True))
            summary.append(named | {"value": value, "mean": round(m, 5), "s.e.": round(e, 5), "seeds": len(found)})
    save(name, {"summary": summary}, tables(rows))
    plots(rows, name)


def grid(rows: list[Row], value: str, hows: Iterable[str], amounts: Iterable[int] = TABLE, digits: int = 3) -> list[str]:
    """A table: a line for each net, score and way, a column for each amount."""
    seen, wanted, columns = by_seed(rows, value), set(hows), list(amounts)
    out = ["| net | score | how | seeds | " + " | ".join(f"{a} %" for a in columns) + " |", "|---" * (4 + len(columns)) + "|"]
    for net, score, how in dict.fromkeys(k[:3] for k in seen if k[2] in wanted):
        held = [seen.get((net, score, how, a)) for a in columns]
        cells = ["" if h is None else "{:.{d}f} ± {:.{d}f}".format(*mean(h.values()), d=digits) for h in held]
        count = max(len(h) for k, h in seen.items() if k[:3] == (net, score, how))
        out.append(f"| {net} | {score} | {how} | {count} | " + " | ".join(cells) + " |")
    return [*out, ""]


def tables(rows: list[Row]) -> str:
    """Everything as Markdown."""
    accuracy = by_seed(rows, "accuracy")
    out = ["Unpruned networks, test accuracy.", "", "| net | | accuracy |", "|---|---|---|"]
    out += [
        "| {} | {} | {:.3f} ± {:.3f} |".format(k[0], k[2], *mean(v.values()))
        for k, v in accuracy.items()
        if k[1] == "none" and k[2] != "l1"
    ]
    out += ["", "Test accuracy without recovery, by share of units removed.", "", *grid(rows, "accuracy", PLAIN)]
    out += ["Test accuracy with recovery.", "", *grid(rows, "accuracy", RECOVERED, TRAINED)]
    out += ["Share of the parameters that is left.", "", *grid(rows, "params", ("one shot", "rounds"))]
    out += _difference(accuracy)
    out += ["Change of the mean loss on the scored samples without recovery, predicted.", ""]
    out += grid([r for r in rows if r["score"].startswith("obd ")], "predicted", ("one shot", "rounds"))
    out += ["The same, measured.", ""]
    out += grid([r for r in rows if r["score"].startswith("obd ")], "measured", ("one shot", "rounds"))
    return "\n".join([*out, *_silent(rows), *_claim(rows)]) + "\n"


def _difference(accuracy: dict[Key, dict[int, float]]) -> list[str]:
    """Rounds of f + s against one shot of s, seed by seed."""
    out = ["Accuracy by f + s in rounds less that by s in one shot, without recovery, points, paired by seed.", ""]
    out += ["| net | " + " | ".join(f"{a} %" for a in TABLE) + " |", "|---" * (1 + len(TABLE)) + "|"]
    for net in dict.fromkeys(k[0] for k in accuracy if k[2] == "rounds"):
        cells = []
        for a in TABLE:
            new, old = (accuracy.get((net, *k, a), {}) for k in (("obd f+s", "rounds"), ("obd s", "one shot")))
            both = [100 * (new[s] - old[s]) for s in new if s in old]
            cells.append("{:+.1f} ± {:.1f}".format(*mean(both)) if both else "")
        out.append(f"| {net} | " + " | ".join(cells) + " |")
    return [*out, ""]


def _silent(rows: list[Row]) -> list[str]:
    out = [
        "Training with an L1 penalty on activations; then units that are zero on at least 99 % of the training samples go.",
        "",
    ]
    out += ["| net | penalty | units gone | parameters left | accuracy before | accuracy after | less than without penalty, points |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    kept = [r for r in rows if r["how"] == "l1"]
    plain = {(r["net"], r["seed"]): r["unpruned"] for r in kept if r["score"] == "none"}
    for net, score in dict.fromkeys((r["net"], r["score"]) for r in kept):
        mine = [r for r in kept if (r["net"], r["score"]) == (net, score)]
        cells = ["{:.3f} ± {:.3f}".format(*mean(r[k] for r in mine)) for k in ("dead", "params", "unpruned", "accuracy")]
        lost = [100 * (plain[net, r["seed"]] - r["accuracy"]) for r in mine if (net, r["seed"]) in plain]
        cells.append("{:.1f} ± {:.1f}".format(*mean(lost)) if lost else "")
        out.append(f"| {net} | {score} | " + " | ".join(cells) + " |")
    return [*out, ""]


def _claim(rows: list[Row]) -> list[str]:
    """How many times fewer parameters, at an accuracy that is as before."""
    accuracy, params = by_seed(rows, "accuracy"), by_seed(rows, "params")
    out = ["Fewest parameters at unchanged accuracy after recovery: of the amounts, the largest at which the accuracy lost, paired by",
           "seed against the unpruned network, is at most .5 points, and (strict) at most its own standard error.", "",
           "| net | score | how | within .5 points: removed | times fewer parameters | points lost | strict: times fewer |",
           "|---|---|---|---|---|---|---|"]  # fmt: skip
    for net, score, how in dict.fromkeys(k[:3] for k in accuracy if k[2] in RECOVERED):
        dense = accuracy.get((net, "none", "dense", 0), {})
        found: dict[str, tuple[int, float, tuple[float, float]]] = {}
        for amount in sorted(k[3] for k in accuracy if k[:3] == (net, score, how)):
            got = accuracy[net, score, how, amount]
            lost = mean(100 * (dense[s] - got[s]) for s in got if s in dense)
            fewer = 1 / mean(params[net, score, how, amount].values())[0]
            for kind, most in (("near", 0.5), ("strict", lost[1])):
                if lost[0] <= most:
                    found[kind] = amount, fewer, lost
        near, strict = found.get("near"), found.get("strict")
        cells = [f"{near[0]} %", f"{near[1]:.1f}", "{:.1f} ± {:.1f}".format(*near[2])] if near else ["none", "", ""]
        out.append(f"| {net} | {score} | {how} | " + " | ".join(cells) + f" | {f'{strict[1]:.1f}' if strict else 'none'} |")
    return [*out, ""]


def plots(rows: list[Row], name: str) -> None:
    """Accuracy and loss without recovery, accuracy with it, and the predicted beside the measured change of the loss."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    nets = list(dict.fromkeys(r["net"] for r in rows if r["how"] == "one shot"))
    figure, axes = plt.subplots(len(nets), 4, figsize=(23, 5 * len(nets)), squeeze=False)
    for line, net in zip(axes, nets, strict=True):
        mine = [r for r in rows if r["net"] == net]
        dense = {v: mean(s.values())[0] for v in ("accuracy", "loss") for k, s in by_seed(mine, v).items() if k[2] == "dense"}
        _curves(line[0], mine, "accuracy", ("one shot", "rounds"), f"{net}: test accuracy without recovery", dense["accuracy"])
        _curves(line[1], mine, "loss", ("one shot", "rounds"), f"{net}: test loss without recovery", dense["loss"])
        line[1].set_yscale("log")
        _curves(line[2], mine, "accuracy", RECOVERED, f"{net}: test accuracy with recovery", dense["accuracy"])
        for value, style in (("predicted", ":"), ("measured", "-")):
            for how, marker in (("one shot", "o"), ("rounds", "s")):
                for score in ("obd f+s", "obd s"):
                    _line(line[3], mine, value, score, how, f"{score}, {how}, {value}", linestyle=style, marker=marker)
        line[3].set(title=f"{net}: change of the loss on the scored samples, OBD", xlabel="units removed, %")
        line[3].set_yscale("symlog", linthresh=0.01)
        line[3].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=80)
    plt.close(figure)


def _curves(axis: Any, rows: list[Row], value: str, hows: tuple[str, str], title: str, dense: float) -> None:
    for score in COLOURS:
        for how, style in zip(hows, (":", "-"), strict=True):
            _line(axis, rows, value, score, how, f"{score}, {how.partition(',')[0]}", linestyle=style, marker=".")
    axis.axhline(dense, color="black", linewidth=0.8)
    axis.set(title=title, xlabel="units removed, %")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7)


def _line(axis: Any, rows: list[Row], value: str, score: str, how: str, label: str, **style: Any) -> None:
    points = sorted((k[3], *mean(v.values())) for k, v in by_seed(rows, value).items() if k[1:3] == (score, how))
    if points:
        x, y, error = zip(*points, strict=True)
        axis.errorbar(x, y, error, color=COLOURS[score], label=label, capsize=2, linewidth=1.2, **style)
