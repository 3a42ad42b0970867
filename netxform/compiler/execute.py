"""The plan carried out on the real network: choices settled, Edits replayed, work done, every claim measured as it is made.

Planned, Network ─run→ Outcome     Planned, Network ─deepen→ Plan, settled as far as weights and data allow without training
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from netxform.compiler.conditions import judge
from netxform.compiler.harms import Course, made_good
from netxform.compiler.measure import Measured, measure, probe
from netxform.compiler.plan import Check, Plan, PlanItem, Step
from netxform.compiler.resolve import Planned, Walk
from netxform.errors import Diagnostic, NetxformError
from netxform.graph.network import Network
from netxform.graph.surgery import perform
from netxform.language.laws import Contract, Entry, Evidence, Harm
from netxform.language.verb import Material, Settles
from netxform.language.work import Comparison, Fitting, Snapshot, Training


@dataclass(frozen=True)
class Trained:
    """What a training gives: the network, metrics, evidence about what it used, what a reader should be warned of, and what was
    settled on the data, in words.
    """

    network: Network
    metrics: dict[str, float]
    evidence: tuple[Evidence, ...] = ()
    warnings: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()


class Workers(Protocol):
    """Who does the work that steps ask for; given from above, for the compiler knows no training."""

    def train(self, network: Network, work: Training, step: Step) -> Trained:
        """Train, and report metrics."""
        ...

    def remember(self, network: Network, work: Snapshot) -> None:
        """Keep the network as a model of that name."""
        ...

    def fit(self, network: Network, work: Fitting, step: Step) -> dict[str, float]:
        """Fit a classifier to the network's output, and report metrics."""
        ...

    def material(self, step: Step) -> Material:
        """Calibration data and progress for a step that settles its choice on the real network."""
        ...

    def finished(self, stage: str | None, index: int, network: Network) -> None:
        """A statement is done."""
        ...


@dataclass(frozen=True)
class Outcome:
    """The network at the end, what the certificate says of each statement, and the metrics as they stood last.

    `plan` is the plan with every choice final; `inputs` are those that everything was measured on.
    """

    plan: Plan
    network: Network
    inputs: tuple[Tensor, ...]
    entries: tuple[Entry, ...]
    measured: tuple[tuple[Measured, ...], ...]
    metrics: dict[str, float]
    comparisons: tuple[tuple[Step, Comparison], ...] = ()


@dataclass
class _Progress:
    network: Network
    entries: list[Entry] = field(default_factory=list[Entry])
    measured: list[tuple[Measured, ...]] = field(default_factory=list["tuple[Measured, ...]"])
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    seen: dict[str, float] = field(default_factory=dict[str, float])
    course: Course = field(default_factory=Course)
    comparisons: list[tuple[Step, Comparison]] = field(default_factory=list["tuple[Step, Comparison]"])


def run(planned: Planned, network: Network, workers: Workers, tell: Callable[[str], None] = lambda text: None) -> Outcome:
    """Carry out the plan. Raises NetxformError X0501 (a contract fell short), X0601 (an assert), X08xx (run time)."""
    plan, walk = planned.plan, planned.walk()
    state = _Progress(network)
    inputs = probe(network, plan.spec.seed)
    done: list[PlanItem] = []
    for item in walk:
        if isinstance(item, Check):
            _assert(item, replace(plan, items=tuple(done)), state)
            done.append(item)
            continue
        tell(item.text)
        try:
            item = _settled(item, walk, state.network, workers)
            _step(item, plan, state, workers, inputs)
        except NetxformError as error:
            placed = [d if d.span.line else replace(d, span=item.span) for d in error.diagnostics]
            raise NetxformError(placed, plan.spec.sources, error.exit_code) from error
        # what was computed is in the network now
        done.append(replace(item, edit=replace(item.edit, tensors={}), twin=None))
        workers.finished(item.stage, item.index, state.network)
    final = replace(plan, items=tuple(done))
    entries, measured = tuple(state.entries), tuple(state.measured)
    return Outcome(final, state.network, inputs, entries, measured, state.metrics, tuple(state.comparisons))


def _settled(item: Step, walk: Walk, network: Network, workers: Workers) -> Step:
    """The step with its choice final."""
    if not isinstance(item.transform, Settles):
        return item
    return walk.settle(item.transform.settle(network, item.choice, workers.material(item)))


