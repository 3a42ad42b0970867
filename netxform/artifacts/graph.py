"""A network as inert JSON, and back: layers of torch.nn by name, functions of torch by name, nothing that runs on loading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import fx, nn

from netxform.artifacts import allowed, stored
from netxform.artifacts.bounded import check_bytes, check_numbers
from netxform.artifacts.construct import construct, make
from netxform.artifacts.stored import FORMAT
from netxform.capture.symbolic import is_leaf
from netxform.errors import NetxformError, fail
from netxform.graph.guards import Lost
from netxform.graph.network import Input, Network, refresh
from netxform.graph.outputs import output_node
from netxform.graph.signature import spoken
from netxform.graph.tensors import DTYPES, NAMES
from netxform.graph.tensors import held as held_by

_DAMAGED = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, StopIteration, SyntaxError, AssertionError)


def to_json(network: Network) -> dict[str, Any]:
    """The network without its tensors. Raises NetxformError X0820 for what cannot be stored."""
    module = network.module
    modules: list[dict[str, object]] = []
    leaves: set[str] = set()
    for path, part in module.named_modules(remove_duplicate=False):
        if not path or any(path.startswith(f"{p}.") and not _open(module, p) for p in leaves):
            continue
        _storable(path)
        if is_leaf(part):
            made = construct(part, path)
            if not made.own and not allowed.is_layer(type(part)):
                raise fail("X0820", f"`{path}` is a `{made.kind}`, which a bundle cannot hold")
            leaves.add(path)
            entry: dict[str, object] = {"path": path, "class": made.kind, "arguments": _encode(made.arguments)}
            modules.append(entry | ({"own": True} if made.own else {}))
        else:
            called = any(n.op == "call_module" and n.target == path for n in module.graph.nodes)
            if called:
                construct(part, path)
            modules.append({"path": path, "class": None})
    tensors: list[dict[str, object]] = []
    for path, part in module.named_modules(remove_duplicate=False):
        if path in leaves:
            continue
        loose = part._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
        for name in (*part._parameters, *part._buffers):  # pyright: ignore[reportPrivateUsage]
            _storable(name)
        for name, tensor in part.named_parameters(recurse=False, remove_duplicate=False):
            tensors.append({"path": _under(path, name), "kind": "parameter", **_tensor(tensor, name)})
        for name, tensor in part.named_buffers(recurse=False, remove_duplicate=False):
            tensors.append(
                {"path": _under(path, name), "kind": "buffer", "persistent": name not in loose, **_tensor(tensor, name)}
            )
    out = output_node(module)
    held: dict[str, Any] = {
        "format": FORMAT,
        "name": type(module).__name__,
        "inputs": [
            {"name": i.name, "shape": list(i.shape), "dtype": _named(i.dtype, i.name)}
            | ({"adapted": True} if i.adapted else {})
            for i in network.inputs
        ],
        "modules": modules,
        "tensors": tensors,
        "ties": ties(module),
        "frozen": [n for n, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad],
        "nodes": [_node(n) for n in module.graph.nodes],
        "output": {k: out.meta.get(k) for k in ("loose", "sole", "signature", "result")},
        "capture": {"front_end": network.front_end, "notes": list(network.notes), "eval_only": _plainly(network.lost)},
    }
    _readable(held, {n.name: n for n in module.graph.nodes})
    return held


def _readable(held: dict[str, Any], nodes: dict[str, fx.Node]) -> None:
    """Raises NetxformError X0820 where what is written would be refused when it is read."""
    try:
        stored.check(held)
        for entry in held["nodes"]:
            args, kwargs = _decode(entry["args"], nodes), _decode(entry["kwargs"], nodes)
            if entry["op"] == "call_function":
                _may_call(entry["target"], args, kwargs)
    except (NetxformError, ValueError, KeyError, TypeError) as error:
        said = error.diagnostics[0].message if isinstance(error, NetxformError) else str(error)
        why = ("a bundle reads what is on its short lists",)
        raise fail("X0820", f"the network cannot be stored: {said}", notes=why) from error


def from_json(held: dict[str, Any], tensors: dict[str, torch.Tensor], most: int | None = None) -> Network:
    """The network again, with these tensors; no value in it takes over `most` bytes (None: the memory of the machine).

    Raises NetxformError X0821 (damaged), X0904 (not allowed), X0906 (too large).
    """
    stored.check(held)
    root = nn.Module()
    try:
        with torch.device("meta"):
            for entry in held["modules"]:
                owner, _, last = entry["path"].rpartition(".")
                kind = entry["class"]
                arguments = {} if kind is None else _decode(entry["arguments"], {})
                made = nn.Module() if kind is None else make(kind, bool(entry.get("own")), arguments)
                root.get_submodule(owner).add_module(last, made)
        for entry in held["tensors"]:
            owner, _, last = entry["path"].rpartition(".")
            empty = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]], device="meta")
            if entry["kind"] == "parameter":
                root.get_submodule(owner).register_parameter(last, nn.Parameter(empty, empty.dtype.is_floating_point))
            else:
                root.get_submodule(owner).register_buffer(last, empty, persistent=entry["persistent"])
        assign(root, tensors, held["ties"], set(held["frozen"]))
        graph = fx.Graph()
        nodes: dict[str, fx.Node] = {}
        for entry in held["nodes"]:
            nodes[entry["name"]] = _make(graph, entry, nodes)
        graph.lint()
        check_numbers(graph)
        module = fx.GraphModule(_Holder(root), graph, class_name=str(held["name"]))
        _fill(root, module)
        output_node(module).meta |= held["output"]
        spoken(module)
    except _DAMAGED as error:
        raise fail("X0821", f"the stored graph is damaged: {type(error).__name__}: {error}") from error
    inputs = tuple(Input(i["name"], tuple(i["shape"]), DTYPES[i["dtype"]], bool(i.get("adapted"))) for i in held["inputs"])
    module.eval()
    way = held["capture"]
    lost = tuple(Lost(one["path"], one["name"], one["where"], one["what"]) for one in way.get("eval_only", ()))
    network = Network(module, inputs, str(way["front_end"]), (), tuple(way["notes"]), eval_only=lost)
    try:
        check_bytes(network, most=most)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError, OverflowError) as error:
        text = (str(error).strip().splitlines() or [""])[0]
        raise fail("X0821", f"the stored graph is damaged: it does not run: {type(error).__name__}: {text}") from error
    return refresh(network)


def _plainly(lost: tuple[Lost, ...]) -> list[dict[str, str]]:
    return [{"path": one.path, "name": one.name, "where": one.where, "what": one.what} for one in lost]


class _Holder(nn.Module):
    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        for name, child in root.named_children():
            self.add_module(name, child)
        for name, parameter in root.named_parameters(recurse=False, remove_duplicate=False):
            self.register_parameter(name, parameter)
        for name, buffer in root.named_buffers(recurse=False, remove_duplicate=False):
            self.register_buffer(name, buffer, name not in root._non_persistent_buffers_set)  # pyright: ignore[reportPrivateUsage]


def _fill(root: nn.Module, module: fx.GraphModule) -> None:
    """What the graph does not read is kept too, and in the stored order."""
    from netxform.capture.shell import keep_everything

    keep_everything(root, module)


def assign(root: nn.Module, tensors: dict[str, torch.Tensor], tied: dict[str, str], frozen: set[str]) -> None:
    """Put the tensors in place; tied ones become one again. Raises KeyError where one is missing or unknown."""
    wanted = held_by(root)
    unknown = [n for n in tensors if n not in wanted]
    missing = [n for n in wanted if n not in tensors and n not in tied]
    if unknown or missing:
        raise KeyError(f"tensors: {len(missing)} missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}")
    made: dict[str, torch.Tensor] = {}
    for name, old in wanted.items():
        owner, _, last = name.rpartition(".")
        part = root.get_submodule(owner)
        first = tied.get(name, name)
        if first not in made:
            tensor = tensors[first].clone()  # aligned as PyTorch aligns: kernels depend on it, to the last bit
            if tuple(tensor.shape) != tuple(old.shape):
                raise ValueError(f"`{first}` has shape {tuple(tensor.shape)}, not {tuple(old.shape)}")
            grad = tensor.dtype.is_floating_point and first not in frozen
            made[first] = nn.Parameter(tensor, grad) if isinstance(old, nn.Parameter) else tensor
        held: Any = part._parameters if isinstance(old, nn.Parameter) else part._buffers  # pyright: ignore[reportPrivateUsage]
        held[last] = made[first]


def ties(module: nn.Module) -> dict[str, str]:
    """Names of one tensor: every further name → its first."""
    first: dict[int, str] = {}
    out: dict[str, str] = {}
    for name, tensor in held_by(module).items():
        if id(tensor) in first:
            out[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
    return out


def _storable(path: str) -> None:
    if not stored.is_path(path):
        raise fail(
            "X0820",
            f"`{path}` is a name that a bundle cannot hold",
            notes=("names of modules and tensors are letters, digits, `_` and `-`, and begin with no `__`",),
        )


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _open(module: fx.GraphModule, path: str) -> bool:
    """Whether a leaf has children that were put in from outside (drop and act of a norm)."""
    return type(module.get_submodule(path)).__name__.endswith("Act2d")


def _tensor(tensor: torch.Tensor, name: str) -> dict[str, object]:
    return {"shape": list(tensor.shape), "dtype": _named(tensor.dtype, name)}


def _named(dtype: torch.dtype, name: str) -> str:
    if dtype not in NAMES:
        raise fail(
            "X0820",
            f"`{name}` is of {str(dtype).removeprefix('torch.')}, which a bundle cannot hold",
            notes=(f"a bundle holds {', '.join(DTYPES)}",),
            helps=("cast it in the model, or take the result from Python: `nx.apply(…).model`",),
        )
    return NAMES[dtype]


def _node(node: fx.Node) -> Mapping[str, object]:
    target: Any = node.target
    if node.op == "call_function":
        aten = isinstance(target, torch._ops.OpOverload) and target.namespace == "aten"  # pyright: ignore[reportPrivateUsage]
        name = f"torch.ops.{target!s}" if aten else allowed.names().get(target)
        if name is None or allowed.function(name) is None:
            raise fail(
                "X0820",
                f"`{getattr(target, '__module__', '')}.{getattr(target, '__name__', target)}` cannot be stored",
                notes=(f"at `{node.name}` in `{node.meta.get('scope', '')}`; an artifact holds functions of torch",),
            )
        target = name
    elif node.op == "call_method" and not allowed.is_method(target):
        raise fail("X0820", f"the method `{target}` cannot be stored", notes=(f"at `{node.name}`",))
    entry = {"name": node.name, "op": node.op, "target": str(target)}
    entry |= {"args": _encode(node.args), "kwargs": _encode(node.kwargs)}
    if node.op != "output":
        entry |= {
            k: node.meta.get(k, "") if k == "scope" else list(node.meta.get(k, ())) for k in ("scope", "exits", "entries")
        }
    return entry


def _make(graph: fx.Graph, entry: dict[str, Any], nodes: dict[str, fx.Node]) -> fx.Node:
    op, target = entry["op"], entry["target"]
    args, kwargs = _decode(entry["args"], nodes), _decode(entry["kwargs"], nodes)
    if not isinstance(args, tuple) or not isinstance(kwargs, dict):
        raise ValueError(f"the arguments of `{entry['name']}` are none")
    for key in cast("dict[str, Any]", kwargs):
        stored.keyword(key)
    if op == "call_function":
        _may_call(target, args, kwargs)
        target = allowed.function(target)
    elif op == "call_method" and not allowed.is_method(target):
        raise fail("X0904", f"`{target}` is no method that a bundle may call")
    node = graph.create_node(op, target, args, kwargs, name=entry["name"])
    if node.name != entry["name"]:
        raise fail("X0904", f"`{entry['name']}` cannot be the name of a node")
    if op != "output":
        node.meta |= {"scope": entry["scope"], "exits": tuple(entry["exits"]), "entries": tuple(entry["entries"])}
    return node


def _may_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises NetxformError X0904 for a call that no stored graph may make."""
    if allowed.function(name) is None:
        raise fail("X0904", f"`{name}` is no function that a bundle may call")
    if name == "netxform.only":
        inner = args[1] if len(args) > 1 else None
        method = inner.removeprefix("torch.Tensor.") if isinstance(inner, str) else None
        if not isinstance(inner, str) or method is None:
            raise fail("X0904", "a function for training alone is named by a text")
        if method != inner:
            if not allowed.is_method(method):
                raise fail("X0904", f"`{method}` is no method that a bundle may call")
        else:
            _may_call("builtins.getattr" if inner == "getattr" else inner, args[2:], kwargs)
    space, _, last = name.rpartition(".")
    count = allowed.OPERATORS[last] if space == "operator" else allowed.OTHERS[name][1] if name in allowed.OTHERS else None
    if count is not None and (len(args) != count or kwargs):
        raise fail("X0904", f"`{name}` takes {count} argument(s) in a bundle, not {len(args) + len(kwargs)}")
    asked = args[-1] if args else None
    if name == "builtins.getattr" and not (isinstance(asked, str) and asked in allowed.READ):
        raise fail("X0904", f"attribute `{asked}` may not be read by a bundle")


