"""Models of other people's libraries through every step: what is right, guarded, refused, wrong, or fails.

    python -m benchmarks.models_sweep install FOLDER
    python -m benchmarks.models_sweep run [--libs FOLDER] [--only GLOB,…] [--steps base,verbs,bundle,STEP,…] [--result NAME]
                                          [--limit-s 60] [--memory-gb 6] [--jobs 1] [--again CELL,…]
    python -m benchmarks.models_sweep table [--result NAME]

A library is imported once, and each model runs in a fork of that process under limits of processor time (a step) and memory. A line of
results/NAME.jsonl is a model; steps that it has are not repeated, but those whose cell is named in `--again`.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.machine import RESULTS, save
from benchmarks.sweep_row import Row
from benchmarks.sweep_rows import PINNED, rows
from benchmarks.sweep_steps import BASE, BUNDLE, STEPS, VERBS, Late, Subject, judged, line, step

CELLS = ("ok", "guarded", "refused+", "refused", "wrong", "crash", "time", "memory", "–")
WAIT = 15  # a step may take as many times its seconds by the clock, on a machine that others use too
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "YOLO_OFFLINE": "true"}


# --- one model, in a fork ---------------------------------------------------------------------------------------------------
def attempt(subject: Subject, name: str, limit: float) -> dict[str, Any]:
    """One step under the limit: its cell, why, where, and the seconds."""

    def late(*_: Any) -> None:
        raise Late

    start = time.perf_counter()
    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        said, figure = step(name)(subject)
        cell, _, why = said.partition(": ")
        out: dict[str, Any] = {"cell": cell} | ({"why": why} if why else {}) | ({"gap": figure} if figure else {})
    except BaseException as error:
        out = judged(error)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return out | {"s": round(time.perf_counter() - start, 2)}


def child(row: Row, steps: list[str], limit: float, memory: float, pipe: int) -> None:
    """All steps of a model, each written down as it ends. Without a capture, the steps after it are not tried."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory * 2**30), resource.RLIM_INFINITY))
    subject = Subject(row)
    for name in steps:
        os.write(pipe, line(name, attempt(subject, name, limit)).encode())
    subject.close()


def model(row: Row, steps: list[str], limit: float, memory: float) -> dict[str, dict[str, Any]]:
    """A model's steps in forks of this process: what dies takes its own step with it alone."""
    found: dict[str, dict[str, Any]] = {}
    while left := [n for n in steps if n not in found]:
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(out)
            try:
                child(row, left, limit, memory, into)
            finally:
                os._exit(0)
        os.close(into)
        rest, ended = b"", False
        while not ended:
            ready, _, _ = select.select([out], [], [], WAIT * limit)
            part = os.read(out, 65536) if ready else b""
            ended = not part
            *lines, rest = (rest + part).split(b"\n")
            for text in lines:
                one = json.loads(text)
                found[one.pop("step")] = one
        os.close(out)
        if not ready:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        after = [n for n in left if n not in found]
        if after:
            killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            cell = "time" if not ready else "memory" if killed == signal.SIGKILL else "crash"
            found[after[0]] = {"cell": cell, "why": f"the process ended (signal {killed})"}
        if found.get("capture", {}).get("cell", "ok") != "ok":
            return {n: c for n, c in found.items() if n == "capture"}
    return found


def serve(libs: str, limit: float, memory: float) -> None:
    """Answer lines of JSON (a key, its steps) on the standard input with lines of cells."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if libs:
        sys.path.append(libs)
    import netxform.api  # noqa: F401

    known = {r.key: r for r in rows()}
    for text in sys.stdin:
        asked = json.loads(text)
        row = known[asked["key"]]
        if not asked.get("warm"):
            try:
                row.build()  # imports the library once, for all forks
            except Exception:
                pass
        answers.write(json.dumps(model(row, asked["steps"], limit, memory)) + "\n")
        answers.flush()


# --- all models -------------------------------------------------------------------------------------------------------------
def load(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """What a record says, later lines over earlier ones."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    if path.exists():
        for text in path.read_text().splitlines():
            one = json.loads(text)
            out.setdefault(one["key"], {}).update(one["cells"])
    return out


def sweep(args: argparse.Namespace, record: Path) -> None:
    groups = {"base": BASE, "verbs": tuple(VERBS), "bundle": BUNDLE}
    wanted = [s for g in args.steps.split(",") for s in groups.get(g, (g,))]
    unknown = [s for s in wanted if s not in STEPS]
    if unknown:
        raise SystemExit(
            f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)}, and the groups {', '.join(groups)}"
        )
    done, lock = load(record), Lock()
    again = set(args.again.split(",")) if args.again else set()
    todo: dict[str, list[tuple[Row, list[str]]]] = collections.defaultdict(list)
    for row in rows():
        if not any(fnmatch.fnmatch(row.key, g) for g in args.only.split(",")):
            continue
        have = {s for s, c in done.get(row.key, {}).items() if c["cell"] not in again}
        failed = "capture" in have and done[row.key]["capture"]["cell"] != "ok"
        steps = [s for s in STEPS if s in wanted and s not in have and not failed]
        if steps:
            todo[row.library].append((row, steps if "capture" not in steps else ["capture", *steps[1:]]))
    command = [sys.executable, "-m", "benchmarks.models_sweep", "--serve", args.libs, str(args.limit_s), str(args.memory_gb)]

    def library(name: str) -> None:
        quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, env=os.environ | QUIET, **quiet) as server:  # type: ignore[call-overload]
            for i, (row, steps) in enumerate(todo[name]):
                server.stdin.write(json.dumps({"key": row.key, "steps": steps, "warm": i > 0}) + "\n")
                server.stdin.flush()
                answer = server.stdout.readline()
                cells = json.loads(answer) if answer else {steps[0]: {"cell": "crash", "why": "the library's process ended"}}
                with lock:
                    with record.open("a") as file:
                        file.write(json.dumps({"key": row.key, "cells": cells}) + "\n")
                    print(row.key, " ".join(f"{n}={c['cell']}" for n, c in cells.items()), flush=True)
                if not answer:
                    return
            server.stdin.close()

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(library, todo))


