"""What a spec is carried out on: what was handed in, what is loaded for it, and the plan on it.

Spec, Inputs ─prepare→ Prepared: one capture, one planning; all that follows takes it from here
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
from netxform.sources.data import DataSet, asks_model, check_python_data, nothing_stated
from netxform.sources.data import look as look_at
from netxform.sources.data.given.binding import bind
from netxform.sources.data.given.python import sample_of
from netxform.sources.data.given.samples import leaves, size
from netxform.sources.data.source import Seen, Stated
from netxform.sources.data.stated import stated
from netxform.sources.models import LoadedModel, check_finite
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.training.targets import look, targets_of


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
    beside: Mapping[str, bytes] = field(default_factory=dict[str, bytes])  # the subject's tokenizer and the like, as files
    stated: Stated | None = None  # of the images that the subject's weights were learnt from

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
        inputs = replace(inputs, data={n: check_python_data(n, v) for n, v in inputs.data.items()})
        models = models_of(spec, inputs, weightless)
        seen = looked(spec, inputs)
        name, loaded = subject_of(spec, inputs, models, seen)
        known_of = stated(loaded.module, loaded.provenance)
        for declared in spec.data.values():
            if asks_model(declared) and known_of is None:
                raise nothing_stated(declared)
        models.example = example_of(loaded, inputs)
        weights = computed(loaded.module)
        if inputs.model is None:
            captured, loaded = models.captured(name, models.example)
        else:
            captured = capture(loaded.module, *models.example)
        known = replace(
            captured,
            given=tuple(t for t in models.example if t is not None),
            drawn=inputs.example_inputs is None,
        )
        network = knowing(captured, known)
        inputs = replace(inputs, data={n: bind(d, network.inputs) for n, d in inputs.data.items()})
        planned = resolve(
            spec,
            network,
            subject=name,
            data=infos_of(spec, inputs, seen),
            description=loaded.description,
            models=models.info,
            sources=models.source,
            trust=inputs.trust,
            carried=carries(spec, inputs),
        )
        said = tuple(f"{n}: {text}" for n, data in inputs.data.items() for text in data.said)
        said += tuple(f"{n}: {'; '.join(one.said)}" for n, one in seen.items() if one.said)
        planned = with_weights(planned, models, said)
        module, beside = loaded.module, loaded.beside
        return Prepared(spec, inputs, models, network, planned, module, tuple(weights), beside, known_of)
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


def with_weights(planned: Planned, models: Models, said: tuple[str, ...] = ()) -> Planned:
    """The plan with what was done to take the weights of its models, and what is said of its data."""
    notes, warnings = models.taken()
    plan = planned.plan
    return replace(planned, plan=replace(plan, notes=(*plan.notes, *notes, *said), warnings=(*plan.warnings, *warnings)))


def with_sources(error: NetxformError, spec: Spec) -> NetxformError:
    """The error with the texts of the spec, so that its places can be shown."""
    return NetxformError(error.diagnostics, spec.sources | error.sources, error.exit_code)


def models_of(spec: Spec, inputs: Inputs, weightless: bool = False) -> Models:
    """The models that the spec may speak of; nothing is loaded yet."""
    return Models(spec, inputs.models, inputs.trust, bundle_module, weightless)


def bundle_module(folder: Path, weightless: bool) -> nn.Module:
    """The model of a bundle, with every hash compared first."""
    return bundle.read(folder, weightless=weightless)[0].module


def subject_of(spec: Spec, inputs: Inputs, models: Models, seen: Mapping[str, Seen] | None = None) -> tuple[str, LoadedModel]:
    """The name of the model that is changed, and the model: the one handed in, else the first that the spec declares. `seen`:
    of the data; a model of a library takes images in the size of the data, where the spec says no other.

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
    return name, _in_size(models.loaded(name, declared.span), declared, looked(spec, inputs) if seen is None else seen)


_ANY_SIZE = ("torchvision.", "timm.")


