"""The one primitive behind prune, widen and permute: an index map on axes, carried to everything that has their type.

    Network, {axis: index} ─reindex→ Network          new[i] = old[index[i]] along the axis, wherever it occurs

Tensors are gathered, sizes that the code states (attributes of layers, numbers in the graph) follow from the types, then
the network is run on the meta device and typed again: what does not follow is refused, and nothing has changed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn

from netxform.axes.algebra import Atom, Dim, atoms, normal, positions, show, size_under
from netxform.axes.infer import types_of
from netxform.axes.rules.context import Typed
from netxform.axes.types import Stated, Types
from netxform.errors import fail
from netxform.graph.layers import Attention
from netxform.graph.network import Network, clone, refresh
from netxform.graph.tensors import held, put

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True, eq=False)
class Axis:
    """An axis of a network: one set of indices, which may occur in many tensors. `atom`: the variable behind it (`algebra.py`).

    `size`: its number of indices. `locked`: why it may not be changed, or None. `mixed`: what is computed across it, so
    that only a permutation is exact without further conditions. `sites`: (tensor name, dimension) of every place, tied
    tensors under their first name.
    """

    name: str
    size: int
    locked: str | None
    mixed: tuple[str, ...]
    sites: tuple[tuple[str, int], ...]
    atom: Atom = field(repr=False)


def axes_of(network: Network) -> tuple[Axis, ...]:
    """The axes of the network's tensors: each with its size, why it is locked, what mixes it, and where it occurs."""
    if "axes" not in network.known:
        network.known["axes"] = _axes(types_of(network))
    return network.known["axes"]


def _axes(types: Types) -> tuple[Axis, ...]:
    """The atoms that occur in tensors of the module, in their order: the free ones named c1, c2, …, or u1 with one index."""
    out: list[Axis] = []
    numbers = {"c": 0, "k": 0, "u": 0}
    for atom, places in types.places.items():
        kind = "k" if atom.locked is not None else "u" if atom.size == 1 else "c"
        numbers[kind] += 1
        why = None if atom.locked is None else str(atom.locked)
        out.append(Axis(f"{kind}{numbers[kind]}", atom.size, why, tuple(str(m) for m in atom.mixed), places, atom))
    return tuple(out)


def namer(axes: Iterable[Axis]) -> Any:
    """How axes are shown: free ones by name and size, locked ones by size."""
    known = {a.atom: (f"{a.name}:{a.size}" if a.locked is None else str(a.size)) for a in axes}
    return lambda atom: known.get(atom, str(atom.size))


def reindex(network: Network, maps: Mapping[Axis | str, Sequence[int]], optimizer: Optimizer | None = None) -> Network:
    """The network with index maps applied: along each axis, new index i holds what the old index maps[axis][i] held.

    A permutation leaves the function as it is; a selection removes, a repetition copies (the consumers' sums then count
    the copies). With `optimizer`, its state for the parameters is gathered alike and it holds the new parameters.

    Raises NetxformError X0320 (unknown or locked axis, or an index out of range), X0321 (code that cannot follow).
    """
    named = {a.name: a for a in axes_of(network)}
    wanted: dict[Atom, list[int]] = {}
    for key, index in maps.items():
        axis = named.get(key) if isinstance(key, str) else key
        if axis is None or axis.atom not in {a.atom for a in axes_of(network)}:
            raise fail("X0320", f"`{key if isinstance(key, str) else key.name}` is no axis of this network")
        numbers = [int(i) for i in index]
        if not numbers or min(numbers) < 0 or max(numbers) >= axis.size:
            raise fail("X0320", f"an index map of `{axis.name}` needs at least one number, each in 0 … {axis.size - 1}")
        if axis.locked is not None and numbers != list(range(axis.size)):
            raise fail("X0320", f"`{axis.name}` may not be changed: {axis.locked}")
        if numbers != list(range(axis.size)):
            wanted[axis.atom] = numbers
    changed = apply_maps(network, wanted)
    if optimizer is not None:
        _carry_optimizer(network, changed, wanted, optimizer)
    return changed


