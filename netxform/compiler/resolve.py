"""Statement by statement on the weightless twin: selections found, choices made, costs before and after.

Spec, Network ─resolve→ Plan

The statements are walked by a generator. Planning takes every step as it comes; applying sends back the final choice of a
step that needs weights or data, and the walk goes on from what that choice makes of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from netxform.compiler.check import COSTS, Bound, EachItem, IfItem, Item, Spec, StageItem, bind, put
from netxform.compiler.models import described
from netxform.compiler.plan import Check, Plan, Step, Walk
from netxform.errors import Diagnostic, Findings, NetxformError, Span, did_you_mean, fail
from netxform.graph.cost import Cost, cost
from netxform.graph.network import Network, entry_nodes, exit_nodes, twin
from netxform.graph.outputs import loose_end
from netxform.graph.surgery import perform
from netxform.language.choice import Choice, Values
from netxform.language.selector import (
    Removed,
    Selected,
    World,
    ancestors,
    select,
    tensors_of,
    under,
)
from netxform.language.values import Selection, compare, plain
from netxform.language.verb import DataInfo, ModelInfo
from netxform.language.work import Snapshot
from netxform.sources.trust import Trust, read_path
from netxform.syntax import ast
from netxform.syntax.format import format_node
from netxform.syntax.quantity import measure


@dataclass
class _State:
    """What has been settled so far; `network` is the twin after the statements already resolved."""

    spec: Spec
    network: Network
    data: Mapping[str, DataInfo]
    subject: str
    base: Cost
    costs: Callable[[Network], Cost]
    names: dict[str, ast.Expr | tuple[str, ...]] = field(default_factory=dict[str, "ast.Expr | tuple[str, ...]"])
    removed: dict[str, Removed] = field(default_factory=dict[str, Removed])
    current: Cost | None = None
    models: Callable[[str, Span], ModelInfo] | None = None
    snapshots: dict[str, ModelInfo] = field(default_factory=dict[str, ModelInfo])
    count: int = 0
    estimated: bool = False
    sources: Callable[[str, Span], Network] | None = None
    trust: Trust = field(default_factory=Trust)

    def world(self) -> World:
        return World(self.network, self.names, self.removed, self.subject)


@dataclass(frozen=True)
class ResolveScope:
    """What a verb may ask while it resolves (see `core.verb.Scope`)."""

    state: _State
    span: Span
    seed: int
    index: int
    settings: Mapping[str, Any]

    @property
    def base(self) -> Cost:
        """The cost of the subject as it came."""
        return self.state.base

    @property
    def current(self) -> Cost:
        """The cost of the network before this statement."""
        return self.state.current or self.state.base

    def _select(self, selection: Selection) -> Selected:
        return select(selection.expression, self.state.world())

    def modules(self, selection: Selection) -> tuple[str, ...]:
        """The selected modules, without what lies below them."""
        found = self._select(selection)
        if found.tensors or found.ops:
            kind = "tensors" if found.tensors else "operations"
            raise fail("X0209", f"`{selection}` selects {kind}, and here stand modules", selection.span, "not modules")
        return found.tops()

    def modules_of(self, selection: Selection) -> tuple[str, ...]:
        """The selected modules; those of selected tensors."""
        found = self._select(selection)
        owners = {t.rpartition(".")[0] for t in found.tensors}
        return found.modules or tuple(m for m in under(self.state.network, [""]) if m in owners)

    def tensors(self, selection: Selection) -> tuple[str, ...]:
        """All tensors of the selection."""
        found = self._select(selection)
        if found.ops:
            raise fail("X0209", f"`{selection}` selects operations, which have no tensors", selection.span, "no tensors")
        return found.tensors or tensors_of(self.state.network, found.modules)

    def point(self, selection: Selection, side: Literal["after", "before"]) -> str:
        """The node whose value lies after (before) the one selected module or operation."""
        found = self._select(selection)
        network = self.state.network
        if found.ops:
            places = list(found.ops)
            if len(places) == 1 and side == "before":
                node = next(n for n in network.module.graph.nodes if n.name == places[0])
                return node.all_input_nodes[0].name
        else:
            tops = self.modules(selection)
            if len(tops) != 1:
                raise fail(
                    "X0301",
                    f"`{selection}` selects {len(tops)} modules; one place is needed",
                    selection.span,
                    f"{', '.join(tops[:6])}{' …' if len(tops) > 6 else ''}",
                    helps=(f"name one of them, or write `last({selection})`",),
                )
            finder = exit_nodes if side == "after" else entry_nodes
            places = list(dict.fromkeys(n.name for n in finder(network, tops[0])))
            if not places:
                raise _no_value(tops[0], network, selection)
        if len(places) > 1:
            raise fail(
                "X0314",
                f"`{selection}` runs {len(places)} times; one place is needed",
                selection.span,
                "which time?",
                notes=(f"in the graph: {', '.join(places)}",),
                helps=("choose a module around it, or one behind it that runs once",),
            )
        return places[0]

    def data(self, name: str | None, span: Span) -> DataInfo:
        """The named data set, or the only one; with several, the one that all of them agree with is not guessed."""
        known = self.state.data
        if name is not None:
            if name not in known:
                raise fail("X0302", f"no data set is called `{name}`", span, "not declared", helps=did_you_mean(name, known))
            return known[name]
        if len(known) == 1:
            return next(iter(known.values()))
        if not known:
            raise fail(
                "X0302",
                "this statement needs data, and none is declared",
                span,
                "no data",
                helps=("declare some: `data d = sklearn.digits()`",),
            )
        raise fail(
            "X0302",
            f"{len(known)} data sets are declared",
            span,
            "which one?",
            helps=(f"write `on {next(reversed(list(known)))}`", f"declared: {', '.join(known)}"),
        )

    def model(self, name: str, span: Span) -> ModelInfo:
        """A snapshot of this network, or another model of the spec."""
        if name in self.state.snapshots:
            return self.state.snapshots[name]
        if self.state.models is None:
            raise fail("X0302", f"no model is called `{name}`", span, "not declared")
        return self.state.models(name, span)

    def weights(self, name: str, span: Span) -> Network:
        """A snapshot of this network, or another model on inputs of its own; without weights."""
        found = self.state.snapshots.get(name)
        if found is not None and found.network is not None:
            return found.network
        if self.state.sources is None:
            raise fail("X0302", f"no model is called `{name}`", span, "not declared")
        return twin(self.state.sources(name, span))

    def file(self, text: str, span: Span) -> Path:
        """The file that the spec names."""
        return read_path(text, self.state.trust, span)

    def closing(self) -> str | None:
        """The loose end of the last cut."""
        return loose_end(self.state.network.module)

    def cost(self, name: str) -> int | None:
        """The cost of the subject as it came."""
        return _cost(name, self.state.base)


def resolve(
    spec: Spec,
    network: Network,
    *,
    subject: str,
    data: Mapping[str, DataInfo],
    description: str = "",
    warnings: tuple[str, ...] = (),
    models: Callable[[str, Span], ModelInfo] | None = None,
    sources: Callable[[str, Span], Network] | None = None,
    trust: Trust | None = None,
) -> Plan:
    """The plan of `spec` on `network`. Raises NetxformError at the first statement that cannot be done.

    `models` tells of further models by name; `sources` gives them on their own inputs, for weights to be taken from.
    """
    shadow = twin(network)
    base = cost(shadow)

    def walk() -> Walk:
        state = _State(spec, shadow, data, subject, base, cost, current=base, models=models)
        state.sources, state.trust = sources, trust or Trust()
        try:
            yield from _items(spec.items, state, None)
        except NetxformError as error:
            raise NetxformError(error.diagnostics, spec.sources, error.exit_code) from None

    items = tuple(walk())
    failed = [i for i in items if isinstance(i, Check) and i.held is False]
    if failed:
        raise NetxformError([_fell_short(c) for c in failed], spec.sources, exit_code=3)
    return Plan(spec, description or subject, network.front_end, items, base, warnings, network.notes, walk)


def _items(items: tuple[Item, ...], state: _State, stage: str | None) -> Walk:
    for item in items:
        match item:
            case Bound():
                yield from _bound(item, state)
            case StageItem():
                yield from _items(item.items, state, item.name)
            case IfItem():
                held, _ = judge(item.condition, state.current or state.base, state.base, {})
                if held is None:
                    raise fail("X0315", "an `if` is decided before training", item.condition.span, "needs a metric")
                yield from _items(item.then if held else item.otherwise, state, stage)
            case EachItem():
                yield from _each(item, state, stage)
            case ast.Let():
                if item.name in state.names:
                    raise fail("X0303", f"`{item.name}` is already a selection", item.span, "second time")
                select(item.value, state.world())
                state.names[item.name] = item.value
            case ast.Assert():
                held, seen = judge(item.condition, state.current or state.base, state.base, {})
                if state.estimated:
                    held, seen = None, f"{seen}, estimated" if seen else ""
                yield Check(_next(state), item.condition, item.message, format_node(item), held, seen, item.span, stage)


def _next(state: _State) -> int:
    state.count += 1
    return state.count - 1


def _each(item: EachItem, state: _State, stage: str | None) -> Walk:
    found = select(item.selection.expression, state.world())
    for path in found.tops():
        findings = Findings()
        made = [put(s, item.name, ast.Path(path, quoted=True)) for s in item.body]
        bound = [bind(c, stage, findings) for c in made if isinstance(c, ast.Command)]
        findings.raise_if_any()
        yield from _items(tuple(b for b in bound if b is not None), state, stage)


def _bound(item: Bound, state: _State) -> Walk:
    index = _next(state)
    scope = ResolveScope(state, item.span, state.spec.seed, index, item.settings)
    action = item.transform
    try:
        choice = action.resolve(state.network, scope)
    except NetxformError as error:
        raise NetxformError([d if d.span.line else replace(d, span=item.span) for d in error.diagnostics]) from None
    found = _made(item, index, choice, state)
    settled = yield found[0]
    if settled is not None:
        choice = settled
        found = _made(item, index, choice, state)
        yield found[0]
    step, state.network = found
    if isinstance(choice.work, Snapshot):
        _remember(choice.work.name, item, state)
    state.current, state.estimated = step.after, step.estimated
    for path in choice.removed:
        state.removed[path] = Removed(item.text, item.span)
    for name, modules in choice.defines.items():
        state.names[name] = modules
    # selections that verbs defined shrink with the network
    present = {n for n, _ in state.network.module.named_modules(remove_duplicate=False)}
    for name, value in list(state.names.items()):
        if isinstance(value, tuple):
            state.names[name] = tuple(p for p in value if p in present)


def _remember(name: str, item: Bound, state: _State) -> None:
    """The network as it is now, for later statements that speak of it as a model."""
    if name in state.snapshots or name in state.spec.models:
        raise fail("X0303", f"a model is already called `{name}`", item.span, "second time")
    state.snapshots[name] = described(name, state.network, item.span, "snapshot")


def _made(item: Bound, index: int, choice: Choice[Values], state: _State) -> tuple[Step, Network]:
    """The step of a choice, and the twin as it is behind it."""
    action = item.transform
    edit = action.rewrite(state.network, choice)
    before = state.current or state.base
    network = perform(state.network, replace(edit, tensors={}))
    step = Step(
        index=index,
        text=item.text,
        verb=item.entry.word,
        contract=action.contract,
        transform=action,
        choice=choice,
        edit=edit,
        claims=action.law(choice),
        before=before,
        after=state.costs(network) if edit.operations else before,
        span=item.span,
        stage=item.stage,
        estimated=state.estimated or bool(choice.provisional),
        twin=network,
    )
    return step, network


def _no_value(path: str, network: Network, selection: Selection) -> NetxformError:
    runs = any(
        str(n.target).startswith(path + ".") or n.meta.get("scope", "").startswith(path) for n in network.module.graph.nodes
    )
    called = [n for n in network.module.graph.nodes if n.op == "call_module" and n.target == path]
    if len(called) > 1:
        return fail(
            "X0314",
            f"`{path}` runs {len(called)} times; one place is needed",
            selection.span,
            "which time?",
            helps=("choose a module around it, or one behind it that runs once",),
        )
    if called:  # a recurrent layer whose states alone are read
        read = dict.fromkeys(f"`{u.name}`" for n in called for u in n.users)
        return fail(
            "X0316",
            f"`{path}` returns several tensors, and the network does not read the first",
            selection.span,
            "no value here",
            notes=(f"read by {', '.join(read)}",),
            helps=("cut `before` the module that reads what you mean",),
        )
    inner = [p for p in ancestors(path)]
    why = "it does not return one tensor" if runs else "it never runs in eval mode"
    return fail(
        "X0316",
        f"`{path}` has no single output value: {why}",
        selection.span,
        "no value here",
        helps=(f"choose a module around it: `{inner[0]}`",) if inner and inner[0] else (),
    )


def _fell_short(check: Check) -> Diagnostic:
    return Diagnostic(
        "X0601",
        check.message or "an assert does not hold",
        check.span,
        check.seen,
        helps=("change the statements before it, or the bound",),
    )


def judge(condition: ast.Condition, now: Cost, base: Cost, metrics: Mapping[str, float]) -> tuple[bool | None, str]:
    """Whether the condition holds, and the values seen; None where it needs a metric that is not known yet."""
    match condition:
        case ast.And() | ast.Or():
            parts = [judge(c, now, base, metrics) for c in condition.items]
            seen = ", ".join(p[1] for p in parts if p[1])
            verdicts = [p[0] for p in parts]
            absorbing = isinstance(condition, ast.Or)
            if absorbing in verdicts:
                return absorbing, seen
            return (None if None in verdicts else not absorbing), seen
        case ast.Not():
            held, seen = judge(condition.condition, now, base, metrics)
            return (None if held is None else not held), seen
        case ast.Member():
            value = _value(condition.item, now, base, metrics)
            if value is None:
                return None, ""
            return value in [_value(i, now, base, metrics) for i in condition.items.items], f"is {value}"
        case ast.Compare():
            left = _value(condition.left, now, base, metrics)
            if isinstance(condition.right, ast.Relative):
                name = condition.left.text if isinstance(condition.left, ast.Path) else ""
                share = measure(condition.right.quantity).value
                whole = _cost(name, base)
                right: Any = None if whole is None else whole * share
            else:
                right = _value(condition.right, now, base, metrics)
            if left is None or right is None:
                return None, ""
            return compare(condition.op, left, right, condition.span), f"{format_node(condition.left)} is {_show(left)}"


def _value(expression: ast.Expr, now: Cost, base: Cost, metrics: Mapping[str, float]) -> Any:
    if isinstance(expression, ast.Path) and expression.text not in ("true", "false"):
        if expression.text in COSTS:
            return _cost(expression.text, now)
        alias = expression.text.replace("top1", "accuracy")
        return metrics.get(alias)
    return plain(expression)


def _cost(name: str, of: Cost) -> int | None:
    return {"params": of.params, "macs": of.macs, "flops": 2 * of.macs, "bytes": of.bytes}.get(name)


def _show(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
