"""The outputs of a graph: what they are called, how they are set, and what a graph keeps for their sake."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, cast

from torch import Tensor, fx

from netxform.errors import NOWHERE, Span, did_you_mean, fail
from netxform.graph.guards import is_guard, only
from netxform.graph.memory import Memory, memory_of
from netxform.graph.network import Network
from netxform.graph.tensors import held

L = TypeVar("L")


def output_node(module: fx.GraphModule) -> fx.Node:
    """The graph's output node."""
    return next(n for n in reversed(module.graph.nodes) if n.op == "output")


def outputs(module: fx.GraphModule) -> dict[str | None, fx.Node]:
    """The outputs by name; a single unnamed output has the name None. Nested structures are walked in order."""
    return _leaves(output_node(module).args[0], fx.Node)


def _leaves(value: Any, kind: type[L]) -> dict[str | None, L]:
    """What is of that kind in a nested value, by the names and places that lead to it; the value itself has the name None."""
    found: dict[str | None, L] = {}

    def walk(item: Any, name: str) -> None:
        if isinstance(item, kind):
            found[name or None] = item
        elif isinstance(item, Mapping):
            for key, inner in cast("Mapping[Any, Any]", item).items():
                walk(inner, f"{name}.{key}" if name else str(key))
        elif isinstance(item, list | tuple):
            for i, inner in enumerate(cast("list[Any]", item)):
                walk(inner, f"{name}.{i}" if name else str(i))

    walk(value, "")
    return found


def called(name: str | None) -> str:
    """An output in a spec: its name or place."""
    return "the only one" if name is None else f"`output={name}`" if _PLAIN.fullmatch(name) else f'`output="{name}"`'


_PLAIN = re.compile(r"[A-Za-z_][\w.]*|\d+")


def chosen(known: Collection[str | None], name: str | None, span: Span = NOWHERE) -> str | None:
    """The output of that name or place, of those that there are; the end of a name will do, where it is one output's alone.

    Raises NetxformError X0319: there are several and none is named, or none is called so.
    """
    if name in known or (len(known) == 1 and name is None):
        return name if name in known else next(iter(known))
    ends = [k for k in known if k is not None and name is not None and k.endswith(f".{name}")]
    if len(ends) == 1:
        return ends[0]
    what = f"the network has no output `{name}`" if name is not None else f"the network has {len(known)} outputs"
    if set(known) == {None}:
        raise fail("X0319", what, span, "which one?", helps=("there is one output alone: leave `output` out",))
    near = () if name is None else did_you_mean(name, [str(k) for k in known])
    helps = (*near, f"say which: {', '.join(called(k) for k in known)}")
    raise fail("X0319", what, span, "which one?", notes=(f"outputs: {', '.join(map(str, known))}",), helps=helps)


def picked(found: Any, name: str | None) -> Any:
    """The output of that name or place, of what a network gave (`chosen`)."""
    if isinstance(found, Tensor) and name is None:
        return found
    known = given(found)
    return known[chosen(known, name)]


def given(found: Any) -> dict[str | None, Tensor]:
    """What a network gave, by name, as `outputs` names it; of dicts and tuples the tensors alone."""
    return _leaves(found, Tensor)


def shapes_of(network: Network) -> dict[str | None, tuple[int, ...]]:
    """The shapes of the outputs by name, as far as they are tensors."""
    found = {name: node.meta.get("shape") for name, node in outputs(network.module).items()}
    return {name: tuple(shape) for name, shape in found.items() if isinstance(shape, tuple | list)}


def loose_end(module: fx.GraphModule) -> str | None:
    """The node that the last cut left as an open output, or None."""
    value: str | None = output_node(module).meta.get("loose")
    return value


def set_output(module: fx.GraphModule, value: Any, loose: str | None) -> None:
    """Let the graph return `value`; `loose` names the node that is an open end with it."""
    old = output_node(module)
    with module.graph.inserting_before(old):
        new = module.graph.output(value)
    new.meta = {k: v for k, v in old.meta.items() if k not in ("shape", "dtype", "result", "classes")} | {"loose": loose}
    module.graph.erase_node(old)


