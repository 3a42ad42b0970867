"""Looking at a model without changing it: what a selection matches, and which axes are coupled, free or locked."""

from __future__ import annotations

from typing import Any

from netxform.axes.algebra import LOCKS
from netxform.axes.coupling import drawing, groups
from netxform.axes.infer import types_of
from netxform.axes.kinds import kind_of
from netxform.axes.reindex import axes_of, shown
from netxform.capture.capture import capture
from netxform.compiler.check import Spec
from netxform.errors import NetxformError
from netxform.graph.network import Network, exit_nodes
from netxform.graph.shapes import times
from netxform.graph.tensors import held
from netxform.language.selector import Selected, World, select
from netxform.pipeline.subject import Inputs, example_of, models_of, subject_of
from netxform.syntax import ast
from netxform.syntax.parse import parse_expression


def listing(spec: Spec, inputs: Inputs, selection: str) -> list[dict[str, Any]]:
    """What a selection matches: name, type, parameters and output shape of each module; names and shapes of tensors."""
    network, found = selected(spec, inputs, selection)
    modules = dict(network.module.named_modules(remove_duplicate=False))
    rows: list[dict[str, Any]] = []
    for name in found.modules:
        exits = exit_nodes(network, name)
        shape = exits[0].meta.get("shape") if exits else None
        count = sum(p.numel() for p in modules[name].parameters())
        rows.append({"name": name, "type": type(modules[name]).__name__, "params": count, "output": _shape(shape)})
    tensors = held(network.module)
    for name in found.tensors:
        tensor = tensors[name]
        rows.append({"name": name, "type": str(tensor.dtype), "params": tensor.numel(), "output": _shape(tuple(tensor.shape))})
    for name in found.ops:
        node = next(n for n in network.module.graph.nodes if n.name == name)
        rows.append({"name": name, "type": "op", "params": 0, "output": _shape(node.meta.get("shape"))})
    return rows


def selected(spec: Spec, inputs: Inputs, selection: str) -> tuple[Network, Selected]:
    """The subject as a graph, and what a selection matches in it. Raises NetxformError X02xx, placed in the selection."""
    models = models_of(spec, inputs, weightless=True)
    subject, loaded = subject_of(spec, inputs, models)
    example = example_of(loaded, inputs)
    network = models.captured(subject, example)[0] if inputs.model is None else capture(loaded.module, *example)
    names = {i.name: i.value for i in spec.items if isinstance(i, ast.Let)}
    expression = parse_expression(selection, "<selection>")
    try:
        return network, select(expression, World(network, names, {}, subject))
    except NetxformError as error:
        raise NetxformError(error.diagnostics, {"<selection>": selection}) from error


def axes(spec: Spec, inputs: Inputs, selection: str) -> tuple[dict[str, Any], str]:
    """The axis types of the selected modules or tensors, the groups of coupled axes and the locks; and all as a drawing."""
    network, found = selected(spec, inputs, selection)
    wanted = [
        n
        for n, dims in types_of(network).tensors.items()
        if dims and (n in found.tensors or (not found.tensors and n.rpartition(".")[0] in found.modules))
    ]
    every = groups(network)
    near = [g for g in every if any(n in wanted for n, _ in g.axis.sites)]
    free = [
        {"name": g.axis.name, "size": g.axis.size, "carried by": g.carriers, "read by": g.readers, "coupled by": g.couplers,
         "mixed": g.axis.mixed, "kind": kind_of(network, g.axis.atom)} for g in near if g.axis.locked is None
    ]  # fmt: skip
    locked: dict[str, list[str]] = {}
    for group in near:
        lock = group.axis.atom.locked
        if lock is not None:
            places = [f"{n}[{d}]" for n, d in group.axis.sites if n in wanted]
            locked.setdefault(LOCKS[lock.kind], []).extend(places)
    types = {n: shown(network, n) for n in wanted}
    return {"types": types, "free": free, "locked": locked}, drawing(network, spec_title(network))


def spec_title(network: Network) -> str:
    """The name of the network and how much of it is free."""
    free = [a for a in axes_of(network) if a.locked is None]
    return f"{network.module._get_name()}: {len(free)} free of {len(axes_of(network))} axes"  # pyright: ignore[reportPrivateUsage]


def _shape(shape: Any) -> str:
    return times(shape) if isinstance(shape, tuple) and shape else ""
