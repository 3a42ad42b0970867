"""Things of a registry by name with settings of their own: `focal(gamma=2)`. No torch.

expression ─Chosen.read→ the name, and every setting in its type, defaults filled in
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, cast

from netxform.errors import closest, fail
from netxform.language.values import Own, choice, convert, number
from netxform.registry import Registry
from netxform.syntax import ast

REQUIRED: Any = object()
"""The default of a setting that must be given."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a thing that has a name: `number`, `whole` (a number), `switch`, or `weights` (`balanced`, a number or a list).

    `default` is None where nothing is said, or `REQUIRED`; numbers, and each of the weights, lie in [low, high].
    """

    kind: Literal["number", "whole", "switch", "weights"] = "number"
    default: Any = None
    low: float = -math.inf
    high: float = math.inf
    example: str = ""


@dataclass(frozen=True)
class Chosen(Own):
    """The type of a field that names a thing of a registry with its settings: `focal(gamma=2)`. All settings are there."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    registry: ClassVar[Registry[Any]]

    def __str__(self) -> str:
        known = {n: s.default for n, s in self.known(self.name).items()}
        given = [f"{n}={_shown(v)}" for n, v in self.settings.items() if v != known.get(n)]
        return f"{self.name}({', '.join(given)})" if given else self.name

    @classmethod
    def known(cls, name: str) -> dict[str, Setting]:
        """The settings that the thing of that name takes."""
        return dict(cls.registry.find(name).settings)

    @classmethod
    def read(cls, expression: ast.Expr) -> Self:
        """A name with its settings, each of the type that the thing states.

        Raises NetxformError X0401 (unknown name, wrong kind), X0404 (unknown setting), X0406 (out of range), X0408 (one is missing).
        """
        call = expression if isinstance(expression, ast.Call) else None
        name = call.name if call is not None else choice(expression, cls.registry.names())
        if name not in cls.registry:
            name = choice(ast.Path(name, span=expression.span), cls.registry.names())
        known = cls.known(name)
        settings = {n: s.default for n, s in known.items()}
        for argument in call.arguments if call is not None else ():
            if argument.key is None:
                helps = tuple(f"write `{name}({n}=…)`" for n in known)[:1]
                raise fail("X0401", f"settings of `{name}` are named", argument.value.span, "without a name", helps=helps)
            if argument.key not in known:
                helps = tuple(f"did you mean `{n}`?" for n in closest(argument.key, list(known)))
                helps = helps or (f"settings: {', '.join(known)}" if known else f"write `{name}`",)
                raise fail("X0404", f"`{name}` has no setting `{argument.key}`", argument.span, "unknown", helps=helps)
            settings[argument.key] = _set(argument.value, known[argument.key], argument.key)
        for key, value in settings.items():
            if value is REQUIRED:
                form = f"write `{name}({key}={known[key].example or '…'})`"
                raise fail("X0408", f"`{name}` needs `{key}`", expression.span, "incomplete", helps=(form,))
        return cls(name, settings)

    @classmethod
    def words(cls) -> str:
        """The names, each of which may have settings."""
        return "|".join(cls.registry.names())


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_shown(v) for v in cast('tuple[Any, ...]', value))}]"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _set(expression: ast.Expr, setting: Setting, key: str) -> Any:
    if setting.default is None and isinstance(expression, ast.Path) and expression.text == "none":
        return None
    if setting.kind == "switch":
        return convert(expression, bool)
    if setting.kind == "weights":
        if isinstance(expression, ast.Path) and expression.text == "balanced":
            return "balanced"
        several = isinstance(expression, ast.List)
        values = tuple(float(number(i)) for i in (expression.items if isinstance(expression, ast.List) else (expression,)))
        value: Any = values if several else values[0]
    else:
        value = convert(expression, int if setting.kind == "whole" else float)
        values = (value,)
    for one in values:
        if not setting.low <= one <= setting.high:
            top = "" if setting.high == math.inf else f" and at most {setting.high:g}"
            raise fail("X0406", f"`{key}` is at least {setting.low:g}{top}, not {one:g}", expression.span, key)
    return value
