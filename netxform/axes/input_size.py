"""Another image size: what depends on positions follows, read off the axis types.

    Network, input, size ─sized→ Resize (an operation), or the place that cannot follow

The network is run on the meta device on an input of the new size. Every axis of positions then has its new size, and tensors
along such an axis follow (`position_tables.py`). Code that decides otherwise at the new size, and layers with a weight for
every position, cannot follow.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from netxform.axes.algebra import Atom, Dim, Sum, atoms, normal, size, size_under
from netxform.axes.infer import types_of
from netxform.axes.position_tables import AGAIN, Segment, Table, followed, image
from netxform.axes.reindex import write_argument
from netxform.axes.rules.context import Typed
from netxform.axes.types import Types
from netxform.errors import NetxformError, Span, fail
from netxform.graph.building import times
from netxform.graph.dataflow import dependent
from netxform.graph.edits import Operation
from netxform.graph.guards import is_guard
from netxform.graph.input_channels import renewed
from netxform.graph.meta import MetaRun, evaluating
from netxform.graph.network import Network, clone, example, twin
from netxform.graph.surgery import perform_operation
from netxform.graph.tensors import alike, exchange, held

_ROUNDS = 8
Place = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Resize(Operation):
    """Give the input `name` the shape; tables and masks follow, and so do numbers in the code: (node, place, value)."""

    name: str
    shape: tuple[int, ...]
    tables: tuple[Table, ...] = ()
    numbers: tuple[tuple[str, Place, Any], ...] = field(default=())


def sized(network: Network, name: str, shape: tuple[int, ...], span: Span) -> Resize:
    """What must change for an input of that shape. Raises NetxformError X0850 with the place that cannot follow."""
    shadow = twin(network)
    made, stuck, compared = Resize(name, shape), dict[str, None](), dict[tuple[str, Place], Any]()
    for _ in range(_ROUNDS):
        seen = _seen(shadow, made)
        compared |= seen.compared
        if seen.error is not None:
            stuck[seen.error[0].name] = None
        numbers = compared | _numbers(types_of(network), seen.sizes, stuck)
        relative, more = _relative(network, seen)
        numbers |= more
        tables = (*_tables(network, seen.sizes, span), *relative)
        found = Resize(name, shape, tables, tuple((n, p, v) for (n, p), v in numbers.items()))
        if found == made:
            if seen.error is not None:
                raise _stuck(network, seen, shape, span)
            _divides(network, name, shape, span)
            return made
        made = found
    raise fail("X0850", "what depends on the size does not come to an end", span, "not to be followed", helps=(AGAIN,))


class _Seen(MetaRun):
    """The network run at the new size: the new sizes of axes, what the code compares, and where it stops."""

    def __init__(self, module: fx.GraphModule, types: Types) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False
        self.types = types
        self.moved = dependent(module.graph)
        self.found: dict[Atom, set[int]] = {}
        self.compared: dict[tuple[str, Place], Any] = {}
        self.error: tuple[fx.Node, str] | None = None

    def run_node(self, n: fx.Node) -> Any:
        """The value; a guard on a size that was compared with the old one is noted."""
        if is_guard(n):
            value, wanted = self.fetch_args_kwargs_from_env(n)[0][:2]
            if not isinstance(value, Tensor) and value != wanted and not self._equality(n, value):
                where = str(n.args[2]).partition(": ")
                raise ValueError(f"the model's code decides otherwise at this size: `{where[2]}` ({where[0]})")
            return None
        value = super().run_node(n)
        if n not in self.moved:
            return value
        if isinstance(value, Tensor):
            self._note(self.types.values.get(n.name), value)
        elif isinstance(value, list | tuple) and isinstance(held_ := self.types.values.get(n.name), list | tuple):
            for typed, one in zip(held_, value, strict=False):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
                if isinstance(one, Tensor):
                    self._note(typed, one)
        return value

    def _note(self, typed: Any, value: Tensor) -> None:
        if not isinstance(typed, Typed) or len(typed.dims) != value.dim():
            return
        for dim, n in zip(typed.dims, value.shape, strict=True):
            factors = normal(dim)
            if len(factors) == 1 and isinstance(factors[0], Atom):
                self.found.setdefault(factors[0], set()).add(int(n))

    @property
    def sizes(self) -> dict[Atom, int]:
        """The axes that have another size now, wherever they occur: an axis that is a window too keeps its size there."""
        return {a: min(n) for a, n in self.found.items() if len(n) == 1 and n != {a.size}}

    def grids(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Neighbouring axes of positions of one value, before and after."""
        sizes, out = self.sizes, dict[tuple[tuple[int, ...], tuple[int, ...]], None]()
        for typed in self.types.values.values():
            factors = [normal(d) for d in typed.dims] if isinstance(typed, Typed) else []
            for a, b in pairwise(f[0] if len(f) == 1 else None for f in factors):
                if isinstance(a, Atom) and isinstance(b, Atom) and (a in sizes or b in sizes):
                    out[(a.size, b.size), (sizes.get(a, a.size), sizes.get(b, b.size))] = None
        return list(out)

    def _equality(self, n: fx.Node, value: Any) -> bool:
        """Whether the model asks that the size be the one that it was made for; noted as the number that it is from here on."""
        source = n.args[0]
        if not isinstance(source, fx.Node):
            return False
        if source.target in (operator.eq, operator.ne) and n.args[1] is (source.target is operator.eq):
            numbers = [self.env[a] if isinstance(a, fx.Node) else a for a in source.args]
            for i in (1, 0):
                if not isinstance(source.args[i], fx.Node) and isinstance(numbers[1 - i], int):
                    self.compared[source.name, (0, i)] = numbers[1 - i]
                    return True
            return False
        if isinstance(value, int) and not isinstance(value, bool):
            self.compared[n.name, (0, 1)] = value
            return True
        return False


