"""Operations across axes, computed over what remains of them: LayerNorm's statistics, means, softmax, extrema.

    Network, removed ─across→ {node: the operation over the rest}, those that have no such form

With its readers gated and these operations blind to the removed indices, the network computes what removal does, also where
something is mixed across an axis. Nothing is cut here: all values keep their sizes, so that the two ways share no code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from netxform.axes.algebra import Atom, Dim, Mix, atoms
from netxform.axes.infer import types_of
from netxform.axes.names import op_name
from netxform.axes.roles import along
from netxform.axes.rules.context import Typed
from netxform.graph.network import Network

Removed = Mapping[Atom, Sequence[int]]
# An operation in the place of a node: (the node's arguments as they are run) → its value.
Instead = Callable[..., Any]
_AS_ZEROS = ("sum", "norm")  # to these a removed index is a zero


def across(network: Network, removed: Removed) -> tuple[dict[str, Instead], list[str]]:
    """The operations over what remains, by node; and the mixes that have none, in words."""
    gone = {a for a, i in removed.items() if i}
    nodes = {n.name: n for n in network.module.graph.nodes}
    made: dict[str, Instead] = {}
    left: dict[str, None] = {}
    for why, dim in types_of(network).mixes:
        if not gone & set(atoms(dim)) or why.kind in _AS_ZEROS or why.at in made:
            continue
        node = nodes.get(why.at)
        form = None if node is None or not node.all_input_nodes else _form(network, node, why, removed)
        if form is None:
            left[f"{why.kind} at {why.at}"] = None
        else:
            made[why.at] = form
    return made, list(left)


def rest(dim: Dim, removed: Removed) -> Tensor:
    """Which positions of a dimension remain: (size,), bool."""
    held = {a: [float(i not in set(removed.get(a, ()))) for i in range(a.size)] for a in atoms(dim)}
    return torch.tensor(along(dim, {}, held)) > 0


def _form(network: Network, node: fx.Node, why: Mix, removed: Removed) -> Instead | None:
    source = node.all_input_nodes[0]
    value = types_of(network).values.get(source.name)
    if not isinstance(value, Typed) or not node.args or node.args[0] is not source:
        return None
    keeps = [rest(d, removed) for d in value.dims]
    module = network.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    name = "" if module is not None else op_name(node)
    match why.kind:
        case "layer_norm" | "rms_norm":
            return _layer_norm(node, module, name, keeps)
        case "group_norm":
            return _group_norm(node, module, name, keeps)
        case "mean" if name == "mean":
            return _mean(keeps)
        case "softmax" if name in ("softmax", "log_softmax") or type(module) in (nn.Softmax, nn.LogSoftmax):
            over = cast(Any, module).dim if module is not None else _argument(node, "dim", 1)
            return _filled(node, module, keeps, over, float("-inf"))
        case "softmax" if name == "scaled_dot_product_attention":
            return _attention(network, node, removed)
        case "extremum" if name in ("amax", "amin", "max", "min"):
            return _filled(node, module, keeps, _argument(node, "dim", 1), float("-inf" if name in ("amax", "max") else "inf"))
        case _:
            return None


def _argument(node: fx.Node, name: str, place: int, default: Any = None) -> Any:
    return node.kwargs.get(name, node.args[place] if len(node.args) > place else default)


def _mask(keeps: Sequence[Tensor], axes: Sequence[int], of: Tensor) -> Tensor:
    """Ones where all of the axes remain, shaped to act on the value."""
    out = of.new_ones([1] * of.dim())
    for axis in axes:
        if not bool(keeps[axis].all()):
            out = out * keeps[axis].to(of).reshape([-1 if i == axis else 1 for i in range(of.dim())])
    return out


def _layer_norm(node: fx.Node, module: nn.Module | None, name: str, keeps: Sequence[Tensor]) -> Instead | None:
    def normed(x: Tensor, count: int, weight: Tensor | None, bias: Tensor | None, eps: float | None, centred: bool) -> Tensor:
        axes = tuple(range(x.dim() - count, x.dim()))
        mask = _mask(keeps, axes, x).expand(*[1] * (x.dim() - count), *x.shape[-count:])
        share = mask / mask.sum()
        d = x - (x * share).sum(axes, keepdim=True) if centred else x
        y = d * torch.rsqrt((d.square() * share).sum(axes, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps))
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    def of_module(x: Tensor) -> Tensor:
        norm: Any = module
        count, bias = len(norm.normalized_shape), getattr(norm, "bias", None)
        return normed(x, count, norm.weight, bias, norm.eps, isinstance(norm, nn.LayerNorm))

    def layer_norm(x: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
        return normed(x, len(normalized_shape), weight, bias, eps, True)

    def rms_norm(x: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
        return normed(x, len(normalized_shape), weight, None, eps, False)

    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return of_module
    return {"layer_norm": layer_norm, "rms_norm": rms_norm}.get(name)


def _group_norm(node: fx.Node, module: nn.Module | None, name: str, keeps: Sequence[Tensor]) -> Instead | None:
    if module is not None and not isinstance(module, nn.GroupNorm):
        return None
    if module is None and name != "group_norm":
        return None
    held: Any = module

    def run(x: Tensor, num_groups: int = 0, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
        if held is not None:
            num_groups, weight, bias, eps = held.num_groups, held.weight, held.bias, held.eps
        shaped = x.reshape(x.shape[0], num_groups, -1)
        mask = _mask(keeps, range(1, x.dim()), x).expand(1, *x.shape[1:]).reshape(1, num_groups, -1)
        count = mask.sum(-1, keepdim=True).clamp_min(1)
        d = shaped - (shaped * mask).sum(-1, keepdim=True) / count
        y = (d * torch.rsqrt((d.square() * mask).sum(-1, keepdim=True) / count + eps)).reshape(x.shape)
        channel = [1, -1] + [1] * (x.dim() - 2)
        y = y if weight is None else y * weight.reshape(channel)
        return y if bias is None else y + bias.reshape(channel)

    return run


def _mean(keeps: Sequence[Tensor]) -> Instead:
    def run(x: Tensor, dim: Any = None, keepdim: bool = False, axis: Any = None, dtype: Any = None) -> Tensor:
        over = axis if dim is None else dim
        axes = list(range(x.dim())) if over is None else [d % x.dim() for d in ([over] if isinstance(over, int) else over)]
        mask = _mask(keeps, axes, x)
        return (x * mask).mean(axes, keepdim, dtype=dtype) * (mask.numel() / mask.sum())

    return run


def _filled(node: fx.Node, module: nn.Module | None, keeps: Sequence[Tensor], over: Any, with_: float) -> Instead | None:
    axes = [over] if isinstance(over, int) else over
    if not isinstance(axes, list | tuple) or not all(isinstance(a, int) for a in cast("list[Any]", axes)):
        return None
    target: Any = node.target

    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        for axis in cast("list[int]", axes):
            x = x.masked_fill(_mask(keeps, [axis % x.dim()], x) == 0, with_)
        if module is not None:
            return module(x, *args, **kwargs)
        return getattr(x, target)(*args, **kwargs) if node.op == "call_method" else target(x, *args, **kwargs)

    return run


def _attention(network: Network, node: fx.Node, removed: Removed) -> Instead | None:
    """The keys that went are masked, where the weights are masked by nothing but a tensor."""
    key = types_of(network).values.get(cast(fx.Node, node.args[1]).name) if len(node.args) > 1 else None
    if not isinstance(key, Typed) or _argument(node, "is_causal", 5, False):
        return None
    keep = rest(key.dims[-2], removed)
    target: Any = node.target

    def run(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        bias = q.new_zeros(len(keep)).masked_fill(~keep, float("-inf"))
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = q.new_zeros(attn_mask.shape).masked_fill(~attn_mask, float("-inf"))
        bias = bias if attn_mask is None else bias + attn_mask
        return target(q, k, v, bias.expand(*bias.shape[:-2], q.shape[-2], len(keep)), *args, **kwargs)

    return run
