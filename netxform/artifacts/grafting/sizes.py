"""Whole numbers of the user's modules that follow the sizes of the graph.

The graph says which numbers became which below each module: in its layers, tensors and calls. A number that always became the
same is set; where one stayed in some places and changed in others, both are tried, for all modules of a class at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard

from torch import fx, nn
from torch.utils import _pytree as pytree

from netxform.graph.network import Network

TRIALS = 48
UNSEEN = ("training", "layer_idx", "padding_idx", "vocab_size")
Change: TypeAlias = "tuple[Any, str, Any]"
"""Whose attribute, its name, and the value that it gets."""


@dataclass
class Sizes:
    """Old → new whole numbers that were seen to change, and those that were seen to stay, below one module; so for rows of
    numbers, as the widths of a split.
    """

    changed: dict[int, set[int]] = field(default_factory=dict[int, "set[int]"])
    kept: set[int] = field(default_factory=set[int])
    rows: dict[tuple[int, ...], set[tuple[int, ...]]] = field(default_factory=dict[tuple[int, ...], "set[tuple[int, ...]]"])

    def see(self, old: Any, new: Any) -> None:
        """Take note of two numbers, or of two rows of numbers, in the same place."""
        if type(old) is int and type(new) is int and old > 0:
            if old == new:
                self.kept.add(old)
            else:
                self.changed.setdefault(old, set()).add(new)
        elif _row(old) and _row(new) and len(old) == len(new) and tuple(old) != tuple(new):
            self.rows.setdefault(tuple(old), set()).add(tuple(new))


def _row(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, list | tuple) and 1 < len(value) <= 64 and all(type(v) is int for v in value)  # pyright: ignore


def sizes_of(before: Network, after: Network) -> dict[str, Sizes]:
    """What changed below each module: in the layers, and among the whole numbers of the graph."""
    out: dict[str, Sizes] = {}

    def see(path: str, old: Any, new: Any) -> None:
        parts = path.split(".") if path else []
        for i in range(len(parts) + 1):
            out.setdefault(".".join(parts[:i]), Sizes()).see(old, new)

    paths = {n for n, _ in after.module.named_modules(remove_duplicate=False)}
    for path, part in before.module.named_modules(remove_duplicate=False):
        if not path or path not in paths or (list(part.children()) and not list(part.parameters(recurse=False))):
            continue
        other = after.module.get_submodule(path)
        for name, value in vars(part).items():
            see(path, value, vars(other).get(name, value))
        theirs = dict(other.named_parameters(recurse=False))
        for name, tensor in part.named_parameters(recurse=False):
            if name in theirs and theirs[name].dim() == tensor.dim():
                for a, b in zip(tensor.shape, theirs[name].shape, strict=True):
                    see(path, int(a), int(b))
    nodes = {n.name: n for n in after.module.graph.nodes}
    for node in before.module.graph.nodes:
        other_node = nodes.get(node.name)
        if other_node is not None and node.op in ("call_function", "call_method"):
            for a, b in zip(_numbers(node), _numbers(other_node), strict=False):
                see(node.meta.get("scope", ""), a, b)
    return out


def _numbers(node: fx.Node) -> list[Any]:
    """The whole numbers of a call, and its rows of them."""
    values = (node.args, node.kwargs)
    rows = [v for v in pytree.tree_leaves(values, is_leaf=_row) if _row(v)]
    return [v for v in pytree.tree_leaves(values) if type(v) is int] + rows


def attempts(made: nn.Module, sizes: dict[str, Sizes]) -> Iterator[list[Change]]:
    """Ways to let the numbers of the modules follow: all that are certain, and the others one way and the other."""
    certain: list[Change] = []
    open_: dict[tuple[type, str, Any], list[tuple[Any, list[Any]]]] = {}
    for holder, scope in _holders(made, sizes):
        for name, value in list(vars(holder).items()):
            if name in UNSEEN or name.startswith("_"):
                continue
            options, sure = _options(value, scope)
            if sure:
                certain.append((holder, name, options[0]))
            elif options:
                open_.setdefault((type(holder), name, value if type(value) is int else str(value)), []).append(
                    (holder, options)
                )
    yield certain
    groups = list(open_.items())
    for choice in itertools.islice(_ways(len(groups)), TRIALS):
        yield certain + [
            (h, key[1], o[min(i, len(o)) - 1])
            for i, (key, several) in zip(choice, groups, strict=True)
            if i
            for h, o in several
        ]
    if certain:
        yield []


def _holders(made: nn.Module, sizes: dict[str, Sizes]) -> Iterator[tuple[Any, Sizes]]:
    """Who holds numbers that the code reads, each once: the modules that are no layers, and their configurations."""
    seen: set[int] = set()
    for path, module in made.named_modules():
        scope = sizes.get(path)
        if scope is None or type(module).__module__.startswith("torch.nn."):
            continue
        for holder in (module, getattr(module, "config", None)):
            if holder is not None and hasattr(holder, "__dict__") and id(holder) not in seen:
                seen.add(id(holder))
                yield holder, scope if holder is module else sizes.get("", scope)


def _options(value: Any, scope: Sizes) -> tuple[list[Any], bool]:
    """What a number or a row may become, and whether that is certain."""
    if type(value) is int:
        options = sorted(scope.changed.get(value, ()))
        return options, len(options) == 1 and value not in scope.kept
    if not _row(value):
        return [], False
    row = value
    rows = sorted(scope.rows.get(tuple(row), ()))
    if not rows and any(v in scope.changed for v in row):
        each = [sorted(scope.changed.get(v, {v})) for v in row]
        rows = [tuple(e[0] for e in each)] if all(len(e) == 1 for e in each) else []
        return [type(row)(r) for r in rows], False  # pyright: ignore[reportCallIssue]
    return [type(row)(r) for r in rows], len(rows) == 1  # pyright: ignore[reportCallIssue]


def _ways(groups: int) -> Iterator[tuple[int, ...]]:
    """Which groups follow, and to which of two values: all of them first, then one alone, then all but one, then any."""
    if not groups:
        return
    every: Iterable[tuple[int, ...]] = itertools.chain(
        [(1,) * groups],
        (tuple(int(i == j) for j in range(groups)) for i in range(groups)),
        (tuple(int(i != j) for j in range(groups)) for i in range(groups)),
        itertools.product((0, 1, 2), repeat=groups),
    )
    seen: set[tuple[int, ...]] = {(0,) * groups}
    for way in every:
        if way not in seen:
            seen.add(way)
            yield way
