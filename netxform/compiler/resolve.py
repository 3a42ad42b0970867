"""Statement by statement on the weightless twin: selections found, choices made, costs before and after.

Spec, Network ─resolve→ Planned: the Plan, and beside it the Resolver that can go on from any of its statements

Planning takes every statement once. Applying walks the same plan (`Walk`); only behind a choice that weights or data made
another than planned the statements are resolved again, on what that choice makes of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from netxform.compiler.bind import Bound
from netxform.compiler.budget import MOST_STATEMENTS
from netxform.compiler.check import EachItem, IfItem, Item, Spec, StageItem, items_of, put
from netxform.compiler.conditions import judge, names_in
from netxform.compiler.models import described
from netxform.compiler.plan import Check, Plan, PlanItem, Step
from netxform.compiler.scope import ResolveScope, State, Surroundings
from netxform.errors import Diagnostic, Findings, NetxformError, Span, during, fail
from netxform.graph.cost import cost
from netxform.graph.edits import Trainable
from netxform.graph.network import Network, twin
from netxform.graph.surgery import perform
from netxform.language.choice import Choice, Values
from netxform.language.selector import Removed, select
from netxform.language.verb import DataInfo, ModelInfo, Role
from netxform.language.work import Snapshot, Training
from netxform.limits import need
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.syntax.format import format_node

_OTHER = ("choose another name",)
_COSTS = ("ask for a cost: `if params < 1M { … }`",)
Rest: TypeAlias = tuple[tuple[Item, str | None], ...]
"""Statements that are still to be resolved, each with its stage."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """An item of the plan in its place: the state before and behind it, and what is left. `statement`: a Step's origin."""

    item: PlanItem
    before: State
    behind: State
    rest: Rest
    statement: Bound | None = None


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves statements, from any state on. It changes nothing: what it has made stays valid."""

    spec: Spec
    surroundings: Surroundings

    def onward(self, state: State, rest: Rest) -> Iterator[Resolved]:
        """The items from here to the end, each resolved when it is asked for. Raises NetxformError where one cannot be done."""
        base = self.surroundings.base
        try:
            while rest:
                (item, stage), rest = rest[0], rest[1:]
                match item:
                    case Bound():
                        _bounded(state.count, item.span)
                        with during(f"planning `{item.text}`", item.span, self.spec.sources):
                            found = self._resolved(item, state, rest)
                        state = found.behind
                        yield found
                    case StageItem():
                        rest = (*((i, item.name) for i in item.items), *rest)
                    case IfItem():
                        held, _ = judge(item.condition, state.current, base, {})
                        if held is None:
                            raise fail(
                                "X0315",
                                "an `if` is decided before training",
                                item.condition.span,
                                "needs a metric",
                                helps=_COSTS,
                            )
                        rest = (*((i, stage) for i in (item.then if held else item.otherwise)), *rest)
                    case EachItem():
                        made = self._each(item, state, stage)
                        _bounded(state.count + len(made), item.selection.span)
                        rest = (*((i, stage) for i in made), *rest)
                    case ast.Let():
                        if item.name in state.names:
                            raise fail("X0303", f"`{item.name}` is already a selection", item.span, "second time", helps=_OTHER)
                        select(item.value, state.world(self.surroundings.subject))
                        state = replace(state, names={**state.names, item.name: item.value})
                    case ast.Assert():
                        held, seen = judge(item.condition, state.current, base, {})
                        if state.estimated:
                            held, seen = None, f"{seen}, estimated" if seen else ""
                        text = format_node(item)
                        check = Check(state.count, item.condition, item.message, text, held, seen, item.span, stage)
                        before, state = state, replace(state, count=state.count + 1)
                        yield Resolved(check, before, state, rest)
        except NetxformError as error:
            raise NetxformError(error.diagnostics, self.spec.sources, error.exit_code) from None

    def made(self, item: Bound, state: State, choice: Choice[Values], rest: Rest) -> Resolved:
        """The step of a choice, and the twin as it is behind it."""
        action = item.transform
        edit = action.rewrite(state.network, choice)
        network = perform(state.network, replace(edit, tensors={}))
        after = state.current if all(isinstance(o, Trainable) for o in edit.operations) else cost(network)
        if after.bytes > state.current.bytes:
            need(after.bytes, "the network behind this statement", item.span)
        step = Step(
            index=state.count,
            text=item.text,
            verb=item.entry.word,
            contract=action.contract,
            transform=action,
            choice=choice,
            edit=edit,
            claims=action.law(choice),
            before=state.current,
            after=after,
            span=item.span,
            stage=item.stage,
            estimated=state.estimated or bool(choice.provisional),
            twin=network,
        )
        return Resolved(step, state, self._behind(item, step, network, state), rest, item)

    def _resolved(self, item: Bound, state: State, rest: Rest) -> Resolved:
        scope = ResolveScope(self.surroundings, state, item.span, self.spec.seed, state.count, item.settings)
        try:
            choice = item.transform.resolve(state.network, scope)
        except NetxformError as error:
            raise NetxformError([d if d.span.line else replace(d, span=item.span) for d in error.diagnostics]) from None
        return self.made(item, state, choice, rest)

    def _behind(self, item: Bound, step: Step, network: Network, state: State) -> State:
        """What later statements find. Selections that verbs defined shrink with the network."""
        choice = step.choice
        snapshots = state.snapshots
        if isinstance(choice.work, Snapshot):
            snapshots = {**snapshots, choice.work.name: self._snapshot(choice.work.name, item, network, state)}
        present = {n for n, _ in network.module.named_modules(remove_duplicate=False)}
        names = {
            name: tuple(p for p in value if p in present) if isinstance(value, tuple) else value
            for name, value in {**state.names, **choice.defines}.items()
        }
        removed = {**state.removed, **{path: Removed(item.text, item.span) for path in choice.removed}}
        untrained = _untrained(item, choice, present, state)
        return State(network, step.after, names, removed, snapshots, state.count + 1, step.estimated, untrained)

    def _snapshot(self, name: str, item: Bound, network: Network, state: State) -> ModelInfo:
        """The network as it is now, for later statements that speak of it as a model."""
        if name in state.snapshots or name in self.spec.models:
            raise fail("X0303", f"a model is already called `{name}`", item.span, "second time", helps=_OTHER)
        return described(name, network, item.span, "snapshot")

    def _each(self, item: EachItem, state: State, stage: str | None) -> list[Item]:
        """The body, bound to every module, one after the other."""
        paths = select(item.selection.expression, state.world(self.surroundings.subject)).tops()
        _bounded(state.count + len(paths) * len(item.body), item.selection.span)
        out: list[Item] = []
        for path in paths:
            findings = Findings()
            out += items_of(tuple(put(s, item.name, ast.Path(path, quoted=True)) for s in item.body), stage, findings)
            findings.raise_if_any()
        return out


def _bounded(count: int, span: Span) -> None:
    """Raises NetxformError X0107 at the statement that is one too many."""
    if count > MOST_STATEMENTS:
        message, helps = f"the plan becomes more than {MOST_STATEMENTS:,} statements", ("select more modules in one statement",)
        raise fail("X0107", message, span, "too much from here on", helps=helps)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what is needed to go on from any place in it. `places` are the plan's items, in order."""

    plan: Plan
    resolver: Resolver
    places: tuple[Resolved, ...]

    def walk(self) -> Walk:
        """The items in order, from the first."""
        return Walk(self.resolver, self.places)


