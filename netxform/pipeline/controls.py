"""The runs that `compare` puts beside the spec as written: from fresh weights, or without teachers; over several seeds.

What becomes of a statement in a control run the verb says, by its `role` and its `control` (`language/verb.py`).
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from netxform.compiler.bind import Bound
from netxform.compiler.check import Item, Spec, StageItem, check
from netxform.compiler.execute import Outcome, run
from netxform.compiler.plan import Step
from netxform.errors import fail
from netxform.language.certificate import ComparisonRecord
from netxform.language.trajectory import Trajectory
from netxform.language.verb import Control, Controlled, Role
from netxform.language.work import Comparison
from netxform.pipeline.executor import Executor
from netxform.pipeline.subject import Prepared, example_of, models_of, prepare, subject_of
from netxform.syntax import ast
from netxform.training.fit import Progress, Quiet


def compared(
    prepared: Prepared, step: Step, wanted: Comparison, outcome: Outcome, progress: Progress, ways: list[Trajectory]
) -> ComparisonRecord:
    """The spec as written and its variants, over the seeds; each run has its own seed for samples, weights and order.

    `outcome` is the run as written under the spec's own seed. Trajectories are added to `ways`. Raises NetxformError X0602
    where nothing measured the metric.
    """
    scores: dict[str, list[float]] = {}
    base = prepared.spec.seed
    for seed in range(base, base + wanted.seeds):
        for variant in ("spec", *wanted.variants):
            if variant == "spec" and seed == base:
                scores.setdefault("spec", []).append(_metric(outcome.metrics, wanted))
                continue
            progress.start(f"compare: {variant}, seed {seed}", 0)
            metrics, found = _variant(prepared, variant, seed)
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


def _variant(
    prepared: Prepared, variant: Literal["spec"] | Control, seed: int
) -> tuple[dict[str, float], tuple[Trajectory, ...]]:
    """One run: planned anew, for its weights, its seed and its statements are others."""
    written = prepared.spec
    seeded = replace(prepared.inputs, seed=seed)
    spec = check(written.program, written.params, written.sources, seed)
    if variant in ("scratch", "random"):
        _, loaded = subject_of(spec, seeded, models_of(spec, seeded))
        seeded = replace(seeded, model=fresh(loaded.module, seed), example_inputs=example_of(loaded, seeded))
    if variant != "spec":
        spec = controlled(spec, variant)
    again = prepare(replace(spec, items=_without_asserts(spec.items)), seeded)
    executor = Executor(again, Quiet(), variant=variant)
    return run(again.planned, again.network, executor).metrics, tuple(executor.trajectories)


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """The same architecture with new weights: every layer's own initialisation, under `seed`."""
    made = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in made.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
    return made


def controlled(spec: Spec, kind: Control) -> Spec:
    """The spec of a control run.

    `scratch`, `random`: nothing is carried over, and what trains before the first change of structure (the pre-training) is
    left out; `scratch`: nothing is frozen either. `alone`: all stay. What is left says itself what it becomes.
    """
    dropped: set[Role] = set()
    if kind != "alone":
        dropped.add(Role.CARRIES)
    if kind == "scratch":
        dropped.add(Role.FREEZES)
    takes_apart = any(isinstance(i, Bound) and i.entry.role is Role.CUTS for i in spec.items)
    pretraining = kind != "alone" and takes_apart

    def visit(items: tuple[Item, ...]) -> Iterator[Item]:
        nonlocal pretraining
        for item in items:
            match item:
                case StageItem():
                    inner = tuple(visit(item.items))
                    if kind == "alone" or any(isinstance(i, Bound) and not i.entry.setting for i in inner):
                        yield replace(item, items=inner)
                case Bound():
                    role = item.entry.role
                    if role in (Role.CUTS, Role.BUILDS):
                        pretraining = False
                    if role in dropped or (role is Role.TRAINS and pretraining):
                        continue
                    action = item.action.control(kind) if isinstance(item.action, Controlled) else item.action
                    if action is not None:
                        yield item if action is item.action else replace(item, action=action)
                case _:
                    yield item

    return replace(spec, items=tuple(visit(spec.items)))


def _without_asserts(items: tuple[Item, ...]) -> tuple[Item, ...]:
    kept = [i for i in items if not isinstance(i, ast.Assert)]
    return tuple(replace(i, items=_without_asserts(i.items)) if isinstance(i, StageItem) else i for i in kept)
