"""Quantities: a number with a unit, its dimension, and what may be compared with what."""

from __future__ import annotations

from dataclasses import dataclass

from netxform.errors import fail
from netxform.syntax import ast

_PREFIX = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"": 1, "k": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NAMES = {
    "epoch": "epochs",
    "epochs": "epochs",
    "step": "steps",
    "steps": "steps",
    "ms": "milliseconds",
    "bit": "bits",
    "bits": "bits",
}
UNITS = ("%", "x", "k", "M", "G", "T", "params", "macs", "flops", "B", "kB", "MB", "GB", "iB", "kiB", "MiB", "GiB", *_NAMES)


@dataclass(frozen=True, slots=True)
class Measure:
    """A value in the base unit of its dimension: a share (2 % is .02), a number, params, macs, flops, bytes, epochs …"""

    value: int | float
    dimension: str


def unit(text: str) -> tuple[int | float, str]:
    """The factor and dimension of a unit as written (`%`, `Mparams`, `MiB`, `epochs`). Raises NetxformError X0402."""
    if text == "%":
        return 0.01, "share"
    if text == "x":
        return 1, "factor"
    if text in _NAMES:
        return 1, _NAMES[text]
    for name, dimension, table in (
        ("params", "params", _PREFIX),
        ("flops", "flops", _PREFIX),
        ("macs", "macs", _PREFIX),
        ("iB", "bytes", _BINARY),
        ("B", "bytes", _PREFIX),
    ):
        if text.endswith(name) and text[: -len(name)] in table:
            return table[text[: -len(name)]], dimension
    if text in _PREFIX:
        return _PREFIX[text], "number"
    raise fail(
        "X0402", f"`{text}` is no unit", helps=("units: %, x, k/M/G/T, params, macs, flops, B, iB, epochs, steps, ms, bits",)
    )


def measure(node: ast.Quantity | ast.Number) -> Measure:
    """The quantity in base units; a plain number has the dimension `number`."""
    if isinstance(node, ast.Number):
        return Measure(node.value, "number")
    factor, dimension = unit(node.unit)
    value = node.value / 100 if dimension == "share" else node.value * factor
    return Measure(int(value) if isinstance(value, float) and factor != 1 and value.is_integer() else value, dimension)


def short(value: float) -> str:
    """A number as people write it: 138M, 15.5G, 650."""
    for unit_ in ("", "k", "M", "G", "T"):
        if abs(value) < 1000:
            return f"{value:.3g}{unit_}" if unit_ else f"{value:.0f}"
        value /= 1000
    return f"{value:.3g}P"
