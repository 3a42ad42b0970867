"""Half of the channels of every classifier: does it run, are the sizes as planned, and is it the masked twin?

python -m benchmarks.prune_coverage tv|timm [--only a,b] [--jobs 1] [--name NAME]

Every class of free indices is halved by L1 norm, by netxform and by Torch-Pruning 1.6.1 (`pip install --no-deps torch-pruning==1.6.1`), each in
a process of its own. A result is compared, in float64 and with random statistics, with the unpruned network in which the readers of
the removed indices read zeros: equal up to rounding, unless something is mixed across an axis (LayerNorm, softmax, a mean).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.machine import save
from benchmarks.models import make, names_of

LIMIT = 240


def prepared(kind: str, name: str) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    model, inputs = make(kind, name)
    with torch.no_grad():
        for buffer_name, buffer in model.named_buffers():
            if "running_mean" in buffer_name:
                buffer.normal_(0, 0.1)
            elif "running_var" in buffer_name:
                buffer.uniform_(0.5, 1.5)
        for parameter in model.parameters():
            if parameter.dim() == 1 or not bool(parameter.any()):  # scales and biases that start at 0 or 1 hide errors
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model, inputs


def gap(found: Any, wanted: Any) -> float:
    from torch import Tensor
    from torch.utils import _pytree as pytree

    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(wanted), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-300)) for a, b in pairs if isinstance(a, Tensor))


def ours(kind: str, name: str) -> dict[str, Any]:
    import torch

    from netxform.core.capture import capture
    from netxform.core.cost import cost
    from netxform.core.edit import Edit, Reindex
    from netxform.core.network import twin
    from netxform.core.surgery import perform
    from netxform.numerics.gates import free, gates, masked
    from netxform.numerics.ranking import Ranking, alike, kept
    from netxform.numerics.removal import candidates
    from netxform.numerics.scores import Request, known

    model, inputs = prepared(kind, name)
    network = capture(model.double(), *(x.double() if x.is_floating_point() else x for x in inputs))
    start = time.process_time()
    chosen, warnings = candidates(network, None, ())
    axes = {a.name: a for a in network.atoms}
    scores = known("magnitude")(network, Request(lambda: iter(()))).values
    wanted = {axes[n].atom: scores[axes[n].atom] for n in chosen if axes[n].atom in scores}
    rank = Ranking(wanted, "layer", alike=alike(network))
    removed = rank.lowest(rank.total // 2)
    names = {a.atom: a.name for a in free(network)}
    edit = Edit((Reindex(tuple((names[a], tuple(i)) for a, i in kept(removed).items())),))
    planned = cost(perform(twin(network), edit))
    pruned = perform(network, edit)
    seconds = time.process_time() - start
    before, after = cost(network), cost(pruned)
    found = gates(network)
    missing = [a for a in removed if a in found.missing and found.missing[a] != "nothing reads it"]
    given = tuple(
        torch.randn(2, *i.shape[1:], dtype=i.dtype) if i.dtype.is_floating_point else torch.zeros(i.shape, dtype=i.dtype)
        for i in network.inputs
    )
    out: dict[str, Any] = {"free": len(names), "pruned": len(removed), "left": list(warnings), "seconds": seconds}
    with torch.no_grad():
        result = pruned.module(*given)
        out |= {
            "params": after.params / before.params,
            "macs": after.macs / max(before.macs, 1),
            "as planned": planned == after,
        }
        mixed = any(a.mixed for a in removed) or bool(missing)
        if not missing:
            out["gap"] = gap(result, masked(network, found, removed, given))
        if mixed:  # and once more, with only those removed that nothing is mixed across and that have gates: this must be exact
            plain = {a: i for a, i in removed.items() if not a.mixed and a not in missing}
            small = perform(network, Edit((Reindex(tuple((names[a], tuple(i)) for a, i in kept(plain).items())),)))
            out["gap of those not mixed"] = gap(small.module(*given), masked(network, found, plain, given))
            out["ungated"] = len(missing)
        out["mixed"] = mixed
    return out


def theirs(kind: str, name: str) -> dict[str, Any]:
    import torch
    import torch_pruning as tp

    from netxform.core.capture import capture
    from netxform.core.cost import cost
    from netxform.numerics.gates import Gate, free, gates, masked

    model, inputs = prepared(kind, name)
    model = model.double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    network = capture(model, *inputs)
    before = cost(network)
    classes = 1000
    ignored = [
        m
        for m in model.modules()
        if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
        and (getattr(m, "out_features", 0) == classes or getattr(m, "out_channels", 0) == classes)
    ]
    start = time.process_time()
    pruner = tp.pruner.MagnitudePruner(
        model, inputs, importance=tp.importance.MagnitudeImportance(p=1), pruning_ratio=0.5, ignored_layers=ignored
    )
    pruner.step()
    out: dict[str, Any] = {"seconds": time.process_time() - start}
    given = tuple(torch.randn(2, *i.shape[1:], dtype=i.dtype) for i in network.inputs)
    with torch.no_grad():
        result = model.eval()(*given)
        out["params"] = sum(p.numel() for p in model.parameters()) / before.params
        removed: dict[Any, set[int]] = {}
        types = network.types
        known = {a.atom for a in free(network)}
        for root, outwards, index in pruner.pruning_history():
            weight = types.names.get(f"{root}.weight")
            if weight is None:
                out["gap"] = None
                return out
            dim = types.tensors[weight][0 if outwards else 1]
            from netxform.core.axes import atoms

            for atom in atoms(dim):
                if atom not in known:
                    out["note"] = f"{root}: an axis that is locked here was pruned"
                    return out
                place = Gate("", 0, dim, (atom,), ()).index(atom)
                removed.setdefault(atom, set()).update(place[torch.tensor(index)].tolist())
        out["gap"] = gap(result, masked(network, gates(network), {a: sorted(i - {-1}) for a, i in removed.items()}, given))
        out["mixed"] = any(a.mixed for a in removed)
    return out


def apart(tool: str, kind: str, name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.prune_coverage", kind, "--one", tool, name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        return json.loads(done.stdout.strip().split("\n")[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"more than {LIMIT} s"}
    except (ValueError, IndexError):
        return {"error": (done.stderr.strip().split("\n") or [""])[-1][:160]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["tv", "timm"])
    parser.add_argument("--only")
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--name")
    options = parser.parse_args()
    if options.one:
        import torch

        torch.set_num_threads(1)
        tool, name = options.one
        try:
            print(json.dumps((ours if tool == "ours" else theirs)(options.kind, name)))
        except Exception as failure:
            print(
                json.dumps({"error": f"{type(failure).__name__}: {str(failure).splitlines()[0][:140] if str(failure) else ''}"})
            )
        return
    rows = []
    for name in options.only.split(",") if options.only else names_of(options.kind):
        row = {"model": name, "ours": apart("ours", options.kind, name), "theirs": apart("theirs", options.kind, name)}
        rows.append(row)
        print(json.dumps(row), flush=True)
    save(options.name or f"prune_coverage_{options.kind}", {"rows": rows}, table(rows))


def verdict(found: dict[str, Any]) -> str:
    if "error" in found:
        return found["error"]
    if found.get("note"):
        return str(found["note"])
    if found.get("gap") is None and "gap of those not mixed" not in found:
        return "runs; not compared"
    if found.get("gap") is None:
        return f"runs; {found['ungated']} index sets have no gate; the others {found['gap of those not mixed']:.0e}"
    if found.get("mixed"):
        inner = found.get("gap of those not mixed")
        return f"runs; mixed, differs by {found['gap']:.1e}" + (f"; the others {inner:.0e}" if inner is not None else "")
    return "masked twin" if found["gap"] <= 1e-9 else f"WRONG by {found['gap']:.1e}"


def table(rows: list[dict[str, Any]]) -> str:
    out = [
        "| model | params | MACs | as planned | netxform | CPU s | Torch-Pruning | params (TP) | CPU s (TP) |",
        "|---" * 9 + "|",
    ]

    def share(value: Any) -> str:
        return "–" if value is None else f"{value:.2f}"

    for row in rows:
        a, b = row["ours"], row["theirs"]
        cells = [row["model"], share(a.get("params")), share(a.get("macs")), {True: "yes", False: "NO"}.get(a.get("as planned"), "–"),
                 verdict(a), share(a.get("seconds")), verdict(b), share(b.get("params")), share(b.get("seconds"))]  # fmt: skip
        out.append("| " + " | ".join(c.replace("|", "/") for c in cells) + " |")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    main()
