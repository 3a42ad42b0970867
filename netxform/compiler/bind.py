"""A statement as an instance of its verb's class: clauses go into the slots, each converted to the type of its field. No torch.

Command ─bind→ Bound
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from netxform import verbs as _verbs
from netxform.errors import Diagnostic, Findings, Label, NetxformError, Span, did_you_mean, during
from netxform.graph.layer_spec import Layer
from netxform.language.values import Layers, convert, describe, invocation
from netxform.language.verb import REGISTRY, Entry, Slot, Transform, slots_of
from netxform.syntax import ast
from netxform.syntax.format import format_node

_verbs.load()
_TRAIN = ("write `train …` in it",)
_LEAVE = ("leave it out; `netxform explain VERB` shows the form",)


@dataclass(frozen=True, slots=True)
class Bound:
    """A statement bound to its verb: `action` is an instance of the verb's class; `given` are the fields written."""

    entry: Entry
    action: Any
    given: frozenset[str]
    text: str
    span: Span
    stage: str | None = None
    settings: dict[str, object] = field(default_factory=dict[str, object], compare=False)

    @property
    def transform(self) -> Transform:
        """The action, typed as what every verb is."""
        return cast(Transform, self.action)


def bind(command: ast.Command, stage: str | None, findings: Findings) -> Bound | None:
    """The command as an instance of its verb's class; None, with findings, where it does not fit."""
    entry = REGISTRY.get(command.verb)
    place = command.verb_span if command.verb_span.line else command.span
    if entry is None:
        helps = did_you_mean(command.verb, REGISTRY) or (f"verbs: {', '.join(sorted(REGISTRY))}",)
        findings.add("X0110", f"unknown verb `{command.verb}`", place, "no verb of this name", helps=helps)
        return None
    if entry.setting and stage is None:
        findings.add(
            "X0109",
            f"`{command.verb}` speaks of the other statements of a stage",
            command.span,
            "outside a stage",
            helps=(f"write `stage NAME {{ … {command.verb} … }}`",),
        )
        return None
    before = len(findings.items)
    values = fill(entry.slots, entry.types, entry.required, command, f"`{command.verb}`", entry.signature(), findings)
    if len(findings.items) > before:
        return None
    with during(f"reading `{command.verb} …`", command.span):
        action = entry.cls(**values)
        validate = getattr(action, "validate", None)
        found = list(cast("Iterator[Diagnostic]", validate(command.span))) if validate is not None else []
    if found:
        findings.items += found
        return None
    return Bound(entry, action, frozenset(values), format_node(command), command.span, stage)


def fill(
    slots: dict[str, Slot],
    types: dict[str, object],
    required: frozenset[str],
    command: ast.Command,
    who: str,
    signature: str,
    findings: Findings,
) -> dict[str, object]:
    """The fields that the clauses of `command` give; findings for what does not fit."""
    values: dict[str, object] = {}
    places: dict[str, Span] = {}

    def give(name: str, expression: ast.Expr, span: Span) -> None:
        if name in places:
            findings.add(
                "X0407",
                f"{who}: `{name}` is given twice",
                span,
                "second time",
                secondary=(Label(places[name], "first"),),
                helps=("one statement, one place: write two statements",),
            )
            return
        places[name] = span
        try:
            values[name] = convert(expression, types[name])
        except NetxformError as error:
            findings.items += error.diagnostics

    by_kind = {k: [n for n, s in slots.items() if s.kind == k] for k in ("operand", "comparison", "factor", "layers")}
    for operand in command.operands:
        _operand(operand, by_kind, types, places, give, who, signature, findings)
    for clause in command.clauses:
        match clause:
            case ast.Preposition():
                names = [n for n, s in slots.items() if s.kind == "prep" and s.word == clause.word]
                if names:
                    give(names[0], clause.operand, clause.span)
                else:
                    known = [s.word for s in slots.values() if s.kind == "prep"]
                    _unknown(f"{who} takes no `{clause.word} …`", clause.word, known, clause.span, signature, findings)
            case ast.Option():
                if clause.key in slots and slots[clause.key].kind == "key":
                    give(clause.key, clause.value, clause.span)
                else:
                    known = [n for n, s in slots.items() if s.kind == "key"]
                    _unknown(f"{who} has no option `{clause.key}`", clause.key, known, clause.span, signature, findings)
            case ast.Factor():
                if by_kind["factor"]:
                    give(by_kind["factor"][0], ast.Number(clause.value, span=clause.span), clause.span)
                else:
                    findings.add("X0404", f"{who} takes no factor", clause.span, "not here", notes=(signature,), helps=_LEAVE)
    if command.block is not None:
        _fill_block(slots, types, command, values, who, signature, findings)
    for name in sorted(required - set(places) - set(values)):
        slot = slots[name]
        missing = f"`{slot.word}`" if slot.word else f"<{name}>"
        findings.add(
            "X0408",
            f"{who} needs {missing}: {describe(types[name])}",
            command.span,
            "incomplete",
            notes=(f"form: {signature}",),
            helps=(f"add {missing}",),
        )
    return values


