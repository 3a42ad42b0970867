"""What the two front-ends share, and the first of them: `torch.fx.symbolic_trace` with places noted on every node."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from netxform.capture.places import located, still
from netxform.graph.frozen import THAWED
from netxform.graph.layers import (
    Attention,
    BatchNormAct2d,
    DropPath,
    Factored,
    Int8Embedding,
    Int8Linear,
    Magnitude,
    Scaled,
    TTLinear,
)

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_OWN = (Attention, DropPath, BatchNormAct2d, Factored, TTLinear, Int8Linear, Int8Embedding, Scaled, Magnitude)
_OPEN = ("Transformer", "TransformerEncoder", "TransformerDecoder", "TransformerEncoderLayer", "TransformerDecoderLayer")


Reads = dict[tuple[str, str, str], None]
"""Who decides by its mode (the path of a module), and where: file and line, and the text of the line; each once."""


class TrainingFlag(int):
    """`module.training` while a model is captured: known again among the arguments of a function, and it knows who read it."""

    path: str
    reads: Reads

    def __new__(cls, value: int, path: str = "", reads: Reads | None = None) -> TrainingFlag:
        """`reads` gets the path of the module, and the place in the code, whenever code decides by its mode."""
        self = int.__new__(cls, value)
        self.path, self.reads = path, {} if reads is None else reads
        return self

    def plain(self) -> bool:
        """The flag itself; nobody is told."""
        return int.__ne__(self, 0)

    def __repr__(self) -> str:
        return repr(self.plain())

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainingFlag:
        return self


def _reading(name: str) -> Any:
    def read(self: TrainingFlag, *args: Any) -> Any:
        if any(isinstance(a, torch.Tensor | fx.Proxy) for a in args):
            return NotImplemented
        self.reads[(self.path, *located())] = None
        return getattr(self.plain(), name)(*(a.plain() if isinstance(a, TrainingFlag) else a for a in args))

    return read


_READS = "bool int float index eq ne lt le gt ge hash invert neg and rand or ror xor rxor"
for _name in (
    *_READS.split(),
    *(f"{side}{n}" for n in ("add", "sub", "mul", "truediv", "floordiv", "pow") for side in ("", "r")),
):
    setattr(TrainingFlag, f"__{_name}__", _reading(f"__{_name}__"))


def is_leaf(module: nn.Module) -> bool:
    """Whether the module stays one call: layers of torch.nn (containers and Transformer blocks apart) and our own."""
    if type(module) in THAWED or isinstance(module, _OWN):
        return True
    if type(module) in (nn.Module, fx.GraphModule) or computes_weights(module):
        return False
    name = type(module).__name__
    return type(module).__module__.startswith("torch.nn") and not isinstance(module, _CONTAINERS) and name not in _OPEN


def hooked(module: nn.Module) -> bool:
    """Whether something runs before or after the module's own forward."""
    own: Any = module
    return bool(own._forward_hooks or own._forward_pre_hooks)


def computes_weights(module: nn.Module) -> bool:
    """Whether a weight of the layer is computed each time from others: weight norm and its like, as hook or parametrization."""
    own: Any = module
    parametrized = type(module).__module__.startswith("torch.nn.utils.parametri")
    return parametrized or any(type(h).__module__.startswith("torch.nn.utils.") for h in own._forward_pre_hooks.values())


def passed(value: Any) -> Any:
    """What a module was given and gives back: a value of its own while the graph is made, for it may be another in training."""
    return value


def drop_passed(graph: fx.Graph) -> None:
    """Every value once again: what a module only passes on is what it was given."""
    for node in [n for n in graph.nodes if n.target is passed]:
        source: Any = node.args[0]
        if isinstance(source, fx.Node):
            for place in ("exits", "entries"):
                source.meta[place] = (*source.meta.get(place, ()), *node.meta.get(place, ()))
        node.replace_all_uses_with(source)
        graph.erase_node(node)


