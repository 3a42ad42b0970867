"""The whole way, for Python and for the command line: check → plan → apply → verify.

Everything that a spec can cause is a `NetxformError`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netxform.artifacts import bundle, picture, trajectory
from netxform.artifacts.graph import DTYPES
from netxform.axes.coupling import drawing, groups
from netxform.axes.infer import types_of
from netxform.axes.reindex import axes_of, shown
from netxform.capture.capture import capture
from netxform.compiler.check import Bound, Item, Spec, StageItem, check, check_source
from netxform.compiler.execute import Outcome, Trained, deepen, run
from netxform.compiler.models import Models
from netxform.compiler.plan import Plan, Step
from netxform.compiler.remeasure import Verdict, certify, held_out_of, verify
from netxform.compiler.resolve import resolve
from netxform.errors import NOWHERE, NetxformError, fail
from netxform.graph.network import Network, clone, exit_nodes
from netxform.language.certificate import Certificate, ComparisonRecord
from netxform.language.selector import Selected, World, select
from netxform.language.trajectory import Trajectory
from netxform.language.verb import DataInfo
from netxform.language.work import Comparison, Fitting, Snapshot, Training
from netxform.sources.data import DataSet, check_python_data, describe, load_data
from netxform.sources.models import LoadedModel, check_finite
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.syntax.parse import parse_expression
from netxform.training.calibration import Calibration
from netxform.training.estimators import Fitted, fit_estimator
from netxform.training.fit import History, Progress, Quiet, fit
from netxform.training.process import Processes, join, wait


@dataclass(frozen=True)
class Result:
    """What `apply` gives: the model (plain PyTorch, eval mode), the certificate, the plan, and fitted classifiers.

    `certificate` is `record` as plain data.
    """

    model: nn.Module
    certificate: dict[str, Any]
    record: Certificate
    plan: Plan
    estimators: dict[str, Any] = field(default_factory=dict[str, Any])
    histories: tuple[tuple[str, History], ...] = ()
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    folder: Path | None = None
    trajectories: tuple[Trajectory, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """What comes with a spec from outside: a model and example inputs, data by name, parameter values, trust, a seed, and
    further models by name (modules, fitted classifiers, functions).
    """

    model: nn.Module | None = None
    example_inputs: tuple[Tensor, ...] | None = None
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    trust: Trust = field(default_factory=Trust)
    seed: int | None = None
    models: Mapping[str, Any] = field(default_factory=dict[str, Any])


def check_spec(spec: Any, inputs: Inputs | None = None) -> Spec:
    """Parse, expand and check a spec: text, a Program, a builder, or a path to a file."""
    inputs = inputs or Inputs()
    return check_source(spec, dict(inputs.params), inputs.trust, inputs.seed)


def plan_spec(spec: Any, inputs: Inputs | None = None, *, deep: bool = False, progress: Progress | None = None) -> Plan:
    """Check the spec and settle every statement on a weightless twin of its model.

    `deep`: weights and data are read too, choices that need them are made, and what they claim is measured; nothing is trained.
    """
    inputs = inputs or Inputs()
    checked = check_spec(spec, inputs)
    models = _models(checked, inputs)
    plan, network, _ = _planned(checked, inputs, models)
    if not deep:
        return plan
    try:
        workers = _Workers(lambda: _load_all(checked, inputs, checked.seed), progress or Quiet(), None, checked.seed, models)
        return deepen(plan, network, workers)
    except NetxformError as error:
        raise NetxformError(error.diagnostics, checked.sources | error.sources, error.exit_code) from error


def _models(spec: Spec, inputs: Inputs) -> Models:
    return Models(spec, inputs.models, inputs.trust, _bundle_module)


def _planned(spec: Spec, inputs: Inputs, models: Models) -> tuple[Plan, Network, LoadedModel]:
    try:
        subject, loaded = _subject(spec, inputs, models)
        models.example = _example(loaded, inputs)
        network = capture(loaded.module, *models.example)
        infos = _infos(spec, inputs)
        plan = resolve(
            spec,
            network,
            subject=subject,
            data=infos,
            description=loaded.description,
            models=models.info,
            sources=models.source,
            trust=inputs.trust,
        )
        return plan, network, loaded
    except NetxformError as error:
        raise NetxformError(error.diagnostics, spec.sources | error.sources, error.exit_code) from error


def _subject(spec: Spec, inputs: Inputs, models: Models) -> tuple[str, LoadedModel]:
    if inputs.model is not None:
        check_finite(inputs.model)
        name = next(iter(spec.models), "model")
        return name, LoadedModel(inputs.model, None, type(inputs.model).__name__, {"source": "python"})
    if not spec.models:
        raise fail(
            "X0214",
            "the spec declares no model, and none was handed in",
            helps=("write `model net = zoo.smallcnn()`, or give one: `--model SOURCE`, `nx.apply(spec, model=…)`",),
        )
    name, declared = next(iter(spec.models.items()))
    return name, models.loaded(name, declared.span)


def _bundle_module(folder: Path) -> nn.Module:
    return bundle.read(folder)[0].module


def _example(loaded: LoadedModel, inputs: Inputs) -> tuple[Tensor, ...]:
    if inputs.example_inputs is not None:
        return tuple(inputs.example_inputs)
    shapes = loaded.shapes
    if shapes is None:
        first = next((d for d in inputs.data.values() if isinstance(d, tuple | DataSet)), None)
        if isinstance(first, DataSet):
            shapes = (((1, *first.shape), "f32"),)
        elif first is not None:
            shapes = (((1, *torch.as_tensor(first[0]).shape[1:]), "f32"),)
        else:
            raise fail(
                "X0215",
                "the shape of the model's input is not known",
                helps=('say it: `model net = … input="1x3x224x224:f32"`, or hand in `example_inputs=`',),
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: list[Tensor] = []
        for shape, name in shapes:
            dtype = DTYPES[name]
            made.append(torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype))
        return tuple(made)


def _infos(spec: Spec, inputs: Inputs) -> dict[str, DataInfo]:
    infos: dict[str, DataInfo] = {}
    for name, value in inputs.data.items():
        data = check_python_data(name, value)
        infos[name] = DataInfo(name, data.classes, len(data.train), data.shape, NOWHERE)
    for name, declared in spec.data.items():
        if name not in infos:
            classes, shape = describe(declared)
            infos[name] = DataInfo(name, classes, None, shape, declared.span)
    return infos


class _Workers:
    """Does the work of the steps: training, classifiers; keeps histories and finished stages."""

    def __init__(
        self, load: Callable[[], dict[str, DataSet]], progress: Progress, keep: Path | None, seed: int, models: Models
    ) -> None:
        self.load = load
        self.models = models
        self.progress = progress
        self.keep = keep
        self.seed = seed
        self.models = models
        self.snapshots: dict[str, nn.Module] = {}
        self.histories: list[tuple[str, History]] = []
        self.fitted: list[Fitted] = []
        self.last: DataSet | None = None
        self.trajectories: list[Trajectory] = []
        self.variant = "spec"
        self.carried = False

    @cached_property
    def data(self) -> dict[str, DataSet]:
        """The data sets, loaded when they are first needed."""
        return self.load()

    def material(self, step: Step) -> Calibration:
        """Calibration data for one statement, in an order of its own."""

        def checkpoint(n: int) -> Path | None:
            return None if self.keep is None else self.keep / f"{step.index:03d}_{n:03d}.pt"

        def told(title: str, history: History) -> None:
            self.histories.append((title, history))

        return Calibration(
            lambda: self.data, self.seed + step.index, self.progress, checkpoint, told, self._weights(step), self.models.trust
        )

    def _weights(self, step: Step) -> Callable[[str], nn.Module]:
        """Further models with their weights, snapshots among them."""
        return lambda name: self.snapshots.get(name) or self.models.source(name, step.span).module

    def train(self, network: Network, work: Training, step: Step) -> Trained:
        """Train; a finished training that a resumed run finds on disk is taken from there."""
        self.last = self.data[work.data]
        checkpoint = None if self.keep is None else self.keep / f"{step.index:03d}"
        probe = self.data[work.record.data] if work.record is not None else None
        names = work.soft.teachers if work.soft is not None else ()
        teachers = {n: self.snapshots[n] if n in self.snapshots else self.models.module(n, step.span) for n in names}
        trained, history = fit(network, work, self.last, self.progress, checkpoint, step.text, teachers, probe)
        self.histories.append((step.text, history))
        if work.record is not None and history.points:
            epochs, points = zip(*history.points, strict=True)
            found = (self.variant, self.seed, self.carried, step.text, work.record.what, tuple(epochs))
            self.trajectories.append(Trajectory(*found, torch.stack(list(points)), history.rows))
        self.carried = self.variant in ("spec", "alone")  # what trains after this begins with what was learnt here
        return Trained(trained, history.metrics, history.evidence, history.warnings)

    def remember(self, network: Network, work: Snapshot) -> None:
        """Keep the network; what is done to it later is done to copies."""
        self.snapshots[work.name] = clone(network).module

    def fit(self, network: Network, work: Fitting, step: Step) -> dict[str, float]:
        """Fit a classifier."""
        self.last = self.data[work.data]
        fitted, metrics = fit_estimator(network, work, self.last)
        self.fitted.append(fitted)
        return metrics

    def finished(self, stage: str | None, index: int, network: Network) -> None:
        """Nothing to do: trainings write their own state."""


def apply_spec(
    spec: Any,
    inputs: Inputs | None = None,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    expected: str | None = None,
) -> Result:
    """Plan, carry out, measure, and (with `out`) write the bundle.

    The model that was handed in is never changed; on any error there is no output folder. `expected` is the digest of a
    saved plan: another plan is refused (X0701). With `resume`, trainings that an interrupted run finished are not repeated.
    """
    inputs = inputs or Inputs()
    progress = progress or Quiet()
    checked = check_spec(spec, inputs)
    processes = join()
    if out is not None and out.exists() and not overwrite:
        raise fail("X0818", f"`{out.name}` already exists", helps=("choose another name, or replace it: `--overwrite`",))
    models = _models(checked, inputs)
    plan, network, _ = _planned(checked, inputs, models)
    if expected is not None and plan.digest() != expected:
        raise fail(
            "X0701",
            "the saved plan is stale: planning again gives another plan",
            helps=("plan again and read what changed: `netxform plan SPEC -o FILE`",),
        )
    keep = _keep_folder(out, plan, resume, processes)
    try:
        workers = _Workers(lambda: _load_all(checked, inputs, checked.seed), progress, keep, checked.seed, models)
        workers.carried = _carries(plan, inputs)
        _ = workers.data  # what is missing is said before anything is done
        outcome = run(plan, network, workers)
        plan = outcome.plan
        ways = workers.trajectories
        comparisons = [_compare(plan, s, c, outcome, inputs, progress, ways) for s, c in outcome.comparisons]
        outcome.network.module.eval()
        held = held_out_of(outcome.network, workers.last) if not workers.fitted else None
        record, witness = certify(outcome, held, comparisons)
        curves = [{"statement": t, **row} for t, h in workers.histories for row in h.rows]
        if out is not None and processes.first:
            bundle.write(out, outcome, record, witness, curves, list(workers.fitted), overwrite, ways)
        estimators = {f.name: f.estimator for f in workers.fitted}
        model = copy.deepcopy(outcome.network.module)
        histories = tuple(workers.histories)
        result = Result(model, record.plain(), record, plan, estimators, histories, outcome.metrics, out, tuple(ways))
    except NetxformError as error:
        raise NetxformError(error.diagnostics, checked.sources | error.sources, error.exit_code) from error
    if keep is not None and processes.first:
        import shutil

        shutil.rmtree(keep, ignore_errors=True)
    wait(processes)
    return result


def _carries(plan: Plan, inputs: Inputs) -> bool:
    """Whether the subject comes with something learnt: weights of its own, a bundle, or a model handed in from Python."""
    if inputs.model is not None or not plan.spec.models:
        return True
    declared = next(iter(plan.spec.models.values()))
    arguments = declared.source.arguments if isinstance(declared.source, ast.Call) else ()
    named = {o.key for o in declared.options} | {a.key for a in arguments}
    return isinstance(declared.source, ast.String) or bool(named & {"weights", "pretrained"})


def _keep_folder(out: Path | None, plan: Plan, resume: bool, processes: Processes) -> Path | None:
    """Where an interrupted run leaves its state: beside the output, named after it; for this very plan alone."""
    if out is None or not any(s.choice.trains for s in plan.steps):
        return None
    import shutil

    wait(processes)  # nobody looks before everybody has seen that there is no bundle yet
    keep = out.parent / f".{out.name}.resume"
    stamp = keep / "plan"
    if not processes.first:
        wait(processes)
        return keep
    same = stamp.exists() and stamp.read_text() == plan.digest()
    if keep.exists() and not (resume and same):
        shutil.rmtree(keep)
    try:
        keep.mkdir(parents=True, exist_ok=True)
        stamp.write_text(plan.digest())
    except OSError as error:
        raise fail("X0819", f"the output folder cannot be made: {error.strerror}") from error
    wait(processes)
    return keep


def _load_all(spec: Spec, inputs: Inputs, seed: int) -> dict[str, DataSet]:
    data = {n: check_python_data(n, v) for n, v in inputs.data.items()}
    for name, declared in spec.data.items():
        if name not in data:
            data[name] = load_data(declared, inputs.trust, seed)
    return data


# --- comparisons -----------------------------------------------------------------------------------------------------


def _compare(
    plan: Plan,
    step: Step,
    wanted: Comparison,
    outcome: Outcome,
    inputs: Inputs,
    progress: Progress,
    ways: list[Trajectory],
) -> ComparisonRecord:
    """The spec as written and its variants, over the seeds; each run has its own seed for samples, weights and order."""
    scores: dict[str, list[float]] = {}
    base = plan.spec.seed
    for seed in range(base, base + wanted.seeds):
        for variant in ("spec", *wanted.variants):
            if variant == "spec" and seed == base:
                scores.setdefault("spec", []).append(_metric(outcome.metrics, wanted))
                continue
            progress.start(f"compare: {variant}, seed {seed}", 0)
            metrics, found = _variant(plan, variant, seed, inputs)
            ways += found
            progress.stop()
            scores.setdefault(variant, []).append(_metric(metrics, wanted))
    return ComparisonRecord(
        statement=step.text,
        metric=wanted.metric,
        seeds=tuple(range(base, base + wanted.seeds)),
        runs={v: tuple(s) for v, s in scores.items()},
        mean={v: statistics.fmean(s) for v, s in scores.items()},
        standard_error={v: statistics.stdev(s) / len(s) ** 0.5 for v, s in scores.items()},
    )


def _metric(metrics: Mapping[str, float], wanted: Comparison) -> float:
    if wanted.metric not in metrics:
        raise fail("X0602", f"nothing measured `{wanted.metric}`: train or fit something before `compare`")
    return metrics[wanted.metric]


def _variant(plan: Plan, variant: str, seed: int, inputs: Inputs) -> tuple[dict[str, float], list[Trajectory]]:
    seeded = replace(inputs, seed=seed)
    spec = check(plan.spec.program, plan.spec.params, plan.spec.sources, seed)
    if variant == "alone":
        spec = replace(spec, items=_without_teachers(spec.items))
    elif variant != "spec":
        subject, loaded = _subject(spec, seeded, _models(spec, seeded))
        del subject
        fresh = _fresh(loaded.module, seed)
        seeded = replace(seeded, model=fresh, example_inputs=_example(loaded, inputs))
        spec = replace(spec, items=_without_pretraining(spec.items, scratch=variant == "scratch"))
    models = _models(spec, seeded)
    again, network, _ = _planned(replace(spec, items=_without_asserts(spec.items)), seeded, models)
    workers = _Workers(lambda: _load_all(spec, seeded, seed), Quiet(), None, seed, models)
    workers.variant, workers.carried = variant, variant in ("spec", "alone") and _carries(plan, inputs)
    return run(again, network, workers).metrics, workers.trajectories


def _without_asserts(items: tuple[Item, ...]) -> tuple[Item, ...]:
    kept = [i for i in items if not isinstance(i, ast.Assert)]
    return tuple(replace(i, items=_without_asserts(i.items)) if isinstance(i, StageItem) else i for i in kept)


def _without_teachers(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Every `distill` on the labels alone."""
    out: list[Item] = []
    for item in items:
        if isinstance(item, StageItem):
            item = replace(item, items=_without_teachers(item.items))
        elif isinstance(item, Bound) and item.entry.word == "distill":
            item = replace(item, action=replace(item.action, hard=1.0, matches=()))
        out.append(item)
    return tuple(out)


