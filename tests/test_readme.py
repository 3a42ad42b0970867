"""Every figure that the README states is read from a result, or is printed by what the README shows."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import netxform as nx

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FLAT = " ".join(README.split())


def result(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def spread(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{short(statistics.fmean(values))} ± {short(error)}"


def stated() -> list[str]:
    """The sentences of the README that have figures, from the results alone."""
    seeds = list(result("skip_thought")["seeds"].values())
    heads = {n: spread([s[f"{n}, frozen"]["test_accuracy"] for s in seeds]) for n in ("skip-thought", "GloVe", "random")}
    (row,) = [r for r in result("similar")["rows"] if r["samples a class"] == 10]
    carried, scratch = (spread(row["runs"][k]) for k in ("spec", "scratch"))
    (one,) = [r for r in result("specs")["rows"] if r["spec"] == "sentence"]
    cost, score = one["cost"], one["metrics"]
    return [
        f"{heads['skip-thought']} behind a skip-thought encoder, {heads['GloVe']} behind the same GloVe vectors with the GRU "
        f"as drawn, and {heads['random']} with everything as drawn ({len(seeds)} seeds,",
        f"gives {carried} on ten samples of 5-9 a class, {scratch} from scratch ({len(row['runs']['spec'])} seeds,",
        f"{cost['before']['params']:,} parameters become {cost['after']['params']:,}, and the test accuracy ends at "
        f"{short(score['test_accuracy'])}",
    ]


def test_sentences_with_figures_are_those_of_the_results() -> None:
    for sentence in stated():
        assert sentence in FLAT, sentence


def test_no_other_figure_is_stated() -> None:
    prose = re.sub(r"```.*?```", "", README, flags=re.S)
    figures = set(re.findall(r"(?<![\w.])\.\d{2,3}\b", prose))
    known = set(re.findall(r"(?<![\w.])\.\d{2,3}\b", " ".join(stated())))
    assert figures <= known, figures - known
    assert not re.search(r"\b0\.\d{2,}", prose)


def test_the_table_at_the_top_is_what_its_spec_prints() -> None:
    """Words and sizes to the letter; accuracies, which differ between machines, within five points."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.S)
    spec, table = blocks[0][1], blocks[1][1]
    found = nx.apply(spec)
    cost = found.record.cost
    assert f"params {cost.before.params:,} → {cost.after.params:,}; MACs {cost.before.macs:,} → {cost.after.macs:,}" in table
    flat = " ".join(table.split())
    for statement in found.record.statements:
        assert statement.statement in flat or not (statement.claims or statement.metrics)
        for claim in statement.claims:
            assert f"{claim.claim}: held" in flat
    numbers = [float(n) for n in re.findall(r"(?:val|test) accuracy (0\.\d+)", table)]
    trained = [s.metrics for s in found.record.statements if "test_accuracy" in s.metrics]
    seen = [m[f"{part}_accuracy"] for m in trained for part in ("val", "test")]
    assert len(numbers) == len(seen)
    assert all(abs(a - b) < 0.05 for a, b in zip(numbers, seen, strict=True)), (numbers, seen)
