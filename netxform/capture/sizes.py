"""Which sizes of its inputs a recorded graph is free in.

A recorded pass has taken every decision on a size once. The graph is run at other sizes (the batch, then every other size, each
one more and doubled): a decision on numbers that never change is none; the rest stays guarded. Where the graph runs at another
size and is not what the model is there, the size itself is guarded.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, fx, nn

from netxform.graph.copies import parts, weightless
from netxform.graph.guards import is_guard, require
from netxform.graph.meta import MetaRun, noted

Given = tuple[Tensor, ...]
Axis = tuple[int, int]  # of which input, which axis


class Compares(Protocol):
    """What is asked of the judge: the operations of a run on meta tensors, and whether the model has the same."""

    given: tuple[Given, Given]

    def told(self, shadow: nn.Module, inputs: Given, call: Callable[..., Any]) -> list[Any] | None:
        """The program of the call, None where programs do not say all. Raises what the call raises."""
        ...

    def same_at(self, module: fx.GraphModule, inputs: Given, ours: list[Any] | None) -> bool:
        """Whether the model computes at these inputs what the graph does."""
        ...


def settle(module: fx.GraphModule, judge: Compares) -> list[list[Any] | None]:
    """Take out guards on sizes that cannot change; guard the sizes at which graph and model are not the same.

    Where something stays guarded, `meta["free"]` of the module says which sizes are free.

    Returns the programs of the graph at both batch sizes; shapes and dtypes are noted.
    """
    shadow = parts(module, weightless)
    seen: dict[fx.Node, set[Any]] = {}
    programs: list[list[Any] | None] = []
    for i, inputs in enumerate(judge.given):
        try:
            programs.append(judge.told(shadow, inputs, _Decisions(shadow, module.graph, seen, i == 0).run))
        except Exception:  # the graph is arbitrary code: some of it does not run on meta tensors
            programs.append(None)
    fixed: list[set[Axis]] = []
    free: set[Axis] = set()
    for size in sorted({n for t in judge.given[0] for n in t.shape[1:]}):
        every = {(i, d) for i, t in enumerate(judge.given[0]) for d in range(1, t.dim()) if t.shape[d] == size}
        alone = [{(i, d) for i, d in every if d == axis} for axis in sorted({d for _, d in every})]
        for axes in (every, *(alone if len(alone) > 1 else ())):
            ran = refused = False
            for other in (size + 1, 2 * size):
                inputs = tuple(_resized(t, i, axes, other) for i, t in enumerate(judge.given[0]))
                run = _Decisions(shadow, module.graph, seen)
                try:
                    ours = judge.told(shadow, inputs, run.run)
                except Exception:  # nor at other sizes
                    continue
                if not ran and not run.refused and not judge.same_at(module, inputs, ours):
                    fixed.append(axes)
                ran, refused = True, refused or run.refused
                if all(len(sizes) > 1 for sizes in seen.values()):
                    break
            if ran and not refused and axes not in fixed:
                free |= axes
            if ran and axes is every:
                break  # these sizes go together
    for node, operands in seen.items():
        if len(operands) == 1 and node.meta.get("sizes"):
            erase(node)
    if any(len(operands) > 1 for operands in seen.values()) or fixed:
        module.meta["free"] = free
    for axes in reversed(fixed):
        _guard(module.graph, judge.given[0], axes)
    module.recompile()
    return programs


class _Decisions(MetaRun):
    """A run on meta tensors that notes what every guard on sizes decides about, and goes on where one refuses."""

    def __init__(self, shadow: nn.Module, graph: fx.Graph, seen: dict[fx.Node, set[Any]], notes: bool = False) -> None:
        super().__init__(shadow, graph=graph)
        self.seen, self.notes = seen, notes
        self.refused = False
        self.read: dict[fx.Node, tuple[int, ...]] = {}  # the sizes that a number was computed from

    def run_node(self, n: fx.Node) -> Any:
        """The value of the node; a guard notes and never raises."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if not is_guard(n):
            value = getattr(self, n.op)(n.target, args, kwargs)
            if n.target is len:
                self.read[n] = (_divided(cast(fx.Node, n.args[0]), args[0]),)
            elif isinstance(value, int):
                inner = getattr(n.target, "__module__", "") == "_operator"
                self.read[n] = tuple(r for s in n.all_input_nodes for r in self.read.get(s, ())) if inner else (value,)
            return noted(n, value) if self.notes else value
        if n.meta.get("sizes"):
            self.seen.setdefault(n, set()).add(self.read.get(cast(fx.Node, n.args[0])))
        if not isinstance(args[0], Tensor):
            self.refused |= bool(args[0] != args[1])
        return noted(n, None) if self.notes else None


def _divided(source: fx.Node, parts_: Any) -> int:
    """The size that was taken apart into these tensors."""
    name = str(getattr(source.target, "__name__", source.target))
    if "split" not in name and name != "chunk":
        return len(parts_)
    axis: Any = source.kwargs.get("dim", source.args[2] if len(source.args) > 2 else 0)
    return sum(int(p.shape[axis]) for p in parts_) if isinstance(axis, int) else -1


def erase(node: fx.Node) -> None:
    """Remove the node and what was computed for it alone."""
    stack = [node]
    while stack:
        last = stack.pop()
        if last.users or last.op not in ("call_function", "call_method"):
            continue
        sources = last.all_input_nodes
        last.graph.erase_node(last)
        spaces = ("_operator", "builtins")
        stack += [s for s in sources if s.target in ("size", "numel") or getattr(s.target, "__module__", "") in spaces]


def _resized(tensor: Tensor, number: int, axes: set[Axis], other: int) -> Tensor:
    """The input of this number with those axes of the other length, its entries repeated."""
    for i, axis in axes:
        if i == number:
            tensor = tensor.index_select(axis, torch.arange(other, device=tensor.device) % tensor.shape[axis])
    return tensor


def _guard(graph: fx.Graph, given: Given, axes: set[Axis]) -> None:
    taken = [n for n in graph.nodes if n.op == "placeholder"]
    for i, axis in sorted(axes, reverse=True):
        source, size = taken[i], given[i].shape[axis]
        with graph.inserting_after(taken[-1]):
            made = graph.call_method("size", (source, axis))
        with graph.inserting_after(made):
            equal = graph.call_function(operator.eq, (made, size))
        with graph.inserting_after(equal):
            check = graph.call_function(require, (equal, True, f"the inputs: {source.name}.shape[{axis}] == {size}"))
        for node in (made, equal, check):
            node.meta |= {"scope": "", "exits": (), "entries": (), "shape": None, "dtype": None}