def _fresh(model: nn.Module, seed: int) -> nn.Module:
    """The same architecture with new weights: every layer's own initialisation, under `seed`."""
    made = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in made.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
    return made


def _without_pretraining(items: tuple[Any, ...], scratch: bool) -> tuple[Any, ...]:
    """Without the training before the first change of structure; for `scratch` nothing is frozen, everything is trained."""
    from netxform.language.values import Selection

    words = [i.entry.word for i in items if isinstance(i, Bound)]
    structural = any(w in ("cut", "features") for w in words)
    everything = Selection(ast.Path("**"))
    state = {"seen": not structural}

    def visit(some: tuple[Any, ...]) -> tuple[Any, ...]:
        out: list[Any] = []
        for item in some:
            if isinstance(item, StageItem):
                inner = visit(item.items)
                if any(isinstance(i, Bound) and not i.entry.setting for i in inner):
                    out.append(replace(item, items=inner))
                continue
            if isinstance(item, Bound):
                word = item.entry.word
                if word in ("cut", "features", "attach"):
                    state["seen"] = True
                if word == "train" and not state["seen"]:
                    continue
                if word == "init":  # what is carried over is what the variant does without
                    continue
                if scratch and word in ("freeze", "unfreeze"):
                    continue
                if scratch and word == "train":
                    item = replace(item, action=replace(item.action, selection=everything, groups=()))
            out.append(item)
        return tuple(out)

    return visit(items)


