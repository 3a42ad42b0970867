"""Which models take a spec's edits as their own class: prune, widen and factorize on models of torchvision, timm and transformers.

    python -m benchmarks.graft_sweep run [--libs FOLDER] [--only GLOB,…] [--limit-s 120] [--memory-gb 6] [--again CELL,…]
    python -m benchmarks.graft_sweep table

A cell is `same` (the graft gives the graph's bits in eval and in train mode, on inputs that it was not made with), `refused` (the graft
is refused, with the line of the model's code), `spec refused` (the statement itself does not go on this model), `wrong` (other bits than
the graph), `crash`, or – (not asked: a wider pruning did). Random weights, small inputs, one thread. Each model runs in a fork of its own under limits; a line of
results/graft_sweep.jsonl is a model, and cells that it has are not made again, but those that `--again` names.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import resource
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, save
from benchmarks.sweep_row import Lazy, Row, named, pair, picture, text
from benchmarks.sweep_rows import timm_rows, tiny, torchvision_rows, transformers_rows
from benchmarks.sweep_steps import Late

STATEMENTS = {
    "prune": "prune ** by magnitude amount=30%", "prune heads": "prune ** by magnitude amount=30% along=heads",
    "prune mlp": "prune ** by magnitude amount=30% along=mlp", "widen": "widen {layer} x2",
    "factorize": "factorize ** using svd rank=0.5",
}  # fmt: skip
NARROW = ("prune heads", "prune mlp")
RECORD = RESULTS / "graft_sweep.jsonl"
CELLS = ("same", "refused", "spec refused", "wrong", "crash", "time", "memory")
_LAYERS = 6  # as many are tried until one can be widened


@dataclass(frozen=True)
class Cell:
    """What became of one statement, and why."""

    what: str
    why: str = ""


def more_rows() -> Iterator[Row]:
    """Models with heads on, as people use them."""
    hf, timm = Lazy("transformers"), Lazy("timm")
    kinds = (
        "LlamaForCausalLM MistralForCausalLM Qwen2ForCausalLM Qwen3ForCausalLM GemmaForCausalLM OlmoForCausalLM Phi3ForCausalLM GPT2LMHeadModel "
        "GPTNeoXForCausalLM OPTForCausalLM BloomForCausalLM BertForSequenceClassification RobertaForSequenceClassification "
        "DistilBertForSequenceClassification ElectraForTokenClassification BertForMaskedLM"
    ).split()
    for name in kinds:
        base = next(name[: name.index(w)] for w in ("For", "LMHead") if w in name)
        yield Row("transformers", name, lambda n=name, b=base: getattr(hf, n)(tiny(b).config), text, (12, 16))
    for name, base in (("T5ForConditionalGeneration", "T5"), ("BartForConditionalGeneration", "Bart")):
        yield Row(
            "transformers", name,
            lambda n=name, b=base: named(getattr(hf, n)(tiny(b).config), "input_ids", "attention_mask", "decoder_input_ids"), pair, (12, 16),
        )  # fmt: skip
    yield Row("transformers", "Wav2Vec2ForCTC", lambda: hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=20, conv_dim=(16, 16), conv_kernel=(10, 3),
        conv_stride=(5, 2), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)), lambda b, n, _: (hf and _noise(b, n),), (400,))  # fmt: skip
    for name in "resnet26 resnetv2_50 seresnet50 ecaresnet26t resnest14d dla34 vgg11 mixnet_s fbnetc_100 lcnet_050 regnety_002 cspresnet50".split():
        yield Row("timm", name, lambda n=name: timm.create_model(n), picture(), (64,))
    for name in "beit_base_patch16_224 mixer_s16_224 resmlp_12_224 poolformer_s12".split():
        yield Row("timm", f"{name} (head)", lambda n=name: timm.create_model(n), picture(), (224,))


def _noise(b: int, n: int) -> Any:
    import torch

    return torch.randn(b, n)


def all_rows() -> dict[str, Row]:
    """Every model, once a key; large ones last."""
    found: dict[str, Row] = {}
    for row in (*transformers_rows(), *torchvision_rows(), *timm_rows(), *more_rows()):
        found.setdefault(row.key, row)
    return found


# --- one model --------------------------------------------------------------------------------------------------------------
def cell(model: Any, inputs: tuple[Any, ...], others: tuple[Any, ...], statement: str) -> Cell:
    """One statement on one model, grafted and compared."""
    import netxform as nx

    try:
        result = applied(model, inputs, statement)
    except nx.NetxformError as error:
        return Cell("spec refused", _said(error))
    try:
        made = result.graft()
    except nx.NetxformError as error:
        if "X0849" not in str(error):
            raise
        return Cell("refused", _said(error))
    return compared(made, result.model, others)


def applied(model: Any, inputs: tuple[Any, ...], statement: str) -> Any:
    """The result of a statement; `{layer}` is the first layer that takes it."""
    from torch import nn

    import netxform as nx

    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv1d)] or [""]
    for i, name in enumerate(layers[:_LAYERS]):
        try:
            return nx.apply(statement.format(layer=_path(name)), model=model, example_inputs=inputs)
        except nx.NetxformError:
            if "{layer}" not in statement or i == len(layers[:_LAYERS]) - 1:
                raise
    raise AssertionError


def _path(name: str) -> str:
    first, *rest = name.split(".")
    return ".".join([f"`{first}`" if first[:1].isdigit() else first, *rest])


def compared(made: Any, graph: Any, inputs: tuple[Any, ...]) -> Cell:
    """Both on other inputs than they were made with, in both modes, under the same random state."""
    import torch

    from benchmarks.sweep_steps import leaves

    for training in (False, True):
        found: list[list[Any]] = []
        for one in (graph, made):
            one.train(training)
            torch.manual_seed(9)
            with torch.no_grad():
                found.append(list(leaves(one(*inputs))))
        same = len(found[0]) == len(found[1]) and all(
            a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in zip(*found, strict=True)
        )
        if not same:
            return Cell("wrong", "in train mode" if training else "in eval mode")
    return Cell("same")


def _said(error: Any) -> str:
    first = error.diagnostics[0]
    return f"{first.code} {first.message}" + (f"; {first.notes[0]}" if first.notes else "")


def attempt(row: Row, statement: str, limit: float) -> Cell:
    """A cell under the limit of processor time."""
    import torch

    def late(*_: Any) -> None:
        raise Late

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        torch.manual_seed(0)
        model = row.build().eval()
        inputs, others = row.draw(2, row.sizes[0], False), row.draw(2, row.sizes[0], False)
        found = cell(model, inputs, others, statement)
    except Late:
        found = Cell("time", f"over {limit:g} s")
    except MemoryError:
        found = Cell("memory")
    except BaseException as error:
        text_ = " ".join(str(error).split())
        found = Cell("memory" if "allocate memory" in text_ else "crash", f"{type(error).__name__}: {text_}"[:300])
    signal.setitimer(signal.ITIMER_PROF, 0)
    return found


def child(row: Row, statements: list[str], limit: float, memory: float, pipe: int) -> None:
    """All statements on one model, each written down as it ends."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory * 2**30), resource.RLIM_INFINITY))
    same: set[str] = set()
    for name in statements:
        if name in NARROW and same & {"prune", *NARROW}:  # asked where a wider pruning is refused
            found = Cell("–")
        else:
            found = attempt(row, STATEMENTS[name], limit)
        same |= {name} if found.what == "same" else set()
        os.write(pipe, (json.dumps({"statement": name, "cell": found.what, "why": found.why[:400]}) + "\n").encode())


