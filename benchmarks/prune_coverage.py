"""Half of the channels of every classifier: does it run, are the sizes as planned, and is it the masked twin?

python -m benchmarks.prune_coverage tv|timm [--only a,b] [--tools ours,theirs] [--rows FILE] [--table]

Every class of free indices is halved by L1 norm, by netxform and by Torch-Pruning 1.6.1 (`pip install --no-deps torch-pruning==1.6.1`), each in
a process of its own, under the same limits of CPU time and memory; Torch-Pruning is given `num_heads` of every attention. CPU
seconds begin with the model in hand: netxform's capture with its proof is counted in and shown apart. Only models that both were
tried on are counted in the sums. A result is compared, with random statistics, with the unpruned network in which the
readers of the removed indices read zeros: equal up to rounding, with statistics (LayerNorm, a mean) taken over what remains. In
float64; where that is out of the limits in float32, where equal means within ten times the rounding noise of the network, measured
by permuting its free axes (so too where its code casts to float32); where that is too, on meta (sizes alone). Rows are appended to FILE, those that stand there are not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, save
from benchmarks.models import make, names_of
from benchmarks.peers import heads_of
from netxform.axes.reindex import axes_of, reindex

LIMIT = 420  # CPU seconds, for both
MEMORY = 10 << 30  # bytes of private memory
LARGE = 2.5e9  # MACs above which a network that takes any size is given pictures of half the side
FIXED = ("vit", "maxvit", "inception")  # torchvision's that take one size alone
NOISE = 10.0
EXACT = 1e-9
PRECISIONS = ("float64", "float32", "meta")


def say(**found: Any) -> None:
    """What is known so far: the last line counts, also of a process that was stopped."""
    print(json.dumps(found), flush=True)


def prepared(kind: str, name: str, precision: str) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    if precision == "meta":
        with torch.device("meta"):
            return make(kind, name)
    model, inputs = make(kind, name)
    if kind == "tv" and not name.startswith(FIXED) and macs(model, inputs) > LARGE:
        inputs = tuple(torch.randn(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2) for x in inputs)
    with torch.no_grad():
        for buffer_name, buffer in model.named_buffers():
            if "running_mean" in buffer_name:
                buffer.normal_(0, 0.1)
            elif "running_var" in buffer_name:
                buffer.uniform_(0.5, 1.5)
        for parameter in model.parameters():
            if parameter.dim() == 1 or float(parameter.abs().max()) < 1e-3:  # scales that start at 0 or 1 hide errors
                parameter.add_(0.1 * torch.randn_like(parameter))
    if precision == "float64":
        return model.double(), tuple(x.double() if x.is_floating_point() else x for x in inputs)
    return model, inputs


def macs(model: Any, inputs: Any) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    held = [*model.named_parameters(), *model.named_buffers()]
    meta = {n: torch.empty_like(t, device="meta") for n, t in held}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.func.functional_call(model, meta, tuple(x.to("meta") for x in inputs))
    return counter.get_total_flops() / 2


def gap(found: Any, wanted: Any) -> float:
    from torch import Tensor
    from torch.utils import _pytree as pytree

    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(wanted), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-300)) for a, b in pairs if isinstance(a, Tensor))


def batch(network: Any) -> tuple[Any, ...]:
    import torch

    torch.manual_seed(1)
    return tuple(
        torch.randn(2, *i.shape[1:], dtype=i.dtype) if i.dtype.is_floating_point else torch.zeros(i.shape, dtype=i.dtype)
        for i in network.inputs
    )


def casts(network: Any) -> bool:
    """Whether the code of a network in float64 casts to float32: its rounding is that of float32 then."""
    import torch

    return any(n.meta.get("dtype") == torch.float32 for n in network.module.graph.nodes)


def noise(network: Any, given: Any) -> float:
    """How far rounding alone moves the outputs: the free axes permuted, which is exact in real arithmetic."""
    import torch

    from netxform.pruning.gates import free

    order = {a.name: torch.randperm(a.size).tolist() for a in free(network)}
    with torch.no_grad():
        return gap(reindex(network, order).module(*given), network.module(*given))


def ours(kind: str, name: str, precision: str) -> dict[str, Any]:
    import torch

    from netxform.axes.index_maps import Reindex
    from netxform.capture.capture import capture
    from netxform.graph.cost import cost
    from netxform.graph.edits import Edit
    from netxform.graph.network import twin
    from netxform.graph.surgery import perform
    from netxform.pruning.gates import free, gates, masked, unmasked
    from netxform.pruning.ranking import Ranking, alike, kept
    from netxform.pruning.removal import candidates
    from netxform.pruning.scores import Request, known

    out: dict[str, Any] = {"precision": precision, "stage": "capture"}
    say(**out)
    model, inputs = prepared(kind, name, precision)
    start = time.process_time()
    network = capture(model, *inputs)
    captured = time.process_time() - start
    out |= {"stage": "prune", "input": "x".join(map(str, inputs[0].shape[1:])), "capture": captured}
    chosen, warnings = candidates(network, None, ())
    axes = {a.name: a for a in axes_of(network)}
    if precision == "meta":
        wanted = {axes[n].atom: torch.zeros(axes[n].size) for n in chosen}
    else:
        scores = known("magnitude")(network, Request(lambda: iter(()))).values
        wanted = {axes[n].atom: scores[axes[n].atom] for n in chosen if axes[n].atom in scores}
    rank = Ranking(wanted, "layer", alike=alike(network))
    removed = rank.lowest(rank.total // 2)
    names = {a.atom: a.name for a in free(network)}

    def edit(gone: Any) -> Edit:
        return Edit((Reindex(tuple((names[a], tuple(i)) for a, i in kept(gone).items())),))

    planned = cost(perform(twin(network), edit(removed)))
    pruned = perform(network, edit(removed))
    before, after = cost(network), cost(pruned)
    found = gates(network)
    missing = [a for a in removed if a in found.missing and found.missing[a] != "nothing reads it"]
    out |= {
        "stage": "forward", "free": len(names), "pruned": len(removed), "left": list(warnings),
        "unscored": [names[axes[n].atom] for n in chosen if axes[n].atom not in wanted],
        "seconds": time.process_time() - start, "params": after.params / before.params,
        "macs": after.macs / max(before.macs, 1), "as planned": planned == after,
        "ungated": [f"{names[a]}: {found.missing[a]}" for a in missing],
    }  # fmt: skip
    say(**out)
    if precision == "meta":
        return out | {"stage": "done"}
    given = batch(network)
    with torch.no_grad():
        result = pruned.module(*given)
        out["stage"] = "check"
        say(**out)
        del pruned
        out["mixed"] = unmasked(network, removed)
        if not missing:
            out["gap"] = gap(result, masked(network, found, removed, given))
        if out["mixed"] or missing:  # and once more with those removed that have gates and that nothing is mixed across
            plain = {a: i for a, i in removed.items() if not a.mixed and a not in missing}
            small = perform(network, edit(plain))
            out["gap of those not mixed"] = gap(small.module(*given), masked(network, found, plain, given))
            out["exact index sets"] = len(plain)
        if precision == "float32" or casts(network):
            out["noise"] = noise(network, given)
    return out | {"stage": "done"}


def theirs(kind: str, name: str, precision: str) -> dict[str, Any]:
    import torch
    import torch_pruning as tp

    from netxform.capture.capture import capture
    from netxform.graph.cost import cost

    out: dict[str, Any] = {"precision": precision, "stage": "capture"}
    say(**out)
    model, inputs = prepared(kind, name, precision)
    network = capture(model, *inputs)
    before = cost(network)
    given = batch(network)
    classes = 1000
    ignored = [
        m
        for m in model.modules()
        if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
        and (getattr(m, "out_features", 0) == classes or getattr(m, "out_channels", 0) == classes)
    ]
    paths = {m: n for n, m in model.named_modules()}
    out["stage"] = "prune"
    say(**out)
    start = time.process_time()
    pruner = tp.pruner.MagnitudePruner(
        model, inputs, importance=tp.importance.MagnitudeImportance(p=1), pruning_ratio=0.5, ignored_layers=ignored,
        num_heads=heads_of(model),
    )  # fmt: skip
    left: dict[tuple[str, str], list[int]] = {}  # which of its inputs and outputs each layer still has
    for group in pruner.step(interactive=True):
        for dependency, index in group:
            path = paths.get(dependency.target.module)
            if path is None or not isinstance(dependency.target.module, torch.nn.Linear | torch.nn.Conv2d):
                continue
            side = "out" if pruner.DG.is_out_channel_pruning_fn(dependency.handler) else "in"
            held = left.setdefault((path, side), list(range(width(network.module.get_submodule(path), side))))
            gone = set(index)
            left[path, side] = [v for i, v in enumerate(held) if i not in gone]
        group.prune()
    params = sum(p.numel() for p in model.parameters()) / before.params
    out |= {"stage": "forward", "seconds": time.process_time() - start, "params": params}
    say(**out)
    with torch.no_grad():
        result = model.eval()(*given)
        out["stage"] = "check"
        say(**out)
        gone, why = unread(network, left)
        if why:
            return out | {"stage": "done", "note": f"{why}: not compared"}
        found, out["mixed"] = without(network, gone, given)
        out["gap"] = gap(result, found)
        if precision == "float32" or casts(network):
            out["noise"] = noise(network, given)
    return out | {"stage": "done"}


def width(layer: Any, side: str) -> int:
    weight = layer.weight
    return weight.shape[0] if side == "out" else weight.shape[1] * getattr(layer, "groups", 1)


def unread(network: Any, left: dict[tuple[str, str], list[int]]) -> tuple[dict[Any, Any], str]:
    """Of every gate the positions that its readers, layers of theirs, have no inputs for; or why that cannot be told.

    Theirs may keep other channels in one group of a convolution than in another, so positions count and not index sets.
    """
    import torch

    from netxform.pruning.gates import gates

    found = gates(network)
    nodes = {n.name: n for n in network.module.graph.nodes}
    modules = dict(network.module.named_modules())
    out: dict[Any, Any] = {}
    seen: set[str] = set()
    for gate in found.gates:
        masks: list[Any] = []
        for reader in gate.readers:
            node = nodes[reader]
            path = gate.layer or (str(node.target) if node.op == "call_module" else "")
            if not isinstance(modules.get(path), torch.nn.Linear | torch.nn.Conv2d):
                continue
            seen.add(path)
            size = width(modules[path], "in")
            mask = torch.ones(size, dtype=torch.bool)
            mask[left.get((path, "in"), range(size))] = False
            masks.append(mask)
        if not masks and any(a in found.missing for a in gate.atoms):
            return {}, "an index set without a gate here"
        if any(not torch.equal(m, masks[0]) for m in masks):
            return {}, "two readers of one value have other inputs left"
        if masks and bool(masks[0].any()):
            out[gate] = masks[0]
    lost = [p for p, side in left if side == "in" and p not in seen]
    return (out, f"{lost[0]} has lost inputs that are locked here") if lost else (out, "")


def without(network: Any, gone: dict[Any, Any], given: Any) -> tuple[Any, list[str]]:
    """The outputs of the unpruned network with those positions read as zeros, and what is mixed across them all the same."""
    import torch

    from netxform.pruning.gates import Gated, along_axis
    from netxform.pruning.masked_ops import across

    def act(gate: Any, value: Any) -> Any:
        mask = along_axis(gone[gate], gate.axis, value.dim())
        return torch.where(mask, torch.zeros((), dtype=value.dtype), value)

    removed: dict[Any, list[int]] = {}
    for gate, mask in gone.items():
        for atom in gate.atoms:
            index = gate.index(atom)
            if len(index) == atom.size and bool((index >= 0).all()):
                removed[atom] = index[mask].tolist()
    instead, left = across(network, removed)
    return Gated(network, list(gone), instead)(given, act), left


def apart(tool: str, kind: str, name: str, precision: str) -> dict[str, Any]:
    """The last thing that a process of its own said, and what ended it if it did not end well."""
    command = [sys.executable, "-m", "benchmarks.prune_coverage", kind, "--one", tool, name, precision]
    ended = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        try:
            told, errors = run.communicate(timeout=6 * LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            told, errors = run.communicate()
            ended = f"more than {LIMIT} s"
    if run.returncode == -signal.SIGXCPU:
        ended = f"more than {LIMIT} s"
    lines = [line for line in told.strip().split("\n") if line.startswith("{")]
    found = json.loads(lines[-1]) if lines else {"precision": precision, "stage": "start"}
    if found.get("stage") != "done" and "error" not in found:
        last = (errors.strip().split("\n") or [""])[-1]
        found["error"] = ended or (last[:160] if run.returncode > 0 else f"killed by signal {-run.returncode}")
    return found


def row(tool: str, kind: str, name: str) -> dict[str, Any]:
    """Float64, and where that is out of the limits the next precision."""
    found: dict[str, Any] = {}
    for precision in PRECISIONS:
        if tool == "theirs" and precision == "meta":
            break
        found = apart(tool, kind, name, precision)
        if not out_of_limits(found):
            break
        if tool == "theirs" and found.get("stage") == "prune":  # its analysis is as slow in float32
            break
    return {"model": name, "tool": tool} | found


def out_of_limits(found: dict[str, Any]) -> bool:
    error = str(found.get("error", ""))
    return error.startswith("more than") or "MemoryError" in error or "alloc" in error or "killed by" in error


def one(tool: str, kind: str, name: str, precision: str) -> None:
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 5))
    last: dict[str, Any] = {}

    def remembered(**found: Any) -> None:
        last.clear()
        last.update(found)
        print(json.dumps(found), flush=True)

    globals()["say"] = remembered
    try:
        remembered(**(ours if tool == "ours" else theirs)(kind, name, precision))
    except Exception as failure:
        text = str(failure).splitlines()[0][:200] if str(failure) else ""
        remembered(**last | {"error": f"{type(failure).__name__}: {text}"})


def read(rows: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of a file, the last of each model and tool."""
    if not rows.exists():
        return {}
    made = [json.loads(line) for line in rows.read_text().splitlines()]
    return {(r["model"], r["tool"]): r for r in made}


