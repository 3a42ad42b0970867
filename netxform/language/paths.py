"""Paths of modules: globs, what lies below a module, and the names of tensors and operations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch.fx import Node

    from netxform.graph.network import Network


def ancestors(path: str) -> Iterable[str]:
    """The paths of the modules around `path`, the root ("") last; none for the root."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def under(network: Network, paths: Iterable[str]) -> tuple[str, ...]:
    """The given modules and everything below them, in the order of the network."""
    roots = set(paths)
    return tuple(p for p in all_paths(network) if p in roots or any(a in roots for a in ancestors(p) if a or "" in roots))


def all_paths(network: Network) -> tuple[str, ...]:
    """Every module path, the root ("") first."""
    return tuple(name for name, _ in network.module.named_modules(remove_duplicate=False))


def tensors_of(network: Network, modules: Iterable[str]) -> tuple[str, ...]:
    """The names of the parameters and buffers that hang directly on the given modules; tied tensors under each name."""
    from netxform.graph.tensors import held

    chosen = set(modules)
    return tuple(n for n in held(network.module) if n.rpartition(".")[0] in chosen)


@lru_cache(maxsize=1024)
def glob(pattern: str) -> re.Pattern[str]:
    """A path glob as a regular expression: `*` stays in a segment, `**` crosses dots, `{1..3}` and `{a,b}` choose.

    Raises ValueError for more than 10,000 choices, or more than 16 stars.
    """
    if len(re.findall(r"\*+", pattern)) > _MOST_STARS:
        raise ValueError(f"more than {_MOST_STARS} stars")
    text = pattern.removeprefix(".")
    out: list[str] = []
    i = count = 0
    while i < len(text):
        if text.startswith("**", i):
            out.append(r".*")
            i += 2
        elif text[i] == "*":
            out.append(r"[^.]*")
            i += 1
        elif text[i] == "{" and "}" in text[i:]:
            end = text.index("}", i)
            choices = _choices(text[i + 1 : end], _MOST_CHOICES - count)
            count += len(choices)
            out.append(f"(?:{'|'.join(choices)})")
            i = end + 1
        else:
            out.append(re.escape(text[i]))
            i += 1
    return re.compile("".join(out))


_MOST_CHOICES = 10_000
_MOST_STARS = 16


def _choices(inside: str, most: int) -> list[str]:
    options: list[str] = []
    for part in inside.split(","):
        low, dots, high = part.strip().partition("..")
        if dots and re.fullmatch("[0-9]+", low) and re.fullmatch("[0-9]+", high):
            if max(len(low), len(high)) > 18 or len(options) + int(high) - int(low) >= most:
                raise ValueError(f"more than {_MOST_CHOICES:,} choices")
            options += [str(n) for n in range(int(low), int(high) + 1)]
        else:
            options.append(re.escape(part.strip()))
    if len(options) > most:
        raise ValueError(f"more than {_MOST_CHOICES:,} choices")
    return options


def op_name(node: Node) -> str:
    """The short name of a functional node: `relu`, `add`, `flatten`."""
    target: Any = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return cast(str, name).strip("_")