def deepen(planned: Planned, network: Network, workers: Workers) -> Plan:
    """The plan with choices made on weights and data, and the claims of those steps measured. Nothing is trained: what stands
    behind a training stays as the twin has it, for its weights are not known yet.
    """
    plan, walk = planned.plan, planned.walk()
    inputs = probe(network, plan.spec.seed)
    done: list[PlanItem] = []
    trained = False
    for item in walk:
        if isinstance(item, Check) or trained:
            done.append(item)
            continue
        trained = item.choice.trains or isinstance(item.choice.work, Fitting)
        if trained:
            done.append(item)
            continue
        try:
            item = _settled(item, walk, network, workers)
            after = perform(network, item.edit, item.twin)
            if isinstance(item.transform, Settles):
                material = workers.material(item)
                found = [measure(c, network, after, inputs, plan.spec.seed, item.edit, material).evidence for c in item.claims]
                item = replace(item, measured=tuple(found))
        except NetxformError as error:
            placed = [d if d.span.line else replace(d, span=item.span) for d in error.diagnostics]
            raise NetxformError(placed, plan.spec.sources, error.exit_code) from error
        network = after
        done.append(replace(item, edit=replace(item.edit, tensors={}), twin=None))
    return replace(plan, items=tuple(done))


def _step(item: Step, plan: Plan, state: _Progress, workers: Workers, inputs: Any) -> None:
    before = state.network
    after = perform(before, item.edit, item.twin)
    metrics = dict(item.choice.metrics)
    trained: Trained | None = None
    work = item.choice.work
    if isinstance(work, Training):
        trained = workers.train(after, work, item)
        after, metrics = trained.network, trained.metrics
    elif isinstance(work, Fitting):
        metrics = workers.fit(after, work, item)
    elif isinstance(work, Snapshot):
        workers.remember(after, work)
    elif isinstance(work, Comparison):
        state.comparisons.append((item, work))
    material = workers.material(item)
    measured = tuple(measure(c, before, after, inputs, plan.spec.seed, item.edit, material) for c in item.claims)
    if trained is not None:
        measured += tuple(Measured(e) for e in trained.evidence)
    broken = [m.evidence for m in measured if not m.evidence.held]
    if broken:
        raise NetxformError(
            [
                Diagnostic(
                    "X0501",
                    f"contract `{item.contract}` fell short: {e.claim}",
                    item.span,
                    f"measured {e.measured:.3g}, allowed {e.bound:.3g}",
                    notes=tuple(f"{k}: {v}" for k, v in e.detail.plain().items()),
                    helps=("nothing was written; please report this: a contract that fails is a defect of netxform",),
                )
                for e in broken
            ],
            plan.spec.sources,
            exit_code=3,
        )
    state.network = after
    if item.contract is Contract.LOSSY and item.edit.operations:
        state.metrics.clear()  # they were measured on another function
    if item.edit.operations or trained is not None:
        state.seen.clear()
    state.metrics |= metrics
    evidence = tuple(m.evidence for m in measured)
    warnings = (*item.choice.warnings, *trained.warnings) if trained is not None else ()
    harms = _harms(item, evidence, metrics, state)
    said = trained.settled if trained is not None else ()
    entry = Entry(
        item.index,
        item.text,
        item.verb,
        item.contract,
        evidence,
        metrics,
        item.choice.targets,
        warnings,
        harms,
        said,
        item.stage,
    )
    state.entries.append(entry)
    state.measured.append(measured)


def _harms(item: Step, evidence: tuple[Evidence, ...], metrics: dict[str, float], state: _Progress) -> tuple[Harm, ...]:
    """What the statement cost although it holds; a training that costs nothing makes good what was done before it."""
    found: list[Harm] = []
    for claim, one in zip(item.claims, evidence, strict=False):
        harms, data = one.detail.harms(one.measured), getattr(claim, "data", None)
        state.seen |= one.detail.metrics_after()
        if data is not None:
            state.course.note(data, one.detail.metrics_before(), f"what stood before {item.text}")
            state.course.open += [(len(state.entries), data)] if harms else []
        found += harms
    work = item.choice.work
    if isinstance(work, Training):
        harms = state.course.fell(work.data, metrics)
        if not harms and state.course.knows(work.data, metrics):
            for place, data in state.course.open:
                if data == work.data:
                    entry = state.entries[place]
                    state.entries[place] = replace(entry, harms=made_good(entry.harms))
            state.course.open = [o for o in state.course.open if o[1] != work.data]
        elif harms:
            state.course.open.append((len(state.entries), work.data))
        state.course.note(work.data, metrics, item.text)
        found += harms
    return tuple(found)


def _assert(item: Check, plan: Plan, state: _Progress) -> None:
    now = plan.final
    held, seen = judge(item.condition, now, plan.base, state.seen | state.metrics)
    if held is None:
        raise NetxformError(
            [Diagnostic("X0602", "this assert speaks of a metric that nothing measured", item.span, "not known")],
            plan.spec.sources,
        )
    if not held:
        raise NetxformError(
            [Diagnostic("X0601", item.message or "an assert does not hold", item.span, seen)],
            plan.spec.sources,
            exit_code=3,
        )