def _seen(shadow: Network, made: Resize) -> _Seen:
    """Run what is changed so far, as far as it goes."""
    types = types_of(shadow)
    changed = perform_operation(made, clone(shadow), {}, False)
    run = _Seen(changed.module, types)
    given = example(changed)
    node: list[fx.Node] = []

    class Watched(_Seen):
        def run_node(self, n: fx.Node) -> Any:
            node[:] = [n]
            return super().run_node(n)

    run.__class__ = Watched
    with torch.no_grad(), torch.device("meta"), evaluating(changed.module):
        try:
            run.run(*given)
        except Exception as error:  # the model's own code, on a size that it was not made for
            run.error = node[0], (str(error).strip().split("\n") or [type(error).__name__])[0]
    return run


def _numbers(types: Types, sizes: Mapping[Atom, int], stuck: Mapping[str, None]) -> dict[tuple[str, Place], Any]:
    """Numbers in the code that state sizes which are others now, where the code stops at them."""
    found: dict[tuple[str, Place], Any] = {}
    for stated in types.stated:
        if stated.node in stuck and stated.path is not None and stated.layer is None and not stated.computed:
            value = sum(size_under(d, sizes) for d in stated.dims)
            if value != stated.value:
                found[stated.node, stated.path] = value
    return found


def _tables(network: Network, sizes: Mapping[Atom, int], span: Span) -> tuple[Table, ...]:
    """The tensors along axes of positions, as they must become."""
    out: list[Table] = []
    every = held(network.module)
    for name, dims in types_of(network).tensors.items():
        if not any(a in sizes for d in dims for a in atoms(d)):
            continue
        axes = tuple(_segments(d, sizes, name, span) for d in dims)
        tensor, last = every[name], name.rpartition(".")[2]
        kind = "table"
        if not isinstance(tensor, nn.Parameter):
            kind = "mask" if "mask" in last and tensor.dim() == 3 else "table"
        if not tensor.is_floating_point() or (kind == "table" and "mask" in last):
            text = f"`{name}` holds {str(tensor.dtype).removeprefix('torch.')} numbers for every position"
            raise fail("X0850", text, span, "not to be interpolated", helps=(AGAIN,))
        if _read_by_layer(network, name):
            raise _dense(name.rpartition(".")[0], span)
        out.append(Table(name, axes, kind))
    return tuple(out)


def _relative(network: Network, seen: _Seen) -> tuple[tuple[Table, ...], dict[tuple[str, Place], Any]]:
    """Biases by relative position over the whole grid (Bao et al., BEiT, 2022): the table has a row for every offset, the index
    says which two positions have which. Windows smaller than the image keep theirs.
    """
    tables, numbers = list[Table](), dict[tuple[str, Place], Any]()
    buffers = dict(network.module.named_buffers())
    for name, index in buffers.items():
        path = name.rpartition(".")[0]
        bias: Any = getattr(network.module.get_submodule(path), "relative_position_bias_table", None)
        if not name.endswith(".relative_position_index") or bias is None or index.dim() != 2:
            continue
        for old, new in seen.grids():
            own = index.shape[0] - math.prod(old)
            offsets = tuple(2 * n - 1 for n in old), tuple(2 * n - 1 for n in new)
            if own not in (0, 1) or bias.shape[0] != math.prod(offsets[0]) + 3 * own or old == new:
                continue
            side = (*((Segment(1),) if own else ()), Segment(math.prod(old), old, new))
            extra = (Segment(3),) if own else ()
            rows = (Segment(math.prod(offsets[0]), *offsets), *extra)
            tables += [Table(name, (side, side), "index")]
            tables += [Table(f"{path}.relative_position_bias_table", (rows, (Segment(bias.shape[1]),)))]
            for node in network.module.graph.nodes:
                if str(node.meta.get("scope", "")).startswith(path) and node.target in ("view", "reshape"):
                    places = [i for i, a in enumerate(node.args) if a == index.shape[0] and type(a) is int]
                    numbers |= {(node.name, (0, i)): own + math.prod(new) for i in places}
            break
    return tuple(tables), numbers


