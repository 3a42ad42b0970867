"""Net2Net on every torchvision classifier: everything widened twofold, a layer put behind every layer; the same function?

    python -m benchmarks.net2net [--jobs 2] [--only resnet18,vit_b_16]

First each layer by itself is planned: exact, or refused with which reason. Then all that can be widened exactly is widened
at once, then deepened, and the outputs are compared in float64. Small images, where the architecture takes them; models
above 61 M parameters are planned only.
"""

from __future__ import annotations

import collections
import warnings
from typing import Any

from benchmarks.machine import save
from benchmarks.models import answer, asked, make, sweep
from benchmarks.zoo_laws import scatter

LARGEST = 61e6
TOLERANCE = 1e-10


def one(kind: str, name: str) -> dict[str, Any]:
    """Plan, widen, deepen and compare one model."""
    import torch
    from torch import nn

    import netxform as nx
    from netxform.compiler.measure import relative, results
    from netxform.errors import NOWHERE, NetxformError
    from netxform.graph.network import exit_nodes, twin
    from netxform.graph.surgery import perform
    from netxform.language.values import Selection
    from netxform.syntax import ast
    from netxform.verbs.deepen import Deepen
    from netxform.verbs.widen import Widen

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, inputs = make(kind, name)
    free_size = not name.startswith(("vit", "maxvit", "inception", "vgg", "alexnet", "swin"))
    if free_size:
        inputs = (torch.randn(1, 3, 64, 64),)
    model = model.double()
    scatter(model)
    inputs = tuple(t.double() for t in inputs)
    network = nx.capture(model, *inputs)
    shadow = twin(network)

    class At:
        span, seed, index, settings = NOWHERE, 0, 0, {}

        def __init__(self, paths: list[str]) -> None:
            self.paths = paths

        def modules(self, selection: Selection) -> tuple[str, ...]:
            return tuple(self.paths)

        modules_of = modules

    def verb(cls: Any, paths: list[str], **keywords: Any) -> Any:
        return cls(Selection(ast.Path(paths[0], quoted=True)), **keywords), At(paths)

    layers = [
        p
        for p, m in network.module.named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear | nn.MultiheadAttention) and not p.endswith("out_proj")
    ]
    exact: dict[str, list[str]] = {"zero": [], "copy": []}
    refused: collections.Counter[str] = collections.Counter()
    for path in layers:
        try:
            widen, at = verb(Widen, [path], times=2)
            choice = widen.resolve(shadow, at)
            exact[choice.values.entries()["mode"]].append(path)
        except NetxformError as error:
            d = error.diagnostics[0]
            refused[(d.notes[0] if d.code == "X0320" and d.notes else d.message.partition(": ")[2]).partition(" (")[0]] += 1
    params = sum(p.numel() for p in network.module.parameters())
    row: dict[str, Any] = {
        "params": params,
        "layers": len(layers),
        "zero": len(exact["zero"]),
        "copy": len(exact["copy"]),
        "refused": dict(refused),
    }
    if params > LARGEST:
        return row
    wanted = results(network, inputs)
    wide = network
    for mode, paths in exact.items():
        if not paths:
            continue
        while paths:  # two factors of one product are two statements
            try:
                widen, at = verb(Widen, paths, times=2, mode=mode)
                wide = perform(wide, widen.rewrite(wide, widen.resolve(wide, at)))
                break
            except NetxformError as error:
                if "another size" not in error.diagnostics[0].message:
                    raise
                half = paths[: len(paths) // 2]
                widen, at = verb(Widen, half, times=2, mode=mode)
                wide = perform(wide, widen.rewrite(wide, widen.resolve(wide, at)))
                paths = paths[len(paths) // 2 :]
    row["wide_params"] = sum(p.numel() for p in wide.module.parameters())
    row["wide"] = relative(results(wide, inputs), wanted)
    del wide
    deepen, at = verb(Deepen, [p for p in layers if len(exit_nodes(network, p)) == 1])
    at.point = lambda selection, side: None  # type: ignore[attr-defined]
    try:
        choice = deepen.resolve(network, at)
        row["inserted"] = len(choice.values.entries()["inserts"])
        row["deep"] = relative(results(perform(network, deepen.rewrite(network, choice)), inputs), wanted)
    except NetxformError as error:
        row["inserted"] = error.diagnostics[0].message
    return row


def main() -> None:
    if answer(one):
        return
    _, jobs = asked(["tv"])
    rows = list(sweep("net2net", "tv", jobs))
    done = [r for r in rows if "error" not in r]
    tried = [r for r in done if "wide" in r]
    good = sum(r["wide"] <= TOLERANCE and r.get("deep", 0.0) <= TOLERANCE for r in tried)
    head = (
        "| model | layers | exact by zeros | exact by copies | refused | M params | widened | error | layers put in | error |\n"
        + "|---" * 10
        + "|\n"
    )
    lines = []
    for r in rows:
        if "error" in r:
            lines.append(f"| {r['name']} | {r['error']} | | | | | | | | |")
            continue
        why = "; ".join(f"{n} {w}" for w, n in r["refused"].items())
        tail = (
            "planned only | | |"
            if "wide" not in r
            else f"{r['wide_params'] / 1e6:.1f} | {r['wide']:.1e} | {r['inserted']} | {r.get('deep', float('nan')):.1e}"
        )
        lines.append(f"| {r['name']} | {r['layers']} | {r['zero']} | {r['copy']} | {why} | {r['params'] / 1e6:.1f} | {tail} |")
    title = f"# Net2Net on torchvision's classifiers\n\n{good} of {len(tried)} keep their function to {TOLERANCE} when all is widened twofold, and when all is deepened; {len(done) - len(tried)} more planned; {len(rows) - len(done)} failed.\n\n"
    save("net2net", {"rows": rows}, title + head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