def listed(kind: str) -> list[str]:
    """The models of the sweep, the smallest first; those that the sweep of the permutation law took, where its result is there."""
    held = RESULTS / f"zoo_laws_{kind}.json"
    if not held.exists():
        return names_of(kind)
    rows = json.loads(held.read_text())["rows"]
    return [r["name"] for r in sorted(rows, key=lambda r: r.get("params", 0))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["tv", "timm"])
    parser.add_argument("--only")
    parser.add_argument("--tools", default="ours,theirs")
    parser.add_argument("--one", nargs=3)
    parser.add_argument("--rows")
    parser.add_argument("--again", action="store_true", help="make rows that stand in the file again")
    parser.add_argument("--table", action="store_true", help="write the results from the rows that stand in the file")
    options = parser.parse_args()
    if options.one:
        tool, name, precision = options.one
        return one(tool, options.kind, name, precision)
    path = Path(options.rows or f"prune_coverage_{options.kind}.jsonl")
    names = options.only.split(",") if options.only else listed(options.kind)
    if not options.table:
        done = {} if options.again else read(path)
        for name in names:
            for tool in options.tools.split(","):
                if (name, tool) not in done:
                    made = row(tool, options.kind, name)
                    with path.open("a") as file:
                        file.write(json.dumps(made) + "\n")
                    print(json.dumps(made), flush=True)
    found = read(path)
    stands = RESULTS / f"prune_coverage_{options.kind}.json"
    told: dict[str, Any] = {"limit": LIMIT, "num_heads": True}
    where: dict[str, Any] = {}
    if options.table and not found and stands.exists():  # the rows of an older run, with what it was made under
        old = json.loads(stands.read_text())
        found = {(r["model"], t): r[t] for r in old["rows"] for t in ("ours", "theirs") if r[t]}
        told = old.get("told", {"limit": old.get("limits"), "num_heads": False})
        names, where = [r["model"] for r in old["rows"]], {"environment": old["environment"]}
    pairs = [(n, found.get((n, "ours"), {}), found.get((n, "theirs"), {})) for n in sorted(names)]
    both = [p for p in pairs if p[1] and p[2]]
    counts = {tool: count([p[i] for p in both]) for i, tool in ((1, "ours"), (2, "theirs"))}
    result = where | {
        "told": told,
        "models tried by both": len(both),
        "memory": MEMORY,
        "counts": counts,
        "rows": [{"model": n, "ours": a, "theirs": b} for n, a, b in pairs],
    }
    save(f"prune_coverage_{options.kind}", result, table(pairs, counts, told))


