"""The plan carried out on the real network: choices settled, Edits replayed, work done, every claim measured as it is made.

Planned, Network ─run→ Outcome     Planned, Network ─deepen→ Plan, settled as far as weights and data allow without training
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from netxform.compiler.conditions import judge
from netxform.compiler.harms import Course, made_good
from netxform.compiler.measure import Measured, measure, probe
from netxform.compiler.plan import Check, Plan, PlanItem, Step
from netxform.compiler.resolve import Planned, Walk
from netxform.compiler.standing import Lives
from netxform.compiler.vacuous import NOT_FINITE
from netxform.errors import Diagnostic, NetxformError, during, fail
from netxform.graph.inputs import Given
from netxform.graph.network import Network
from netxform.graph.probes import probed
from netxform.graph.surgery import perform
from netxform.language.laws import Contract, Entry, Evidence, Harm
from netxform.language.verb import Material, Settles
from netxform.language.work import Comparison, Fitting, Snapshot, Training

NOTHING = "nothing was done: no layer was changed, and nothing is claimed"
_MEASURE = ("put a `train` before it that measures it, or assert a cost such as `params`",)
_ASSERT = ("change the statements before it, or the bound",)


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

    def samples(self) -> Iterator[Given]:
        """Samples (N, …) of every data set that is at hand, one tensor or one for each input."""
        ...

    def finished(self, stage: str | None, index: int, network: Network) -> None:
        """A statement is done."""
        ...


@dataclass(frozen=True)
class Outcome:
    """The network at the end, what the certificate says of each statement, and the metrics as they stood last.

    `plan` is the plan with every choice final; `inputs` are those that everything was measured on; `lives` says which claims
    and metrics a later statement superseded.
    """

    plan: Plan
    network: Network
    inputs: tuple[Tensor, ...]
    entries: tuple[Entry, ...]
    measured: tuple[tuple[Measured, ...], ...]
    metrics: dict[str, float]
    comparisons: tuple[tuple[Step, Comparison], ...] = ()
    lives: Lives = field(default_factory=Lives)


@dataclass
class _Progress:
    network: Network
    entries: list[Entry] = field(default_factory=list[Entry])
    measured: list[tuple[Measured, ...]] = field(default_factory=list["tuple[Measured, ...]"])
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    seen: dict[str, float] = field(default_factory=dict[str, float])
    course: Course = field(default_factory=Course)
    comparisons: list[tuple[Step, Comparison]] = field(default_factory=list["tuple[Step, Comparison]"])
    lives: Lives = field(default_factory=Lives)


def run(planned: Planned, network: Network, workers: Workers, tell: Callable[[str], None] = lambda text: None) -> Outcome:
    """Carry out the plan. Raises NetxformError X0501 (a contract fell short), X0601 (an assert), X08xx (run time)."""
    plan, walk = planned.plan, planned.walk()
    network = probed(network, plan.spec.seed, workers.samples())
    state = _Progress(network)
    inputs = probe(network, plan.spec.seed)  # those of the network as it is now: a statement may change what it takes
    done: list[PlanItem] = []
    for item in walk:
        if isinstance(item, Check):
            held, seen = _assert(item, replace(plan, items=tuple(done)), state)
            done.append(replace(item, held=held, seen=seen))
            if not held:
                raise FellShort(item, seen, _outcome(plan, done, state, inputs))
            continue
        tell(item.text)
        before = state.network
        try:
            with during(f"carrying out `{item.text}`", item.span, plan.spec.sources):
                item = _settled(item, walk, state.network, workers)
                _step(item, plan, state, workers, inputs)
        except NetxformError as error:
            placed = [d if d.span.line else replace(d, span=item.span) for d in error.diagnostics]
            raise NetxformError(placed, plan.spec.sources, error.exit_code) from error
        inputs = _given(before, state.network, inputs, plan.spec.seed)
        # what was computed is in the network now
        done.append(replace(item, edit=replace(item.edit, tensors={}), twin=None))
        workers.finished(item.stage, item.index, state.network)
    return _outcome(plan, done, state, inputs)


def _given(before: Network, after: Network, inputs: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """What claims are measured on behind a statement: other probes where the network takes inputs of another shape now."""
    same = [i.shape for i in before.inputs] == [i.shape for i in after.inputs]
    return inputs if same else probe(after, seed)


class FellShort(NetxformError):
    """X0601: an assert that does not hold. `outcome`: what was done up to it, which is not lost."""

    def __init__(self, item: Check, seen: str, outcome: Outcome) -> None:
        found = Diagnostic("X0601", item.message or "an assert does not hold", item.span, seen, helps=_ASSERT)
        super().__init__([found], outcome.plan.spec.sources, exit_code=3)
        self.outcome = outcome


def _outcome(plan: Plan, done: list[PlanItem], state: _Progress, inputs: tuple[Tensor, ...]) -> Outcome:
    final = replace(plan, items=tuple(done))
    entries, measured = tuple(state.entries), tuple(state.measured)
    return Outcome(final, state.network, inputs, entries, measured, dict(state.metrics), tuple(state.comparisons), state.lives)


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
    network = probed(network, plan.spec.seed, workers.samples())
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
            with during(f"making the choice of `{item.text}`", item.span, plan.spec.sources):
                item = _settled(item, walk, network, workers)
                after = perform(network, item.edit, item.twin)
                if isinstance(item.transform, Settles):
                    material = workers.material(item)
                    found, _ = _measured(item, network, after, inputs, plan.spec.seed, material)
                    item = replace(item, measured=tuple(m.evidence for m in found))
        except NetxformError as error:
            placed = [d if d.span.line else replace(d, span=item.span) for d in error.diagnostics]
            raise NetxformError(placed, plan.spec.sources, error.exit_code) from error
        network, inputs = after, _given(network, after, inputs, plan.spec.seed)
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
    measured, nothing = _measured(item, before, after, inputs, plan.spec.seed, material)
    if trained is not None:
        measured += tuple(Measured(e) for e in trained.evidence)
    broken = [m.evidence for m in measured if not m.evidence.held and not m.evidence.vacuous]
    if unseen := [m.evidence for m in measured if m.evidence.vacuous == NOT_FINITE]:
        raise _nothing_shown(item, unseen[0])
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
    warnings = (NOTHING,) if item.idle else (*item.choice.warnings, *trained.warnings) if trained is not None else ()
    if item.choice.trains:
        modes = work.training_modules if isinstance(work, Training) else None
        warnings = (*(str(one) for one in before.lost if modes is None or one.path in modes), *warnings)
    unshown = dict.fromkeys(f"not shown: {e.claim}: {e.vacuous}; {_REPAIR}" for e in evidence if e.vacuous)
    warnings = (*warnings, *unshown)
    harms = _harms(item, evidence, metrics, state)
    settled = trained.settled if trained is not None else ()
    said = (item.index, item.text, item.verb, item.contract, evidence, metrics, item.choice.targets)
    entry = Entry(*said, warnings, harms, nothing, settled, item.stage)
    state.entries.append(entry)
    state.measured.append(measured)
    state.lives.done(item.index, state.measured, after, metrics)


_REPAIR = "give example inputs that reach what was changed: `example_inputs=`"


def _nothing_shown(item: Step, found: Evidence) -> NetxformError:
    return fail(
        "X0502",
        f"contract `{item.contract}` cannot be shown: {found.vacuous}",
        item.span,
        f"measured on: {found.probes}" if found.probes else "NaN or infinite",
        notes=("every output is NaN or infinite there, before the statement already",),
        helps=("give example inputs on which the model computes numbers: `example_inputs=` in Python",),
    )


def _harms(item: Step, evidence: tuple[Evidence, ...], metrics: dict[str, float], state: _Progress) -> tuple[Harm, ...]:
    """What the statement cost although it holds; a training that costs nothing makes good what was done before it."""
    found: list[Harm] = []
    about = {c.kind: getattr(c, "data", None) for c in item.made}
    for one in evidence:
        harms, data = one.detail.harms(one.measured), about.get(one.kind)
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


def _measured(
    item: Step, before: Network, after: Network, inputs: Any, seed: int, material: Material
) -> tuple[tuple[Measured, ...], tuple[str, ...]]:
    """The claims of a step as they are measured, and the kinds of those that speak of nothing."""
    out: list[Measured] = []
    nothing = [c.kind for c in item.claims if c not in item.made]
    for claim in item.made:
        found = measure(claim, before, after, inputs, seed, item.edit, material)
        if found.nothing:
            nothing.append(claim.kind)
        else:
            out += [found, *found.beside]
    return tuple(out), tuple(nothing)


def _assert(item: Check, plan: Plan, state: _Progress) -> tuple[bool, str]:
    """Whether it holds, and what was seen. Raises NetxformError X0602 where nothing was measured that it speaks of."""
    held, seen = judge(item.condition, plan.final, plan.base, state.seen | state.metrics)
    if held is None:
        raise NetxformError(
            [
                Diagnostic(
                    "X0602", "this assert speaks of a metric that nothing measured", item.span, "not known", helps=_MEASURE
                )
            ],
            plan.spec.sources,
        )
    return held, seen
