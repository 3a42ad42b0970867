"""The result of a model as the user's own classes: described as plain data while a graph works on tensors in dicts and tuples,
and written as an expression that makes it again.

A description is a nested list: `["tensor"]`, `["constant", value]`, `["tuple", [d, …]]`, `["list", [d, …]]`,
`["dict", [[key, d], …]]`, or `[kind, class, [[field, d], …]]` with the kinds `named` (NamedTuple), `data` (dataclass),
`mapping` (a dictionary that is built from keywords, as the ModelOutput of transformers), `torch` (torch.return_types).
A class goes by `module:name`.
"""

from __future__ import annotations

import collections
import dataclasses
import keyword
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

Description = list[Any]
TENSOR: Description = ["tensor"]


class Fields(OrderedDict):  # pyright: ignore[reportMissingTypeArgument]
    """A result whose entries are attributes too: `out.logits`, `out["logits"]`; `out[0]` is the first that is there."""

    def __init__(self, **fields):  # pyright: ignore
        super().__init__((k, v) for k, v in fields.items() if v is not None)
        self.__dict__.update(fields)

    def __getattr__(self, name):  # pyright: ignore
        if name.startswith("_"):
            raise AttributeError(name)
        return None

    def __getitem__(self, key):  # pyright: ignore
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self):  # pyright: ignore
        """The entries in their order."""
        return tuple(self.values())


def describe(result: Any) -> tuple[Description, dict[str, type], tuple[str, ...]]:
    """The description of a result, the classes it names, and notes on what of it is not kept."""
    classes: dict[str, type] = {}
    notes: list[str] = []
    return _Walk(classes, notes).walk(result, ""), classes, tuple(notes)


class _Walk:
    def __init__(self, classes: dict[str, type], notes: list[str]) -> None:
        self.classes, self.notes = classes, notes

    def walk(self, value: Any, where: str) -> Description:
        kind = type(value)
        if isinstance(value, Tensor):
            return TENSOR
        if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
            return ["constant", value]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._class("named", kind, zip(cast(Any, value)._fields, value, strict=True), where)
        if isinstance(value, tuple | list):
            items = [self.walk(v, f"{where}[{i}]") for i, v in enumerate(cast("list[Any]", value))]
            if kind.__module__ == "torch.return_types":
                self.classes[key_of(kind)] = kind
                return ["torch", key_of(kind), [[str(i), d] for i, d in enumerate(items)]]
            if kind not in (tuple, list, torch.Size):
                self._note(where, kind, "a tuple" if isinstance(value, tuple) else "a list")
            return ["list" if isinstance(value, list) else "tuple", items]
        if isinstance(value, dict):
            held = cast("dict[Any, Any]", value)
            if kind not in (dict, OrderedDict) and all(_name(k) for k in held) and _built(kind, held):
                return self._class("mapping", kind, held.items(), where)
            if kind not in (dict, OrderedDict):
                self._note(where, kind, "a dict")
            return ["dict", [[k, self.walk(v, f"{where}[{k!r}]")] for k, v in held.items()]]
        if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            items_ = [(f.name, getattr(value, f.name)) for f in fields]
            if all(f.init for f in fields) and _built(kind, dict(items_)):
                return self._class("data", kind, items_, where)
            self._note(where, kind, "a dict")
            return ["dict", [[k, self.walk(v, f"{where}.{k}")] for k, v in items_]]
        self._note(where, kind, "None")
        return ["constant", None]

    def _class(self, kind: str, cls: type, items: Any, where: str) -> Description:
        self.classes[key_of(cls)] = cls
        return [kind, key_of(cls), [[k, self.walk(v, f"{where}.{k}")] for k, v in items]]

    def _note(self, where: str, kind: type, instead: str) -> None:
        place = f"`result{where}`" if where else "the result"
        self.notes.append(f"{place} is a `{kind.__name__}` in the model, and {instead} in this network")


def _name(text: Any) -> bool:
    return isinstance(text, str) and text.isidentifier() and not keyword.iskeyword(text)


def _built(kind: type, held: Mapping[str, Any]) -> bool:
    """Whether the class makes an equal value from keywords."""
    try:
        made: Any = kind(**held)
        if isinstance(made, dict):
            return list(made) == list(held) and all(made[k] is held[k] for k in held)
        return all(getattr(made, k) is v for k, v in held.items())
    except Exception:
        return False


def key_of(cls: type) -> str:
    """The name under which a description speaks of a class."""
    return f"{cls.__module__}:{cls.__qualname__.rpartition('.')[2]}"


def agreed(first: Description, second: Description) -> Description | None:
    """What two results of other batch sizes have in common: constants that differ are None. None where they are otherwise."""
    if first[0] == second[0] == "constant":
        return first if first == second else ["constant", None]
    if first[0] != second[0] or len(first) != len(second):
        return None
    if first[0] in ("tensor", "constant"):
        return first
    head, ours, theirs = first[:-1], first[-1], second[-1]
    if head != second[:-1] or len(ours) != len(theirs):
        return None
    pairs = first[0] not in ("tuple", "list")
    items: list[Any] = []
    for a, b in zip(ours, theirs, strict=True):
        if pairs and a[0] != b[0]:
            return None
        both = agreed(a[1], b[1]) if pairs else agreed(a, b)
        if both is None:
            return None
        items.append([a[0], both] if pairs else both)
    return [*head, items]