def verdict(found: dict[str, Any]) -> tuple[str, str]:
    """A class (ok, mixed, wrong, broken, refused, nothing, limits, sizes) and the words of the table."""
    if not found:
        return "", "–"
    if "error" in found:
        if out_of_limits(found):
            return "limits", f"{found['stage']}: {found['error']}"
        return ("refused" if found["stage"] in ("capture", "prune") else "broken"), f"{found['stage']}: {found['error']}"
    if found.get("params", 1.0) == 1.0:
        return "nothing", "nothing pruned"
    if found.get("note"):
        return "runs", f"runs; {found['note']}"
    if found["precision"] == "meta":
        return "sizes", "on meta: sizes alone"
    allowed = max(NOISE * found["noise"], EXACT) if "noise" in found else EXACT
    inner = found.get("gap of those not mixed")
    at = "" if "noise" not in found else f" ({found['precision']}, ≤ {allowed:.0e})"
    if inner is not None:
        if inner > allowed:
            return "wrong", f"WRONG by {inner:.1e}{at}"
        gates = f"; {len(found['ungated'])} without a gate" if found.get("ungated") else ""
        moved = f"; with those mixed {found['gap']:.0e}" if "gap" in found else ""
        return (
            "mixed",
            f"masked twin in the {found['exact index sets']} of {found['pruned']} that nothing mixes{moved}{gates}{at}",
        )
    if found.get("mixed"):
        return "mixed", f"runs; {found['mixed'][0]}: differs by {found['gap']:.1e}"
    return ("ok", f"masked twin{at}") if found["gap"] <= allowed else ("wrong", f"WRONG by {found['gap']:.1e}{at}")


