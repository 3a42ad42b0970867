"""What a spec is carried out on: what was handed in, what is loaded for it, and the plan on it.

Spec, Inputs ─prepare→ Prepared: one capture, one planning; all that follows takes it from here
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from netxform.artifacts import bundle
from netxform.capture.bake import REPAIR, bake, computed, names_of
from netxform.capture.capture import capture
from netxform.compiler.check import Spec
from netxform.compiler.models import Models
from netxform.compiler.plan import Plan
from netxform.compiler.resolve import Planned, resolve
from netxform.errors import NOWHERE, NetxformError, fail
from netxform.graph.network import Network, knowing
from netxform.graph.tensors import DTYPES
from netxform.language.verb import DataInfo
from netxform.sources.data import DataSet, check_python_data, describe
from netxform.sources.models import LoadedModel, check_finite
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.training.targets import targets_of


@dataclass(frozen=True)
class Inputs:
    """What comes with a spec from outside: a model and example inputs, data by name, parameter values, trust, a seed, and
    further models by name (modules, fitted classifiers, functions). `bake`: weights that the model computes are made tensors.
    """

    model: nn.Module | None = None
    example_inputs: tuple[Tensor, ...] | None = None
    data: Mapping[str, Any] = field(default_factory=dict[str, object])
    params: Mapping[str, Any] = field(default_factory=dict[str, object])
    trust: Trust = field(default_factory=Trust)
    seed: int | None = None
    models: Mapping[str, Any] = field(default_factory=dict[str, object])
    bake: bool = False


@dataclass(frozen=True)
class Prepared:
    """A spec that can be carried out: checked, its subject loaded and captured as `network`, every statement planned.

    `original`: the subject as it came. `models`: that, and further models, loaded when a statement first speaks of them.
    """

    spec: Spec
    inputs: Inputs
    models: Models
    network: Network
    planned: Planned
    original: nn.Module
    weights: tuple[str, ...] = ()  # layers that compute their weights each time

    @property
    def plan(self) -> Plan:
        """What will be done."""
        return self.planned.plan


def prepare(spec: Spec, inputs: Inputs, weightless: bool = False) -> Prepared:
    """Load the subject, capture it, and plan every statement on a weightless twin.

    `weightless`: for the plan alone. Models are made without their weights where the graph is proven to be the one that is
    captured with them; where it is not, the weights are loaded, and the plan says why. Raises NetxformError, with the texts
    of the spec for its places.
    """
    weights: list[str] = []
    try:
        models = models_of(spec, inputs, weightless)
        name, loaded = subject_of(spec, inputs, models)
        models.example = example_of(loaded, inputs)
        weights = computed(loaded.module)
        if inputs.model is None:
            captured, loaded = models.captured(name, models.example)
        else:
            captured = capture(loaded.module, *models.example)
        known = replace(
            captured,
            given=tuple(t for t in cast("tuple[Tensor | None, ...]", models.example) if t is not None),
            drawn=inputs.example_inputs is None,
        )
        network = knowing(captured, known)
        planned = resolve(
            spec,
            network,
            subject=name,
            data=infos_of(spec, inputs),
            description=loaded.description,
            models=models.info,
            sources=models.source,
            trust=inputs.trust,
            carried=carries(spec, inputs),
        )
        return Prepared(spec, inputs, models, network, with_weights(planned, models), loaded.module, tuple(weights))
    except NetxformError as error:
        raise with_sources(with_repair(error, weights), spec) from error


def with_repair(error: NetxformError, weights: Sequence[str]) -> NetxformError:
    """The error; where layers compute their weights, it says so: statements about layers do not see such a one."""
    first = error.diagnostics[0]
    if not weights or not first.code.startswith(("X032", "X033")):
        return error
    note = f"{names_of(list(weights))} computed each time from other tensors"
    first = replace(first, notes=(*first.notes, note), helps=(*first.helps, REPAIR))
    return NetxformError([first, *error.diagnostics[1:]], error.sources, error.exit_code)


def with_weights(planned: Planned, models: Models) -> Planned:
    """The plan with what was done to take the weights of its models."""
    notes, warnings = models.taken()
    plan = planned.plan
    return replace(planned, plan=replace(plan, notes=(*plan.notes, *notes), warnings=(*plan.warnings, *warnings)))


def with_sources(error: NetxformError, spec: Spec) -> NetxformError:
    """The error with the texts of the spec, so that its places can be shown."""
    return NetxformError(error.diagnostics, spec.sources | error.sources, error.exit_code)


def models_of(spec: Spec, inputs: Inputs, weightless: bool = False) -> Models:
    """The models that the spec may speak of; nothing is loaded yet."""
    return Models(spec, inputs.models, inputs.trust, bundle_module, weightless)


def bundle_module(folder: Path, weightless: bool) -> nn.Module:
    """The model of a bundle, with every hash compared first."""
    return bundle.read(folder, weightless=weightless)[0].module


def subject_of(spec: Spec, inputs: Inputs, models: Models) -> tuple[str, LoadedModel]:
    """The name of the model that is changed, and the model: the one handed in, else the first that the spec declares.

    Raises NetxformError X0214 (there is none), and what loading raises.
    """
    if inputs.model is not None:
        check_finite(inputs.model)
        name = next(iter(spec.models), "model")
        model = bake(inputs.model) if inputs.bake else inputs.model
        return name, LoadedModel(model, None, type(inputs.model).__name__, {"source": "python"})
    if not spec.models:
        raise fail(
            "X0214",
            "the spec declares no model, and none was handed in",
            helps=("write `model net = zoo.smallcnn()`, or give one: `--model SOURCE`, `nx.apply(spec, model=…)`",),
        )
    name, declared = next(iter(spec.models.items()))
    return name, models.loaded(name, declared.span)


def example_of(loaded: LoadedModel, inputs: Inputs) -> tuple[Tensor, ...]:
    """Inputs that the model takes: those handed in, else made of its declared shapes, else of the shape of the data.

    Raises NetxformError X0215 where no shape is known.
    """
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


def carries(spec: Spec, inputs: Inputs) -> bool:
    """Whether the subject comes with something learnt: weights of its own, a bundle, or a model handed in from Python."""
    if inputs.model is not None or not spec.models:
        return True
    declared = next(iter(spec.models.values()))
    arguments = declared.source.arguments if isinstance(declared.source, ast.Call) else ()
    named = {o.key for o in declared.options} | {a.key for a in arguments}
    library = isinstance(declared.source, ast.Call) and declared.source.name.startswith("hf.")  # always with weights
    return isinstance(declared.source, ast.String) or library or bool(named & {"weights", "pretrained"})


def infos_of(spec: Spec, inputs: Inputs) -> dict[str, DataInfo]:
    """What is known of every data set before it is loaded; data that was handed in goes before declared data."""
    infos: dict[str, DataInfo] = {}
    for name, value in inputs.data.items():
        data = check_python_data(name, value)
        infos[name] = DataInfo(name, data.classes, len(data.train), data.shape, NOWHERE, targets_of(data))
    for name, declared in spec.data.items():
        if name not in infos:
            classes, shape = describe(declared)
            infos[name] = DataInfo(name, classes, None, shape, declared.span)
    return infos
