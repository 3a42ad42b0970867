"""The branch that is right for both: a mask of all ones makes many models skip masking, and masking with it gives the same.

A graph that was captured with such a mask requires it. The model is captured once more with a mask that decides otherwise;
where that graph gives the model's values on both kinds of input, it stands for both, and the decision needs no guard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from netxform.capture.judge import Judge
from netxform.capture.sizes import erase
from netxform.errors import NetxformError
from netxform.graph.guards import is_guard, require

Given = tuple[Tensor, ...]
_DRAWN = 1


def general(
    module: fx.GraphModule, judge: Judge, again: Callable[[Given], fx.GraphModule], both: bool
) -> fx.GraphModule | None:
    """A graph of the model that holds for other masks too, or None. `again` captures at other inputs; `both`: in both modes."""
    masks = _masks(module, judge.given[0])
    if not masks or judge.on_meta:
        return None
    given = judge.given[0]
    other = tuple(_padded(t) if i in masks else t for i, t in enumerate(given))
    try:
        made = again(other)
        Judge(judge.model, other).accept(made, recorded=True)
        if not _freed(made, given):
            return None
        if both and not judge.trains(made):
            return None
    except (NetxformError, RuntimeError):  # the model does not take such a mask, or the graph is not the model
        return None
    generator = torch.Generator().manual_seed(0)
    drawn = [tuple(_drawn(t, i in masks, generator) for i, t in enumerate(given)) for _ in range(_DRAWN)]
    some = [tuple(t if i in masks else _drawn(t, False, generator) for i, t in enumerate(given)) for _ in range(_DRAWN)]
    if all(judge.same_at(made, inputs, None) for inputs in (*judge.given, *drawn, *some)):
        return made
    return None


def _masks(module: fx.GraphModule, given: Given) -> list[int]:
    """Inputs of one value that a decision on values hangs on."""
    stack = [n for n in module.graph.nodes if is_guard(n) and not n.meta.get("sizes")]
    seen = set(stack)
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in seen and source.target not in ("size", "numel", "dim"):
                seen.add(source)
                stack.append(source)
    taken = [n for n in module.graph.nodes if n.op == "placeholder"]
    return [
        i
        for i, (node, t) in enumerate(zip(taken, given, strict=False))
        if node in seen and t.dim() > 0 and t.shape[-1] > 1 and bool((t == 1).all())
    ]


def _padded(mask: Tensor) -> Tensor:
    """The mask with ends of rows at zero, in the first row the most."""
    made, length = mask.clone(), mask.shape[-1]
    for i, row in enumerate(made.reshape(-1, length)):
        row[max(1, length - max(1, length // 2) + i) :] = 0
    return made


def _drawn(tensor: Tensor, mask: bool, generator: torch.Generator) -> Tensor:
    if mask:
        made = (torch.rand(tensor.shape, generator=generator) < 0.6).to(tensor.dtype)
        made[..., 0] = 1
        return made
    if tensor.is_floating_point():
        return tensor * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    shuffled = tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)]
    return shuffled.reshape(tensor.shape) if tensor.dim() else tensor


def _freed(module: fx.GraphModule, given: Given) -> bool:
    """Take out the decisions on values that come out another way at these inputs. Whether those were all that did."""
    run = _Refused(module)
    with torch.no_grad():
        run.run(*(t.clone() for t in given))
    if not run.refused or any(n.meta.get("sizes") for n in run.refused):
        return False
    for node in run.refused:
        erase(node)
    module.recompile()
    return True


class _Refused(fx.Interpreter):
    """A run that goes on where a guard refuses, and notes it."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.refused: list[fx.Node] = []
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        """The value of the node."""
        if not is_guard(n):
            return super().run_node(n)
        args, _ = self.fetch_args_kwargs_from_env(n)
        try:
            require(*args)
        except RuntimeError:
            self.refused.append(n)
        return None
