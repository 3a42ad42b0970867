"""One graph for both modes: what the model does in training alone is added to what it does in eval mode.

    graph in eval mode, graph in training ─merged→ graph whose flags follow its modules

Both graphs are lined up. Where a node reads another number or another value in training, `pick` chooses by the mode of the
module in which that was made; nodes that only training has run under `only`. Nothing here is trusted: the judge compares the
result with the model in both modes, and where the two programs cannot be merged the network says what `train()` loses.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.overrides import resolve_name

from netxform.capture.symbolic import TrainingFlag, flag_at, passed
from netxform.errors import NetxformError, fail
from netxform.graph.guards import function_named, only, pick

Mode = Callable[[fx.Graph, str], fx.Node]


class ApartError(NetxformError):
    """What the model does in the two modes is not one graph."""


def gradients_on(graph: fx.Graph, path: str) -> fx.Node:
    """A node that says whether gradients are on; the graph inserts it where it stands."""
    node = graph.call_function(torch.is_grad_enabled)
    node.meta |= {"scope": path, "exits": (), "entries": (), "shape": None, "dtype": None}
    return node


def merge(graph: fx.Graph, model: nn.Module, trained: fx.Graph, other: nn.Module, mode: Mode = flag_at) -> None:
    """Add to the graph (of `model` in eval mode) what the graph `trained` (of `other`, its copy in training) does besides.

    `mode` makes the node by which the two are told apart: the mode of a module, or whether gradients are on.

    Raises ApartError where the two cannot be one graph.
    """
    try:
        _Merge(graph, model, trained, other, mode).run()
    except NetxformError as error:
        raise ApartError(error.diagnostics) from error


class _Merge:
    def __init__(self, graph: fx.Graph, model: nn.Module, trained: fx.Graph, other: nn.Module, mode: Mode) -> None:
        self.mode = mode
        self.graph, self.model, self.trained, self.other = graph, model, trained, other
        self.twin: dict[fx.Node, fx.Node] = {}  # of training → of the merged graph
        self.ends: dict[str, list[fx.Node]] = {}  # the nodes that are the output of a module, in eval mode
        self.twins: dict[str, list[fx.Node]] = {}  # and in training
        self.late: set[fx.Node] = set()  # nodes that have not been reached
        self.latest: dict[fx.Node, fx.Node] = {}  # what stands for a value behind the modules that end with it
        self.added: set[fx.Node] = set()
        self.picks: dict[Any, fx.Node] = {}
        self.flags: dict[str, fx.Node] = {}
        self.alone: set[fx.Node] = set()  # nodes that eval alone has

    def run(self) -> None:
        ours, theirs = list(self.graph.nodes), list(self.trained.nodes)
        for node in ours:
            for path in node.meta.get("exits", ()):
                self.ends.setdefault(path, []).append(node)
        for twin in theirs:
            for path in twin.meta.get("exits", ()):
                self.twins.setdefault(path, []).append(twin)
        self.late = set(ours)
        matcher = difflib.SequenceMatcher(None, [self.key(n) for n in ours], [self.key(n) for n in theirs], autojunk=False)
        for tag, i, j, k, m in matcher.get_opcodes():
            if tag == "equal":
                for node, twin in zip(ours[i:j], theirs[k:m], strict=True):
                    self.twin[twin] = node
                    self.match(node, twin)
                    self.late.discard(node)
                    if node.op != "output":
                        with self.graph.inserting_after(node):
                            self.close(node, twin)
                continue
            for mine, more in self.stretches(ours[i:j], theirs[k:m]):
                for node in mine:
                    i += 1
                    self.late.discard(node)
                    self.alone.add(node)
                    self.follow(node)
                    with self.graph.inserting_before(ours[min(i, len(ours) - 1)]):
                        self.close(node)
                for twin in more:
                    with self.graph.inserting_before(ours[min(i, len(ours) - 1)]):
                        self.twin[twin] = self.add(twin)
                        self.close(twin)

    def stretches(self, ours: list[fx.Node], theirs: list[fx.Node]) -> list[tuple[list[fx.Node], list[fx.Node]]]:
        """Nodes of the two modes up to the ends of modules: what is behind an end may read what comes out of it."""
        places = {path: a for a, node in enumerate(ours) for path in node.meta.get("exits", ())}
        out: list[tuple[list[fx.Node], list[fx.Node]]] = []
        i = k = 0
        for b, twin in enumerate(theirs):
            for path in twin.meta.get("exits", ()):
                passed = path in self.ends and not any(e in self.late for e in self.ends[path])
                if path in places or passed:
                    until = max(i, places.get(path, -1) + 1)
                    out.append((ours[i:until], theirs[k : b + 1]))
                    i, k = until, b + 1
        return [*out, (ours[i:], theirs[k:])]

    def follow(self, node: fx.Node) -> None:
        """What eval alone computes reads what a module ended with in that module's mode, which need not be its own."""

        def read(source: fx.Node) -> fx.Node:
            return self.latest.get(source, source)

        args: Any = map_arg(node.args, read)
        kwargs: Any = map_arg(node.kwargs, read)
        node.args, node.kwargs = args, kwargs

    def close(self, *nodes: fx.Node) -> None:
        """Where a module ends with another value in training, what comes behind reads either, by the mode of that module.

        `nodes`: what is in the merged graph by now; a module is closed once both its ends are.
        """
        for path in dict.fromkeys(p for n in nodes for p in n.meta.get("exits", ())):
            ends, twins = self.ends.get(path, []), self.twins.get(path, [])
            if len(ends) != 1 or len(twins) != 1 or ends[0] in self.late or twins[0] not in self.twin:
                continue
            evaluated, trained = self.latest.get(ends[0], ends[0]), self.twin[twins[0]]
            if evaluated is trained:
                continue
            made = self.graph.create_node("call_function", pick, (self.mode(self.graph, path), trained, evaluated))
            made.meta |= {"scope": path, "exits": (path,), "entries": ()}
            for held in (ends[0], evaluated):
                held.meta["exits"] = tuple(p for p in held.meta.get("exits", ()) if p != path)
            self.twin[twins[0]] = self.latest[ends[0]] = made

    def flag(self, path: str) -> fx.Node:
        """The mode of the module, read where it is asked for first."""
        if path not in self.flags:
            self.flags[path] = self.mode(self.graph, path)
        return self.flags[path]

    def key(self, node: fx.Node) -> Any:
        """What two nodes must have in common to be one; which values they read is no part of it."""
        if node.op == "output":
            return node.op
        return (node.op, node.target, node.meta.get("scope", ""), _kinds(node.args), _kinds(tuple(node.kwargs.items())))

    def add(self, node: fx.Node) -> fx.Node:
        """A node of training alone."""
        if node.target is passed:
            return self.twin[cast(fx.Node, node.args[0])]
        args: Any = map_arg(node.args, lambda n: self.twin[n])
        kwargs: Any = map_arg(node.kwargs, lambda n: self.twin[n])
        places = {k: node.meta.get(k, v) for k, v in (("scope", ""), ("exits", ()), ("entries", ()))}
        scope = str(places["scope"])
        if node.op == "get_attr":
            self.bring(str(node.target))
            made = self.graph.create_node("get_attr", node.target)
        elif node.op == "call_module":  # it runs in eval mode too; what it gives is not read there
            if any(isinstance(a, fx.Node) and a in self.added and a.target is only for a in args):
                raise fail("X0802", f"`{node.target}` runs in training alone, on a value that only training has")
            made = self.graph.create_node("call_module", node.target, args, kwargs)
        elif node.op in ("call_function", "call_method"):
            name = _name(node)
            flag = self.flag(scope)
            made = self.graph.create_node("call_function", only, (flag, name, *args), kwargs)
        else:
            raise fail("X0802", f"`{node.target}` runs in training alone")
        made.meta |= places | {"exits": (), "entries": ()}
        self.added.add(made)
        return made

    def bring(self, target: str) -> None:
        """A tensor that tracing made for the training graph."""
        owner, _, name = target.rpartition(".")
        mine, theirs = self.model.get_submodule(owner), self.other.get_submodule(owner)
        if not hasattr(mine, name):
            mine.register_buffer(name, cast(Tensor, getattr(theirs, name)))

    def match(self, node: fx.Node, twin: fx.Node) -> None:
        """Let the node read in training what its twin reads."""
        if "_tensor_constant" in str(node.target) and not _same_tensor(self.model, self.other, str(node.target)):
            raise fail("X0802", f"`{node.target}` is another tensor in training")
        with self.graph.inserting_before(node):
            args = self.either(node.args, twin.args, node)
            kwargs = self.either(dict(node.kwargs), dict(twin.kwargs), node)
        node.args, node.kwargs = args, kwargs

    def either(self, ours: Any, theirs: Any, reader: fx.Node) -> Any:
        if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
            return {
                k: self.either(v, cast("dict[Any, Any]", theirs)[k], reader) for k, v in cast("dict[Any, Any]", ours).items()
            }
        if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
            pairs = list(zip(cast("list[Any]", ours), cast("list[Any]", theirs), strict=False))
            if len(pairs) == len(cast("list[Any]", ours)) == len(cast("list[Any]", theirs)):
                items = [self.either(a, b, reader) for a, b in pairs]
                return tuple(items) if isinstance(ours, tuple) else items
        if isinstance(ours, slice) and isinstance(theirs, slice):
            return slice(*(self.either(getattr(ours, k), getattr(theirs, k), reader) for k in ("start", "stop", "step")))
        wanted = self.twin[theirs] if isinstance(theirs, fx.Node) else theirs
        if (
            isinstance(ours, fx.Node)
            and isinstance(wanted, fx.Node)
            and ours.op == wanted.op == "get_attr"
            and ours.target == wanted.target
        ):
            return ours
        if isinstance(ours, fx.Node) and self.latest.get(ours) is wanted and wanted is not None:
            return wanted
        if ours is wanted or (isinstance(ours, TrainingFlag) and isinstance(wanted, TrainingFlag)):
            return ours
        if type(ours) is type(wanted) and not isinstance(ours, fx.Node | list | tuple | dict | slice) and ours == wanted:
            return ours
        if isinstance(ours, list | tuple | dict | slice) or isinstance(wanted, list | tuple | dict | slice):
            raise fail("X0802", f"`{reader.name}` takes other arguments in training")
        return self.pick(ours, wanted, theirs, reader)

    def pick(self, ours: Any, wanted: Any, theirs: Any, reader: fx.Node) -> fx.Node:
        made_by = reader
        for value in (wanted if wanted in self.added else None, ours if ours in self.alone else None):
            if isinstance(value, fx.Node):
                made_by = value
                break
        scope = str(made_by.meta.get("scope", ""))
        if made_by is reader and reader.op == "output":
            scope = ""
        key = (scope, *(v if isinstance(v, fx.Node) else (type(v), repr(v)) for v in (wanted, ours)))
        if key not in self.picks:
            made = self.graph.create_node("call_function", pick, (self.flag(scope), wanted, ours))
            made.meta |= {"scope": scope, "exits": (), "entries": ()}
            if isinstance(ours, fx.Node) and isinstance(theirs, fx.Node):
                both = tuple(p for p in ours.meta.get("exits", ()) if p in theirs.meta.get("exits", ()))
                ours.meta["exits"] = tuple(p for p in ours.meta.get("exits", ()) if p not in both)
                made.meta["exits"] = both
            self.picks[key] = made
        return self.picks[key]


