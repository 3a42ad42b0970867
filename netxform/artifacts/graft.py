"""The edits of a spec on a copy of the user's own model, so that its class, its methods and its configuration stay.

model, Network before, Network after ─graft→ the same class with other layers and sizes, compared with the graph bit for bit

What a spec does to layers and sizes can be done to the modules that the user wrote: layers are replaced under their
paths, and whole numbers that the code reads from `self` or from a configuration follow the sizes that changed. Which of
them do is tried, and decided by running the result beside the graph, in eval and in train mode. Where no choice gives the
same bits, the graft is refused.
"""

from __future__ import annotations

import copy
import itertools
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from netxform.errors import fail
from netxform.graph.network import Network
from netxform.graph.tensors import held, put

_TRIALS = 48
_NUMBERED = ("layer_idx", "layer_id", "layer_index", "block_idx", "block_index", "idx", "index")
_UNSEEN = ("training", "layer_idx", "padding_idx", "vocab_size")


@dataclass
class Sizes:
    """Old → new whole numbers that were seen to change, and those that were seen to stay, below one module."""

    changed: dict[int, set[int]] = field(default_factory=dict[int, "set[int]"])
    kept: set[int] = field(default_factory=set[int])

    def see(self, old: Any, new: Any) -> None:
        """Take note of two numbers in the same place."""
        if type(old) is int and type(new) is int and old > 0:
            if old == new:
                self.kept.add(old)
            else:
                self.changed.setdefault(old, set()).add(new)


def graft(model: nn.Module, before: Network, after: Network, inputs: tuple[Tensor, ...]) -> nn.Module:
    """A copy of the model with the layers and sizes of `after`; `before` is the graph of the model as it came.

    Raises NetxformError X0849 where the graph was rewritten in a way that the model's own code cannot follow.
    """
    made = copy.deepcopy(model)
    gone = _put_layers(made, before, after)
    _put_tensors(made, after)
    taken = _take_out(made, gone)
    wanted = {training: _results(after.module, inputs, training) for training in (False, True)}
    sizes = _sizes(before, after)
    why = ""
    for changes in _attempts(made, sizes):
        was = [(holder, name, holder.__dict__[name]) for holder, name, _ in changes]
        _set(changes)
        found = _difference(made, wanted, inputs)
        if found is None:
            _configure(made, taken, sizes.get("", Sizes()))
            return made.train(model.training)
        why = why or found
        _set(was)
    raise fail(
        "X0849",
        f"`{type(model).__name__}` cannot take these edits as its own class",
        notes=(why,),
        helps=("use `result.model`: it is a plain graph module with the same names",),
    )


# --- layers ----------------------------------------------------------------------------------------------------------


def _called(network: Network) -> set[str]:
    return {str(n.target) for n in network.module.graph.nodes if n.op == "call_module"}


def _put_layers(made: nn.Module, before: Network, after: Network) -> tuple[str, ...]:
    """Put every called layer in its place; the blocks that are called no more."""
    old, new = _called(before), _called(after)
    modules = dict(made.named_modules(remove_duplicate=False))
    put_in: dict[str, nn.Module] = {}
    for path in sorted(new):
        if path in modules and path in old:
            put_in[path] = copy.deepcopy(after.module.get_submodule(path))
            continue
        parent = path.rpartition(".")[0]
        if parent in old and parent in modules:  # a chain stands where a layer was
            chain = after.module.get_submodule(parent)
            put_in[parent] = nn.Sequential(OrderedDict((n, copy.deepcopy(m)) for n, m in chain.named_children()))
            continue
        raise fail(
            "X0849",
            f"`{path}` is no layer of the model as it came: its own code does not call it",
            helps=("use `result.model`", "fold adapters in first: `merge **`") if path.endswith(("_lora.A", "_lora.B")) else (),
        )
    for path, part in put_in.items():
        owner, _, last = path.rpartition(".")
        target: Any = made.get_submodule(owner)
        mine = modules[path]
        if type(part) is type(mine) and _alike(mine, part):
            continue
        part.train(mine.training)
        if isinstance(target, nn.Sequential | nn.ModuleList) and last.isdigit():
            target[int(last)] = part
        else:
            setattr(target, last, part)
    replaced = tuple(p for p in put_in if p not in new)
    lost = {p for p in old - new if p not in replaced and p in modules}
    return _tops(lost, new, modules)