def apply_maps(network: Network, maps: Mapping[Atom, list[int]], checked: bool = False) -> Network:
    """`reindex` on atoms that are known to be allowed. `checked`: the same was done to a twin, and its code followed."""
    if not maps:
        return clone(network)
    types = types_of(network)
    sizes = {a: len(i) for a, i in maps.items()}
    changed = clone(network)
    gathers = _gathers(types, maps)
    replace_tensors(changed.module, {n: lambda t, g=g: _gathered(t, g) for n, g in gathers.items()}, types)
    _write(changed.module, types, sizes)
    if checked:
        return changed
    changed.module.graph.lint()
    changed.module.recompile()
    _check(network, changed, sizes)
    return changed


def _gathers(types: Types, maps: Mapping[Atom, list[int]]) -> dict[str, dict[int, Tensor]]:
    """Tensor → dimension → positions, for the tensors that change."""
    out: dict[str, dict[int, Tensor]] = {}
    found: dict[Dim, Tensor | None] = {}
    for name, dims in types.tensors.items():
        for i, dim in enumerate(map(normal, dims)):
            if dim not in found:
                changes = any(a in maps for a in atoms(dim))
                found[dim] = torch.tensor(positions(dim, lambda a: maps.get(a) or range(a.size))) if changes else None
            index = found[dim]
            if index is not None:
                out.setdefault(name, {})[i] = index
    return out


def _gathered(tensor: Tensor, along: Mapping[int, Tensor]) -> Tensor:
    if tensor.is_meta:
        shape = [len(along[i]) if i in along else n for i, n in enumerate(tensor.shape)]
        return torch.empty(shape, dtype=tensor.dtype, device="meta")
    out = tensor.detach()
    for axis, index in along.items():
        out = out.index_select(axis, index.to(out.device))
    return out


def replace_tensors(module: nn.Module, makers: Mapping[str, Any], types: Types) -> dict[str, Tensor]:
    """Put new tensors in the place of the named ones (under all their names). Returns the new ones by first name."""
    made: dict[str, Tensor] = {}
    every = held(module)
    for name, first in types.names.items():
        maker = makers.get(first)
        if maker is None:
            continue
        old = every[name]
        if first not in made:
            new = maker(old)
            made[first] = nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
        owner, _, last = name.rpartition(".")
        put(module.get_submodule(owner), last, made[first])
    return made


# --- numbers in the code ---------------------------------------------------------------------------------------------


def _write(module: fx.GraphModule, types: Types, sizes: Mapping[Atom, int]) -> None:
    """Sizes that the code states: attributes of layers, numbers and lists in the graph."""
    nodes = {n.name: n for n in module.graph.nodes}
    layers: dict[str, dict[tuple[Any, ...], int]] = {}
    for stated in types.stated:
        if stated.path is None:
            continue
        new = sum(size_under(d, sizes) for d in stated.dims)
        if stated.computed:
            changes = any(a in sizes for d in (*stated.computed, *stated.dims) for a in atoms(d))
            # what depends on the input follows by itself; a size of 1 may be the batch
            own = _settled(stated.dims) and _settled(stated.computed) and all(normal(d) for d in stated.computed)
            if changes and own:
                _write_argument(nodes[stated.node], stated.path, new)
            continue
        if stated.layer is not None:
            before = layers.setdefault(stated.layer, {}).setdefault(stated.path, new)
            if before != new:
                kind = type(module.get_submodule(stated.layer)).__name__
                raise fail(
                    "X0321",
                    f"`{stated.layer}` ({kind}) has one `{stated.path[1]}` and would need {before} and {new}",
                    helps=("change its axes to the same size",),
                )
        elif new != stated.value:
            _write_argument(nodes[stated.node], stated.path, new)
    for path, values in layers.items():
        _write_attributes(module, path, values)
    for parts in types.parts:
        lengths = [size_under(p, sizes) for p in parts.parts]
        if lengths != [size_under(p, {}) for p in parts.parts]:
            _list_parts(nodes[parts.node], parts.axis, lengths)
    for name, dim in types.scaled:
        old = size_under(dim, {})
        if size_under(dim, sizes) != old:
            node = nodes[name]
            node.kwargs = {**node.kwargs, "scale": float(old) ** -0.5}