def model(row: Row, statements: list[str], limit: float, memory: float) -> dict[str, dict[str, str]]:
    """The cells of a model, made in a fork of this process."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(out)
        try:
            child(row, statements, limit, memory, into)
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out) as lines:
        found = {(one := json.loads(line)).pop("statement"): one for line in lines}
    _, status = os.waitpid(pid, 0)
    for name in [n for n in statements if n not in found][:1]:
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        found[name] = {"cell": "memory" if killed == signal.SIGKILL else "crash", "why": f"the process ended (signal {killed})"}
    return found


# --- all models -------------------------------------------------------------------------------------------------------------
def load(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    """What a record says, later lines over earlier ones."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            one = json.loads(line)
            found.setdefault(one["key"], {}).update(one["cells"])
    return found


def warm() -> None:
    """Everything is imported once, for all forks."""
    import transformers  # noqa: F401
    from torch import nn

    from netxform.zoo import build

    warnings.simplefilter("ignore")
    model: nn.Module = build("smallcnn")
    for statement in STATEMENTS.values():
        cell(model.eval(), (_noise(2, 64).reshape(2, 1, 8, 8),), (_noise(2, 64).reshape(2, 1, 8, 8),), statement)


def run(args: argparse.Namespace) -> None:
    warm()
    done, again = load(RECORD), set(args.again.split(",")) if args.again else set()
    for row in all_rows().values():
        if not any(fnmatch.fnmatch(row.key, g) for g in args.only.split(",")):
            continue
        have = {s for s, c in done.get(row.key, {}).items() if c["cell"] not in again}
        todo = [s for s in STATEMENTS if s not in have]
        if todo:
            cells = model(row, todo, args.limit_s, args.memory_gb)
            with RECORD.open("a") as file:
                file.write(json.dumps({"key": row.key, "cells": cells}) + "\n")
            print(row.key, " ".join(f"{n}={c['cell']}" for n, c in cells.items()), flush=True)


