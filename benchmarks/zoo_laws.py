"""The permutation law on every model of the zoos: all free atoms permuted at random at once, in float64.

    python -m benchmarks.zoo_laws [tv] [timm] [hf] [dense] [--jobs 2]

Parameters and statistics are random and non-degenerate first, for zero scales hide errors. Models above 60 M parameters
are analysed on the meta device only.
"""

from __future__ import annotations

import random
import time
from typing import Any

from benchmarks.machine import save
from benchmarks.models import answer, asked, make, sweep
from netxform.axes.infer import types_of
from netxform.axes.reindex import axes_of, reindex

LARGEST = 60e6
TOLERANCE = 1e-9


def scatter(model: Any, seed: int = 0) -> None:
    """Random values for every parameter and running statistic."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            fan = tensor[0].numel() if tensor.dim() > 1 else 1
            values = torch.randn if tensor.dim() > 1 else torch.rand
            tensor.copy_(values(tensor.shape, generator=generator, dtype=torch.float64) / fan**0.5 + (0.3 if fan == 1 else 0.0))
        for name, tensor in model.named_buffers():
            if "running" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)


def one(kind: str, name: str) -> dict[str, Any]:
    """Capture, analyse, permute and compare one model."""
    import warnings

    import torch
    from torch.utils import _pytree as pytree

    from netxform.axes.algebra import atoms
    from netxform.capture.capture import capture

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.device("cpu"):
        model, inputs = make(kind, name)
    params = sum(p.numel() for p in model.parameters())
    small = params <= LARGEST
    if small:
        model = model.double()
        scatter(model)
        inputs = pytree.tree_map(lambda v: v.double() if torch.is_tensor(v) and v.is_floating_point() else v, inputs)
    else:
        model = model.to("meta")
        inputs = pytree.tree_map(lambda v: v.to("meta") if torch.is_tensor(v) else v, inputs)
    network = capture(model, *inputs)
    start = time.process_time()
    types = types_of(network)
    seconds = time.process_time() - start
    free = [a for a in axes_of(network) if a.locked is None]
    holds = {n for a in free for n, _ in a.sites}
    sizes = {n: t.numel() for n, t in network.module.named_parameters()}
    dims = [d for n, ds in types.tensors.items() if n in sizes for d in ds]
    row: dict[str, Any] = {
        "front_end": network.front_end, "ops": types.ops, "atoms": len(axes_of(network)), "free": len(free), "params": params,
        "axes": sum(any(a.locked is None for a in atoms(d)) for d in dims) / max(len(dims), 1),
        "share": sum(s for n, s in sizes.items() if n in holds) / max(params, 1),
        "seconds": seconds, "uncovered": len(types.uncovered),
    }  # fmt: skip
    if small:
        random.seed(0)
        maps = {a: random.sample(range(a.size), a.size) for a in free}
        changed = reindex(network, maps)
        with torch.no_grad():
            torch.manual_seed(0)
            wanted = pytree.tree_leaves(network.module.eval()(*inputs))
            torch.manual_seed(0)
            found = pytree.tree_leaves(changed.module.eval()(*inputs))
        gaps = [
            float((a - b).abs().max() / a.abs().max().clamp_min(1e-300))
            for a, b in zip(wanted, found, strict=True)
            if torch.is_tensor(a) and a.is_floating_point()
        ]
        row["error"] = max(gaps)
        casts = any(n.target == "float" or torch.float32 in (*n.args, *n.kwargs.values()) for n in network.module.graph.nodes)
        row["float32"] = casts  # the model itself computes in float32 somewhere: then its rounding is what remains
        row["holds"] = bool(max(gaps) <= (1e-5 if casts else TOLERANCE))
    return row


def main() -> None:
    if answer(one):
        return
    kinds, jobs = asked(["tv", "timm", "hf"])
    for kind in kinds:
        rows = list(sweep("zoo_laws", kind, jobs))
        done = [r for r in rows if "error" not in r or isinstance(r["error"], float)]
        tried = [r for r in done if "holds" in r]
        good = sum(r["holds"] for r in tried)
        axes = sum(r["axes"] for r in done) / max(len(done), 1)
        head = "| model | M params | front-end | ops | atoms | free | axes free | params with a free axis | error | analysis, CPU s |\n"
        head += "|---|---|---|---|---|---|---|---|---|---|\n"
        lines = [
            f"| {r['name']} | {r['params'] / 1e6:.1f} | {r['front_end']} | {r['ops']} | {r['atoms']} | {r['free']} | {r['axes']:.3f} "
            f"| {r['share']:.3f} | {format(r['error'], '.1e') + (' (float32)' if r.get('float32') else '') if 'error' in r else 'on meta'} | {r['seconds']:.4f} |"
            if r in done
            else f"| {r['name']} | | {r['error']} | | | | | | | |"
            for r in rows
        ]
        title = f"# Permutation law: {kind}\n\n{good} of {len(tried)} hold at {TOLERANCE}; {len(done) - len(tried)} more analysed on meta; "
        title += f"{len(rows) - len(done)} not analysed. "
        title += (
            f"Where a model casts to float32 itself (marked), 1e-5 is asked. Mean share of axes that are free: {axes:.3f}.\n\n"
        )
        save(f"zoo_laws_{kind}", {"rows": rows, "good": good, "tried": len(tried)}, title + head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