# --- bundles ---------------------------------------------------------------------------------------------------------


def load_bundle(folder: str | Path) -> nn.Module:
    """The model of a bundle, in eval mode. Nothing in the folder is run; every hash is compared first."""
    return bundle.read(Path(folder))[0].module.eval()


def verify_bundle(folder: str | Path) -> Verdict:
    """Measure every claim of a bundle again, from the folder alone."""
    network, certificate = bundle.read(Path(folder))
    return verify(network, certificate, bundle.witness(Path(folder), network))


def compare_runs(
    runs: Sequence[str | Path | Result | Trajectory],
    *,
    method: picture.Method = "tsne",
    perplexity: float = 30.0,
    seed: int = 0,
) -> picture.Picture:
    """The trajectories of all runs in one plane. Runs are bundles, results of `apply`, or trajectories themselves.

    Raises NetxformError X0815, X0822, X0824 (no trajectory), X0825 (not of one space).
    """
    ways: list[Trajectory] = []
    for one in runs:
        match one:
            case Trajectory():
                ways.append(one)
            case Result():
                ways += one.trajectories
            case _:
                ways += trajectory.load(Path(one))
    return picture.embed(ways, method=method, perplexity=perplexity, seed=seed)


def save_plan(plan: Plan, path: Path) -> None:
    """Write the plan and its digest."""
    path.write_text(json.dumps({"digest": plan.digest(), "plan": plan.to_dict()}, indent=1, sort_keys=True) + "\n")


