"""A graph that gives values from its inside beside its output, on the same layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from netxform.graph.memory import as_it_was, memory_of
from netxform.graph.outputs import output_node
from netxform.language.work import Match, Training


def tapped(module: fx.GraphModule, nodes: Sequence[str]) -> fx.GraphModule:
    """A graph module that returns (output, values of the nodes as they are where they are made). Layers and tensors are those
    of `module`.
    """
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(module.graph, copied)
    known = {old.name: new for old, new in copied.items()}
    outputs = fx.map_arg(output_node(module).args[0], lambda n: copied[n])
    graph.output(outputs)
    made = fx.GraphModule(module, graph, class_name=type(module).__name__)
    found = memory_of(made)
    values = {n: as_it_was(made, known[n], found) for n in dict.fromkeys(nodes)}
    output_node(made).args = ((outputs, tuple(values[n] for n in nodes)),)
    made.recompile()
    return made


def adapter(match: Match) -> nn.Module:
    """The trained map that takes the student's value to the size of the teacher's."""
    match match.via:
        case "conv1x1":
            return nn.Conv2d(*match.sizes, 1)
        case "linear":
            return nn.Linear(*match.sizes)
        case _:
            return nn.Identity()


class Student(nn.Module):
    """What is trained: the network, the values that terms of the loss speak of, and the maps of its matched features."""

    def __init__(self, module: fx.GraphModule, work: Training, whole: bool = True) -> None:
        super().__init__()
        matches = work.soft.matches if work.soft is not None else ()
        self.matched = len(matches)
        nodes = [m.node for m in matches] + [n for p in work.penalties for n in p.nodes]
        # DDP wants a gradient for every parameter that it sees: a copied graph holds those alone that it reads
        self.taps = bool(nodes) or not whole
        self.body: nn.Module = tapped(module, nodes) if self.taps else module
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.seed % (2**63))
            self.adapters = nn.ModuleList(adapter(m) for m in matches)

    def forward(self, *given: Tensor) -> tuple[Any, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Each argument (N, …) → output, matched values as the teachers' sizes have them, values that penalties speak of."""
        if not self.taps:
            return self.body(*given), (), ()
        output, values = self.body(*given)
        matched = tuple(a(v) for a, v in zip(self.adapters, values, strict=False))
        return output, matched, values[self.matched :]