def _tops(lost: set[str], kept: set[str], modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """The outermost modules all of whose called layers are gone."""
    out: set[str] = set()
    for path in lost:
        top = path
        parts = path.split(".")
        for i in range(len(parts), 0, -1):
            name = ".".join(parts[:i])
            if any(k == name or k.startswith(f"{name}.") for k in kept):
                break
            if isinstance(modules.get(name.rpartition(".")[0]), nn.Sequential | nn.ModuleList):
                top = name
                break
            top = name
        out.add(top)
    return tuple(sorted(out))


def _alike(mine: nn.Module, part: nn.Module) -> bool:
    """Whether two layers hold tensors of the same shapes and types, so that values alone need to be put in."""
    a, b = held(mine), held(part)
    return a.keys() == b.keys() and all(a[n].shape == b[n].shape and a[n].dtype == b[n].dtype for n in a)


def _put_tensors(made: nn.Module, after: Network) -> None:
    """Every tensor of the graph under its name; one that the graph does not hold is left as it is."""
    mine = held(made)
    shared: dict[int, Tensor] = {}
    for name, tensor in held(after.module).items():
        if name not in mine:
            continue
        owner, _, last = name.rpartition(".")
        if id(tensor) not in shared:
            copied = tensor.detach().clone()
            shared[id(tensor)] = (
                nn.Parameter(copied, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied
            )
        put(made.get_submodule(owner), last, shared[id(tensor)])


def _take_out(made: nn.Module, gone: tuple[str, ...]) -> dict[int, list[int]]:
    """Blocks that the graph has no more, out of the lists that hold them: the length that a list had → the places that went.

    The blocks behind take the numbers that they now have, where they hold their own.
    """
    out: dict[int, list[int]] = {}
    for owner in dict.fromkeys(p.rpartition(".")[0] for p in gone):
        parent: Any = made.get_submodule(owner)
        last = [p.rpartition(".")[2] for p in gone if p.rpartition(".")[0] == owner]
        if not isinstance(parent, nn.Sequential | nn.ModuleList) or not all(n.isdigit() for n in last):
            continue
        places = sorted(int(n) for n in last)
        out[len(parent)] = places
        left = [i for i in range(len(parent)) if i not in places]
        for place in reversed(places):
            del parent[place]
        for new, old in enumerate(left):
            for part in parent[new].modules():
                for name, value in vars(part).items():
                    if type(value) is int and value == old and name in _NUMBERED:
                        part.__dict__[name] = new
    return out


# --- sizes -----------------------------------------------------------------------------------------------------------


def _sizes(before: Network, after: Network) -> dict[str, Sizes]:
    """What changed below each module: in the layers, and among the whole numbers of the graph."""
    out: dict[str, Sizes] = {}

    def see(path: str, old: Any, new: Any) -> None:
        parts = path.split(".")
        for i in range(len(parts) + 1):
            out.setdefault(".".join(parts[:i]), Sizes()).see(old, new)

    paths = {n for n, _ in after.module.named_modules()}
    for path, part in before.module.named_modules():
        if path and path in paths and not list(part.children()):
            other = after.module.get_submodule(path)
            for name, value in vars(part).items():
                see(path.rpartition(".")[0], value, vars(other).get(name, value))
            for name, tensor in part.named_parameters(recurse=False):
                twin_ = dict(other.named_parameters(recurse=False)).get(name)
                if twin_ is not None and twin_.dim() == tensor.dim():
                    for a, b in zip(tensor.shape, twin_.shape, strict=True):
                        see(path.rpartition(".")[0], int(a), int(b))
    nodes = {n.name: n for n in after.module.graph.nodes}
    for node in before.module.graph.nodes:
        other_node = nodes.get(node.name)
        if other_node is not None and node.op in ("call_function", "call_method"):
            for a, b in zip(_numbers(node), _numbers(other_node), strict=False):
                see(node.meta.get("scope", ""), a, b)
    return out


def _numbers(node: fx.Node) -> list[int]:
    leaves = pytree.tree_leaves((node.args, node.kwargs))
    return [v for v in leaves if type(v) is int]


Change = tuple[Any, str, int]


def _attempts(made: nn.Module, sizes: dict[str, Sizes]) -> Iterator[list[Change]]:
    """Ways to let the numbers of the modules follow: all that are certain, and the others one way and the other."""
    certain: list[Change] = []
    open_: list[list[Change | None]] = []
    seen: set[int] = set()
    for path, module in made.named_modules():
        seen_sizes = sizes.get(path)
        if seen_sizes is None or not list(module.children()):
            continue
        for holder in (module, getattr(module, "config", None)):
            if holder is None or id(holder) in seen:
                continue
            seen.add(id(holder))
            scope = seen_sizes if holder is module else sizes.get("", seen_sizes)
            for name, value in list(vars(holder).items()):
                if name in _UNSEEN or name.startswith("_") or type(value) is not int or value not in scope.changed:
                    continue
                options = sorted(scope.changed[value])
                if len(options) == 1 and value not in scope.kept:
                    certain.append((holder, name, options[0]))
                else:
                    open_.append([*((holder, name, n) for n in options), None])
    yield certain
    if not open_:
        return
    for count, choice in enumerate(itertools.product(*open_)):
        if count >= _TRIALS:
            return
        chosen = [c for c in choice if c is not None]
        if chosen:
            yield [*certain, *chosen]
    if certain:
        yield []


def _set(changes: list[Change]) -> None:
    for holder, name, value in changes:
        holder.__dict__[name] = value


def _configure(made: Any, taken: Mapping[int, list[int]], sizes: Sizes) -> None:
    """Let the model's configuration say what the model now is, so that it is built and read again from it.

    A configuration is right where a model that is built from it has tensors of the same names and shapes. Where none is (layers
    of different sizes have no word in most), it is left, and a warning says so.
    """
    config = getattr(made, "config", None)
    if config is None or not callable(getattr(type(made), "from_pretrained", None)):
        return
    changed = {old: set(new) for old, new in sizes.changed.items()}
    before = copy.deepcopy(vars(config))
    for length, places in taken.items():
        changed.setdefault(length, set()).add(length - len(places))
        for name, value in vars(config).items():
            if isinstance(value, list) and len(cast("list[Any]", value)) == length:
                vars(config)[name] = [v for i, v in enumerate(cast("list[Any]", value)) if i not in places]
    wanted = {n: t.shape for n, t in made.state_dict().items()}
    names = [n for n, v in vars(config).items() if type(v) is int and v in changed and n not in _UNSEEN]
    was = {n: vars(config)[n] for n in names}
    options = [[was[n], *sorted(changed[was[n]])] for n in names]
    for count, values in enumerate(itertools.product(*options)):
        if count >= _TRIALS * 4:
            break
        vars(config).update(zip(names, values, strict=True))
        try:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                built = type(made)(copy.deepcopy(config))
        except Exception:  # a configuration that its own class refuses
            continue
        if {n: t.shape for n, t in built.state_dict().items()} == wanted:
            return
    vars(config).update(before)
    warnings.warn(
        "the configuration has no words for these layers: what `save_pretrained` writes, `from_pretrained` will not read",
        stacklevel=3,
    )


# --- the comparison --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a run gives, and the buffers as they are after it."""

    outputs: list[Tensor]
    buffers: dict[str, Tensor]


def _results(module: nn.Module, inputs: tuple[Tensor, ...], training: bool) -> Outcome:
    """What the module gives under one random state; the module itself is left as it is."""
    run = copy.deepcopy(module).train(training)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = _tensors(run(*(t.clone() for t in inputs)))
    return Outcome(found, dict(run.named_buffers()) if training else {})


def _difference(made: nn.Module, wanted: Mapping[bool, Outcome], inputs: tuple[Tensor, ...]) -> str | None:
    """Where the two differ, in words; None where they give the same bits in both modes, buffers too."""
    for training, theirs in wanted.items():
        try:
            ours = _results(made, inputs, training)
        except Exception as error:  # the user's code may raise anything
            return _line(error)
        mode = "train" if training else "eval"
        if [t.shape for t in theirs.outputs] != [t.shape for t in ours.outputs]:
            shapes = [[tuple(t.shape) for t in o.outputs] for o in (ours, theirs)]
            return f"in {mode} mode it gives {shapes[0]}, the graph {shapes[1]}"
        pairs = list(zip(theirs.outputs, ours.outputs, strict=True))
        pairs += [(t, ours.buffers[n]) for n, t in theirs.buffers.items() if n in ours.buffers]
        for a, b in pairs:
            if a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num()):
                return f"in {mode} mode it gives other values than the graph"
    return None


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(_plain(value)) if isinstance(t, Tensor)]


def _plain(value: Any) -> Any:
    """Outputs as plain containers, also those of classes that pytree does not know."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in cast("list[Any]", value)]
    return value


def _line(error: Exception) -> str:
    """What the model's own code said, and where."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename and "netxform" not in f.filename
    ]
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: `{frames[-1].line}`: " if frames else ""
    return f"{where}{text}"