def saved_digest(path: Path) -> str:
    """The digest of a saved plan. Raises NetxformError X0702 for another file."""
    try:
        held = json.loads(path.read_text())
        digest = str(held["digest"])
        text = json.dumps(held["plan"], sort_keys=True).encode()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fail("X0702", f"`{path.name}` is no saved plan: {error}") from error
    if hashlib.sha256(text).hexdigest() != digest:
        raise fail("X0702", f"`{path.name}` was changed after it was saved")
    return digest


def listing(spec: Spec, inputs: Inputs, selection: str) -> list[dict[str, Any]]:
    """What a selection matches: name, type, parameters and output shape of each module; names and shapes of tensors."""
    network, found = _selected(spec, inputs, selection)
    modules = dict(network.module.named_modules(remove_duplicate=False))
    rows: list[dict[str, Any]] = []
    for name in found.modules:
        exits = exit_nodes(network, name)
        shape = exits[0].meta.get("shape") if exits else None
        count = sum(p.numel() for p in modules[name].parameters())
        rows.append({"name": name, "type": type(modules[name]).__name__, "params": count, "output": _times(shape)})
    held = dict(network.module.named_parameters(remove_duplicate=False))
    held |= dict(network.module.named_buffers(remove_duplicate=False))
    for name in found.tensors:
        tensor = held[name]
        rows.append({"name": name, "type": str(tensor.dtype), "params": tensor.numel(), "output": _times(tuple(tensor.shape))})
    for name in found.ops:
        node = next(n for n in network.module.graph.nodes if n.name == name)
        rows.append({"name": name, "type": "op", "params": 0, "output": _times(node.meta.get("shape"))})
    return rows