def sweep(module: fx.GraphModule, last: fx.Node) -> None:
    """Remove nodes that no output needs, then modules that no node uses.

    Writes into needed values stay, up to the node `last`.
    """
    used = needed(module, [output_node(module)], last)
    for node in reversed(list(module.graph.nodes)):
        if node not in used and node.op != "placeholder":
            module.graph.erase_node(node)
    kept = _kept_modules(module, used)
    for name, _ in reversed(list(module.named_modules(remove_duplicate=False))):
        if name and name not in kept:
            owner, _, own = name.rpartition(".")
            delattr(module.get_submodule(owner), own)
    _drop_root_tensors(module, used)


def needed(module: fx.GraphModule, roots: list[fx.Node], until: fx.Node) -> set[fx.Node]:
    """The ancestors of the roots, the in-place writes that change one of them before it is read, and the guards before them.

    What stands behind the node `until` writes too late for any of them.
    """
    graph = module.graph
    needed: set[fx.Node] = set()
    stack = list(roots)
    writers: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        if _writes(node):
            for source in (
                [n for n in node.all_input_nodes if n is not node.args[0]][:1]
                if node.target is only
                else node.all_input_nodes[:1]
            ):
                writers.setdefault(source, []).append(node)
    known = memory_of(module) or Memory()
    for node, written in known.writes.items():
        for other, own in known.lies.items():
            if own & written and other is not node and node not in writers.get(other, []):
                writers.setdefault(other, []).append(node)
    order = {n: i for i, n in enumerate(graph.nodes)}
    last = order[until]
    while stack:
        node = stack.pop()
        if node in needed:
            continue
        needed.add(node)
        stack += node.all_input_nodes
        stack += [w for w in writers.get(node, []) if order[w] <= last]
        if not stack:  # a guard speaks for what comes after it
            end = max((order[n] for n in needed if n.op != "output" and n.op != "placeholder"), default=0)
            stack += [n for n in graph.nodes if is_guard(n) and order[n] < end and n not in needed]
    return needed


def _writes(node: fx.Node) -> bool:
    """Whether the node changes its first operand in place."""
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        if node.target is only:
            name = str(node.args[1])
            return name.endswith("_") and not name.endswith("__")
        return node.target is operator.setitem or (name.startswith("i") and node.target is getattr(operator, name, None))
    return False


def _kept_modules(module: fx.GraphModule, needed: set[fx.Node]) -> set[str]:
    """Every module that a needed node uses, with the modules around it and (for a called one) below it."""
    kept: set[str] = {""}
    below: list[str] = []
    for node in needed:
        if node.op == "call_module":
            below.append(str(node.target))
        if node.op == "get_attr":
            kept.add(str(node.target).rpartition(".")[0])
    names = [n for n, _ in module.named_modules(remove_duplicate=False)]
    for name in names:
        if any(name == b or name.startswith(b + ".") for b in below):
            kept.add(name)
    for name in list(kept):
        while name:
            name = name.rpartition(".")[0]
            kept.add(name)
    return kept


def _drop_root_tensors(module: fx.GraphModule, needed: set[fx.Node]) -> None:
    """Tensors that hang on a container and that no node reads any more."""
    called = {str(n.target) for n in needed if n.op == "call_module"}
    read = {str(n.target) for n in needed if n.op == "get_attr"}
    for name in held(module):
        owner, _, last = name.rpartition(".")
        inside = any(owner == c or owner.startswith(c + ".") for c in called)
        if not inside and name not in read:
            delattr(module.get_submodule(owner), last)


def kept_by(network: Network, node: str) -> set[str]:
    """The modules that remain when the value of `node` becomes the only output."""
    end = find(network.module, node)
    return _kept_modules(network.module, needed(network.module, [end], end))


def find(module: fx.GraphModule, name: str) -> fx.Node:
    """The node of that name. Raises KeyError where there is none."""
    for node in module.graph.nodes:
        if node.name == name:
            return node
    raise KeyError(name)
