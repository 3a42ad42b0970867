"""Half precision as an operation of an Edit: tensors stored narrow, and casts where values of two precisions meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx
from torch.fx.node import map_aggregate

from netxform.graph.edits import Operation
from netxform.graph.network import Network, refresh
from netxform.graph.outputs import output_node
from netxform.graph.surgery import perform_operation
from netxform.graph.tensors import alike, exchange, held
from netxform.precision.rounding import HALF, casts_needed


@dataclass(frozen=True, slots=True)
class Narrow(Operation):
    """Store the named tensors in `dtype` and put casts where values of two precisions meet; outputs keep their precision."""

    tensors: tuple[str, ...]
    dtype: Literal["float16", "bfloat16"]


@perform_operation.register
def _(edit: Narrow, network: Network, tensors: Mapping[str, torch.Tensor], checked: bool) -> Network:
    """New tensors in the narrow precision, tied ones still one; casts where the twin shows that operands must meet."""
    module, dtype = network.module, HALF[edit.dtype]
    kinds = {n: n.meta.get("dtype") for n in module.graph.nodes}
    chosen = set(edit.tensors)
    old = {id(t): t for n, t in held(module).items() if n in chosen}
    new = {i: alike(t, t.detach().to(dtype)) for i, t in old.items()}
    exchange(module, new)
    nodes = {n.name: n for n in module.graph.nodes}
    for place in casts_needed(network, dtype):
        _cast_operand(module, nodes[place.node], nodes[place.operand], place.dtype)
    module.recompile()
    refresh(network)
    _fit_numbers(module, dtype)
    end = output_node(module)
    for operand in end.all_input_nodes:
        was = kinds.get(operand)
        if was is not None and was.is_floating_point and operand.meta.get("dtype") != was:
            _cast_operand(module, end, operand, was)
    return network


# functions that turn a number into one of their tensor's precision, and fail where it does not fit
_FILLS = {
    "masked_fill",
    "masked_fill_",
    "fill",
    "fill_",
    "full",
    "full_like",
    "new_full",
    "where",
    "index_fill",
    "pad",
    "clamp",
}


def _fit_numbers(module: fx.GraphModule, dtype: torch.dtype) -> None:
    """Numbers that fill a narrow tensor end where its precision ends, as a mask's least number."""
    most = torch.finfo(dtype).max

    def fit(value: Any) -> Any:
        large = type(value) in (int, float) and most < abs(value) < float("inf")
        return (most if value > 0 else -most) if large else value

    for node in module.graph.nodes:
        if node.meta.get("dtype") == dtype and getattr(node.target, "__name__", node.target) in _FILLS:
            node.args, node.kwargs = map_aggregate(node.args, fit), map_aggregate(dict(node.kwargs), fit)
    module.recompile()


def _cast_operand(module: fx.GraphModule, node: fx.Node, operand: fx.Node, dtype: torch.dtype) -> None:
    with module.graph.inserting_before(node):
        made = module.graph.call_method("to", (operand, dtype))
    made.meta |= {"scope": node.meta.get("scope", ""), "exits": (), "entries": ()}
    node.replace_input_with(operand, made)