def _settled(dims: Iterable[Dim]) -> bool:
    """Whether the sizes are the network's own, and not those of the input that it was captured with."""
    return all(a.locked is None or a.locked.kind in ("stack", "gates", "kernel") for d in dims for a in atoms(d))


def _write_attributes(module: fx.GraphModule, path: str, values: Mapping[tuple[Any, ...], int]) -> None:
    part: Any = module.get_submodule(path)
    if isinstance(part, nn.MultiheadAttention):
        named = {k[1]: v for k, v in values.items()}
        usual = named["embed_dim"] == named["num_heads"] * named["head_dim"] and named["head_dim"] == named["value_dim"]
        if usual and part.head_dim == named["head_dim"] and _fits(part):
            part.num_heads, part.embed_dim = named["num_heads"], named["embed_dim"]
            own = cast(Any, part)
            packed = own._qkv_same_embed_dim
            part.kdim, part.vdim = (part.embed_dim,) * 2 if packed else (own.k_proj_weight.shape[1], own.v_proj_weight.shape[1])
            part.out_proj.in_features = part.out_proj.out_features = part.embed_dim
            return
        part = Attention.of(part)
        owner, _, last = path.rpartition(".")
        holder: Any = module.get_submodule(owner)
        holder._modules[last] = part
    for place, value in values.items():
        name = place[1]
        if not hasattr(part, name):
            continue
        if len(place) == 2:
            setattr(part, name, value)
        else:
            items = list(getattr(part, name))
            items[place[2]] = value
            setattr(part, name, tuple(items))


def _fits(part: nn.MultiheadAttention) -> bool:
    """Whether the changed projections are still what `MultiheadAttention` takes: as many columns as rows."""
    own: Any = part
    packed = own.in_proj_weight
    inner = int(own.out_proj.weight.shape[1])
    square = int(own.out_proj.weight.shape[0]) == inner
    columns = packed.shape if packed is not None else own.q_proj_weight.shape
    return square and int(columns[1]) == inner


def _write_argument(node: fx.Node, path: tuple[Any, ...], value: int) -> None:
    if path[-1] == "-":
        path, value = path[:-1], -value
    if path[0] == 0:
        args = list(node.args)
        args[path[1]] = _replaced(args[path[1]], path[2:], value)
        node.args = tuple(args)
    else:
        node.kwargs = {**node.kwargs, path[1]: _replaced(node.kwargs[path[1]], path[2:], value)}


def _replaced(held: Any, path: tuple[Any, ...], value: int) -> Any:
    if not path:
        return value
    if isinstance(held, slice):
        parts = {k: getattr(held, k) for k in ("start", "stop", "step")}
        parts[path[0]] = _replaced(parts[path[0]], path[1:], value)
        return slice(parts["start"], parts["stop"], parts["step"])
    if isinstance(held, dict):
        return {**held, path[0]: _replaced(held[path[0]], path[1:], value)}
    items = list(held)
    items[path[0]] = _replaced(items[path[0]], path[1:], value)
    return tuple(items) if isinstance(held, tuple) else items


def _list_parts(node: fx.Node, axis: int, lengths: list[int]) -> None:
    """`split(x, 64)` and `chunk(x, 2)` become `split(x, [64, 96])`."""
    source = node.args[0]
    if node.op == "call_method":
        node.target = "split"
    else:
        node.target = torch.split
    node.args = (source, lengths)
    node.kwargs = {"dim": axis}


# --- does it follow? -------------------------------------------------------------------------------------------------


