"""The axis types of a network: every node of its graph read by a rule, nothing run that a rule knows.

    Network ─infer→ Types

Layers of torch.nn and functions of torch are typed from the shapes that the graph carries. What no rule knows (an
island, an uncommon function) is run once on the meta device under a dispatch mode, and its ATen operations are typed by
the same rules; an operation that is unknown there as well locks everything it touches.
"""

from __future__ import annotations

import operator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from netxform.axes.algebra import Dim, Lock, lock
from netxform.axes.names import op_name
from netxform.axes.notes import Notes, is_shape, leaves
from netxform.axes.rules import load
from netxform.axes.rules.context import Int, Real, Typed, Uncovered, locked
from netxform.axes.rules.registry import LAYERS
from netxform.axes.types import Types
from netxform.axes.whole import reason, run_whole
from netxform.graph.network import Network


def types_of(network: Network) -> Types:
    """The axis types of every tensor of the network and of every value of its graph; found once, its twin knows them too."""
    if "types" not in network.known:
        network.known["types"] = infer(network.module)
    return network.known["types"]


def infer(module: fx.GraphModule) -> Types:
    """Find the types. Never fails on a graph that runs: what it does not understand it locks."""
    load()
    return _Inference(module).run()


_PLAIN_ATTRIBUTES = {"ndim", "dtype", "device", "is_cuda", "requires_grad", "layout", "is_sparse", "is_meta", "is_quantized"}


class _Inference(Notes):
    """One pass over the graph. Serves the rules as their context."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.env: dict[fx.Node, Any] = {}

    def run(self) -> Types:
        for node in self.module.graph.nodes:
            self.node, self.at = node, node.name
            self.shape = node.meta.get("shape")
            self.types.ops += 1
            self.env[node] = self.visit(node)
            if node.op != "output":
                self.types.values[node.name] = self.env[node]
        for name in self.held:
            if name not in self.typed:
                for dim in self.of(name).dims:
                    lock(dim, Lock("unused"))
        self.types.tensors = {n: self.types.tensors[n] for n in self.held}
        return self.types

    def visit(self, node: fx.Node) -> Any:
        match node.op:
            case "placeholder":
                return locked(self.shape, "input", node.name, node.meta.get("dtype")) if is_shape(self.shape) else None
            case "get_attr":
                return self.attr(str(node.target))
            case "output":
                for leaf in leaves(self.argument(node.args, ())):
                    self.touch(leaf)
                    for dim in leaf.dims:
                        lock(dim, Lock("output", leaf.source or ""))
                return None
            case _:
                args = tuple(self.argument(a, (0, i)) for i, a in enumerate(node.args))
                kwargs = {k: self.argument(a, (1, k)) for k, a in node.kwargs.items()}
                if node.op == "call_module":
                    return self.layer(str(node.target), args, kwargs)
                return self.function(node, args, kwargs)

    def attr(self, target: str) -> Any:
        if target in self.types.names:
            return self.of(self.types.names[target])
        found: Any = self.module
        for part in target.split("."):
            found = getattr(found, part)
        return locked(tuple(found.shape), "constant", target, found.dtype) if isinstance(found, Tensor) else found

    def argument(self, value: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(value, fx.Node):
            held = self.env[value]
            if type(held) is Int and path[:1] in ((0,), (1,)):
                placed = Int(held)
                placed.path, placed.dims = path, held.dims
                return placed
            return held
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int):
            made = Int(value)
            made.path = path
            return made
        if isinstance(value, list | tuple):
            items = [self.argument(v, (*path, i)) for i, v in enumerate(cast("list[Any]", value))]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, slice):
            return slice(*(self.argument(getattr(value, k), (*path, k)) for k in ("start", "stop", "step")))
        if isinstance(value, dict):
            return {k: self.argument(v, (*path, k)) for k, v in cast("dict[Any, Any]", value).items()}
        return value

    def layer(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.modules[path]
        self.path = path
        known = LAYERS.get(type(module).__name__) if _as_written(module) else None
        if known is not None:
            try:
                return self.by(known, (self, module, *args), kwargs)
            except Uncovered:  # the layer is run instead
                pass
        return run_whole(self, module, path, args, kwargs)

    def function(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operands = list(leaves((args, kwargs)))
        name = op_name(node)
        if not operands:
            if is_shape(self.shape) and node.meta.get("dtype") is not None:
                try:
                    made = self.rule(name, args, kwargs)
                except Uncovered:
                    made = None
                return made if made is not None else locked(self.shape, "constant", node.name, node.meta.get("dtype"))
            return self.plain(node, args, kwargs)
        first = args[0] if args else None
        if isinstance(first, list | tuple) and name == "getitem":
            return cast("tuple[Any, ...]", first)[args[1]]
        if isinstance(first, list | tuple) and name == "getattr" and args[1] in ("values", "indices"):
            return cast("tuple[Any, ...]", first)[0 if args[1] == "values" else 1]
        if isinstance(first, Typed):
            asked = args[1] if node.op == "call_function" and node.target is getattr else name
            known, answer = _about(first, asked if isinstance(asked, str) else "", args[1:], kwargs)
            if known:
                return answer
            if name == "getattr":
                name = str(asked)
                args = (first,)
        try:
            made = self.rule(name, args, kwargs)
            if made is not None or name == "setitem":
                return made
        except Uncovered:  # the operation is run instead
            pass
        return run_whole(self, None, node.name, args, kwargs)

    def plain(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Arithmetic on sizes: done, with the dimensions that it came from. Code that fails on them is noted."""
        given = pytree.tree_leaves((args, kwargs))
        dims = tuple(d for leaf in given if isinstance(leaf, Int | Real) for d in leaf.dims)
        try:
            call: Any = getattr(args[0], str(node.target)) if node.op == "call_method" else node.target
            result = call(*(args[1:] if node.op == "call_method" else args), **kwargs)
        except Exception as error:  # the model's own code, on sizes without tensors
            self.types.uncovered[node.name] = reason(error)
            for dim in dims:
                self.mix(dim, "size")
            return None
        return _marked(result, dims, node.target is operator.getitem)