# --- the table --------------------------------------------------------------------------------------------------------------
def kind(cell: dict[str, Any]) -> str:
    """A cause without what is particular to a model."""
    why = re.sub(r"`[^`]*`", "`…`", cell.get("why", ""))
    why = re.sub(r"^shapes .*", "other shapes", why)
    return re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "#", why)[:160] + (f" ({cell['at']})" if cell.get("at") else "")


def causes(record: dict[str, dict[str, dict[str, Any]]]) -> Iterator[str]:
    found: dict[tuple[str, str, str], list[str]] = collections.defaultdict(list)
    for key, cells in record.items():
        for name, cell in cells.items():
            if cell["cell"] not in ("ok", "–", "guarded"):
                found[cell["cell"], name, kind(cell)].append(key)
    for (cell, name, why), keys in sorted(
        found.items(), key=lambda x: (CELLS.index(x[0][0]), STEPS.index(x[0][1]), -len(x[1]))
    ):
        some = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
        yield f"| {cell} | {name} | {len(keys)} | {why.replace('|', '/')} | {some} |"


def counts(title: str, given: dict[str, list[str]]) -> Iterator[str]:
    yield f"| {title} | " + " | ".join(CELLS) + " |"
    yield "|---" * (len(CELLS) + 1) + "|"
    for name, cells in given.items():
        yield f"| {name} | " + " | ".join(str(cells.count(c) or "") for c in CELLS) + " |"
    yield ""


def table(name: str) -> None:
    order = {r.key: r for r in rows()}
    read = load(RESULTS / f"{name}.jsonl")
    record = {k: read[k] for k in order if k in read}
    shown = [s for s in STEPS if any(s in c for c in record.values())]
    steps = {s: [c[s]["cell"] for c in record.values() if s in c] for s in shown}
    libraries: dict[str, list[str]] = collections.defaultdict(list)
    for key, cells in record.items():
        libraries[order[key].library] += [c["cell"] for c in cells.values()]
    text = [
        f"# Models of {len(libraries)} libraries, step by step", "",
        f"{len(record)} models with random weights. ok: the graph is the model (bit for bit, or within {1e-5:g} of the largest value). guarded: an",
        "input that the graph does not hold is refused by a guard. refused+: refused, with the repair; refused: without. wrong: a silent",
        "difference. crash: another exception. –: not asked, for the model has no such place or takes no such input.", "",
        *counts("step", steps), *counts("library", libraries), "## Causes", "", "| cell | step | models | cause | where |", "|---|---|---|---|---|",
        *causes(record), "", "## Models", "", "| model | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|",
        *(f"| {k} | " + " | ".join(c.get(s, {}).get("cell", "") for s in shown) + " |" for k, c in record.items()),
    ]  # fmt: skip
    total = {c: sum(x.count(c) for x in steps.values()) for c in CELLS}
    save(name, {"models": len(record), "cells": total, "rows": record}, "\n".join(text) + "\n")
    print(total)


def install(folder: str) -> None:
    """The libraries, at the versions of `PINNED`, into a folder of their own; torch and torchvision are this environment's."""
    command = [sys.executable, "-m", "pip", "install", "--target", folder, "--upgrade", "--no-deps", *PINNED]
    raise SystemExit(subprocess.run(command).returncode)


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["--serve"]:
        return serve(given[1], float(given[2]), float(given[3]))
    parser = argparse.ArgumentParser(prog="benchmarks.models_sweep", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install").add_argument("folder")
    runs, tables = commands.add_parser("run"), commands.add_parser("table")
    for one in (runs, tables):
        one.add_argument("--result", default="models_sweep")
    runs.add_argument("--libs", default="")
    runs.add_argument("--only", default="*")
    runs.add_argument("--steps", default="base,verbs,bundle")
    runs.add_argument("--limit-s", type=float, default=60)
    runs.add_argument("--memory-gb", type=float, default=6)
    runs.add_argument("--jobs", type=int, default=1)
    runs.add_argument("--again", default="")
    args = parser.parse_args(given)
    if args.command == "install":
        install(args.folder)
    if args.command == "run":
        RESULTS.mkdir(exist_ok=True)
        sweep(args, RESULTS / f"{args.result}.jsonl")
    table(args.result)


if __name__ == "__main__":
    main()
