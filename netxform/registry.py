"""Things by name: the package's own, and what installed packages offer by entry point. No torch.

A thing registers itself when its file is imported: `@SCORES.register("mine")`. The entry point `mine = "package.file"` in the
group `netxform.scores` says which file that is; it is imported when `mine` is first asked for, and once. What a name needs to
be known for (its fields) is data; what it does may be named by a text, `"package.file:function"`, that `called` looks up.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from netxform.errors import NOWHERE, NetxformError, Span, did_you_mean, fail

T = TypeVar("T")
Made = TypeVar("Made")


class Registry(Generic[T]):
    """Things of one kind by name.

    `group`: the group of entry points; `what`: the kind in words; `code`: of the error for an unknown name; `own`: the package
    whose files register netxform's own things, which go before others of the same name.
    """

    def __init__(self, group: str, what: str, code: str, own: str | None = None) -> None:
        self.group, self.what, self.code = group, what, code
        self._own = own
        self._things: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """Put the decorated thing under these names; a name that is there is replaced."""

        def add(thing: T) -> T:
            self._things |= dict.fromkeys(names, thing)
            return thing

        return add

    def find(self, name: str, span: Span = NOWHERE, label: str = "unknown") -> T:
        """The thing of that name. Raises NetxformError: `code` for an unknown one, X0833 for a package that fails."""
        self._import_own()
        if name not in self._things:
            point = points(self.group).get(name)
            if point is None:
                known = self.names()
                helps = did_you_mean(name, known) or (f"known: {', '.join(known)}",)
                raise fail(self.code, f"`{name}` is no {self.what}", span, label, helps=helps)
            load(point)
            if name not in self._things:
                raise _broken(point, f"it registers no {self.what} of that name")
        return self._things[name]

    def names(self) -> tuple[str, ...]:
        """Every name, the package's own first; imports nothing of other packages."""
        self._import_own()
        return tuple(dict.fromkeys((*self._things, *points(self.group))))

    def items(self) -> Iterator[tuple[str, T]]:
        """Every name and what it stands for; imports what was not asked for yet. Raises NetxformError X0833."""
        for name in self.names():
            yield name, self.find(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __delitem__(self, name: str) -> None:
        del self._things[name]

    def _import_own(self) -> None:
        if self._own is not None:
            package, self._own = self._own, None
            import_files(package)


def import_files(package: str) -> None:
    """Import every file of a package."""
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{found.name}")


def import_all(package: str, group: str) -> None:
    """Import every file of a package, and what installed packages offer under a group. Raises NetxformError X0833."""
    import_files(package)
    for point in points(group).values():
        load(point)


def called(function: Callable[..., Made] | str) -> Callable[..., Made]:
    """A function as it is, or the one that `"package.file:name"` names, imported now."""
    return pkgutil.resolve_name(function) if isinstance(function, str) else function


@lru_cache
def points(group: str) -> dict[str, EntryPoint]:
    """What installed packages offer under a group, by name."""
    return {p.name: p for p in entry_points(group=group)}


def load(point: EntryPoint) -> Any:
    """Import what an entry point names. Raises NetxformError X0833, which names the package."""
    try:
        return point.load()
    except NetxformError:
        raise
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0]
        raise _broken(point, f"{type(error).__name__}: {text}") from error


def _broken(point: EntryPoint, why: str) -> NetxformError:
    package = point.dist.name if point.dist is not None else point.value
    return fail(
        "X0833",
        f"`{point.name}` of the package `{package}` cannot be used: {why}",
        notes=(f"entry point of {point.group}: {point.value}",),
        helps=(f"mend it, or `pip uninstall {package}`",),
    )