def _operand(
    operand: ast.Expr,
    by_kind: dict[str, list[str]],
    types: dict[str, object],
    places: dict[str, Span],
    give: Any,
    who: str,
    signature: str,
    findings: Findings,
) -> None:
    if isinstance(operand, ast.Compare) and by_kind["comparison"]:
        give(by_kind["comparison"][0], operand, operand.span)
        return
    free = [n for n in by_kind["operand"] if n not in places]
    if isinstance(operand, ast.Compare):
        findings.add(
            "X0404",
            f"{who} takes no comparison",
            operand.span,
            "not here",
            notes=(f"form: {signature}",),
            helps=(f"write `{format_node(operand.left)}={format_node(operand.right)}` for an option",)
            if operand.op == "=="
            else _LEAVE,
        )
        return
    for name in free:
        try:
            convert(operand, types[name])
        except NetxformError:
            continue
        give(name, operand, operand.span)
        return
    if free:
        give(free[0], operand, operand.span)
        return
    what = "more than it can use" if by_kind["operand"] else "nothing after its name"
    findings.add(
        "X0404",
        f"{who} does not take `{format_node(operand)}` here",
        operand.span,
        what if by_kind["operand"] else "unexpected",
        notes=(f"form: {signature}",),
        helps=_LEAVE,
    )


def _unknown(message: str, word: str, known: list[str], span: Span, signature: str, findings: Findings) -> None:
    helps = did_you_mean(word, known) or ((f"known: {', '.join(known)}",) if known else _LEAVE)
    findings.add("X0404", message, span, "unknown here", notes=(f"form: {signature}",), helps=helps)


def _fill_block(
    slots: dict[str, Slot],
    types: dict[str, object],
    command: ast.Command,
    values: dict[str, object],
    who: str,
    signature: str,
    findings: Findings,
) -> None:
    assert command.block is not None
    layer_field = next((n for n, s in slots.items() if s.kind == "layers"), None)
    line_fields = {s.word: (n, s) for n, s in slots.items() if s.kind == "lines"}
    nested_fields = {s.word: n for n, s in slots.items() if s.kind == "nested"}
    if layer_field is None and not line_fields and not nested_fields:
        findings.add("X0404", f"{who} takes no block", command.span, "a block", notes=(f"form: {signature}",), helps=_LEAVE)
        return
    made: list[Layer] = []
    seen: dict[str, Span] = {}
    lines: dict[str, list[Any]] = {n: [] for n, _ in line_fields.values()}
    for inner in command.block:
        if isinstance(inner, ast.Binding) and layer_field is not None:
            if inner.name in seen:
                findings.add(
                    "X0303",
                    f"two layers are called `{inner.name}`",
                    inner.span,
                    "second",
                    secondary=(Label(seen[inner.name], "first"),),
                    helps=("give one of them another name",),
                )
            seen[inner.name] = inner.span
            try:
                made.append(Layer(inner.name, invocation(inner.value)))
            except NetxformError as error:
                findings.items += error.diagnostics
        elif isinstance(inner, ast.Command) and inner.verb in line_fields:
            name, slot = line_fields[inner.verb]
            assert slot.of is not None
            form = f"{inner.verb} …"
            got = fill(*slots_of(slot.of), inner, f"`{inner.verb}`", form, findings)
            try:
                lines[name].append(slot.of(**got))
            except TypeError:
                continue
        elif isinstance(inner, ast.Command) and inner.verb in nested_fields and inner.block is not None:
            if nested_fields[inner.verb] in values:
                helps = ("write one block",)
                findings.add("X0407", f"{who}: `{inner.verb}` is given twice", inner.span, "second time", helps=helps)
            values[nested_fields[inner.verb]] = _nested(inner, findings)
        else:
            expected = "`NAME = LAYER(…)`" if layer_field else ", ".join(f"`{w} …`" for w in (*line_fields, *nested_fields))
            findings.add(
                "X0404",
                f"the block of {who} takes {expected}",
                inner.span,
                "something else",
                notes=(f"form: {signature}",),
                helps=_LEAVE,
            )
    if layer_field is not None:
        if not made and not findings.items:
            findings.add(
                "X0408", f"the block of {who} is empty", command.span, "no layer", helps=("write `NAME = LAYER(…)` in it",)
            )
        values[layer_field] = Layers(tuple(made), command.span)
    for name, got in lines.items():
        if got:
            values[name] = tuple(got)


def _nested(holder: ast.Command, findings: Findings) -> tuple[Any, ...]:
    """The statements in the block of `recover { … }`, bound to their verbs."""
    made: list[Any] = []
    for inner in holder.block or ():
        if isinstance(inner, ast.Command):
            bound = bind(inner, None, findings)
            if bound is not None:
                made.append(bound.transform)
        else:
            findings.add(
                "X0404",
                f"the block of `{holder.verb}` takes statements",
                inner.span,
                "no statement",
                helps=("write `train …` in it",),
            )
    if holder.operands or holder.clauses:
        findings.add("X0404", f"`{holder.verb}` takes a block alone", holder.span, "more than a block", helps=_LEAVE)
    return tuple(made)
