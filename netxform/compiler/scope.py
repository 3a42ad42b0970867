"""What a verb may ask while it resolves: selections found on the twin as it is now, data, further models, costs.

Surroundings are the same for all statements of a spec; a State is what those before have made of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from netxform.compiler.conditions import cost_of
from netxform.errors import NetxformError, Span, did_you_mean, fail
from netxform.graph.cost import Cost
from netxform.graph.network import Network, entry_nodes, exit_nodes, twin
from netxform.graph.outputs import loose_end
from netxform.language.paths import ancestors, tensors_of, under
from netxform.language.selector import Removed, Selected, World, select
from netxform.language.values import Selection
from netxform.language.verb import DataInfo, ModelInfo
from netxform.sources.trust import Trust, read_path
from netxform.syntax import ast


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for every statement. `subject`: the model's name in the spec; `base`: its cost as it came.

    `models` tells of further models by name; `sources` gives them on their own inputs, for weights to be taken from. `asked`:
    metrics that an `assert` or a `compare` of the spec speaks of.
    """

    subject: str
    base: Cost
    data: Mapping[str, DataInfo]
    models: Callable[[str, Span], ModelInfo] | None = None
    sources: Callable[[str, Span], Network] | None = None
    trust: Trust = field(default_factory=Trust)
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """What has been settled so far. `network` is the twin after the statements already resolved, `current` its cost.

    `names`: selections that statements defined; `removed`: modules that are gone, and by which statement; `snapshots`: the
    network as it was, by name; `count`: statements so far; `estimated`: a choice so far is provisional. `untrained`: parts that
    were drawn at random and that nothing has trained, by name ("" for the network as it came).
    """

    network: Network
    current: Cost
    names: Mapping[str, ast.Expr | tuple[str, ...]] = field(default_factory=dict[str, "ast.Expr | tuple[str, ...]"])
    removed: Mapping[str, Removed] = field(default_factory=dict[str, Removed])
    snapshots: Mapping[str, ModelInfo] = field(default_factory=dict[str, ModelInfo])
    count: int = 0
    estimated: bool = False
    untrained: tuple[str, ...] = ()

    def world(self, subject: str) -> World:
        """Where selections are looked up."""
        return World(self.network, self.names, self.removed, subject)


@dataclass(frozen=True)
class ResolveScope:
    """What a verb may ask while it resolves (see `language.verb.Scope`)."""

    surroundings: Surroundings
    state: State
    span: Span
    seed: int
    index: int
    settings: Mapping[str, Any]

    @property
    def base(self) -> Cost:
        """The cost of the subject as it came."""
        return self.surroundings.base

    @property
    def current(self) -> Cost:
        """The cost of the network before this statement."""
        return self.state.current

    @property
    def asked(self) -> tuple[str, ...]:
        """Metrics that an `assert` or a `compare` of the spec speaks of."""
        return self.surroundings.asked

    @property
    def untrained(self) -> tuple[str, ...]:
        """Parts that were drawn at random and that nothing has trained."""
        return self.state.untrained

    def _select(self, selection: Selection) -> Selected:
        return select(selection.expression, self.state.world(self.surroundings.subject))

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
        known = self.surroundings.data
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
        if self.surroundings.models is None:
            raise fail("X0302", f"no model is called `{name}`", span, "not declared")
        return self.surroundings.models(name, span)

    def weights(self, name: str, span: Span) -> Network:
        """A snapshot of this network, or another model on inputs of its own; without weights."""
        found = self.state.snapshots.get(name)
        if found is not None and found.network is not None:
            return found.network
        if self.surroundings.sources is None:
            raise fail("X0302", f"no model is called `{name}`", span, "not declared")
        return twin(self.surroundings.sources(name, span))

    def file(self, text: str, span: Span) -> Path:
        """The file that the spec names."""
        return read_path(text, self.surroundings.trust, span)

    def closing(self) -> str | None:
        """The loose end of the last cut."""
        return loose_end(self.state.network.module)

    def cost(self, name: str) -> int | None:
        """The cost of the subject as it came."""
        return cost_of(name, self.surroundings.base)


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