def _read_by_layer(network: Network, name: str) -> bool:
    """Whether the tensor is the matrix of a Linear: a weight for every position is no table."""
    owner, _, last = name.rpartition(".")
    return last == "weight" and isinstance(network.module.get_submodule(owner), nn.Linear)


def _segments(dim: Dim, sizes: Mapping[Atom, int], name: str, span: Span) -> tuple[Segment, ...]:
    factors = normal(dim)
    only = factors[0] if len(factors) == 1 else None
    parts = list(only.parts) if isinstance(only, Sum) else [factors]
    out: list[Segment] = []
    for part in parts:
        whole = normal(part)
        if not any(a in sizes for a in atoms(whole)):
            out.append(Segment(size(whole)))
            continue
        if not all(isinstance(f, Atom) for f in whole):
            text = f"positions of `{name}` do not lie on one grid"
            raise fail("X0850", text, span, "not to be interpolated", helps=(AGAIN,))
        old = tuple(a.size for a in atoms(whole))
        out.append(Segment(math.prod(old), old, tuple(sizes.get(a, a.size) for a in atoms(whole))))
    return tuple(out)


def _divides(network: Network, name: str, shape: tuple[int, ...], span: Span) -> None:
    """Patches must cover the image where a table counts positions in patches. Raises NetxformError X0850."""
    modules, types = dict(network.module.named_modules(remove_duplicate=False)), types_of(network)
    held_ = {a for dims in types.tensors.values() for d in dims for a in atoms(d)}
    for node in network.module.graph.nodes:
        part: Any = modules.get(str(node.target)) if node.op == "call_module" else None
        typed: Any = types.values.get(node.name)
        if not isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) or not isinstance(typed, Typed):
            continue
        source: Any = node.args[0]
        counted = any(a in held_ for d in typed.dims[2:] for a in atoms(d))
        if counted and source.op == "placeholder" and source.name == name and part.kernel_size == part.stride:
            for n, k in zip(shape[2:], part.stride, strict=True):
                if n % k:
                    near = f"{n // k * k}, {-(-n // k) * k}"
                    text = f"{n} is no multiple of the patches of {k} that `{node.target}` reads"
                    raise fail("X0850", text, span, "does not divide", helps=(f"the nearest sizes: {near}",))


def _dense(path: str, span: Span) -> NetxformError:
    return fail(
        "X0850",
        f"`{path}` has a weight for every position, behind a flattening",
        span,
        "cannot take another size",
        helps=(f"`cut before {path}` and `attach head`: a head that pools takes any size",),
    )


def _stuck(network: Network, seen: _Seen, shape: tuple[int, ...], span: Span) -> NetxformError:
    assert seen.error is not None
    node, text = seen.error
    if node.op == "call_module" and isinstance(network.module.get_submodule(str(node.target)), nn.Linear):
        return _dense(str(node.target), span)
    where = str(node.target) if node.op == "call_module" else node.meta.get("scope") or "the network"
    return fail(
        "X0850",
        f"an input of {times(shape)} does not pass `{where}`: {text}",
        span,
        f"stops at `{node.name}`",
        notes=(f"node: {str(node.format_node())[:200]}",),
        helps=(AGAIN,),
    )


@perform_operation.register
def _resize(edit: Resize, network: Network, tensors: Mapping[str, Tensor], checked: bool) -> Network:
    module = network.module
    every = held(module)
    for table in edit.tables:
        old = every[table.tensor]
        exchange(module, {id(old): alike(old, followed(old, table))})
    nodes = {n.name: n for n in module.graph.nodes}
    for name, place, value in edit.numbers:
        write_argument(nodes[name], place, value)
    spatial = edit.shape[2:]
    return renewed(network, edit.name, edit.shape, lambda t: image(t, spatial))
