"""Where the values of a graph lie, and what is written there later: a value is read as it was where it was made.

An operation in place changes what every name of its memory reads from then on. Who reads a value from outside (a head, a term
of a loss, a cut) reads it through `as_it_was`; inside the graph a value is read under the name of what wrote it last (`settle`).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from netxform.graph.copies import parts, tensors_of, weightless
from netxform.graph.meta import MetaRun, evaluating
from netxform.graph.shape_cache import Kernels, memory


@dataclass(frozen=True, slots=True)
class Memory:
    """By node: the memories in which its value lies, those that it writes, and the operand that it gives back, written."""

    lies: dict[fx.Node, frozenset[int]] = field(default_factory=dict[fx.Node, frozenset[int]])
    writes: dict[fx.Node, frozenset[int]] = field(default_factory=dict[fx.Node, frozenset[int]])
    gives_back: dict[fx.Node, fx.Node] = field(default_factory=dict[fx.Node, fx.Node])


class _Places(MetaRun):
    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph, garbage_collect_values=False)  # an address is a name while its tensor lives
        self.found = Memory()

    def run_node(self, n: fx.Node) -> Any:
        given = [t for a in n.all_input_nodes for t in _tensors(self.env[a])]
        if n.op == "call_module":
            given += tensors_of(self.fetch_attr(str(n.target)))
        versions = [t._version for t in given]
        value = super().run_node(n)
        written = frozenset(memory(t) for t, v in zip(given, versions, strict=True) if t._version != v)
        self.found.lies[n] = frozenset(memory(t) for t in _tensors(value))
        if written:
            self.found.writes[n] = written
            for operand in n.all_input_nodes:
                if self.env[operand] is value and isinstance(value, Tensor):
                    self.found.gives_back[n] = operand
        return value


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]


def memory_of(module: fx.GraphModule) -> Memory | None:
    """What lies where, from a run on meta tensors in eval mode. None where the graph cannot be run there."""
    if not any(_may_write(module, n) for n in module.graph.nodes):
        return Memory()
    held = list(tensors_of(module))
    shadow = module if held and all(t.is_meta for t in held) else parts(module, weightless)
    try:
        given = [
            torch.empty(n.meta["shape"], dtype=n.meta["dtype"], device="meta")
            for n in module.graph.nodes
            if n.op == "placeholder"
        ]
        with torch.no_grad(), torch.device("meta"), evaluating(shadow), Kernels():
            run = _Places(shadow, module.graph)
            run.extra_traceback = False
            run.run(*given, enable_io_processing=False)
    except Exception:
        return None
    return run.found


_INTO = tuple(f for n, f in vars(operator).items() if n.startswith("i") and n.removeprefix("i").rstrip("_") in (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift", "concat",
))  # fmt: skip


def _may_write(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node may be an operation in place; what is kept whole may be anything."""
    if node.op == "call_method":
        return str(node.target).endswith("_")
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        flags = any(a is True for a in (*node.args, *node.kwargs.values()))
        return node.target in (operator.setitem, *_INTO) or name.endswith("_") or flags or "out" in node.kwargs
    if node.op == "call_module":
        part = module.get_submodule(str(node.target))
        usual = type(part).__module__.startswith(("torch.nn.", "netxform."))
        return not usual or any(getattr(p, "inplace", False) for p in part.modules())
    return False


def settle(module: fx.GraphModule) -> None:
    """Let what reads a value after it was written in place read the result of the operation that wrote it: the same tensor."""
    nodes = list(module.graph.nodes)
    if not any(_may_write(module, n) and any(len(a.users) > 1 for a in n.all_input_nodes) for n in nodes):
        return
    found = memory_of(module)
    if found is None:
        return
    order = {n: i for i, n in enumerate(nodes)}
    for node in nodes:
        operand = found.gives_back.get(node)
        if operand is not None:
            operand.replace_all_uses_with(node, lambda user, at=order[node]: order[user] > at)
    module.recompile()


def as_it_was(module: fx.GraphModule, node: fx.Node, found: Memory | None, kept: bool = False) -> fx.Node:
    """A node with the value of `node` as it is where it is made: itself, or a copy where something writes there later.

    `found`: what `memory_of` says of the module. `kept`: who asks will write into the value, and the graph shall keep its own.
    """
    if not kept and found is not None:
        order = {n: i for i, n in enumerate(module.graph.nodes)}
        own = found.lies.get(node, frozenset())
        if not any(order[n] > order[node] and own & written for n, written in found.writes.items()):
            return node
    behind = node.next
    while behind.op == "placeholder":
        behind = behind.next
    with module.graph.inserting_before(behind):
        made = module.graph.call_method("clone", (node,))
    made.meta |= {"scope": node.meta.get("scope", ""), "exits": (), "entries": ()}
    made.meta |= {k: node.meta[k] for k in ("shape", "dtype") if k in node.meta}
    return made
