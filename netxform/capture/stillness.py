"""What the model computes under `torch.no_grad()`: the graph computes it on detached values, so that no gradient flows.

Tracers note on each node whether gradients were off where it ran (`meta["still"]`); here it becomes part of the graph.
"""

from __future__ import annotations

import contextlib
import operator
import os
import sys
from collections.abc import Generator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from netxform.capture.places import located
from netxform.graph.guards import number, require

Reads = dict[tuple[str, str], None]
"""Where code decides by whether gradients are on: file and line, and the text of the line."""


@contextlib.contextmanager
def grad_mode(on: bool, reads: Reads) -> Generator[None]:
    """Let code that asks hear that gradients are on, or off, and note where it asks; `torch.no_grad()` turns them off."""
    asked = torch.is_grad_enabled

    def answer() -> bool:
        file = sys._getframe(1).f_code.co_filename  # pyright: ignore[reportPrivateUsage]
        if not file.startswith(_TORCH):
            reads[located()] = None
        return asked() and (on or file == _SWITCH)

    torch.is_grad_enabled = answer
    try:
        yield
    finally:
        torch.is_grad_enabled = asked


_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_SWITCH = os.path.join(_TORCH, "autograd", "grad_mode.py")
_NUMBERS = {"size", "dim", "numel", "nelement", "item", "tolist", "stride", "is_floating_point", "ndimension", "new_tensor"}
_TENSORS = ("data", "T", "mT", "H", "mH", "real", "imag")
_PLAIN = (require, number, len)


def hold_still(graph: fx.Graph, model: nn.Module, floats: list[bool]) -> None:
    """Let no gradient flow through nodes that ran with gradients off. `floats`: which inputs could carry one."""
    given = iter(floats)
    carries: set[fx.Node] = set()
    stills: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        still = node.meta.pop("still", False)
        if node.op == "placeholder":
            if next(given, True):
                carries.add(node)
        elif node.op == "get_attr":
            if isinstance(_found(model, str(node.target)), nn.Parameter):
                carries.add(node)
        elif node.op != "output":
            _step(node, still, model, carries, stills)


def _step(node: fx.Node, still: bool, model: nn.Module, carries: set[fx.Node], stills: dict[fx.Node, fx.Node]) -> None:
    inputs = [n for n in node.all_input_nodes if n in carries]
    learned = node.op == "call_module" and any(True for _ in model.get_submodule(str(node.target)).parameters())
    if not inputs and not learned:
        return
    if node.target in _NUMBERS or node.target in _PLAIN or (node.target is getattr and node.args[1] not in _TENSORS):
        return
    if node.target in ("detach", torch.detach):
        return
    if not still:
        carries.add(node)
    elif node.op != "call_module" and node.target is not operator.getitem:
        for source in inputs:
            if source not in stills:
                with node.graph.inserting_before(node):
                    stills[source] = _detached(source, node)

        def quiet(source: fx.Node) -> fx.Node:
            return stills[source] if source in inputs else source

        args: Any = map_arg(node.args, quiet)
        kwargs: Any = map_arg(node.kwargs, quiet)
        node.args, node.kwargs = args, kwargs
    elif node.op == "call_module" and any(u.target is operator.getitem for u in node.users):
        carries.add(node)  # a tuple: its parts are detached
    else:
        with node.graph.inserting_after(node):
            made = _detached(node, node)
        node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
        made.meta["exits"], node.meta["exits"] = node.meta.get("exits", ()), ()


def _detached(source: fx.Node, reader: fx.Node) -> fx.Node:
    made = source.graph.call_method("detach", (source,))
    made.meta |= {"scope": reader.meta.get("scope", ""), "exits": (), "entries": ()}
    return made


def _found(model: nn.Module, target: str) -> Any:
    owner, _, name = target.rpartition(".")
    return getattr(model.get_submodule(owner), name, None)