class Tracer(fx.Tracer):
    """A symbolic tracer that notes scopes, entries and exits; what it cannot enter stays a leaf (an island)."""

    proxy_buffer_attributes = True  # a buffer is read when the graph runs, not when it is traced

    def __init__(self, islands: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.islands = islands
        self.scopes: list[str] = [""]
        self.failing: str | None = None
        self.born: dict[fx.Node, int] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Layers of torch.nn, and islands."""
        return module_qualified_name in self.islands or is_leaf(m)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """A node with its places."""
        node = super().create_node(*args, **kwargs)
        node.meta |= {"scope": self.scopes[-1], "exits": (), "entries": (), "still": still()}
        self.born[node] = len(self.born)
        return node

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Note what goes in and what comes out."""
        path = self.path_of_module(m)
        first = next((a for a in (*args, *kwargs.values()) if isinstance(a, fx.Proxy)), None)
        if first is not None:
            first.node.meta["entries"] = (*first.node.meta.get("entries", ()), path)
        leaf, before = self.is_leaf_module(m, path), len(self.born)
        self.scopes.append(path.rpartition(".")[0] if leaf else path)
        try:
            if leaf and hooked(m):  # what hooks do is part of the graph
                m.forward = lambda *a, **k: self.create_proxy("call_module", path, a, k)
                try:
                    result = forward(*args, **kwargs)
                finally:
                    del m.forward
            else:
                result = super().call_module(m, forward, args, kwargs)
        except Exception:  # the model's own code raises on proxies whatever it likes
            self.failing = self.failing or path
            raise
        finally:
            self.scopes.pop()
        if isinstance(result, fx.Proxy):
            if self.born[result.node] < before:
                result = self.create_proxy("call_function", passed, (result,), {})
            result.node.meta["exits"] = (*result.node.meta.get("exits", ()), path)
        return result


def symbolic(model: nn.Module, islands: frozenset[str] = frozenset()) -> fx.Graph:
    """The graph of the model by symbolic tracing. Raises whatever the model raises on proxies."""
    tracer = Tracer(islands)
    try:
        with torch.enable_grad():
            return tracer.trace(model)
    except Exception as error:  # the same
        error.failing = tracer.failing  # type: ignore[attr-defined]
        raise


def flag_at(graph: fx.Graph, path: str) -> fx.Node:
    """A node that reads the mode of the module; the graph inserts it where it stands."""
    node = graph.create_node("get_attr", f"{path}.training" if path else "training")
    node.meta |= {"scope": path, "exits": (), "entries": (), "shape": None, "dtype": None}
    return node


def lower_training(module: fx.GraphModule) -> None:
    """Dropout that was called with `training=self.training` becomes a module; other functions read the flag of that module."""
    functions: dict[Any, type[nn.Module]] = {
        nn.functional.dropout: nn.Dropout,
        nn.functional.dropout1d: nn.Dropout1d,
        nn.functional.dropout2d: nn.Dropout2d,
        nn.functional.dropout3d: nn.Dropout3d,
        nn.functional.alpha_dropout: nn.AlphaDropout,
        nn.functional.feature_alpha_dropout: nn.FeatureAlphaDropout,
        torch.dropout: nn.Dropout,
    }
    count = 0
    for node in list(module.graph.nodes):
        values = pytree.tree_leaves((node.args, node.kwargs))
        if not any(isinstance(v, TrainingFlag) for v in values):
            continue
        kind = functions.get(node.target) if node.op == "call_function" else None
        if kind is not None:
            p = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
            scope = node.meta.get("scope", "")
            path = f"{scope}.dropout_{count}" if scope else f"dropout_{count}"
            while _taken(module, path):
                count += 1
                path = f"{scope}.dropout_{count}" if scope else f"dropout_{count}"
            count += 1
            module.add_submodule(path, kind(float(p)))
            with module.graph.inserting_before(node):
                source = node.args[0] if node.args else node.kwargs["input"]
                made = module.graph.call_module(path, (source,))
            made.meta |= node.meta
            node.replace_all_uses_with(made)
            module.graph.erase_node(node)
        else:
            with module.graph.inserting_before(node):
                flags = {v.path: flag_at(module.graph, v.path) for v in values if isinstance(v, TrainingFlag)}

            def read(value: Any, flags: dict[str, fx.Node] = flags) -> Any:
                return flags[value.path] if isinstance(value, TrainingFlag) else value

            node.args = fx.node.map_aggregate(node.args, read)  # type: ignore[assignment]
            node.kwargs = fx.node.map_aggregate(node.kwargs, read)  # type: ignore[assignment]


def drop_asserts(graph: fx.Graph) -> None:
    """Remove `torch._assert` and what was computed for it alone: a captured graph is shown, not checked at run time."""
    stack = [n for n in graph.nodes if n.op == "call_function" and n.target is torch._assert]  # pyright: ignore[reportPrivateUsage]
    while stack:
        node = stack.pop()
        if node.users or node.op not in ("call_function", "call_method"):
            continue
        inputs = node.all_input_nodes
        graph.erase_node(node)
        stack += [n for n in inputs if getattr(n.target, "__module__", "") in ("_operator", "builtins")]


def foreign(graph: fx.Graph) -> str | None:
    """A function of the graph that belongs neither to torch nor to Python, or None."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target is not passed:
            space = getattr(node.target, "__module__", None) or "torch"
            if space.split(".")[0] not in ("torch", "_operator", "math", "builtins"):
                return f"{space}.{getattr(node.target, '__name__', node.target)}"
    return None


def _taken(module: nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        owner, _, last = path.rpartition(".")
        return hasattr(module.get_submodule(owner), last)
    return True
