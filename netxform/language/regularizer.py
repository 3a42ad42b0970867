"""Penalties as a spec writes them: a norm, of what, and its weight. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from netxform.errors import NOWHERE, Span, fail
from netxform.language.values import Own, Selection, convert, number, wrong
from netxform.syntax import ast


@dataclass(frozen=True, slots=True)
class Regularizer(Own):
    """`l1(activations(conv1 | conv2), 1e-4)`, `weight_decay(fc::weight, 1e-3)`: a norm, of what, and its weight."""

    kind: Literal["l1", "l2", "weight_decay"]
    of: Literal["parameters", "activations", "outputs"]
    target: Selection
    weight: float
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @classmethod
    def read(cls, expression: ast.Expr) -> Regularizer:
        """The penalty. Raises NetxformError X0401 (no penalty), X0406 (a weight that is not above 0)."""
        form = "a norm of values or parameters with its weight, such as `l1(activations(conv1 | conv2), 1e-4)`"
        if not isinstance(expression, ast.Call) or expression.name not in ("l1", "l2", "weight_decay"):
            raise wrong(expression, form)
        if len(expression.arguments) != 2 or expression.arguments[0].key is not None:
            raise wrong(expression, form)
        inner, weight = expression.arguments[0].value, expression.arguments[1]
        of: Literal["parameters", "activations", "outputs"] = "parameters"
        if isinstance(inner, ast.Call) and inner.name in ("activations", "outputs") and len(inner.arguments) == 1:
            of = "activations" if inner.name == "activations" else "outputs"
            inner = inner.arguments[0].value
        if weight.key not in (None, "weight") or (expression.name == "weight_decay" and of != "parameters"):
            raise wrong(expression, form)
        kind: Literal["l1", "l2", "weight_decay"] = (
            "l1" if expression.name == "l1" else "l2" if expression.name == "l2" else "weight_decay"
        )
        value = float(number(weight.value))
        if not value > 0:
            message, helps = f"the weight of a penalty is above 0, not {value:g}", ("write a small number, such as `1e-4`",)
            raise fail("X0406", message, weight.value.span, "penalises nothing", helps=helps)
        return cls(kind, of, convert(inner, Selection), value, expression.span)

    @classmethod
    def words(cls) -> str:
        """The type in words."""
        return "a penalty such as `l1(activations(conv1), 1e-4)`"