def _selected(spec: Spec, inputs: Inputs, selection: str) -> tuple[Network, Selected]:
    subject, loaded = _subject(spec, inputs, _models(spec, inputs))
    network = capture(loaded.module, *_example(loaded, inputs))
    names = {i.name: i.value for i in spec.items if isinstance(i, ast.Let)}
    expression = parse_expression(selection, "<selection>")
    try:
        return network, select(expression, World(network, names, {}, subject))
    except NetxformError as error:
        raise NetxformError(error.diagnostics, {"<selection>": selection}) from error


def axes(spec: Spec, inputs: Inputs, selection: str) -> tuple[dict[str, Any], str]:
    """The axis types of the selected modules or tensors, the groups of coupled axes and the locks; and all as a drawing."""
    network, found = _selected(spec, inputs, selection)
    wanted = [
        n
        for n, dims in types_of(network).tensors.items()
        if dims and (n in found.tensors or (not found.tensors and n.rpartition(".")[0] in found.modules))
    ]
    every = groups(network)
    near = [g for g in every if any(n in wanted for n, _ in g.axis.sites)]
    free = [
        {"name": g.axis.name, "size": g.axis.size, "carried by": g.carriers, "read by": g.readers, "coupled by": g.couplers,
         "mixed": g.axis.mixed} for g in near if g.axis.locked is None
    ]  # fmt: skip
    locked: dict[str, list[str]] = {}
    for group in near:
        if group.axis.locked is not None:
            places = [f"{n}[{d}]" for n, d in group.axis.sites if n in wanted]
            locked.setdefault(group.axis.locked.partition(" (")[0], []).extend(places)
    types = {n: shown(network, n) for n in wanted}
    return {"types": types, "free": free, "locked": locked}, drawing(network, spec_title(network))


def spec_title(network: Network) -> str:
    """The name of the network and how much of it is free."""
    free = [a for a in axes_of(network) if a.locked is None]
    return f"{network.module._get_name()}: {len(free)} free of {len(axes_of(network))} axes"  # pyright: ignore[reportPrivateUsage]


def _times(shape: Any) -> str:
    return " x ".join(str(n) for n in shape) if isinstance(shape, tuple) else ""
