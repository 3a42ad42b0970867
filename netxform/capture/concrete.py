"""The second front-end: one concrete forward pass, written down as a graph.

A `TorchFunctionMode` sees every torch function; leaf modules become `call_module`; ints read off a tensor's shape stay
values of the graph, so that other batch sizes run. Python control flow is followed as it went: where it hung on a value or on a
size, the graph requires that it goes the same way.
"""

# Long: what the recorder does with each kind of function is read side by side.

from __future__ import annotations

import builtins
import functools
import inspect
import operator
import types
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from netxform.capture.places import asked, compared, located, still
from netxform.capture.symbolic import TrainingFlag, hooked, is_leaf, passed
from netxform.capture.traced_ints import ACTIVE, INT, RANGE, TracedInt, TracedInteger, TracedRange
from netxform.errors import fail
from netxform.graph.guards import number, require

LEN = len
_METHODS = (types.MethodDescriptorType, types.WrapperDescriptorType)


_HOST = {"__bool__", "__int__", "__float__", "__index__", "__complex__", "item", "tolist", "is_nonzero"}
_ASKS: dict[str, tuple[Any, str]] = {
    "equal": (torch.eq, "all"),
    "allclose": (torch.isclose, "all"),
    "__contains__": (torch.eq, "any"),
}
_HOST |= set(_ASKS)
_PLAIN = {"requires_grad", "is_leaf", "layout", "is_sparse", "is_quantized"}  # attributes that are asked for once more
_KINDS = _PLAIN | {"dtype", "device", "is_cuda", "get_device", "is_floating_point", "is_complex", "is_contiguous"}
_RANK = {"dim", "ndim", "ndimension"}
_LEAVES = {"numpy", "__array__", "__dlpack__"}
_LISTS = {"unbind", "split", "chunk", "tensor_split", "split_with_sizes", "__iter__", "hsplit", "vsplit", "dsplit"}


def _writes(name: str) -> bool:
    """Whether a method of this name writes into its tensor."""
    inplace = name.startswith("__i") and name not in ("__index__", "__int__", "__invert__", "__iter__")
    return inplace or (name.endswith("_") and not name.endswith("__") and name != "requires_grad_")