def _in_size(loaded: LoadedModel, declared: ast.Model, seen: Mapping[str, Seen]) -> LoadedModel:
    """The model with the height and width of the data for those that its library states, which are those of its weights."""
    library = str(loaded.provenance.get("source", "")).startswith(_ANY_SIZE)
    if loaded.shapes is None or not library or any(o.key == "input" for o in declared.options):
        return loaded
    shapes = {s.shape for s in seen.values() if s.shape is not None and len(s.shape) == 3}
    (first, kind), *others = loaded.shapes
    if len(shapes) != 1 or others or len(first) != 4:
        return loaded
    size_ = next(iter(shapes))
    return loaded if size_[0] != first[1] else replace(loaded, shapes=(((first[0], *size_), kind),))


def example_of(loaded: LoadedModel, inputs: Inputs) -> tuple[Tensor | None, ...]:
    """Inputs that the model takes: those handed in, else made of its declared shapes, else of the shape of the data.

    Raises NetxformError X0215 where no shape is known.
    """
    if inputs.example_inputs is not None:
        return tuple(inputs.example_inputs)
    shapes = loaded.shapes
    if shapes is None:
        given = next((g for g in (_of_data(loaded.module, d) for d in inputs.data.values()) if g is not None), None)
        if given is None:
            raise fail(
                "X0215",
                "the shape of the model's input is not known",
                helps=('say it: `model net = … input="1x3x224x224:f32"`, or hand in `example_inputs=`',),
            )
        return given
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: list[Tensor] = []
        for shape, name in shapes:
            dtype = DTYPES[name]
            made.append(torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype))
        return tuple(made)


def _of_data(module: nn.Module, data: DataSet) -> tuple[Tensor | None, ...] | None:
    """The first sample of the data as arguments of the model: one tensor, by place, or fields by the names of its arguments."""
    first = sample_of(data)
    if first is None:
        return None
    x = first[0]
    if not isinstance(x, dict):
        return tuple(_as_taken(module, t) for t in leaves(x))
    names = [n for n, p in inspect.signature(module.forward).parameters.items() if p.kind is not p.VAR_KEYWORD]
    held = [x.get(n) for n in names]
    while held and held[-1] is None:
        held.pop()
    if not held:
        return (_as_taken(module, next(iter(x.values()))),) if len(x) == 1 else None
    return tuple(None if t is None else _as_taken(module, t) for t in held)


def _as_taken(module: nn.Module, value: Tensor) -> Tensor:
    """A sample in the type of the model's numbers; whole numbers stay so where the model looks something up by them."""
    looked_up = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in module.modules())
    own = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    if value.dtype.is_floating_point:
        return value.to(own)
    return value.long() if looked_up else value.to(own)


def carries(spec: Spec, inputs: Inputs) -> bool:
    """Whether the subject comes with something learnt: weights of its own, a bundle, or a model handed in from Python."""
    if inputs.model is not None or not spec.models:
        return True
    declared = next(iter(spec.models.values()))
    arguments = declared.source.arguments if isinstance(declared.source, ast.Call) else ()
    named = {o.key for o in declared.options} | {a.key for a in arguments}
    library = isinstance(declared.source, ast.Call) and declared.source.name.startswith("hf.")  # always with weights
    return isinstance(declared.source, ast.String) or library or bool(named & {"weights", "pretrained"})


def looked(spec: Spec, inputs: Inputs) -> dict[str, Seen]:
    """What names and headers tell of every data set that the spec declares, and that was not handed in."""
    return {n: look_at(d, inputs.trust, spec.seed) for n, d in spec.data.items() if n not in inputs.data}


def infos_of(spec: Spec, inputs: Inputs, seen: Mapping[str, Seen]) -> dict[str, DataInfo]:
    """What is known of every data set before it is loaded; data that was handed in goes before declared data."""
    infos: dict[str, DataInfo] = {}
    for name, data in inputs.data.items():
        several = (size(data.train), data.shape, NOWHERE, targets_of(data), data.inputs, data.labelled, data.batch)
        infos[name] = DataInfo(name, data.classes, *several)
    for name, one in seen.items():
        targets = look(one.targets) if one.targets is not None and one.classes is None else None
        infos[name] = DataInfo(name, one.classes, one.train, one.shape, spec.data[name].span, targets, one.inputs, one.labelled)
    return infos