class Walk(Iterator[PlanItem]):
    """The items of a plan in order, as they were planned; `settle` makes the last one given final."""

    def __init__(self, resolver: Resolver, places: tuple[Resolved, ...]) -> None:
        self._resolver = resolver
        self._ahead = iter(places)
        self._here: Resolved | None = None

    def __next__(self) -> PlanItem:
        """The next item. Raises StopIteration, and NetxformError where one that is resolved again cannot be done."""
        self._here = next(self._ahead)
        return self._here.item

    def settle(self, choice: Choice[Values]) -> Step:
        """The step just given, made from its final choice; where that is another than planned, the rest is resolved again."""
        here = self._here
        assert here is not None and here.statement is not None and isinstance(here.item, Step)
        made = self._resolver.made(here.statement, here.before, choice, here.rest)
        if choice != here.item.choice:
            self._ahead = self._resolver.onward(made.behind, made.rest)
        assert isinstance(made.item, Step)
        return made.item


def _asked(spec: Spec) -> tuple[str, ...]:
    """The metrics that asserts and comparisons speak of."""
    found: list[str] = []
    for item in spec.walk():
        if isinstance(item, ast.Assert):
            found += names_in(item.condition)
        elif isinstance(item, Bound) and isinstance(metric := getattr(item.action, "metric", None), str):
            found.append(metric)
    return tuple(dict.fromkeys(found))


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
    carried: bool = True,
) -> Planned:
    """The plan of `spec` on `network`. Raises NetxformError at the first statement that cannot be done, or with every `assert`
    that does not hold.

    `models` tells of further models by name; `sources` gives them on their own inputs, for weights to be taken from. `carried`:
    the network comes with something learnt.
    """
    shadow = twin(network)
    base = cost(shadow)
    resolver = Resolver(spec, Surroundings(subject, base, data, models, sources, trust or Trust(), _asked(spec)))
    places = tuple(
        resolver.onward(State(shadow, base, untrained=() if carried else ("",)), tuple((i, None) for i in spec.items))
    )
    items = tuple(p.item for p in places)
    failed = [i for i in items if isinstance(i, Check) and i.held is False]
    if failed:
        raise NetxformError([_fell_short(c) for c in failed], spec.sources, exit_code=3)
    return Planned(
        Plan(spec, description or subject, network.front_end, items, base, (*warnings, *map(str, network.lost)), network.notes),
        resolver,
        places,
    )


def _untrained(item: Bound, choice: Choice[Values], present: set[str], state: State) -> tuple[str, ...]:
    """What is drawn at random and trained by nothing: what was put on the network, until a training reaches it; all of a
    network that came without weights, until most of its tensors are trained or weights are carried over.
    """
    known = list(state.untrained)
    if item.entry.role is Role.BUILDS and choice.work is None:
        known += [t for t in choice.targets if t in present]
    if item.entry.role is Role.CARRIES:
        known = [n for n in known if n]
    work = choice.work
    if isinstance(work, Training):
        most = 2 * len(work.parameters) > len(list(state.network.module.parameters()))
        known = [n for n in known if not (most if not n else any(p.startswith(f"{n}.") for p in work.parameters))]
    return tuple(n for n in known if not n or n in present)


def _fell_short(check: Check) -> Diagnostic:
    return Diagnostic(
        "X0601",
        check.message or "an assert does not hold",
        check.span,
        check.seen,
        helps=("change the statements before it, or the bound",),
    )