def tensors(description: Description) -> int:
    """How many tensors the result holds."""
    if description[0] in ("tensor", "constant"):
        return int(description[0] == "tensor")
    pairs = description[0] not in ("tuple", "list")
    return sum(tensors(d[1] if pairs else d) for d in description[-1])


def usual(description: Description) -> bool:
    """Whether the result is what a graph gives anyway: tensors in dicts and tuples."""
    match description[0]:
        case "tensor":
            return True
        case "tuple":
            return bool(description[1]) and all(usual(d) for d in description[1])
        case "dict":
            return all(isinstance(k, str) and usual(d) for k, d in description[1])
        case _:
            return False


def expression(description: Description, names: Iterator[str], called: Callable[[str], str]) -> str:
    """Python that makes the result, of the tensors' `names` in order; `called` says what a class is called there.

    Raises ValueError for what is no description.
    """
    kind, rest = description[0], description[1:]
    match kind, rest:
        case "tensor", []:
            return next(names)
        case "constant", [None | bool() | int() | float() | str() as value]:
            return repr(value)
        case (("tuple" | "list"), [list() as items]):
            texts = [expression(d, names, called) for d in cast("list[Description]", items)]
            inner = ", ".join(texts) + ("," if kind == "tuple" and len(texts) == 1 else "")
            return f"({inner})" if kind == "tuple" else f"[{inner}]"
        case "dict", [list() as items]:
            rows: list[str] = []
            for key, inner in cast("list[tuple[Any, Description]]", items):
                if not isinstance(key, str | int | None):
                    raise ValueError(f"`{key}` is no key")
                rows.append(f"{key!r}: {expression(inner, names, called)}")
            return "{" + ", ".join(rows) + "}"
        case "torch", [str() as key, list() as items]:
            texts = [expression(d, names, called) for _, d in cast("list[tuple[str, Description]]", items)]
            name = key.partition(":")[2]
            if key.partition(":")[0] != "torch.return_types" or not name.isidentifier():
                raise ValueError(f"`{key}` is no class of torch")
            return f"torch.return_types.{name}(({', '.join(texts)},))"
        case (("named" | "data" | "mapping"), [str() as key, list() as items]):
            rows = []
            for field, inner in cast("list[tuple[str, Description]]", items):
                if not _name(field):
                    raise ValueError(f"`{field}` is no name of a field")
                rows.append(f"{field}={expression(inner, names, called)}")
            return f"{called(key)}({', '.join(rows)})"
        case _:
            raise ValueError(f"`{kind}` is no part of a result")


def parts_of(description: Description) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The classes of a description: kind and fields, inner ones first."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    if description[0] in ("tensor", "constant"):
        return found
    pairs = description[0] not in ("tuple", "list")
    for item in description[-1]:
        found |= parts_of(item[1] if pairs else item)
    if description[0] in ("named", "data", "mapping"):
        found.setdefault(str(description[1]), (str(description[0]), tuple(str(k) for k, _ in description[2])))
    return found


def class_for(key: str, kind: str, fields: tuple[str, ...]) -> type:
    """The class itself where it is loaded and is what is described, else an equal small one. Runs nothing of the user's.

    Raises ValueError where the description is damaged.
    """
    space, _, name = key.partition(":")
    if not (_name(name) and all(_name(f) for f in fields)):
        raise ValueError(f"`{key}` is no class of a result")
    if kind == "mapping" and space.startswith(("transformers.modeling_outputs", "transformers.models.")):
        try:
            import_module(space)
        except ImportError:
            pass
    found: Any = getattr(sys.modules.get(space), name, None)
    if isinstance(found, type) and _is(cast("type[Any]", found), kind, fields):
        return cast("type[Any]", found)
    match kind:
        case "named":
            return collections.namedtuple(name, fields)  # pyright: ignore
        case "data":
            return dataclasses.make_dataclass(name, fields)
        case _:
            return type(name, (Fields,), {"__doc__": Fields.__doc__})


def _is(cls: type[Any], kind: str, fields: tuple[str, ...]) -> bool:
    if kind == "named":
        return issubclass(cls, tuple) and getattr(cls, "_fields", None) == fields
    if not dataclasses.is_dataclass(cls) or issubclass(cls, dict) != (kind == "mapping"):
        return False
    names = tuple(f.name for f in dataclasses.fields(cls))
    return names == fields if kind == "data" else set(fields) <= set(names)


def source_of(key: str, kind: str, fields: tuple[str, ...], called: str) -> str:
    """The class as it stands in a file that needs torch alone; `Fields` and the imports it needs stand before."""
    space, _, name = key.partition(":")
    if kind == "named":
        rows = "\n".join(f"    {f}: Any" for f in fields) or "    pass"
        return f"\n\nclass {called}(NamedTuple):\n{rows}\n"
    if kind == "data":
        rows = "\n".join(f"    {f}: Any" for f in fields) or "    pass"
        return f"\n\n@dataclass\nclass {called}:\n{rows}\n"
    own = f'class {called}(Fields):\n    """See `Fields`."""\n'
    if space.split(".")[0] != "transformers":
        return f"\n\n{own}"
    inner = "\n".join(f"    {line}" if line else "" for line in own.split("\n"))
    return f"\ntry:\n    from {space} import {name} as {called}\nexcept ImportError:\n\n{inner}"