def _encode(value: Any) -> Any:
    match value:
        case fx.Node():
            return {"node": value.name}
        case bool() | str() | None:
            return value
        case int():
            return int(value)
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case torch.Size() | tuple():
            return {"tuple": [_encode(v) for v in cast("tuple[Any, ...]", value)]}
        case list():
            return [_encode(v) for v in cast("list[Any]", value)]
        case dict():
            return {"dict": [[str(k), _encode(v)] for k, v in cast("dict[Any, Any]", value).items()]}
        case slice():
            return {"slice": [_encode(value.start), _encode(value.stop), _encode(value.step)]}
        case torch.dtype():
            return {"dtype": str(value).removeprefix("torch.")}
        case torch.device():
            return {"device": value.type}
        case torch.layout() | torch.memory_format():
            return {"constant": str(value).removeprefix("torch.")}
        case _ if value is Ellipsis:
            return {"ellipsis": True}
        case _:
            raise fail("X0820", f"a value of type `{type(value).__name__}` in the graph cannot be stored")


def _decode(value: Any, nodes: dict[str, fx.Node], level: int = 0) -> Any:
    level = stored.depth(level)
    if isinstance(value, list):
        return [_decode(v, nodes, level) for v in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return stored.literal(value)
    ((kind, inner),) = cast("dict[str, Any]", value).items()
    match kind:
        case "node":
            return nodes[inner]
        case "tuple":
            return tuple(_decode(v, nodes, level) for v in inner)
        case "dict":
            return {stored.literal(str(k)): _decode(v, nodes, level) for k, v in inner}
        case "slice":
            return slice(*(_decode(v, nodes, level) for v in inner))
        case "float":
            return float(inner)
        case "dtype" | "constant":
            found = getattr(torch, inner)
            if not isinstance(found, torch.dtype | torch.layout | torch.memory_format):
                raise ValueError(f"`{inner}` is no constant of torch")
            return found
        case "device":
            if inner not in ("cpu", "cuda", "meta", "mps", "xpu"):
                raise ValueError(f"no device `{inner}`")
            return torch.device(inner)
        case "ellipsis":
            return ...
        case _:
            raise ValueError(f"unknown kind of value `{kind}`")


def decode_plain(value: Any) -> Any:
    """A stored value that mentions no node."""
    return _decode(value, {})