def count(rows: list[dict[str, Any]]) -> dict[str, int]:
    out: dict[str, int] = {}
    for found in rows:
        kind = verdict(found)[0]
        out[kind] = out.get(kind, 0) + 1
    return out


def table(pairs: list[tuple[str, dict[str, Any], dict[str, Any]]], counts: dict[str, Any], told: dict[str, Any]) -> str:
    def share(value: Any) -> str:
        return "–" if value is None else f"{value:.2f}"

    words = {
        "ok": "are the masked twin", "mixed": "run, with something mixed across", "wrong": "are WRONG", "broken": "break at the forward pass",
        "refused": "fail while pruning", "nothing": "prune nothing", "limits": "are out of time or memory", "runs": "run and are not compared",
        "sizes": "on meta alone",
    }  # fmt: skip
    both = sum(bool(a and b) for _, a, b in pairs)
    limit = told["limit"]
    seconds = f"{limit}" if isinstance(limit, int) else f"{limit['ours']} (netxform) and {limit['theirs']} (Torch-Pruning)"
    out = [f"{both} models that both were tried on; {seconds} CPU seconds and {MEMORY >> 30} GiB, one thread.\n"]
    if not told["num_heads"]:
        out.append(
            "These rows were made before Torch-Pruning was given `num_heads`, and before both had the same limit: what is said here "
            "of it on networks with attention is not its best. `python -m benchmarks.prune_coverage` makes them again.\n"
        )
    for tool, name in (("ours", "netxform"), ("theirs", "Torch-Pruning")):
        out.append(f"{name}: " + ", ".join(f"{n} {words[k]}" for k, n in counts[tool].items()) + ".\n")
    out += [
        "| model | input | params | MACs | as planned | netxform | CPU s | of them capture | Torch-Pruning | params (TP) | CPU s (TP) |",
        "|---" * 11 + "|",
    ]
    for name, a, b in pairs:
        cells = [name, str(a.get("input", "–")), share(a.get("params")), share(a.get("macs")), {True: "yes", False: "NO"}.get(a.get("as planned"), "–"),
                 verdict(a)[1], share(a.get("seconds")), share(a.get("capture")), verdict(b)[1], share(b.get("params")), share(b.get("seconds"))]  # fmt: skip
        out.append("| " + " | ".join(c.replace("|", "/") for c in cells) + " |")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    main()
