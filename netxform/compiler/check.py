"""The text alone: every statement is bound to its verb and typed; every error is found at once. No torch.

Program (expanded) ─check→ Spec
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from netxform.compiler.bind import Bound, bind
from netxform.compiler.expand import ParamValue, expand, rebuild
from netxform.errors import Findings, Label, NetxformError, Span, did_you_mean
from netxform.language.methods import asserted_metrics
from netxform.language.values import Selection, convert
from netxform.sources.data import check_data_source
from netxform.sources.files import read_text
from netxform.sources.models import check_model_source
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.syntax.parse import parse
from netxform.syntax.quantity import measure
from netxform.syntax.scan import Places

MOST_SEED = 2**63 - 1
_SEED = ("write `param seed = 0`",)
COSTS = ("params", "macs", "flops", "bytes")


@dataclass(frozen=True, slots=True)
class EachItem:
    """`each NAME in SELECTION { … }`: the body is bound again for every module."""

    name: str
    selection: Selection
    body: tuple[ast.Statement, ...]
    stage: str | None


@dataclass(frozen=True, slots=True)
class IfItem:
    """An `if` that only the network decides."""

    condition: ast.Condition
    then: tuple[Item, ...]
    otherwise: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class StageItem:
    """A named, resumable group."""

    name: str
    items: tuple[Item, ...]
    span: Span


Item: TypeAlias = Bound | EachItem | IfItem | StageItem | ast.Let | ast.Assert


@dataclass(frozen=True, slots=True)
class Spec:
    """A checked spec: declarations by name, then what shall happen, in order."""

    program: ast.Program
    models: dict[str, ast.Model]
    data: dict[str, ast.Data]
    items: tuple[Item, ...]
    params: dict[str, ParamValue]
    sources: dict[str, str]
    seed: int = 0

    def walk(self) -> Iterator[Item]:
        """Every item, those of stages and branches too."""
        yield from _walk(self.items)


def _walk(items: tuple[Item, ...]) -> Iterator[Item]:
    for item in items:
        yield item
        if isinstance(item, StageItem):
            yield from _walk(item.items)
        elif isinstance(item, IfItem):
            yield from _walk(item.then)
            yield from _walk(item.otherwise)


def check_source(source: Any, params: dict[str, Any], trust: Trust, seed: int | None = None) -> Spec:
    """Parse, expand and check: a text, a Program, a builder, or the path of a file. No torch.

    Raises NetxformError with every finding of the phase that stopped (X01xx … X04xx), X0807 for a file that cannot be read.
    """
    if isinstance(source, Spec):
        return source
    if isinstance(source, Path):
        source = parse(read_text(source), str(source))
    program = parse(source) if isinstance(source, str) else source if isinstance(source, ast.Program) else source.tree()
    grown = expand(program, params, trust)
    return check(grown.program, grown.params, grown.sources, seed)


def check(program: ast.Program, params: dict[str, ParamValue], sources: dict[str, str], seed: int | None = None) -> Spec:
    """Bind and type every statement. Raises NetxformError with all findings."""
    findings = Findings()
    if program.edition not in (None, 1):
        findings.add(
            "X0108",
            f"edition {program.edition} of the language is not known",
            Places(program.source, program.file).span(0, len(program.source.split("\n")[0])),
            "unknown edition",
            helps=("this version reads `xform 1`",),
        )
    models: dict[str, ast.Model] = {}
    data: dict[str, ast.Data] = {}
    lets: dict[str, ast.Let] = {}
    rest: list[ast.Statement] = []
    for statement in program.statements:
        match statement:
            case ast.Model():
                _declare(models, statement, "model", findings)
                findings.items += check_model_source(statement)
            case ast.Data():
                _declare(data, statement, "data set", findings)
                findings.items += check_data_source(statement)
            case ast.Let():
                _declare(lets, statement, "selection", findings)
                rest.append(statement)
            case _:
                rest.append(statement)
    items = items_of(tuple(rest), None, findings)
    spec_seed = _seed(params, seed, findings)
    spec = Spec(program, models, data, items, params, sources, spec_seed)
    for item in spec.walk():
        if isinstance(item, Bound):
            _data_names(item, data, findings)
        elif isinstance(item, ast.Assert):
            check_condition(item.condition, models, findings)
    findings.items.sort(key=lambda d: d.span)
    findings.raise_if_any(sources)
    return spec


def _seed(params: dict[str, ParamValue], seed: int | None, findings: Findings) -> int:
    if seed is not None:
        if not 0 <= seed <= MOST_SEED:
            findings.add("X0406", f"a seed is a whole number from 0, not {seed}", helps=("write `--seed 0`",))
        return seed
    value = params.get("seed")
    if value is None:
        return 0
    try:
        found = cast(int, convert(value.value, int))
        if not 0 <= found <= MOST_SEED:
            place = value.span if value.origin == "-p" or not value.value.span.line else value.value.span
            findings.add("X0406", f"a seed is a whole number from 0, not {found}", place, "out of range", helps=_SEED)
            return 0
        return found
    except NetxformError as error:
        findings.items += error.diagnostics
        return 0


def _declare(known: dict[str, Any], statement: Any, what: str, findings: Findings) -> None:
    if statement.name in known:
        findings.add(
            "X0303",
            f"{what} `{statement.name}` is declared twice",
            statement.span,
            "second time",
            secondary=(Label(known[statement.name].span, "first"),),
            helps=("give one of them another name",),
        )
    known[statement.name] = statement


def items_of(statements: tuple[ast.Statement, ...], stage: str | None, findings: Findings) -> tuple[Item, ...]:
    """Statements bound to their verbs and typed; findings for what does not fit."""
    out: list[Item] = []
    for statement in statements:
        match statement:
            case ast.Command():
                bound = bind(statement, stage, findings)
                if bound is not None:
                    out.append(bound)
            case ast.Stage():
                if stage is not None:
                    helps = ("end the outer stage first",)
                    findings.add("X0109", "a stage inside a stage", statement.span, f"inside `{stage}`", helps=helps)
                    continue
                out.append(StageItem(statement.name, _settle(statement, findings), statement.span))
            case ast.If():
                out.append(
                    IfItem(
                        statement.condition,
                        items_of(statement.then, stage, findings),
                        items_of(statement.otherwise, stage, findings),
                    )
                )
            case ast.Each():
                trial = Findings()
                items_of(tuple(put(s, statement.name, ast.Path("it")) for s in statement.body), stage, trial)
                findings.items += trial.items
                selection = Selection(statement.selection, statement.selection.span)
                out.append(EachItem(statement.name, selection, statement.body, stage))
            case ast.Let() | ast.Assert():
                out.append(statement)
            case ast.Model() | ast.Data():
                findings.add(
                    "X0109",
                    "declarations stand at the top level",
                    statement.span,
                    "inside a block",
                    helps=("move it to the top level",),
                )
            case ast.Binding():
                findings.add(
                    "X0109",
                    "a layer stands only in a verb's block",
                    statement.span,
                    "not here",
                    helps=("write it in a block: `attach head { NAME = LAYER(…) }`",),
                )
            case ast.Param() | ast.Use() | ast.Def():
                raise AssertionError("expand leaves none of these")
    return tuple(out)


def put(statement: Any, name: str, value: ast.Expr) -> Any:
    """The statement with every mention of `name` replaced (the variable of `each`)."""

    def visit(node: Any) -> Any:
        if isinstance(node, ast.Path) and not node.quoted:
            if node.text == name:
                return replace(value, span=node.span)
            if node.text.startswith(name + ".") and isinstance(value, ast.Path):
                return replace(node, text=value.text + node.text[len(name) :])
        return node

    return rebuild(statement, visit)


def _settle(statement: ast.Stage, findings: Findings) -> tuple[Item, ...]:
    """The statements of a stage; its settings (`keep best by …`) are handed to the others."""
    items = items_of(statement.body, statement.name, findings)
    settings: dict[str, Any] = {}
    places: dict[str, Span] = {}
    for item in items:
        if isinstance(item, Bound) and item.entry.setting:
            if item.entry.word in settings:
                findings.add(
                    "X0303",
                    f"`{item.entry.word}` stands twice in stage `{statement.name}`",
                    item.span,
                    "second time",
                    secondary=(Label(places[item.entry.word], "first"),),
                    helps=("leave one of them",),
                )
            settings[item.entry.word] = item.action
            places[item.entry.word] = item.span
    return tuple(replace(i, settings=settings) if isinstance(i, Bound) else i for i in items)


def _data_names(bound: Bound, data: dict[str, ast.Data], findings: Findings) -> None:
    """`on NAME` must name a data set that the spec declares (data handed in from Python is checked by the plan)."""
    for name, slot in bound.entry.slots.items():
        if slot.kind == "prep" and slot.word in ("on", "over") and data:
            value = getattr(bound.action, name)
            if value is not None and value.text not in data:
                findings.add(
                    "X0302",
                    f"no data set is called `{value.text}`",
                    value.span,
                    "not declared",
                    helps=did_you_mean(value.text, data) or (f"declared: {', '.join(data)}",),
                )


def check_condition(condition: ast.Condition, models: dict[str, ast.Model], findings: Findings) -> None:
    """The names in an `assert` or a network-level `if` are costs, metrics or declared models."""
    match condition:
        case ast.And(items=items) | ast.Or(items=items):
            for item in items:
                check_condition(item, models, findings)
        case ast.Not():
            check_condition(condition.condition, models, findings)
        case ast.Member():
            _quantity_name(condition.item, findings)
        case ast.Compare():
            for side in (condition.left, condition.right):
                if isinstance(side, ast.Path):
                    _quantity_name(side, findings)
                if isinstance(side, ast.Relative) and side.of.text not in ("base", *models):
                    findings.add(
                        "X0302",
                        f"`{side.of.text}` is neither `base` nor a declared model",
                        side.of.span,
                        "relative to what?",
                        helps=did_you_mean(side.of.text, ("base", *models)),
                    )
            _same_dimension(condition, findings)


def _quantity_name(expression: ast.Expr, findings: Findings) -> None:
    metrics = asserted_metrics()
    if isinstance(expression, ast.Path) and expression.text not in (*COSTS, *metrics):
        findings.add(
            "X0204",
            f"`{expression.text}` is no cost and no metric",
            expression.span,
            "unknown quantity",
            helps=did_you_mean(expression.text, (*COSTS, *metrics))
            or (f"costs: {', '.join(COSTS)}; metrics: {', '.join(metrics)}",),
        )


def _same_dimension(condition: ast.Compare, findings: Findings) -> None:
    left, right = condition.left, condition.right
    if not isinstance(left, ast.Path) or left.text not in (*COSTS, *asserted_metrics()):
        return
    allowed = {
        "params": ("number", "params"),
        "macs": ("number", "macs"),
        "flops": ("number", "flops"),
        "bytes": ("number", "bytes"),
    }.get(left.text, ("number", "share"))
    if isinstance(right, ast.Quantity):
        found = measure(right).dimension
        if found not in allowed:
            findings.add(
                "X0402",
                f"`{left.text}` is compared with a quantity of {found}",
                condition.span,
                "different units",
                secondary=(Label(right.span, f"this is {found}"),),
                helps=(f"`{left.text}` is measured in {allowed[-1]}",),
            )
    elif isinstance(right, ast.String | ast.List):
        findings.add("X0402", f"`{left.text}` is a number", right.span, "not a number", helps=(f"write `{left.text} < 1M`",))
