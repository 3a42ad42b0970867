"""A block taken out of a network: whoever read what it gave reads what it was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from netxform.errors import fail
from netxform.graph.blocks import passed_by
from netxform.graph.edits import Bypass
from netxform.graph.network import Network
from netxform.graph.outputs import output_node, sweep
from netxform.graph.surgery import perform_operation


def obstacle(network: Network, path: str) -> str | None:
    """Why the block cannot be taken out, in words; None where it can: it reads one value and gives one of the same shape."""
    module = network.module
    try:
        inside, entry, end = passed_by(module, path)
    except ValueError as error:
        return str(error)
    before, after = (n.meta.get("shape") for n in (entry, end))
    if before != after or entry.meta.get("dtype") != end.meta.get("dtype"):
        return f"it is given {_times(before)} and gives {_times(after)}"
    known = set(inside)
    for node in inside:
        if node is not end and any(u not in known for u in node.users):
            return f"a value inside it, `{node.name}`, is read outside"
    return None


def _times(shape: Any) -> str:
    return " x ".join(str(n) for n in shape) if isinstance(shape, tuple) else "several values"


@perform_operation.register
def _bypass(edit: Bypass, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    module = network.module
    for path in edit.paths:
        why = obstacle(network, path)
        if why is not None:
            raise fail("X0848", f"`{path}` cannot be taken out: {why}")
        inside, entry, end = passed_by(module, path)
        outer = tuple(p for p in end.meta.get("exits", ()) if not (p == path or p.startswith(f"{path}.")))
        entry.meta["exits"] = (*entry.meta.get("exits", ()), *outer)
        entry.meta["entries"] = (
            *(p for p in entry.meta.get("entries", ()) if not (p == path or p.startswith(f"{path}."))),
            *end.meta.get("entries", ()),
        )
        end.replace_all_uses_with(entry)
        for node in reversed(inside):  # what it wrote into its own input goes with it
            module.graph.erase_node(node)
    sweep(module, output_node(module))
    return network


class Skipping(fx.Interpreter):
    """Runs a graph without the nodes of some blocks: what a block would give is what it is given."""

    def __init__(self, module: fx.GraphModule, paths: tuple[str, ...]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.skipped: dict[fx.Node, fx.Node | None] = {}
        for path in paths:
            inside, entry, end = passed_by(module, path)
            self.skipped |= dict.fromkeys(inside)
            self.skipped[end] = entry

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node; nothing inside a skipped block."""
        if n not in self.skipped:
            return super().run_node(n)
        entry = self.skipped[n]
        return None if entry is None else self.env[entry]
