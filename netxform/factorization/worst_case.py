"""A bound on how far the outputs may move for every input of a given norm, by composing the bounds of the layers.

Network, gains of the errors, radius ─worst_case→ a number that nothing exceeds, and that is far above what happens

Along the graph two numbers are carried for one sample: n, a bound on the norm of a value in the network as it was and as it
will be, and g, a bound on the distance between the two.

| operation | n′ | g′ |
|---|---|---|
| layer W, b, changed by at most e·‖x‖ and δ | (‖W‖ + e) n + ‖b‖ + δ | (‖W‖ + e) g + e n + δ |
| a function of each element, slope ≤ s | s n + abs φ(0) √count | s g |
| a + α b, values, numbers or constants | n_a + abs α n_b | g_a + abs α g_b |
| c · x, a number or a constant | max abs c · n | max abs c · g |
| softmax | √(rows) | g |
| concatenation | the root of the squared sum | the same |
| pooling | √(windows that a pixel lies in) · n | the same times g |

The first: W′x′ − Wx = W′(x′ − x) + (W′ − W)x. A value that is read twice counts twice. Whatever is not in these tables is
refused by name. Loose by nature (two to three orders of magnitude on small networks): only on request.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from netxform.axes.names import op_name
from netxform.errors import fail
from netxform.factorization.factorized_layer import taps_bound
from netxform.factorization.geometry import Geometry, geometry, kernel
from netxform.graph.activations import ACTIVATIONS
from netxform.graph.network import Network

# what has parameters: its parameters with their defaults, in the order of the function's arguments
_PARAMETERS: dict[str, tuple[tuple[str, float], ...]] = {
    "leaky_relu": (("negative_slope", 0.01),),
    "elu": (("alpha", 1.0),),
    "celu": (("alpha", 1.0),),
    "hardtanh": (("min_val", -1.0), ("max_val", 1.0)),
}
# the value at 0; what is not here maps 0 to 0, or is refused
_AT_ZERO = {"sigmoid": 0.5, "hardsigmoid": 0.5}
# the other functions of every element: the largest slope, and the value at 0
_ELEMENTWISE = {
    name: (row.slope, _AT_ZERO.get(name, 0.0))
    for row in ACTIVATIONS
    for name in row.names
    if row.slope is not None and name not in _PARAMETERS and (row.zero or name in _AT_ZERO)
}
_LAYERS: dict[type[nn.Module], str] = {
    row.layer: name for row in ACTIVATIONS for name in row.names[:1] if name in _ELEMENTWISE or name in _PARAMETERS
} | {
    nn.Softmax: "softmax", nn.Flatten: "flatten", nn.Identity: "identity", nn.Dropout: "identity",
    nn.Dropout1d: "identity", nn.Dropout2d: "identity", nn.Dropout3d: "identity",
}  # fmt: skip
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)
_ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
_VIEWS = ("flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "getitem")
# of sizes, not of values
_SIZES = ("size", "getattr", "shape", "dim", "numel")


@dataclass(frozen=True)
class _Value:
    norm: float
    gap: float

    def times(self, factor: float, more: float = 0.0) -> _Value:
        return _Value(factor * self.norm + more, factor * self.gap)


def worst_case(
    network: Network, errors: Mapping[str, float], radius: float, shifts: Mapping[str, float] | None = None
) -> float:
    """An upper bound on ‖f(x) − f′(x)‖₂ for every single input with ‖x‖₂ ≤ `radius`, where layer p changes by a gain of
    at most errors[p], and its bias by a vector of norm shifts[p]. Eval mode.

    Raises NetxformError X0324 where an operation lies on the way that is not among those of the table.
    """
    return _Pass(network, errors, shifts or {}, radius).run()


def _refuse(node: fx.Node, what: str, helps: str = "leave `worst_case` out") -> Exception:
    return fail("X0324", f"no slope is known of {what} at `{node.name}`", helps=(helps,))


class _Pass:
    """One pass over the graph."""

    def __init__(self, network: Network, errors: Mapping[str, float], shifts: Mapping[str, float], radius: float) -> None:
        self.module, self.errors, self.shifts, self.radius = network.module, errors, shifts, radius
        self.modules = dict(self.module.named_modules(remove_duplicate=False))
        self.env: dict[fx.Node, _Value] = {}
        self.constants: dict[fx.Node, Tensor] = {}
        self.order = {node: i for i, node in enumerate(self.module.graph.nodes)}
        self.met = set[str]()

    def run(self) -> float:
        """The gap at the outputs."""
        for node in self.module.graph.nodes:
            match node.op:
                case "placeholder":
                    self.env[node] = _Value(self.radius, 0.0)
                case "get_attr":
                    self._constant(node)
                case "output":
                    left = sorted(set(self.errors) - self.met)
                    if left:
                        raise _refuse(node, f"`{left[0]}`, which is no layer of the graph and changes,")
                    return math.hypot(*(v.gap for v in self._several(node, node.args[0]))) * (1 + 1e-9)
                case "call_module":
                    self.env[node] = self._layer(node, self.modules[str(node.target)])
                case _:
                    found = self._function(node)
                    if found is not None:
                        self.env[node] = found
        return math.inf

    def _constant(self, node: fx.Node) -> None:
        path, _, name = str(node.target).rpartition(".")
        held: Any = getattr(self.modules[path], name)
        if not isinstance(held, Tensor) or any(path == p or path.startswith(f"{p}.") for p in self.errors):
            raise _refuse(node, f"`{node.target}`, which is read beside its layer,")
        self.constants[node] = held.detach().double()

    # --- what a node reads -------------------------------------------------------------------------------------------

    def _read(self, node: fx.Node, given: Any, count: int) -> _Value:
        """An operand: a value, a constant (as often as it is broadcast to `count` elements), or a number."""
        if isinstance(given, fx.Node) and given in self.env:
            own, shape = _shape(given), _shape(node)
            if own is None or shape is None or len(own) != len(shape) or own[0] != shape[0] or 0 in own:
                raise _refuse(node, "broadcasting over samples")
            # a value that is broadcast is repeated
            return self.env[given].times(math.sqrt(max(1.0, count / math.prod(own[1:]))))
        if isinstance(given, fx.Node) and given in self.constants:
            c = self.constants[given]
            return _Value(float(c.norm()) * math.sqrt(max(1.0, count / max(1, c.numel()))), 0.0)
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise _refuse(node, f"what `{given}` brings")
        return _Value(abs(given) * math.sqrt(count), 0.0)

    def _value(self, node: fx.Node, given: Any) -> _Value:
        if not (isinstance(given, fx.Node) and given in self.env):
            raise _refuse(node, f"what `{given}` brings")
        return self.env[given]

    def _several(self, node: fx.Node, given: Any) -> list[_Value]:
        """The values in a nested structure, each as often as it stands there."""
        found: list[fx.Node] = []
        map_arg(given, lambda n: found.append(n) or n)
        return [_Value(0.0, 0.0) if n in self.constants else self._value(node, n) for n in found]

    def _unread(self, node: fx.Node, given: Any) -> None:
        """What is written in place must not be read again, under any of its names."""
        via = node
        while isinstance(given, fx.Node):
            others = [user for user in given.users if user is not via]
            again = any(self.order[user] > self.order[node] or self._view(user) for user in others)
            if again or given in self.constants or given.op == "placeholder":
                raise _refuse(node, f"an operation in place on `{given.name}`, which is read again,")
            via, given = given, given.args[0] if self._view(given) and given.args else None

    def _view(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return _LAYERS.get(type(self.modules[str(node.target)])) in ("flatten", "identity")
        return node.op in ("call_function", "call_method") and op_name(node).strip("_") in _VIEWS

    # --- layers ------------------------------------------------------------------------------------------------------

    def _layer(self, node: fx.Node, part: nn.Module) -> _Value:
        path = str(node.target)
        own: Any = part
        if len(node.args) != 1 or node.kwargs or own._forward_hooks or own._forward_pre_hooks:
            raise _refuse(node, f"`{type(part).__name__}`, called or hooked in a way of its own,")
        x, shape, out = self._value(node, node.args[0]), _shape(node.args[0]), _shape(node)
        if shape is None or out is None:
            raise _refuse(node, f"`{type(part).__name__}`")
        if getattr(part, "inplace", False):
            self._unread(node, node.args[0])
        g = geometry(part)
        if isinstance(g, Geometry) and g.kind != "Embedding" and len(shape) >= 2 and (not g.kernel or len(shape) == g.dims + 2):
            self.met.add(path)
            error, shift = self.errors.get(path, 0.0), self.shifts.get(path, 0.0)
            gain = taps_bound(kernel(g, cast(Tensor, part.weight)).double(), g, shape[2:] if g.kernel else ()) * (1 + 1e-9)
            bias = cast("Tensor | None", part.bias)
            where = math.sqrt(math.prod(out[2:]) if g.kernel else math.prod(out[1:-1]))
            held = float(bias.detach().double().norm()) if bias is not None else 0.0
            moved = x.times(gain + error, (held + shift) * where)
            return _Value(moved.norm, moved.gap + error * x.norm + shift * where)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and part.running_var is not None:
            assert part.running_mean is not None
            scale = (part.running_var.double() + part.eps).rsqrt()
            scale = scale * part.weight.detach().double() if part.affine else scale
            shift_C = (part.bias.detach().double() if part.affine else 0.0) - part.running_mean.double() * scale
            return x.times(float(scale.abs().max()), float(shift_C.norm()) * math.sqrt(math.prod(out[2:])))
        if type(part) in (*_POOLS, *_ADAPTIVE):
            return x.times(self._pool(node, cast(Any, part), shape, out))
        name = _LAYERS.get(type(part))
        if name is None:
            raise _refuse(node, f"`{type(part).__name__}`")
        return self._named(node, name, x, [getattr(part, n) for n, _ in _PARAMETERS.get(name, ())], getattr(part, "dim", None))

    def _pool(self, node: fx.Node, part: Any, shape: tuple[int, ...], out: tuple[int, ...]) -> float:
        """The root of how many windows a pixel lies in; a mean of n has 1 / n of that in squares."""
        if getattr(part, "return_indices", False) or getattr(part, "divisor_override", None) is not None:
            raise _refuse(node, f"`{type(part).__name__}` with these arguments")
        if type(part) in _POOLS:
            dims = len(shape) - 2
            k, s, d = (_each(getattr(part, n, 1), dims) for n in ("kernel_size", "stride", "dilation"))
            return math.sqrt(math.prod(math.ceil(a / b) if c == 1 else a for a, b, c in zip(k, s, d, strict=True)))
        sides = list(zip(shape[2:], out[2:], strict=True))
        if any(n < m for n, m in sides):
            raise _refuse(node, f"`{type(part).__name__}` that enlarges")
        window = math.prod(-(-n // m) for n, m in sides) if "Avg" in type(part).__name__ else 1
        return math.sqrt(math.prod(1 if n % m == 0 else 2 for n, m in sides) / window)

    # --- functions ---------------------------------------------------------------------------------------------------

    def _function(self, node: fx.Node) -> _Value | None:
        """The value of a function or method; None where it is about sizes."""
        name = op_name(node).strip("_")
        arguments = [*node.args, *(node.kwargs[n] for n in ("input", "other", "tensors") if n in node.kwargs)]
        if _in_place(node):
            self._unread(node, arguments[0])
        if name in _SIZES or not any(n in self.env for n in node.all_input_nodes):
            # numbers made of sizes; a tensor made of them, or of constants alone, is refused where it is read
            return None
        shape = _shape(node)
        if shape is None or "out" in node.kwargs:
            raise _refuse(node, f"`{name}`")
        count = math.prod(shape[1:])
        match name:
            case "add" | "sub":
                alpha = node.kwargs.get("alpha", 1)
                if len(arguments) != 2 or not isinstance(alpha, int | float):
                    raise _refuse(node, f"`{name}` with these arguments")
                a, b = (self._read(node, x, count) for x in arguments)
                return _Value(a.norm + abs(alpha) * b.norm, a.gap + abs(alpha) * b.gap)
            case "mul" | "div" | "truediv":
                return self._scaled(node, name, arguments, count)
            case "cat" | "concat":
                axis = node.kwargs.get("dim", node.kwargs.get("axis", node.args[1] if len(node.args) > 1 else 0))
                parts = cast("Sequence[Any]", arguments[0])
                if not isinstance(axis, int) or axis % len(shape) == 0:
                    raise _refuse(node, "a concatenation of samples")
                read = [self._read(node, p, 0) for p in parts]
                return _Value(math.hypot(*(v.norm for v in read)), math.hypot(*(v.gap for v in read)))
            case "mean":
                x, axes = arguments[0], node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
                before = _shape(x)
                axes = (axes,) if isinstance(axes, int) else axes
                if before is None or not isinstance(axes, tuple | list) or any(a % len(before) == 0 for a in cast(Any, axes)):
                    raise _refuse(node, "a mean over samples")
                return self._value(node, x)
            case _:
                given = [
                    node.kwargs.get(n, node.args[i + 1] if len(node.args) > i + 1 else default)
                    for i, (n, default) in enumerate(_PARAMETERS.get(name, ()))
                ]
                axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
                return self._named(node, name, self._value(node, arguments[0]), given, axis)

    def _scaled(self, node: fx.Node, name: str, arguments: list[Any], count: int) -> _Value:
        """A value times or by a number or a constant."""
        if len(arguments) == 2 and name == "mul" and not (isinstance(arguments[0], fx.Node) and arguments[0] in self.env):
            arguments = arguments[::-1]
        if len(arguments) != 2 or node.kwargs.get("rounding_mode") is not None:
            raise _refuse(node, f"`{name}` with these arguments")
        x, by = arguments
        self._value(node, x)
        held = self.constants.get(by) if isinstance(by, fx.Node) else None
        if held is None and (isinstance(by, bool) or not isinstance(by, int | float)):
            raise _refuse(node, f"`{name}` of two values")
        c = held if held is not None else torch.tensor(float(cast(float, by)), dtype=torch.float64)
        factor = float((c if name == "mul" else 1 / c).abs().max())
        if not math.isfinite(factor):
            raise _refuse(node, f"`{name}` by zero")
        return self._read(node, x, count).times(factor)

    def _named(self, node: fx.Node, name: str, x: _Value, given: Sequence[Any], axis: Any) -> _Value:
        """What layers and functions have in common."""
        shape, before = cast("tuple[int, ...]", _shape(node)), _shape(node.args[0] if node.args else node.kwargs.get("input"))
        count = math.prod(shape[1:])
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in given):
            raise _refuse(node, f"`{name}` with these arguments")
        if name in _ELEMENTWISE:
            slope, zero = _ELEMENTWISE[name]
            return x.times(slope, zero * math.sqrt(count))
        match name:
            case "leaky_relu" | "elu":
                return x.times(max(1.0, abs(given[0])))
            case "celu" if given[0] > 0:
                return x.times(1.0)
            case "hardtanh":
                return x.times(1.0, abs(min(max(0.0, given[0]), given[1])) * math.sqrt(count))
            case "softmax" if isinstance(axis, int) and axis % len(shape) != 0:
                return _Value(math.sqrt(count / shape[axis]), x.gap)
            case "identity" | "contiguous":
                return x
            case _ if name in _VIEWS and before is not None and _keeps_samples(node, name, before, shape):
                return x
            case _:
                raise _refuse(node, f"`{name}`")


def _keeps_samples(node: fx.Node, name: str, before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether a view leaves the first axis where it is, and repeats nothing."""
    axes = [a for r in node.args[1:] for a in (cast("Sequence[Any]", r) if isinstance(r, tuple | list) else (r,))]
    axes += [a for n, a in node.kwargs.items() if n != "input"]
    same = bool(before) and bool(after) and before[0] == after[0]
    match name:
        case "view" | "reshape" | "flatten":
            return same and math.prod(before) == math.prod(after)
        case "permute":
            return len(axes) == len(before) and bool(axes[0] == 0)
        case "transpose" | "squeeze" | "unsqueeze":
            most = len(before) + (name == "unsqueeze")
            return same and bool(axes) and all(isinstance(a, int) and a % most != 0 for a in axes)
        case _:  # getitem: slices and single places
            return (
                same and isinstance(axes[0], slice) and all(a is None or a is ... or isinstance(a, int | slice) for a in axes)
            )


def _in_place(node: fx.Node) -> bool:
    target: Any = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    written = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
    known = op_name(node).strip("_") in _ELEMENTWISE | _PARAMETERS
    asked = node.kwargs.get("inplace") is True or (known and True in [a for a in node.args if isinstance(a, bool)])
    return target in written or bool(asked) or (name.endswith("_") and not name.endswith("__"))


def _shape(node: Any) -> tuple[int, ...] | None:
    found = node.meta.get("shape") if isinstance(node, fx.Node) else None
    plain = isinstance(found, tuple) and bool(found) and all(isinstance(n, int) for n in cast("tuple[Any, ...]", found))
    return cast("tuple[int, ...]", found) if plain else None


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),) * dims