def _as_written(module: nn.Module) -> bool:
    """Whether the layer computes what its class says: no hooks, no parametrizations."""
    own: Any = module
    return not (own._forward_pre_hooks or own._forward_hooks or hasattr(module, "parametrizations"))


def _about(x: Typed, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
    """What is asked about a tensor, not of its values: its sizes, its dtype."""
    if name in ("shape", "size") and not (name == "shape" and len(args) > 1):
        every = torch.Size(x.shape)
        asked = args[0] if name == "size" and args else kwargs.get("dim")
        if asked is not None:
            i = int(asked) % len(x.shape)
            return True, _sized(every[i], x.dims[i])
        return True, tuple(_sized(n, d) for n, d in zip(every, x.dims, strict=True))
    if name in ("dim", "ndimension", "ndim"):
        return True, len(x.shape)
    if name in ("numel", "nelement"):
        total = 1
        for n in x.shape:
            total *= n
        made = Int(total)
        made.dims = tuple(x.dims)
        return True, made
    if name == "len":
        return True, _sized(x.shape[0], x.dims[0])
    if name in ("is_floating_point", "is_complex", "is_contiguous", "get_device", "is_tensor", "isinstance"):
        return True, name in ("is_contiguous", "is_tensor", "isinstance") or (
            name == "is_floating_point" and (x.dtype is None or x.dtype.is_floating_point)
        )
    if name == "dtype":
        return True, x.dtype
    if name == "device":
        return True, torch.device("meta")
    if name in _PLAIN_ATTRIBUTES:
        return True, False
    return False, None


def _sized(n: int, dim: Dim) -> Int:
    made = Int(n)
    made.dims = (dim,)
    return made


def _marked(value: Any, dims: tuple[Dim, ...], picked: bool) -> Any:
    """Numbers that know which dimensions they came from. `picked`: out of several that know it already."""
    if isinstance(value, tuple | list):
        items = cast("list[Any]", value)
        return type(value)(_marked(v, dims, picked) for v in items) if not hasattr(value, "_fields") else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, Int | Real) and picked:
        return value
    made: Int | Real = Int(value) if isinstance(value, int) else Real(value)
    made.dims = dims
    return made