def _check(before: Network, after: Network, sizes: Mapping[Atom, int]) -> None:
    """Run on meta, compare every shape with what the types say, type again and compare every number that was not written."""
    old = types_of(before)
    try:
        refresh(after)
    except Exception as error:
        diagnostics = getattr(error, "diagnostics", None)
        text = diagnostics[0].message if diagnostics else str(error)
        notes = diagnostics[0].notes if diagnostics else ()
        narrow = [n for n, m in after.module.named_modules() if isinstance(m, nn.LSTM) and m.proj_size >= m.hidden_size]
        helps = (
            f"the state of `{narrow[0]}` is projected, and must stay wider than what it is projected to"
            if narrow
            else "name other layers: `netxform ls --axes` shows which widths are read together",
        )
        raise fail(
            "X0321", f"the code does not follow this change: {text}", notes=(*notes, *_code(error)), helps=helps
        ) from error
    for node in after.module.graph.nodes:
        if node.op == "output":
            continue
        for typed, shape in _pairs(old.values.get(node.name), node.meta.get("shape")):
            wanted = tuple(size_under(d, sizes) for d in typed.dims)
            if wanted != shape:
                raise fail(
                    "X0321",
                    f"the code does not follow this change: at `{node.name}` in `{node.meta.get('scope', '')}` the shape is "
                    f"{shape}, and the types say {wanted}",
                    notes=(f"node: {node.format_node()}",),
                    helps=("name other layers: `netxform ls --axes` shows which widths are read together",),
                )
    new = types_of(after)
    found = _numbers(new.stated)
    for key, stated in _numbers(old.stated).items():
        wanted = [sum(size_under(d, sizes) for d in s.dims) for s in stated]
        there = [s.value for s in found.get(key, [])]
        if (key[1] is None and wanted != there) or any(a != b for a, b in zip(wanted, there, strict=False)):
            raise fail(
                "X0321",
                f"the code does not follow this change: at `{key[0]}` sizes are {there}, and the types say {wanted}",
                helps=("sizes that are computed or written in code that is kept whole cannot be changed from outside",),
            )


def _numbers(stated: Iterable[Stated]) -> dict[tuple[str, Any], list[Stated]]:
    """Numbers of the graph by their place; those in code that is kept whole, in their order."""
    out: dict[tuple[str, Any], list[Stated]] = {}
    for item in stated:
        if item.layer is None:
            out.setdefault((item.node, item.path), []).append(item)
    return out


def _pairs(typed: Any, shape: Any) -> Iterable[tuple[Typed, tuple[int, ...]]]:
    if isinstance(typed, Typed):
        if isinstance(shape, tuple) and all(isinstance(n, int) for n in cast("tuple[Any, ...]", shape)):
            yield typed, cast("tuple[int, ...]", shape)
    elif isinstance(typed, list | tuple) and isinstance(shape, list | tuple):
        for one, other in zip(cast("list[Any]", typed), cast("list[Any]", shape), strict=False):
            yield from _pairs(one, other)


def _code(error: BaseException) -> tuple[str, ...]:
    """The last line of code outside of torch that the failure passed through."""
    import traceback

    cause = error.__cause__ or error
    frames = [
        f for f in traceback.extract_tb(cause.__traceback__) if "/torch/" not in f.filename and "netxform" not in f.filename
    ]
    return tuple(f"code: {f.line}" for f in frames[-1:] if f.line)


# --- an optimizer ----------------------------------------------------------------------------------------------------


def _carry_optimizer(before: Network, after: Network, maps: Mapping[Atom, list[int]], optimizer: Optimizer) -> None:
    """Exchange the parameters of the optimizer, and gather what it remembers of each element."""
    old = {n: p for n, p in before.module.named_parameters(remove_duplicate=False)}
    new = {n: p for n, p in after.module.named_parameters(remove_duplicate=False)}
    gathers = _gathers(types_of(before), maps)
    pairs = {id(p): (types_of(before).names[n], new[n]) for n, p in old.items()}
    for group in optimizer.param_groups:
        for i, parameter in enumerate(group["params"]):
            found = pairs.get(id(parameter))
            if found is None:
                continue
            name, fresh = found
            group["params"][i] = fresh
            state = optimizer.state.pop(parameter, None)
            if state is None:
                continue
            carried: dict[str, Any] = {}
            for key, value in cast("dict[str, Any]", state).items():
                same = isinstance(value, Tensor) and value.shape == parameter.shape
                carried[key] = _gathered(value, gathers.get(name, {})) if same else copy.copy(value)
            optimizer.state[fresh] = carried


def shown(network: Network, tensor: str) -> str:
    """The type of a tensor as text: `(c1:64) × 3 × 7 × 7`."""
    name = namer(axes_of(network))
    return " × ".join(show(d, name) for d in types_of(network).tensors[types_of(network).names[tensor]])


def same(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are written with the same atoms."""
    return list(atoms(a)) == list(atoms(b)) and len(normal(a)) == len(normal(b))
