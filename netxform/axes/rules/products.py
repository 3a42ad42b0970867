"""Sums over a dimension that two tensors share: linear layers, matrix products, einsum."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from netxform.axes.algebra import ONE, unify
from netxform.axes.rules.context import Context, Shape, Typed, Uncovered, broadcast, need
from netxform.axes.rules.registry import layer, rule


@rule("linear")
def _linear(t: Context, x: Typed, weight: Typed, bias: Typed | None = None) -> Typed:
    """Y = x W^T + b contracts the last dimension of x with the columns of W; rows are the outputs."""
    t.touch(weight)
    t.touch(x)
    t.contract(x, len(x.shape) - 1, weight, len(weight.shape) - 1)
    rows = weight.dims[0] if len(weight.shape) == 2 else None
    if bias is not None and rows is not None:
        t.touch(bias)
        if bias.shape == weight.shape[:1]:
            unify(rows, bias.dims[0], t.at)
    return Typed([*x.dims[:-1], *([rows] if rows is not None else [])], t.shape, x.dtype)


@rule("matmul mm bmm rmatmul dot mv")
def _matmul(t: Context, x: Typed, y: Typed) -> Typed:
    """The last dimension of x is contracted with the last but one of y; the others are batches."""
    t.touch(x)
    t.touch(y)
    t.contract(x, len(x.shape) - 1, y, max(len(y.shape) - 2, 0))
    ends = [x.dims[-2]] if len(x.shape) > 1 else []
    ends += [y.dims[-1]] if len(y.shape) > 1 else []
    batch = cast("Shape", t.shape[: len(t.shape) - len(ends)])
    a, b = (Typed(v.dims[:-2], v.shape[:-2]) for v in (x, y))
    return Typed([*broadcast(t, [a, b], batch).dims, *ends], t.shape, x.dtype)


@rule("addmm baddbmm")
def _addmm(t: Context, bias: Typed, x: Typed, y: Typed, **kwargs: Any) -> Typed:
    """A matrix product with something added."""
    made = _matmul(t, x, y)
    return broadcast(t, [made, bias], t.shape)


@rule("outer ger")
def _outer(t: Context, x: Typed, y: Typed) -> Typed:
    """All products of the elements of two vectors."""
    t.touch(x)
    t.touch(y)
    return Typed([x.dims[0], y.dims[0]], t.shape, x.dtype)


@rule("einsum")
def _einsum(t: Context, equation: str, *operands: Any) -> Typed:
    """A letter is one axis; letters that the result lacks are summed over."""
    if not isinstance(equation, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Uncovered("an equation that is no text")
    given = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else list(operands)
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if "." in equation or len(terms) != len(given) or not all(isinstance(x, Typed) for x in given):
        raise Uncovered("an equation with dots, or without a term for every operand")
    letters = [c for term in terms for c in term]
    if not arrow:
        right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    where: dict[str, tuple[Typed, int]] = {}
    for term, operand in zip(terms, given, strict=True):
        t.touch(operand)
        for i, letter in enumerate(term):
            if operand.shape[i] == 1:
                continue
            if letter in where and letter not in right:
                t.contract(*where[letter], operand, i)
            elif letter in where:
                unify(where[letter][0].dims[where[letter][1]], operand.dims[i], t.at)
            where.setdefault(letter, (operand, i))
    for letter, (operand, i) in where.items():
        if letter not in right and letters.count(letter) == 1:
            t.mix(operand.dims[i], "sum")
        elif letter not in right and letters.count(letter) > 2:
            t.mix(operand.dims[i], "product")
    return Typed([where[c][0].dims[where[c][1]] if c in where else ONE for c in right], t.shape, given[0].dtype)


@rule("bilinear")
def _bilinear(t: Context, x: Typed, y: Typed, weight: Typed, bias: Typed | None = None) -> Typed:
    """Y_o = x^T W_o y + b_o."""
    for value in (x, y, weight):
        t.touch(value)
    t.contract(x, len(x.shape) - 1, weight, 1)
    t.contract(y, len(y.shape) - 1, weight, 2)
    if bias is not None:
        t.touch(bias)
        unify(weight.dims[0], bias.dims[0], t.at)
    lead = broadcast(t, [Typed(x.dims[:-1], x.shape[:-1]), Typed(y.dims[:-1], y.shape[:-1])], t.shape[:-1])
    return Typed([*lead.dims, weight.dims[0]], t.shape, x.dtype)


@layer("Linear NonDynamicallyQuantizableLinear")
def _linear_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    weight = need(t, "weight")
    made = _linear(t, input, weight, t.tensor("bias"))
    t.attribute("in_features", weight.dims[1])
    t.attribute("out_features", weight.dims[0])
    return made


@layer("Bilinear")
def _bilinear_layer(t: Context, module: nn.Module, x: Typed, y: Typed) -> Typed:
    weight = need(t, "weight")
    made = _bilinear(t, x, y, weight, t.tensor("bias"))
    for name, i in (("out_features", 0), ("in1_features", 1), ("in2_features", 2)):
        t.attribute(name, weight.dims[i])
    return made