def counted(record: dict[str, dict[str, dict[str, str]]], wanted: Callable[[dict[str, dict[str, str]]], bool]) -> int:
    return sum(wanted(cells) for cells in record.values())


def table() -> None:
    """The record as a table, with the reasons."""
    record = {k: c for k, c in load(RECORD).items() if k in all_rows()}
    shown = list(STATEMENTS)
    same = lambda c, n: c.get(n, {}).get("cell") == "same"  # noqa: E731
    every = counted(record, lambda c: any(same(c, p) for p in shown[:3]) and same(c, "widen") and same(c, "factorize"))
    counts = {s: Counter(c[s]["cell"] for c in record.values() if s in c) for s in shown}
    lines = ["# Grafts: a spec's edits on a model's own class", "",
             f"{len(record)} models with random weights. {every} give the graph's bits in both modes after a pruning, after `widen` and after `factorize`;",
             f"{counted(record, lambda c: any(same(c, n) for n in shown))} after at least one of these.", "",
             "| cell | " + " | ".join(f"`{STATEMENTS[s]}`" for s in shown) + " |", "|---" * (len(shown) + 1) + "|"]  # fmt: skip
    lines += [f"| {c} | " + " | ".join(str(counts[s][c] or "") for s in shown) + " |" for c in CELLS]
    lines += ["", "| model | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    lines += [f"| {k} | " + " | ".join(c.get(s, {}).get("cell", "") for s in shown) + " |" for k, c in record.items()]
    lines += ["", "## Reasons", "", "| model | statement | cell | why |", "|---|---|---|---|"]
    lines += [
        f"| {k} | {s} | {c[s]['cell']} | {_short(c[s]['why'])} |"
        for k, c in record.items()
        for s in shown
        if c.get(s, {}).get("why")
    ]
    save(
        "graft_sweep",
        {"models": len(record), "all_three": every, "cells": {s: dict(n) for s, n in counts.items()}},
        "\n".join(lines) + "\n",
    )
    print({s: dict(n) for s, n in counts.items()})


def _short(why: str) -> str:
    """A reason without the folder that libraries lie in, and without what would end a cell."""
    return (
        why.replace("|", "/").replace("\n", " ").rpartition("site-packages/")[2]
        if "site-packages/" in why
        else why.replace("|", "/")
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.graft_sweep", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    commands.add_parser("table")
    runs.add_argument("--libs", default="", help="a folder with the libraries")
    runs.add_argument("--only", default="*")
    runs.add_argument("--limit-s", type=float, default=120)
    runs.add_argument("--memory-gb", type=float, default=6)
    runs.add_argument("--again", default="")
    args = parser.parse_args(arguments)
    if args.command == "run":
        if args.libs:
            sys.path.append(args.libs)
        RESULTS.mkdir(exist_ok=True)
        run(args)
    table()


if __name__ == "__main__":
    main()
