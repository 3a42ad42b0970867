"""Whether a model gives the graph's bits, in eval and in train mode; where it does not, the line of its code."""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Outcome:
    """What a run gives, and the buffers as they are after it."""

    outputs: list[Tensor]
    buffers: dict[str, Tensor]


def results(module: nn.Module, inputs: tuple[Tensor, ...], training: bool, exits: dict[str, Tensor] | None = None) -> Outcome:
    """What the module gives under one random state; the module itself is left as it is. Into `exits` goes what the modules
    in it give, by path.
    """
    run = copy.deepcopy(module).train(training)
    call: Any = run
    if exits is not None and isinstance(run, fx.GraphModule):
        call = _Exits(run, exits).run
    elif exits is not None:
        for path, part in run.named_modules():
            part.register_forward_hook(_noting(path, exits))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = tensors(call(*(t.clone() for t in inputs)))
    return Outcome(found, dict(run.named_buffers()) if training else {})


class _Exits(fx.Interpreter):
    """Runs a graph and keeps the first value that leaves each module."""

    def __init__(self, module: fx.GraphModule, exits: dict[str, Tensor]) -> None:
        super().__init__(module)
        self.exits, self.extra_traceback = exits, False

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        for path in n.meta.get("exits", ()):
            if isinstance(value, Tensor):
                self.exits.setdefault(path, value.detach().clone())
        return value


def _noting(path: str, exits: dict[str, Tensor]) -> Any:
    def hook(_: nn.Module, __: Any, value: Any) -> None:
        if isinstance(value, Tensor):
            exits.setdefault(path, value.detach().clone())

    return hook


def difference(
    made: nn.Module, graph: fx.GraphModule, wanted: Mapping[bool, Outcome], inputs: tuple[Tensor, ...]
) -> str | None:
    """Where the two differ, in words; None where they give the same bits in both modes, buffers too."""
    for training, theirs in wanted.items():
        try:
            ours = results(made, inputs, training)
        except Exception as error:  # the user's code may raise anything
            return _line(error)
        mode = f"in {'train' if training else 'eval'} mode it"
        if [t.shape for t in theirs.outputs] != [t.shape for t in ours.outputs]:
            shapes = [[tuple(t.shape) for t in o.outputs] for o in (ours, theirs)]
            return f"{_first(made, graph, inputs, training)}{mode} gives {shapes[0]}, the graph {shapes[1]}"
        if not all(equal(a, b) for a, b in zip(theirs.outputs, ours.outputs, strict=True)):
            return f"{_first(made, graph, inputs, training)}{mode} gives other values than the graph"
        for name, buffer in theirs.buffers.items():
            if name in ours.buffers and not equal(buffer, ours.buffers[name]):
                return f"{mode} leaves other values in `{name}` than the graph"
    return None


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether all bits are the same; a NaN equals a NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


def _first(made: nn.Module, graph: fx.GraphModule, inputs: tuple[Tensor, ...], training: bool) -> str:
    """The innermost module whose result is the first to differ, and where its code is."""
    ours, theirs = dict[str, Tensor](), dict[str, Tensor]()
    results(made, inputs, training, ours)
    results(graph, inputs, training, theirs)
    modules = dict(made.named_modules())
    for path, value in ours.items():
        if path in theirs and path in modules and not equal(value, theirs[path]):
            cls = type(modules[path])
            try:
                lines = inspect.getsourcelines(cls.forward)
                return f"`{path}`: {inspect.getsourcefile(cls)}:{lines[1]}: `{cls.__name__}.forward`: "
            except (OSError, TypeError):
                return f"`{path}`: "
    return ""


def tensors(value: Any) -> list[Tensor]:
    """The tensors of an output, in order."""
    return [t for t in pytree.tree_leaves(_plain(value)) if isinstance(t, Tensor)]


def _plain(value: Any) -> Any:
    """Outputs as plain containers, also those of classes that pytree does not know."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in cast("list[Any]", value)]
    return value


def _line(error: Exception) -> str:
    """What the model's own code said, and where."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*ours, "<"))]
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: `{frames[-1].line}`: " if frames else ""
    return f"{where}{text}"
