"""The names under which the rules know operations."""

from __future__ import annotations

from typing import Any

from torch import fx

_OPERATORS = {
    name: name.strip("_")[1:]
    for name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor", "imatmul")
} | {"mod": "remainder", "not_": "logical_not"}


def op_name(node: fx.Node) -> str:
    """The name under which the rules know a functional node."""
    target: Any = node.target
    if isinstance(target, str):
        return normal_name(target)
    if hasattr(target, "_schema"):
        return normal_name(target._schema.name.split("::")[1])
    name = getattr(target, "__name__", str(target))
    if getattr(target, "__module__", "") == "_operator":
        return _OPERATORS.get(name, name.rstrip("_"))
    return normal_name(name)


def normal_name(name: str) -> str:
    """`relu_` is `relu`, `__add__` is `add`."""
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        return _OPERATORS.get(name, name)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name
