"""Where the values of a graph lie, and what is written there later: a value is read as it was where it was made.

An operation in place changes what every name of its memory reads from then on. Who reads a value from outside (a head, a term
of a loss) reads it through `as_it_was`; inside the graph a value is read under the name of what wrote it last (`settle`).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
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
        written |= frozenset(memory(t) for t in self._statistics(n, bool(written)))
        self.found.lies[n] = frozenset(memory(t) for t in _tensors(value))
        if written:
            self.found.writes[n] = written
            for operand in n.all_input_nodes:
                if self.env[operand] is value and isinstance(value, Tensor):
                    self.found.gives_back[n] = operand
        return value

    def _statistics(self, n: fx.Node, counts: bool) -> list[Tensor]:
        """Running statistics that are written without a trace on meta tensors."""
        if n.op == "call_module" and counts:
            return list(self.fetch_attr(str(n.target)).buffers())
        if n.op == "call_function" and getattr(n.target, "__name__", "") in ("batch_norm", "instance_norm"):
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            flag = kwargs.get("training", kwargs.get("use_input_stats", args[5] if len(args) > 5 else False))
            means = (*args[1:3], kwargs.get("running_mean"), kwargs.get("running_var"))
            return [t for t in means if isinstance(t, Tensor)] if flag else []
        return []


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]


def memory_of(module: fx.GraphModule) -> Memory | None:
    """What lies where, from a run on meta tensors in eval mode. None where the graph cannot be run there."""
    if not any(_may_write(module, n) for n in module.graph.nodes):
        return Memory()
    shadow = _shadow(module)
    with evaluating(shadow):
        return _run(module, shadow)


def written_buffers(module: fx.GraphModule, still: Iterable[str] = ()) -> frozenset[str]:
    """The buffers that a pass in training writes, where the modules `still` themselves are in eval mode. A layer that writes
    one of its buffers is taken to write all of them.
    """
    shadow = _shadow(module)
    modes = {part: part.training for part in shadow.modules()}
    try:
        shadow.train()
        for path in still:
            shadow.get_submodule(path).training = False
        found = _run(module, shadow)
        if found is None:
            return frozenset()
        written = frozenset[int]().union(*found.writes.values())
        return frozenset(n for n, b in shadow.named_buffers(remove_duplicate=False) if memory(b) in written)
    finally:
        for part, mode in modes.items():
            part.training = mode


def _shadow(module: fx.GraphModule) -> nn.Module:
    held = list(tensors_of(module))
    return module if held and all(t.is_meta for t in held) else parts(module, weightless)


def _run(module: fx.GraphModule, shadow: nn.Module) -> Memory | None:
    try:
        given = [
            torch.empty(n.meta["shape"], dtype=n.meta["dtype"], device="meta")
            for n in module.graph.nodes
            if n.op == "placeholder"
        ]
        with torch.no_grad(), torch.device("meta"), Kernels():
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


def hold(module: fx.GraphModule, still: Iterable[str], buffers: Iterable[str]) -> None:
    """Let the modules `still` be in eval mode for good, and let the graph write into copies of the `buffers`."""
    graph = module.graph
    for path in still:
        for flag in [n for n in graph.nodes if n.op == "get_attr" and n.target == (f"{path}.training" if path else "training")]:
            with graph.inserting_after(flag):
                made = graph.call_function(operator.and_, (flag, False))
            _in_place_of(flag, made, {"shape": None, "dtype": None})
    for name in buffers:
        reads = [n for n in graph.nodes if n.op == "get_attr" and n.target == name]
        if not reads:
            continue
        for other in reads[1:]:
            other.replace_all_uses_with(reads[0])
            graph.erase_node(other)
        with graph.inserting_after(reads[0]):
            made = graph.call_method("clone", (reads[0],), {"memory_format": torch.preserve_format})
        _in_place_of(reads[0], made, {k: reads[0].meta.get(k) for k in ("shape", "dtype")})
    module.recompile()


def _in_place_of(old: fx.Node, new: fx.Node, meta: dict[str, Any]) -> None:
    new.meta |= {"scope": old.meta.get("scope", ""), "exits": (), "entries": ()} | meta
    old.replace_all_uses_with(new, lambda user: user is not new)


def held_by(module: fx.GraphModule) -> dict[fx.Node, str]:
    """What `hold` has put into the graph: its nodes, and the module or buffer that each holds."""
    found: dict[fx.Node, str] = {}
    for node in module.graph.nodes:
        source = node.args[0] if node.args else None
        if not (isinstance(source, fx.Node) and source.op == "get_attr"):
            continue
        target = str(source.target)
        if node.target is operator.and_ and node.args[1] is False and target.rpartition(".")[2] == "training":
            found[node] = target.rpartition(".")[0]
        elif node.target == "clone" and node.kwargs.get("memory_format") is torch.preserve_format:
            found[node] = target
    return found


def release(module: fx.GraphModule, names: Iterable[str]) -> None:
    """Undo `hold` for these modules and buffers."""
    wanted = set(names)
    for node, name in held_by(module).items():
        if name in wanted:
            node.replace_all_uses_with(node.all_input_nodes[0])
            module.graph.erase_node(node)
    module.recompile()