class Recorder(TorchFunctionMode):
    """Records one forward pass of `model`."""

    def __init__(self, model: nn.Module, constant: str = "_constant") -> None:
        super().__init__()
        self.constant = constant
        self.model = model
        self.graph = fx.Graph()
        self.depth = 0
        self.nodes: dict[int, fx.Node] = {}
        self.alive: list[Any] = []
        self.constants: dict[str, Tensor] = {}
        self.paths = {id(m): n for n, m in model.named_modules()}
        named = [*model.named_parameters(), *model.named_buffers()]
        self.names = {id(t): n for n, t in named}
        self.stack: list[str] = []
        self.ranked: tuple[str, str] | None = None  # where the code decides by how many dimensions there are
        self.before = {n: (b, b.detach().clone()) for n, b in model.named_buffers()}

    def record(self, *inputs: Tensor) -> tuple[fx.Graph, dict[str, Tensor]]:
        """The graph of `model(*inputs)`, and tensors that it reads and that are neither parameter nor buffer."""
        names = [p for p in inspect.signature(self.model.forward).parameters if p not in ("args", "kwargs")]
        names += [f"input_{i}" for i in range(len(names), len(inputs))]
        inputs = tuple(t.detach().clone() for t in inputs)
        for name, tensor in zip(names, inputs, strict=False):
            node = self.graph.placeholder(name)
            node.meta |= {"scope": "", "exits": (), "entries": ()}
            self._bind(tensor, node)
        original = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self._module(original, module, args, kwargs)

        nn.Module.__call__ = call  # type: ignore[method-assign]
        ACTIVE.append(self)
        try:
            with torch.enable_grad(), self:
                builtins.range, builtins.int = TracedRange, TracedInteger  # type: ignore[misc,assignment]
                builtins.len = self._length  # what `__len__` answers becomes a plain int on the way
                result = self.model(*inputs)
        finally:
            builtins.range, builtins.len, builtins.int = RANGE, LEN, INT  # type: ignore[misc]
            ACTIVE.pop()
            nn.Module.__call__ = original  # type: ignore[method-assign]
        outputs = self._encode(plain(result))
        self._written()
        self.graph.output(outputs)
        self._ranks(names[: LEN(inputs)])
        return self.graph, self.constants

    def _written(self) -> None:
        """Buffers that the pass has put other tensors in place of: the graph writes into them. They are as before again."""
        for path, part in self.model.named_modules():
            for name, held in part._buffers.items():  # pyright: ignore[reportPrivateUsage]
                before = self.before.get(f"{path}.{name}" if path else name)
                if before is None or held is before[0]:
                    continue
                if held is None or id(held) not in self.nodes or held.shape != before[0].shape:
                    raise fail("X0802", f"the buffer `{name}` of `{path}` becomes something else")
                self.add(self.graph.call_method("copy_", (self._of(before[0]), self._of(held))), path)
                part._buffers[name] = before[0]  # pyright: ignore[reportPrivateUsage]
        with torch.no_grad():
            for held, value in self.before.values():
                held.copy_(value)

    def _module(self, original: Any, module: nn.Module, args: Any, kwargs: Any) -> Any:
        path = self.paths.get(id(module))
        if self.depth or path is None:
            return original(module, *args, **kwargs)
        first = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        if first is not None and path:
            entry = self._of(first)
            entry.meta["entries"] = (*entry.meta.get("entries", ()), path)
        leaf, before = bool(path) and is_leaf(module), len(self.alive)
        if leaf and hooked(module):  # what hooks do is part of the graph
            own = module.forward
            module.forward = lambda *a, **k: self._leaf(own, path, a, k)
            try:
                result = original(module, *args, **kwargs)
            finally:
                del module.forward
        elif not leaf:
            self.stack.append(path)
            try:
                result = original(module, *args, **kwargs)
            finally:
                self.stack.pop()
        else:
            result = self._leaf(functools.partial(original, module), path, args, kwargs)
        if isinstance(result, Tensor) and path:
            node = self._of(result)
            if not leaf and not any(held is result for held in self.alive[before:]):
                node = self.add(self.graph.call_function(passed, (node,)), path)
                self.depth += 1
                result = result.view_as(result)
                self.depth -= 1
                self._bind(result, node)
            node.meta["exits"] = (*node.meta.get("exits", ()), path)
        return result

    def _leaf(self, call: Any, path: str, args: Any, kwargs: Any) -> Any:
        encoded = self._encode(args), self._encode(kwargs)
        self.depth += 1
        try:
            result = call(*args, **kwargs)
        finally:
            self.depth -= 1
        self._register(result, self.add(self.graph.call_module(path, *encoded), path.rpartition(".")[0]))
        return result

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function and write it down."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        clean_args, clean_kwargs = _unflag(args), _unflag(kwargs)
        if self.depth:
            return func(*clean_args, **clean_kwargs)
        self.depth += 1
        try:
            result = func(*clean_args, **clean_kwargs)
        finally:
            self.depth -= 1
        if name in _HOST and isinstance(args[0], Tensor):
            return self._read(func, args, kwargs, result)
        if name in _LEAVES and id(args[0]) in self.nodes:
            raise fail("X0802", f"the values leave torch at {located()[0]}")
        if name == "__len__":
            return self._size(args[0], 0, result)
        if name == "__get__":
            return self._property(func, args, result)
        if name == "__set__":
            return result
        if name == "size" and isinstance(args[0], Tensor):
            if isinstance(result, torch.Size):
                return self._sizes(args[0], result)
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            return self._size(args[0], int(dim), result)
        if name == "stride" and id(args[0]) not in self.names:
            base, given = self._of(args[0]), args[1:] or tuple(kwargs.values())
            if given:
                return TracedInt(result, lambda: self.add(self.graph.call_method("stride", (base, *given))))
            steps = [lambda d=d: self.add(self.graph.call_method("stride", (base, d))) for d in range(len(result))]
            return tuple(TracedInt(n, step) for n, step in zip(result, steps, strict=True))
        if name in ("numel", "nelement") and id(args[0]) not in self.names:
            base = self._of(args[0])
            return TracedInt(result, lambda: self.add(self.graph.call_method("numel", (base,))))
        if name == "__setitem__":
            self.add(self.graph.call_function(operator.setitem, self._encode(args)))
            return result
        if not _has_tensor(result):
            if name in _KINDS | _RANK and args and isinstance(args[0], Tensor):
                self._kind(name, args[0], result)
            return result
        if isinstance(result, Tensor) and id(result) in self.names and any(result is a for a in args) and not _writes(name):
            return result
        encoded_args, encoded_kwargs = self._encode(args), self._encode(kwargs)
        if name == "__getitem__":
            node = self.graph.call_function(operator.getitem, encoded_args, encoded_kwargs)
        elif isinstance(func, _METHODS) or getattr(func, "__module__", None) == "torch._tensor":
            node = self.graph.call_method(name, encoded_args, encoded_kwargs)
        else:
            node = self.graph.call_function(func, encoded_args, encoded_kwargs)
        self.add(node)
        if name in _LISTS and isinstance(result, tuple | list):
            count = self.add(self.graph.call_function(LEN, (node,)))
            self.require(count, len(cast("list[Any]", result))).meta["sizes"] = True
        self._register(result, node)
        return result

    def require(self, condition: Any, value: Any) -> fx.Node:
        """The graph holds one branch of a decision: it goes on only where that comes out as it did."""
        where, what = located()
        return self.add(self.graph.call_function(require, (condition, value, f"{where}: {what}")))

    def _read(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """A value that Python reads. What it is compared with at once is required to compare so; else its very value is."""
        if not any(isinstance(a, Tensor) and (id(a) in self.nodes or id(a) in self.names) for a in args):
            return result  # made of constants
        name = func.__name__
        if name in _ASKS:
            compare, gather = _ASKS[name]
            each = self.add(self.graph.call_function(compare, self._encode(args), self._encode(kwargs)))
            self.require(self.add(self.graph.call_method(gather, (each,))), bool(result))
            return result
        source = self._of(args[0])
        if isinstance(result, bool):
            self.require(source, result)
            return result
        if isinstance(result, list):
            self.require(source, result)
            return result
        read = self.add(self.graph.call_function(number, (source, result)))
        followed = compared(result)
        if followed is None:
            self.require(read, result)
        else:
            function, other, first = followed
            condition = self.graph.call_function(function, (read, other) if first else (other, read))
            self.require(self.add(condition), function(*((result, other) if first else (other, result))))
        return result

    def _property(self, func: Any, args: Any, result: Any) -> Any:
        name = getattr(func.__self__, "__name__", "")
        if name == "shape":
            return self._sizes(args[0], result)
        if not _has_tensor(result):
            self._kind(name, args[0], result)
            return result
        self._register(result, self.add(self.graph.call_function(getattr, (self._encode(args[0]), name))))
        return result

    def _kind(self, name: str, tensor: Tensor, result: Any) -> None:
        """A read of what kind of tensor it is. Where that hangs on the inputs and decides something, the graph requires it."""
        source = self.nodes.get(id(tensor))
        if source is not None and name in _RANK:
            self._rank()
        if source is None or source.op == "get_attr" or name not in _KINDS:
            return
        comparisons = asked()
        if comparisons is None:
            return
        if name in ("device", "is_cuda", "get_device"):  # the same on the device that plans are made on
            self.require(self.add(self.graph.call_function(getattr, (source, "is_cuda"))), tensor.is_cuda)
        elif name in _PLAIN:
            self.require(self.add(self.graph.call_function(getattr, (source, name))), result)
        elif name != "dtype":
            self.require(self.add(self.graph.call_method(name, (source,))), result)
        else:
            read = self.add(self.graph.call_function(getattr, (source, "dtype")))
            for function, others in comparisons:  # one of several, or none of them
                join = operator.or_ if function is operator.eq else operator.and_
                each = [self.add(self.graph.call_function(function, (read, other))) for other in others]
                if each:
                    whole = functools.reduce(lambda a, b: self.add(self.graph.call_function(join, (a, b))), each)
                    self.require(whole, functools.reduce(join, [function(result, other) for other in others]))
            if not comparisons:
                self.require(read, result)

    def _rank(self) -> None:
        """A read of how many dimensions there are; where it decides, the graph requires as many of its inputs."""
        if not self.ranked and asked() is not None:
            self.ranked = located()

    def _ranks(self, names: list[str]) -> None:
        given = [n for n in self.graph.nodes if n.op == "placeholder"][: LEN(names)]
        if self.ranked and given:
            where, what = self.ranked
            with self.graph.inserting_after(given[-1]):
                for node in reversed(given):
                    rank = self.add(self.graph.call_method("dim", (node,)))
                    with self.graph.inserting_after(rank):
                        check = (rank, self.alive[given.index(node)].dim(), f"{where}: {what}")
                        self.add(self.graph.call_function(require, check)).meta["rank"] = True

    def _sizes(self, tensor: Tensor, sizes: torch.Size) -> Any:
        if id(tensor) in self.names:
            return sizes
        return torch.Size([self._size(tensor, i, n) for i, n in enumerate(sizes)])

    def _length(self, value: Any, /) -> int:
        """`len` while a pass is recorded: that of a tensor is its first size."""
        count = LEN(value)
        if isinstance(value, torch.Size) and not self.depth and any(isinstance(n, TracedInt) for n in value):
            self._rank()
        return self._size(value, 0, count) if isinstance(value, Tensor) and not self.depth else count

    def _size(self, tensor: Tensor, dim: int, value: int) -> int:
        if id(tensor) in self.names:
            return value
        base = self._of(tensor)
        return TracedInt(value, lambda: self.add(self.graph.call_method("size", (base, dim))))

    def add(self, node: fx.Node, scope: str | None = None) -> fx.Node:
        """The node, with its places."""
        node.meta.setdefault("scope", self.stack[-1] if scope is None and self.stack else scope or "")
        node.meta.setdefault("exits", ())
        node.meta.setdefault("entries", ())
        node.meta.setdefault("still", still())
        return node

    def _of(self, tensor: Tensor) -> fx.Node:
        if id(tensor) in self.nodes:
            return self.nodes[id(tensor)]
        name = self.names.get(id(tensor))
        if name is None:
            if tensor.requires_grad:
                raise fail("X0802", "the model reads a trainable tensor that is no parameter of it")
            name = f"{self.constant}_{len(self.constants)}"
            self.constants[name] = tensor.detach().clone()
        node = self.add(self.graph.get_attr(name), name.rpartition(".")[0])
        self._bind(tensor, node)
        return node

    def _bind(self, tensor: Tensor, node: fx.Node) -> None:
        self.nodes[id(tensor)] = node
        self.alive.append(tensor)

    def _register(self, value: Any, node: fx.Node) -> None:
        if isinstance(value, Tensor):
            self._bind(value, node)
        elif isinstance(value, tuple | list):
            for i, item in enumerate(cast("list[Any]", value)):
                if _has_tensor(item):
                    self._register(item, self.add(self.graph.call_function(operator.getitem, (node, i))))
        elif isinstance(value, dict):
            for key, item in cast("dict[Any, Any]", value).items():
                if _has_tensor(item):
                    self._register(item, self.add(self.graph.call_function(operator.getitem, (node, key))))

    def _encode(self, value: Any) -> Any:
        match value:
            case Tensor():
                return self._of(value)
            case TracedInt():
                return value.node()
            case TrainingFlag():
                return value
            case slice():
                return slice(self._encode(value.start), self._encode(value.stop), self._encode(value.step))
            case tuple():
                return tuple(self._encode(v) for v in cast("tuple[Any, ...]", value))
            case list():
                return [self._encode(v) for v in cast("list[Any]", value)]
            case dict():
                return {k: self._encode(v) for k, v in cast("dict[Any, Any]", value).items()}
            case _:
                return value


def plain(value: Any) -> Any:
    """A model's result as tensors in dicts and tuples: dataclass-like outputs become dicts, None and caches are left out."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict) or hasattr(value, "to_tuple"):
        items = {k: plain(v) for k, v in cast("dict[str, object]", value).items()}
        return {k: v for k, v in items.items() if _has_tensor(v)}
    if isinstance(value, tuple | list):
        items_ = [plain(v) for v in cast("list[Any]", value)]
        return tuple(v for v in items_ if _has_tensor(v))
    if hasattr(value, "__dataclass_fields__"):
        found = {k: plain(getattr(value, k)) for k in value.__dataclass_fields__}
        return {k: v for k, v in found.items() if _has_tensor(v)}
    return None


def _has_tensor(value: Any) -> bool:
    if isinstance(value, Tensor):
        return True
    if isinstance(value, dict):
        return any(_has_tensor(v) for v in cast("dict[Any, Any]", value).values())
    if isinstance(value, tuple | list):
        return any(_has_tensor(v) for v in cast("list[Any]", value))
    return False


def _unflag(value: Any) -> Any:
    if isinstance(value, TrainingFlag):
        return value.plain()
    if isinstance(value, TracedInt):
        return value
    if type(value) is tuple:
        return tuple(_unflag(v) for v in cast("tuple[Any, ...]", value))
    if type(value) is list:
        return [_unflag(v) for v in cast("list[Any]", value)]
    if type(value) is dict:
        return {k: _unflag(v) for k, v in cast("dict[Any, Any]", value).items()}
    return value
