"""The models of a spec beside its subject: loaded when a statement first speaks of them, and once.

Spec, name ─Models→ ModelInfo while planning, nn.Module while applying
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netxform.axes.shrink import shrink
from netxform.capture.capture import capture
from netxform.compiler.check import Spec
from netxform.errors import NOWHERE, NetxformError, Span, did_you_mean, fail
from netxform.graph.copies import tensors_of, weightless
from netxform.graph.network import Network, twin
from netxform.graph.outputs import outputs
from netxform.graph.tensors import DTYPES
from netxform.language.values import plain
from netxform.language.verb import ModelInfo
from netxform.language.work import Sight
from netxform.sources.foreign import Foreign, as_model
from netxform.sources.models import LoadedModel, check_finite, load_model, normal_of, parse_input
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.syntax.format import format_node


class Models:
    """`given`: models handed in from Python, by name; they go before declared ones. `bundle` reads a bundle's model.

    `weightless`: plans are made of them and nothing else. A declared model is made without its weights, and kept so where its
    graph is proven to be the one that is captured with them; where it is not, it is loaded, and `taken` says why.
    """

    def __init__(
        self,
        spec: Spec,
        given: Mapping[str, Any],
        trust: Trust,
        bundle: Callable[[Path, bool], nn.Module],
        weightless: bool = False,
    ) -> None:
        self.spec = spec
        self.given = given
        self.trust = trust
        self.bundle = bundle
        self.weightless = weightless
        self.example: tuple[Tensor | None, ...] | None = None
        self._loaded: dict[str, LoadedModel] = {}
        self._networks: dict[str, Network | None] = {}
        self._sources: dict[str, Network] = {}
        self._open: list[str] = []

    def loaded(self, name: str, span: Span) -> LoadedModel:
        """The model as it came. Raises NetxformError X0302 (not declared), X0344 (made of itself), and what loading raises."""
        if name in self._loaded:
            return self._loaded[name]
        if name in self.given:
            module = as_model(self.given[name], span)
            check_finite(module)
            self._loaded[name] = LoadedModel(module, None, type(module).__name__, {"source": "python"})
            return self._loaded[name]
        declared = self.spec.models.get(name)
        if declared is None:
            known = [*self.spec.models, *self.given]
            raise fail(
                "X0302",
                f"no model is called `{name}`",
                span,
                "not declared",
                helps=did_you_mean(name, known)
                or (f"declare it: `model {name} = …`", f"or remember this network before it is changed: `snapshot {name}`"),
            )
        if name in self._open:
            raise fail("X0344", f"`{name}` is made of itself: {' → '.join([*self._open, name])}", declared.span, "circular")
        self._open.append(name)
        try:
            if isinstance(declared.source, ast.Call) and declared.source.name == "shrink":
                self._loaded[name] = self._shrunk(declared, declared.source)
            else:
                self._loaded[name] = load_model(declared, self.trust, self.spec.seed, self.bundle, self.weightless)
        finally:
            self._open.pop()
        return self._loaded[name]

    def taken(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Notes and warnings on how the weights of the loaded models were taken."""
        several = [(name, model.taken) for name, model in self._loaded.items()]
        notes = tuple(f"{name}: {text}" for name, taken in several for text in taken.notes)
        notes += tuple(f"{name}: its weights were loaded to plan: {m.why}" for name, m in self._loaded.items() if m.why)
        return notes, tuple(f"{name}: {text}" for name, taken in several for text in taken.warnings)

    def captured(self, name: str, example: tuple[Tensor | None, ...], span: Span = NOWHERE) -> tuple[Network, LoadedModel]:
        """The model as a graph on these inputs, and the model as it came: with its weights, where the graph needs them."""
        loaded = self.loaded(name, span)
        tensors = list(tensors_of(loaded.module))
        if not self.weightless or not tensors or not all(t.is_meta for t in tensors) or name in self.given:
            return capture(loaded.module, *example), loaded
        try:
            return capture(loaded.module, *(t if t is None else weightless(t) for t in example), proven=True), loaded
        except NetxformError as error:
            why = error.diagnostics[0].message
        whole = load_model(self.spec.models[name], self.trust, self.spec.seed, self.bundle)
        self._loaded[name] = replace(whole, why=f"the graph depends on them, or is not proven without: {why}")
        return capture(whole.module, *example), self._loaded[name]

    def _shrunk(self, declared: ast.Model, call: ast.Call) -> LoadedModel:
        """`shrink(teacher, width=50%)`: the same architecture, narrower, with fresh weights."""
        whole = next((a.value for a in call.arguments if a.key is None), None)
        share = next((a.value for a in call.arguments if a.key == "width"), None)
        if not isinstance(whole, ast.Path) or share is None or len(call.arguments) != 2:
            raise fail("X0411", "`shrink` takes a model and a width: `shrink(teacher, width=50%)`", call.span, "arguments")
        width = float(plain(share))
        if not 0 < width <= 1:
            raise fail("X0406", f"`width` is in (0, 1], not {width:g}", share.span, "width")
        loaded = self.loaded(whole.text, whole.span)
        if isinstance(loaded.module, Foreign):
            raise fail("X0343", f"`{whole.text}` is no network: it has no width", whole.span, "not to be shrunk")
        shapes = loaded.shapes
        example = self.example
        if example is None:
            if shapes is None:
                raise fail("X0215", "the shape of the model's input is not known", whole.span, helps=('`input="1x1x28x28"`',))
            example = tuple(torch.zeros(s) for s, _ in shapes)
        try:
            made = shrink(self.captured(whole.text, example, whole.span)[0], width, self.spec.seed)
        except NetxformError as error:
            raise NetxformError([d if d.span.line else _at(d, call.span) for d in error.diagnostics]) from error
        return LoadedModel(made.module, shapes, format_node(declared.source), {"source": format_node(declared.source)})

    def network(self, name: str, span: Span) -> Network | None:
        """The model as a graph on the inputs of the subject; None for what is no network."""
        if name not in self._networks:
            loaded = self.loaded(name, span)
            if isinstance(loaded.module, Foreign):
                self._networks[name] = None
            else:
                assert self.example is not None
                size = self._sight(name).size
                given = self.example
                if size is not None:
                    first = self.example[0]
                    assert first is not None
                    given = (first.new_zeros((*first.shape[:2], *size)),)
                try:
                    self._networks[name], _ = self.captured(name, given, span)
                except NetxformError as error:
                    raise NetxformError([d if d.span.line else _at(d, span) for d in error.diagnostics]) from error
        return self._networks[name]

    def _sight(self, name: str) -> Sight:
        """How the model is shown images: in the size of its declared input, normalised as it is declared."""
        declared = None if name in self.given else self.spec.models.get(name)
        options = {} if declared is None else {o.key: o.value for o in declared.options}
        size, mean, std = None, tuple[float, ...](), tuple[float, ...]()
        example = self.example or ()
        if "input" in options and len(example) == 1 and example[0] is not None:
            shapes = parse_input(str(plain(options["input"])), options["input"].span)
            shape, mine = shapes[0][0], tuple(example[0].shape)
            if len(shapes) == 1 and len(shape) == len(mine) == 4 and shape[2:] != mine[2:]:
                size = (shape[2], shape[3])
        if "normalize" in options:
            mean, std = normal_of(options["normalize"]) or (mean, std)
        return Sight(size, mean, std)

    def source(self, name: str, span: Span) -> Network:
        """The model as a graph on inputs of its own, where their shape is known: weights may come from one with others."""
        loaded = self.loaded(name, span)
        if loaded.shapes is None or isinstance(loaded.module, Foreign):
            found = self.network(name, span)
            if found is None:
                raise fail("X0328", f"`{name}` is no network: it has no weights to take", span, "no weights")
            return found
        if name not in self._sources:
            made = (torch.zeros(shape, dtype=DTYPES[dtype]) for shape, dtype in loaded.shapes)
            self._sources[name], _ = self.captured(name, tuple(made), span)
        return self._sources[name]

    def info(self, name: str, span: Span) -> ModelInfo:
        """What a plan may know of it."""
        network = self.network(name, span)
        if network is not None:
            shadow = twin(network)
            return replace(described(name, shadow, span, self._loaded[name].description), sight=self._sight(name))
        assert self.example is not None
        module = self._loaded[name].module
        with torch.no_grad():
            found = module(*self.example)
        return ModelInfo(name, None, tuple(found.shape), 0, span, self._loaded[name].description, {None: tuple(found.shape)})

    def module(self, name: str, span: Span) -> nn.Module:
        """What answers: the graph, or what is asked as a whole."""
        network = self.network(name, span)
        return network.module if network is not None else self._loaded[name].module


def described(name: str, network: Network, span: Span, description: str) -> ModelInfo:
    """What a plan may know of a network."""
    known = outputs(network.module)
    shapes = {n: tuple(node.meta["shape"]) for n, node in known.items() if isinstance(node.meta.get("shape"), tuple)}
    shape = next(iter(shapes.values())) if len(known) == 1 and shapes else None
    params = sum(p.numel() for p in network.module.parameters())
    return ModelInfo(name, network, shape, params, span, description, shapes)


def _at(diagnostic: Any, span: Span) -> Any:
    return replace(diagnostic, span=span)
