"""The axis types of a network: every node of its graph read by a rule, nothing run that a rule knows.

    Network ─infer→ Types

Layers of torch.nn and functions of torch are typed from the shapes that the graph carries. What no rule knows (an
island, an uncommon function) is run once on the meta device under a dispatch mode, and its ATen operations are typed by
the same rules; an operation that is unknown there as well locks everything it touches.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from netxform.axes.algebra import Atom, Dim, Lock, Mix, atoms, fresh, lock, mix, size, unify
from netxform.axes.rules.layers import LAYERS
from netxform.axes.rules.operations import RULES, Int, Positions, Real, Typed, locked
from netxform.graph.copies import structure, weightless
from netxform.graph.guards import only
from netxform.graph.meta import on_meta
from netxform.graph.network import Network


@dataclass(slots=True)
class Stated:
    """A number that must follow the sizes of dimensions: an argument of a node (`path`) or an attribute of a layer.

    Without a place it stands in code that is kept whole: it cannot be written, only checked. `computed`: the graph computes
    it from the sizes of these dimensions; a number is written in its place where one of them changes.
    """

    node: str
    path: tuple[Any, ...] | None
    dims: tuple[Dim, ...]
    value: int
    layer: str | None = None
    computed: tuple[Dim, ...] = ()


@dataclass(slots=True)
class Parts:
    """A `split` or `chunk` by one number: when its parts become unequal, their sizes must be listed."""

    node: str
    axis: int
    parts: list[Dim]


@dataclass(slots=True)
class Contraction:
    """A sum over an index set: at which node, of which tensors of the module (name, axis), or of activations (None)."""

    node: str
    left: tuple[str, int] | None
    right: tuple[str, int] | None
    dim: Dim
    inside: str | None = None


@dataclass
class Types:
    """The axis types of a network: of every tensor of the module and of every value of the graph."""

    tensors: dict[str, list[Dim]] = field(default_factory=dict[str, "list[Dim]"])
    names: dict[str, str] = field(default_factory=dict[str, str])
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    stated: list[Stated] = field(default_factory=list[Stated])
    parts: list[Parts] = field(default_factory=list[Parts])
    contractions: list[Contraction] = field(default_factory=list[Contraction])
    mixes: list[tuple[Mix, Dim]] = field(default_factory=list["tuple[Mix, Dim]"])
    uses: dict[str, int] = field(default_factory=dict[str, int])
    scaled: list[tuple[str, Dim]] = field(default_factory=list["tuple[str, Dim]"])
    uncovered: dict[str, str] = field(default_factory=dict[str, str])
    ops: int = 0

    @cached_property
    def contracting(self) -> dict[Atom, list[Contraction]]:
        """The contractions over each atom."""
        found: dict[Atom, list[Contraction]] = {}
        for contraction in self.contractions:
            for atom in dict.fromkeys(atoms(contraction.dim)):
                found.setdefault(atom, []).append(contraction)
        return found

    @cached_property
    def contracted(self) -> Counter[tuple[str, int]]:
        """How often each dimension of a tensor is contracted."""
        return Counter(s for c in self.contractions for s in {c.left, c.right} if s is not None)


def types_of(network: Network) -> Types:
    """The axis types of every tensor of the network and of every value of its graph; found once, its twin knows them too."""
    if "types" not in network.known:
        network.known["types"] = infer(network.module)
    return network.known["types"]


def infer(module: fx.GraphModule) -> Types:
    """Find the types. Never fails on a graph that runs: what it does not understand it locks."""
    return _Inference(module).run()


_PLAIN_ATTRIBUTES = {"ndim", "dtype", "device", "is_cuda", "requires_grad", "layout", "is_sparse", "is_meta", "is_quantized"}
_OPERATORS = {
    name: name.strip("_")[1:]
    for name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor", "imatmul")
} | {"mod": "remainder", "not_": "logical_not"}


class _Inference:
    """One pass over the graph. Serves the rules as their context."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.types = Types()
        self.modules = dict(self.module.named_modules(remove_duplicate=False))
        self.held: dict[str, Tensor] = {}
        self.typed: dict[str, Typed] = {}
        first: dict[int, str] = {}
        every = [*self.module.named_parameters(remove_duplicate=False), *self.module.named_buffers(remove_duplicate=False)]
        for name, tensor in every:
            self.types.names[name] = first.setdefault(id(tensor), name)
            self.held.setdefault(first[id(tensor)], tensor)
        self.env: dict[fx.Node, Any] = {}
        self.node: fx.Node | None = None
        self.at = ""
        self.shape: Any = ()
        self.path = ""
        self.inside = False

    # --- the context of the rules

    def state(self, number: Any, *dims: Dim) -> None:
        path = getattr(number, "path", None) if not self.inside else None
        if isinstance(number, bool) or not isinstance(number, int) or number != sum(size(d) for d in dims):
            return
        self.types.stated.append(Stated(self.at, path, dims, int(number), computed=getattr(number, "dims", ())))

    def state_split(self, axis: int, parts: list[Dim]) -> None:
        if self.inside:
            for part in parts:
                self.types.stated.append(Stated(self.at, None, (part,), size(part)))
        else:
            self.types.parts.append(Parts(self.at, axis, parts))

    def drop_last_statement(self) -> tuple[Dim, ...] | None:
        if self.types.stated and self.types.stated[-1].node == self.at and self.types.stated[-1].path is None:
            return self.types.stated.pop().dims
        return None

    def attribute(self, name: str, *dims: Dim, item: int | None = None) -> None:
        path = ("attribute", name) if item is None else ("attribute", name, item)
        value = getattr(self.modules[self.path], name, None)
        if value is None and name == "value_dim":
            value = cast(Any, self.modules[self.path]).head_dim
        if item is not None:
            value = cast(Any, value)[item]
        self.types.stated.append(Stated(self.at, path, dims, int(cast(int, value)), self.path))

    def contract(self, left: Typed, i: int, right: Typed, j: int) -> None:
        unify(left.dims[i], right.dims[j], self.at)
        sides = [
            (x.source, cast(int, x.axes[k])) if x.source is not None and x.axes[k] is not None else None
            for x, k in ((left, i), (right, j))
        ]
        if right.dims[j]:
            self.types.contractions.append(
                Contraction(self.at, sides[0], sides[1], right.dims[j], self.path if self.inside else None)
            )

    def mix(self, dim: Dim, kind: str) -> None:
        mix(dim, Mix(kind, self.at))
        if dim:
            self.types.mixes.append((Mix(kind, self.at), dim))

    def inner_product(self, dim: Dim) -> None:
        self.types.contractions.append(Contraction(self.at, None, None, dim, self.path))

    def touch(self, tensor: Typed) -> None:
        if isinstance(tensor, Positions):
            lock(tensor.of, Lock("position", self.at))
        if tensor.source is not None:
            self.types.uses[tensor.source] = self.types.uses.get(tensor.source, 0) + 1

    def scaled_by_size(self, dim: Dim) -> bool:
        if self.inside:
            return False
        self.types.scaled.append((self.at, dim))
        return True

    def tensor(self, name: str) -> Typed | None:
        full = self.types.names.get(f"{self.path}.{name}" if self.path else name)
        return None if full is None else self.of(full)

    def read_items(self) -> set[int]:
        """Which items of the node's tuple somebody reads; every one where that cannot be told."""
        assert self.node is not None
        found: set[int] = set()
        for user in self.node.users:
            if user.op == "call_function" and user.target is operator.getitem and isinstance(user.args[1], int):
                found.add(user.args[1])
            else:
                found |= set(range(8))
        return found

    # --- the pass

    def of(self, name: str) -> Typed:
        """The type of a tensor of the module; born with fresh atoms."""
        made = self.typed.get(name)
        if made is None:
            shape = tuple(self.held[name].shape)
            made = Typed([fresh(n) for n in shape], shape, self.held[name].dtype, name, tuple(range(len(shape))))
            self.typed[name] = made
            self.types.tensors[name] = made.dims
        return made

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
                return locked(self.shape, "input", node.name, node.meta.get("dtype")) if _is_shape(self.shape) else None
            case "get_attr":
                return self.attr(str(node.target))
            case "output":
                for leaf in _leaves(self.argument(node.args, ())):
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
            mark = self.mark()
            try:
                return known(self, module, *args, **kwargs)
            except Exception:  # a use that the rule does not know: the layer is run instead
                self.back(mark)
        return self.opaque(module, path, args, kwargs)

    def function(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if node.target is only:  # eval mode does not run it: typed as training does
            return self.opaque(None, node.name, (True, *args[1:]), kwargs)
        operands = list(_leaves((args, kwargs)))
        name = op_name(node)
        if not operands:
            if _is_shape(self.shape) and node.meta.get("dtype") is not None:
                made = self.rule(name, args, kwargs)
                return made if made is not None else locked(self.shape, "constant", node.name, node.meta.get("dtype"))
            return _plain(node, args, kwargs)
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
        made = self.rule(name, args, kwargs)
        if made is not None or name == "setitem":
            return made
        return self.opaque(None, node.name, args, kwargs)

    def rule(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result by the rule of that name; None where there is none or it does not cover this use."""
        known = RULES.get(name)
        if known is None:
            return None
        mark = self.mark()
        try:
            made = known(self, *args, **{k: v for k, v in kwargs.items() if k not in ("inplace", "out")})
        except Exception:  # a use that the rule does not know: the operation is run, or locks
            self.back(mark)
            return None
        self.note(made)
        return made

    def note(self, made: Any) -> None:
        dtype = self.node.meta.get("dtype") if self.node is not None and not self.inside else None
        if isinstance(made, Typed) and dtype is not None:
            made.dtype = dtype

    def mark(self) -> tuple[int, int, int, int]:
        t = self.types
        return len(t.stated), len(t.contractions), len(t.parts), len(t.scaled)

    def back(self, mark: tuple[int, int, int, int]) -> None:
        """Forget what a rule noted before it gave up. What it unified stays: that is coarser, never wrong."""
        t = self.types
        del t.stated[mark[0] :], t.contractions[mark[1] :], t.parts[mark[2] :], t.scaled[mark[3] :]

    # --- what no rule knows

    def opaque(self, module: nn.Module | None, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run on the meta device, operation by operation; lock everything where that fails."""
        assert self.node is not None
        try:
            return self.dispatched(module, path, args, kwargs)
        except Exception as error:
            self.types.uncovered[self.node.name] = str(error).strip().split("\n")[0][:120]
            for operand in _leaves((args, kwargs)):
                self.touch(operand)
                for dim in operand.dims:
                    lock(dim, Lock("unknown", self.node.name))
            if module is not None:
                for name in self.inner_names(path):
                    for dim in self.of(name).dims:
                        lock(dim, Lock("unknown", self.node.name))
            return _all_locked(self.shape, self.node.name, self.node.meta.get("dtype"))
        finally:
            self.inside = False

    def inner_names(self, path: str) -> list[str]:
        return list(dict.fromkeys(c for n, c in self.types.names.items() if n.startswith(path + ".") or not path))

    def dispatched(self, module: nn.Module | None, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert self.node is not None
        known: dict[int, Typed] = {}
        keep: list[Tensor] = []

        def empty(x: Typed) -> Tensor:
            made = torch.empty(x.shape, dtype=x.dtype or torch.float32, device="meta")
            known[id(made)] = x
            keep.append(made)
            return made

        plain_args, plain_kwargs = pytree.tree_map_only(Typed, empty, (args, kwargs), is_leaf=lambda v: isinstance(v, Typed))
        plain_args, plain_kwargs = on_meta(pytree.tree_map_only(Int, int, (plain_args, plain_kwargs)))
        if module is not None:
            memo: dict[int, Any] = {}
            call: Any = structure(module, weightless, memo).eval()
            for name in self.inner_names(path):
                known[id(memo[id(self.held[name])])] = self.of(name)
            keep += memo.values()
        elif self.node.op == "call_method":
            call = lambda x, *a, **k: getattr(x, str(self.node.target))(*a, **k)  # noqa: E731 # pyright: ignore
        else:
            call = self.node.target
        self.inside = True
        outer = self.shape
        mode = _Dispatch(self, known, keep)
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad(), torch.device("meta"), mode:
                result = call(*plain_args, **plain_kwargs)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            self.shape, self.at = outer, self.node.name
        made = pytree.tree_map_only(
            Tensor, lambda x: known.get(id(x)) or locked(tuple(x.shape), "constant", self.at, x.dtype), result
        )
        return made


class _Dispatch(TorchDispatchMode):
    """Every ATen operation of a run on meta tensors, typed."""

    def __init__(self, owner: _Inference, known: dict[int, Typed], keep: list[Tensor]) -> None:
        super().__init__()
        self.owner, self.known, self.keep = owner, known, keep

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        owner = self.owner
        owner.types.ops += 1
        node = owner.node.name if owner.node is not None else ""
        owner.shape = pytree.tree_map(lambda x: tuple(x.shape) if isinstance(x, Tensor) else None, out)
        if isinstance(out, Tensor):
            owner.shape = tuple(out.shape)
        owner.at = f"{node}: {name}"
        targs, tkwargs = pytree.tree_map_only(Tensor, self.of, (args, kwargs))
        made = None
        if any(True for _ in _leaves((targs, tkwargs))) or name in RULES:
            made = owner.rule(_normal_name(name), targs, tkwargs)
        if made is None:
            owner.types.uncovered[owner.at] = "no rule"
            for operand in _leaves((targs, tkwargs)):
                owner.touch(operand)
                for dim in operand.dims:
                    lock(dim, Lock("unknown", owner.at))
            made = _all_locked(owner.shape, owner.at, None)
        self.bind(out, made)
        for dim in (d for x in _leaves(made) for d in x.dims):
            owner.types.stated.append(Stated(owner.at, None, (dim,), size(dim)))
        return out

    def of(self, tensor: Tensor) -> Typed:
        found = self.known.get(id(tensor))
        if found is None:
            found = locked(tuple(tensor.shape), "constant", self.owner.at, tensor.dtype)
            self.known[id(tensor)] = found
            self.keep.append(tensor)
        return found

    def bind(self, out: Any, made: Any) -> None:
        if isinstance(out, Tensor):
            if isinstance(made, tuple | list):
                made = cast("list[Any]", made)[0]
            if id(out) not in self.known or not isinstance(made, Typed):
                self.known[id(out)] = made
            made.dtype = out.dtype
            self.keep.append(out)
        elif isinstance(out, list | tuple) and isinstance(made, list | tuple):
            for one, other in zip(cast("list[Any]", out), cast("list[Any]", made), strict=False):
                self.bind(one, other)


# --- helpers ---------------------------------------------------------------------------------------------------------


def op_name(node: fx.Node) -> str:
    """The name under which the rules know a functional node."""
    target: Any = node.target
    if isinstance(target, str):
        return _normal_name(target)
    if hasattr(target, "_schema"):
        return _normal_name(target._schema.name.split("::")[1])
    name = getattr(target, "__name__", str(target))
    if getattr(target, "__module__", "") == "_operator":
        return _OPERATORS.get(name, name.rstrip("_"))
    return _normal_name(name)


def _normal_name(name: str) -> str:
    """`relu_` is `relu`, `__add__` is `add`."""
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        return _OPERATORS.get(name, name)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _as_written(module: nn.Module) -> bool:
    """Whether the layer computes what its class says: no hooks, no parametrizations."""
    own: Any = module
    return not (own._forward_pre_hooks or own._forward_hooks or hasattr(module, "parametrizations"))


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(isinstance(n, int) for n in cast("tuple[Any, ...]", shape))


def _leaves(value: Any) -> Iterator[Typed]:
    if isinstance(value, Typed):
        yield value
    elif isinstance(value, list | tuple):
        for item in cast("list[Any]", value):
            yield from _leaves(item)
    elif isinstance(value, dict):
        for item in cast("dict[Any, Any]", value).values():
            yield from _leaves(item)


def _all_locked(shape: Any, at: str, dtype: Any) -> Any:
    if _is_shape(shape):
        return locked(shape, "unknown", at, dtype)
    if isinstance(shape, list | tuple):
        return tuple(_all_locked(s, at, None) for s in cast("list[Any]", shape))
    if isinstance(shape, dict):
        return {k: _all_locked(s, at, None) for k, s in cast("dict[Any, Any]", shape).items()}
    return None


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


def _plain(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Arithmetic on sizes: done, with the dimensions that it came from."""
    dims: list[Dim] = []
    for leaf in pytree.tree_leaves((args, kwargs)):
        dims += getattr(leaf, "dims", ()) if isinstance(leaf, Int | Real) else ()
    try:
        if node.op == "call_method":
            result: Any = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            result = cast(Any, node.target)(*args, **kwargs)
    except Exception:
        return None

    def marked(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(marked(v) for v in cast("list[Any]", value)) if not hasattr(value, "_fields") else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if isinstance(value, Int | Real) and node.target is operator.getitem:
            return value
        made: Int | Real = Int(value) if isinstance(value, int) else Real(value)
        made.dims = tuple(dims)
        return made

    return marked(result)
