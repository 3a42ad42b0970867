"""Selections evaluated against a network: which modules, tensors or functional nodes are meant.

A selection is strict: it, and every arm of a union, must match something unless it ends in `?`. A name that is both a
defined selection and a module is refused. Paths are anchored at the root; `*` never crosses a dot.
"""

# Long: one method a form of selection, all of one class.
from __future__ import annotations

import re
import re._parser as sre  # pyright: ignore[reportMissingImports]
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from netxform.errors import Label, NetxformError, Span, closest, did_you_mean, fail
from netxform.language.attributes import ABSENT, holds
from netxform.language.paths import all_paths, ancestors, glob, op_name, tensors_of, under
from netxform.language.values import number, unbound
from netxform.syntax import ast
from netxform.syntax.format import format_node

if TYPE_CHECKING:
    from torch import nn

    from netxform.graph.network import Network

_COUNT = ("`first(…)` and `last(…)` need no number",)
Named = Mapping[str, ast.Expr | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Removed:
    """A module that an earlier statement removed: by which text, and where."""

    by: str
    span: Span


@dataclass(frozen=True, slots=True)
class World:
    """What a selection is evaluated in: the network, the names that the spec defined, the modules that are gone."""

    network: Network
    names: Named = field(default_factory=dict[str, ast.Expr | tuple[str, ...]])
    removed: Mapping[str, Removed] = field(default_factory=dict[str, Removed])
    subject: str = "model"


@dataclass(frozen=True, slots=True)
class Selected:
    """What a selection means: module paths (with all below them), or tensor names, or names of functional nodes."""

    modules: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing matched."""
        return not (self.modules or self.tensors or self.ops)

    def tops(self) -> tuple[str, ...]:
        """The selected modules that lie in no other selected module."""
        chosen = set(self.modules)
        return tuple(m for m in self.modules if not any(a in chosen for a in ancestors(m)))


def select(expression: ast.Expr, world: World) -> Selected:
    """Evaluate a selection. Raises NetxformError X02xx (no match, ambiguous, unknown form), X0311 (removed before)."""
    return _Evaluation(world).strict(expression)


@dataclass(frozen=True, slots=True)
class _Evaluation:
    world: World
    found: dict[str, Selected] = field(default_factory=dict[str, Selected])

    @property
    def network(self) -> Network:
        return self.world.network

    def strict(self, expression: ast.Expr) -> Selected:
        found = self.of(expression)
        if found.empty and not isinstance(expression, ast.Maybe):
            raise self.nothing(expression)
        return found

    def of(self, expression: ast.Expr) -> Selected:
        match expression:
            case ast.Path():
                return self.path(expression)
            case ast.OfType():
                return self.of_type(expression)
            case ast.Tensors():
                return self.tensor(expression)
            case ast.Filter():
                return self.filter(expression)
            case ast.Maybe():
                try:
                    return self.of(expression.base)
                except NetxformError as error:
                    if error.diagnostics[0].code in ("X0203", "X0311"):
                        return Selected()
                    raise
            case ast.Regex():
                pattern = expressed(expression.pattern, expression.span)
                hits = [p for p in all_paths(self.network) if p and pattern.fullmatch(p)]
                return Selected(under(self.network, hits))
            case ast.Op():
                return self.op(expression)
            case ast.Call():
                return self.call(expression)
            case ast.Union():
                return self.join([self.strict(i) for i in expression.items], expression, _any)
            case ast.Intersection():
                return self.join([self.strict(i) for i in expression.items], expression, _all)
            case ast.Difference():
                return self.join([self.strict(expression.left), self.strict(expression.right)], expression, _minus)
            case ast.Number() if isinstance(expression.value, int) and expression.value >= 0:
                raise fail(
                    "X0203",
                    f"`{expression.value}` is a number, not a module",
                    expression.span,
                    "a number",
                    helps=(f"a path that begins with a digit is written with a leading dot: `.{expression.value}`",),
                )
            case ast.List():
                return self.join([self.strict(i) for i in expression.items], expression, _any)
            case ast.Var():
                raise unbound(expression)
            case _:
                raise fail(
                    "X0401",
                    f"`{format_node(expression)}` is not a selection",
                    expression.span,
                    "expected modules",
                    helps=("write a path such as `layer1.*`",),
                )

    def path(self, expression: ast.Path) -> Selected:
        text = expression.text
        plain_word = not any(c in text for c in "*{") and not text.startswith(".")
        exact = text.removeprefix(".")
        is_module = plain_word and exact in self.modules()
        if plain_word and not expression.quoted and text in self.world.names:
            named = self.world.names[text]
            if is_module and not (isinstance(named, tuple) and exact in named):
                raise fail(
                    "X0205",
                    f"`{text}` is both a selection of this spec and a module of the model",
                    expression.span,
                    "which one?",
                    helps=(f"write `.{text}` for the module",),
                )
            if isinstance(named, tuple):
                return Selected(tuple(p for p in all_paths(self.network) if p in set(named)))
            if text not in self.found:  # a selection may be named many times in others: it is evaluated once
                self.found[text] = self.strict(named)
            return self.found[text]
        if text == "**":
            return Selected(all_paths(self.network))
        if exact == self.world.subject and not is_module:
            return Selected(all_paths(self.network))
        prefix, dot, rest = text.partition(".")
        if dot and prefix == self.world.subject and prefix not in self.modules() and rest:
            return self.path(ast.Path("." + rest, span=expression.span))
        pattern = _glob(text, expression.span)
        hits = [p for p in all_paths(self.network) if p and pattern.fullmatch(p)]
        if not hits:
            raise self.nothing(expression)
        return Selected(under(self.network, hits))

    def modules(self) -> dict[str, nn.Module]:
        return dict(self.network.module.named_modules(remove_duplicate=False))

    def of_type(self, expression: ast.OfType) -> Selected:
        base = self.of(expression.base) if expression.base is not None else Selected(all_paths(self.network))
        modules = self.modules()
        hits = tuple(p for p in base.modules if expression.type in {c.__name__ for c in type(modules[p]).__mro__})
        if not hits:
            names = {c.__name__ for p in base.modules for c in type(modules[p]).__mro__} - {"object", "Module"}
            where = f"`{format_node(expression.base)}`" if expression.base is not None else "the model"
            raise fail(
                "X0203",
                f"selection matches nothing: no module of type `{expression.type}` in {where}",
                expression.span,
                "no such type here",
                notes=(f"types here: {_short(sorted({type(modules[p]).__name__ for p in base.modules}))}",),
                helps=(
                    *did_you_mean(expression.type, names),
                    f"write `{format_node(expression)}?` if an empty match is intended",
                ),
            )
        return Selected(hits)

    def tensor(self, expression: ast.Tensors) -> Selected:
        base = self.of(expression.base)
        names = tensors_of(self.network, base.modules)
        pattern = _glob(expression.name, expression.span)
        hits = tuple(n for n in names if pattern.fullmatch(n.rpartition(".")[2]))
        if not hits:
            known = sorted({n.rpartition(".")[2] for n in names})
            raise fail(
                "X0203",
                f"selection matches nothing: no tensor `{expression.name}` in `{format_node(expression.base)}`",
                expression.span,
                "no such tensor",
                notes=(f"tensors there: {_short(known)}",),
                helps=did_you_mean(expression.name, known),
            )
        return Selected(tensors=hits)

    def filter(self, expression: ast.Filter) -> Selected:
        base = self.of(expression.base)
        modules = self.modules()
        order = {p: i for i, p in enumerate(base.modules)}

        def value(name: str, path: str) -> Any:
            module = modules[path]
            match name:
                case "index":
                    return order[path]
                case "depth":
                    return path.count(".") + 1 if path else 0
                case "name":
                    return path.rpartition(".")[2]
                case "path":
                    return path
                case "type":
                    return type(module).__name__
                case "params":
                    from netxform.graph.network import numbers

                    return numbers(module)
                case "bytes":
                    return sum(p.numel() * p.element_size() for p in module.parameters())
                case _:
                    return getattr(module, name, ABSENT)

        def names_seen(condition: ast.Condition) -> Iterable[ast.Path]:
            match condition:
                case ast.And(items=items) | ast.Or(items=items):
                    for item in items:
                        yield from names_seen(item)
                case ast.Not():
                    yield from names_seen(condition.condition)
                case ast.Compare():
                    if isinstance(condition.left, ast.Path):
                        yield condition.left
                case ast.Member():
                    if isinstance(condition.item, ast.Path):
                        yield condition.item

        for name in names_seen(expression.condition):
            if all(value(name.text, p) is ABSENT for p in base.modules):
                known = {a for p in base.modules for a in vars(modules[p]) if not a.startswith("_")}
                known |= {"index", "depth", "name", "path", "type", "params", "bytes"}
                raise fail(
                    "X0207",
                    f"no module of `{format_node(expression.base)}` has an attribute `{name.text}`",
                    name.span,
                    "unknown attribute",
                    helps=did_you_mean(name.text, known),
                )
        hits = tuple(p for p in base.modules if holds(expression.condition, lambda n, p=p: value(n, p)))
        if not hits:
            raise fail(
                "X0203",
                f"selection matches nothing: none of {len(base.modules)} modules fulfils the condition",
                expression.span,
                "no match",
                helps=(f"write `{format_node(expression)}?` if an empty match is intended",),
            )
        return Selected(hits)

    def op(self, expression: ast.Op) -> Selected:
        hits: list[str] = []
        known: set[str] = set()
        for node in self.network.module.graph.nodes:
            if node.op in ("call_function", "call_method"):
                name = op_name(node)
                known.add(name)
                if name == expression.name:
                    hits.append(node.name)
        if not hits:
            raise fail(
                "X0203",
                f"selection matches nothing: the graph has no functional `{expression.name}`",
                expression.span,
                "no such operation",
                notes=(f"functional operations: {_short(sorted(known)) or 'none'}",),
                helps=did_you_mean(expression.name, known),
            )
        return Selected(ops=tuple(hits))

    def call(self, expression: ast.Call) -> Selected:
        from netxform.graph import dataflow

        functions: dict[str, int] = {
            "between": 2,
            "upstream": 1,
            "downstream": 1,
            "coupled": 1,
            "blocks": 1,
            "first": 1,
            "last": 1,
            "nth": 2,
            "top": 2,
        }
        if expression.name not in functions:
            raise fail(
                "X0208",
                f"`{expression.name}` is no function of selections",
                expression.span,
                "unknown function",
                helps=did_you_mean(expression.name, functions) or (f"known: {', '.join(functions)}",),
            )
        positional = [a.value for a in expression.arguments if a.key is None]
        keywords = {a.key: a.value for a in expression.arguments if a.key is not None}
        if len(positional) != functions[expression.name] or set(keywords) - ({"by"} if expression.name == "top" else set()):
            raise fail(
                "X0208",
                f"`{expression.name}` takes {functions[expression.name]} argument(s)",
                expression.span,
                f"{len(positional)} given",
                helps=("`netxform explain X0208` shows how each is called",),
            )
        inner = self.strict(positional[0])
        match expression.name:
            case "upstream" | "downstream":
                return Selected(dataflow.reach(self.network, inner.modules, expression.name))
            case "coupled" | "blocks":
                from netxform.axes import coupling

                if expression.name == "coupled":
                    return Selected(coupling.coupled(self.network, inner.tops()))
                return Selected(under(self.network, coupling.blocks(self.network, inner.modules)))
            case "between":
                other = self.strict(positional[1])
                ahead = set(dataflow.reach(self.network, inner.modules, "downstream"))
                back = set(dataflow.reach(self.network, other.modules, "upstream"))
                ends = set(inner.modules) | set(other.modules)
                return Selected(tuple(p for p in all_paths(self.network) if p in ahead and p in back and p not in ends))
            case "top":
                count = int(number(positional[1]))
                by = keywords.get("by", ast.Path("params"))
                return self.top(inner, count, by)
            case _:
                tops = dataflow.in_order(self.network, inner.tops())
                index = {"first": 0, "last": -1}.get(expression.name)
                if index is None:
                    index = int(number(positional[1]))
                if not -len(tops) <= index < len(tops):
                    raise fail(
                        "X0203",
                        f"there is no number {index} among {len(tops)}",
                        expression.span,
                        "counted from 0",
                        helps=_COUNT,
                    )
                return Selected(under(self.network, [tops[index]]))

    def top(self, inner: Selected, count: int, by: ast.Expr) -> Selected:
        modules = self.modules()
        if not isinstance(by, ast.Path) or by.text not in ("params", "bytes"):
            raise fail("X0208", "`top` ranks by `params` or `bytes`", by.span, "unknown measure", helps=("write `by=params`",))

        sized = by.text == "bytes"

        def weight(path: str) -> int:
            return sum(p.numel() * (p.element_size() if sized else 1) for p in modules[path].parameters())

        leaves = [p for p in inner.modules if not any(True for _ in modules[p].children())]
        chosen = sorted(leaves, key=weight, reverse=True)[:count]
        return Selected(under(self.network, chosen))

    def join(self, parts: list[Selected], expression: ast.Expr, keep: Callable[[Any, list[set[str]]], bool]) -> Selected:
        kinds = {"modules" if p.modules else "tensors" if p.tensors else "ops" for p in parts if not p.empty}
        if len(kinds) > 1:
            raise fail(
                "X0209",
                f"`{format_node(expression)}` mixes {' and '.join(sorted(kinds))}",
                expression.span,
                "modules and tensors are never confused",
                helps=("write `sel::*` for the tensors of modules",),
            )
        if not kinds:
            return Selected()
        kind = kinds.pop()
        sets = [set(cast("tuple[str, ...]", getattr(p, kind))) for p in parts]
        pool: tuple[str, ...]
        if kind == "modules":
            pool = all_paths(self.network)
        else:
            pool = tuple(dict.fromkeys(n for p in parts for n in cast("tuple[str, ...]", getattr(p, kind))))
        return Selected(**{kind: tuple(n for n in pool if keep(n, sets))})

    def nothing(self, expression: ast.Expr) -> NetxformError:
        shown = format_node(expression)
        if isinstance(expression, ast.Path):
            text = expression.text.removeprefix(".")
            gone = next((r for r in (text, *ancestors(text)) if r in self.world.removed), None)
            if gone is not None:
                removed = self.world.removed[gone]
                return fail(
                    "X0311",
                    f"`{shown}` was removed before this use",
                    expression.span,
                    "used here",
                    secondary=(Label(removed.span, f"removed `{gone}` here"),),
                    helps=("move this statement before that one",),
                )
            owner, _, last = text.rpartition(".")
            if text in tensors_of(self.network, [owner]):
                return fail(
                    "X0210",
                    f"`{shown}` is a tensor, and here stands a selection of modules",
                    expression.span,
                    "a tensor",
                    helps=(f"write `{owner or '**'}::{last}` for the tensor",),
                )
        known = [p for p in all_paths(self.network) if p]
        top = [p for p in known if "." not in p]
        word = expression.text if isinstance(expression, ast.Path) else shown
        near = closest(word, [*known, *self.world.names])
        return fail(
            "X0203",
            f"selection matches nothing in model `{self.world.subject}`",
            expression.span,
            f"no module `{word}`",
            notes=(f"model: {_short(top)} at the top level",),
            helps=(
                *(f"did you mean `{n}`?" for n in near),
                f"write `{shown}?` if an empty match is intended",
            ),
        )


def _glob(text: str, span: Span) -> re.Pattern[str]:
    try:
        return glob(text)
    except ValueError as error:
        helps = ("write `*` for any name, or a shorter range",)
        raise fail("X0406", f"`{text[:60]}`: {error}", span, "too many", helps=helps) from None


def expressed(text: str, span: Span) -> re.Pattern[str]:
    """A regular expression that is matched in bounded time.

    Raises NetxformError X0206 for what is none, and for a repeated group that repeats or chooses inside: such a one may take a
    time that is exponential in the length of a path.
    """
    helps = ("globs are simpler: `layer{1..4}.*`",)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if len(text) > _LONGEST:
                raise ValueError(f"more than {_LONGEST} characters")
            if _explodes(sre.parse(text)):
                raise ValueError("a repeated group repeats, or chooses, inside")
            return re.compile(text)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise fail(
            "X0206", f"not a regular expression that is used here: {error}", span, "cannot be used", helps=helps
        ) from None


_LONGEST = 1000
_FEW = 8


def _explodes(parsed: Any, repeated: bool = False) -> bool:
    """Whether a repeat (more than a few times) holds another repeat or a choice."""
    for op, value in parsed:
        name = str(op)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            many = value[1] > _FEW
            if (many and repeated) or _explodes(value[2], repeated or many):
                return True
        elif name == "BRANCH":
            if repeated or any(_explodes(b, repeated) for b in value[1]):
                return True
        elif name in ("SUBPATTERN", "ATOMIC_GROUP", "ASSERT", "ASSERT_NOT"):
            inner = value[-1] if name != "ATOMIC_GROUP" else value
            if _explodes(inner, repeated):
                return True
        elif name == "GROUPREF_EXISTS" and any(_explodes(b, repeated) for b in value[1:] if b is not None):
            return True
    return False


def _short(names: list[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" … ({len(names)} in all)" if len(names) > most else "")


def _any(name: str, sets: list[set[str]]) -> bool:
    return any(name in s for s in sets)


def _all(name: str, sets: list[set[str]]) -> bool:
    return all(name in s for s in sets)


def _minus(name: str, sets: list[set[str]]) -> bool:
    return name in sets[0] and (len(sets) < 2 or name not in sets[1])