def _kinds(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_kinds(v) for v in cast("list[Any]", value))
    return fx.Node if isinstance(value, fx.Node) else value if isinstance(value, str) else type(value)


def _name(node: fx.Node) -> str:
    """The name by which `only` finds the function of the node. Raises NetxformError X0802 where there is none."""
    target: Any = node.target
    name = f"torch.Tensor.{target}" if node.op == "call_method" else None
    if getattr(target, "__module__", "") == "_operator":
        name = f"operator.{target.__name__}"
    elif target is getattr:
        name = "getattr"
    if name is None:
        name = resolve_name(target) or f"torch.{getattr(target, '__name__', '')}"
    try:
        found = function_named(name)
    except AttributeError:
        found = None
    if found is None or (node.op == "call_function" and found is not target):
        raise fail("X0802", f"`{getattr(target, '__name__', target)}` runs in training alone")
    return name


def _same_tensor(model: nn.Module, other: nn.Module, target: str) -> bool:
    owner, _, name = target.rpartition(".")
    ours, theirs = (getattr(m.get_submodule(owner), name) for m in (model, other))
    if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
        return True
    return ours.shape == theirs.shape and (
        ours.is_meta or theirs.is_meta or torch.equal(ours.nan_to_num(), theirs.nan_to_num())
    )
