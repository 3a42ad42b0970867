"""Norms: what shares statistics is mixed, scale and shift have the index of what they scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from netxform.axes.algebra import ONE, Lock, lock, regroup, unify
from netxform.axes.rules.context import Context, Typed, Uncovered, alike, several, unknown
from netxform.axes.rules.registry import layer, rule


@rule("batch_norm _batch_norm_impl_index native_batch_norm cudnn_batch_norm _native_batch_norm_legit native_batch_norm_legit")
def _batch_norm(
    t: Context, input: Typed, *tensors: Any, weight: Any = None, bias: Any = None, running_mean: Any = None,
    running_var: Any = None, training: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """One statistic a channel; in training mode computed over everything else."""
    given = [a for a in (*tensors, weight, bias, running_mean, running_var) if isinstance(a, Typed)]
    flags = [a for a in tensors if isinstance(a, bool)]
    return batch_norm(t, input, given, bool(training) if training is not None else bool(flags and flags[0]))


@rule("_native_batch_norm_legit_no_training")
def _batch_norm_eval(t: Context, input: Typed, *tensors: Any, **kwargs: Any) -> Any:
    """One running statistic a channel."""
    return batch_norm(t, input, [a for a in tensors if isinstance(a, Typed)], False)


def batch_norm(t: Context, x: Typed, tensors: Sequence[Typed], batch_statistics: bool) -> Any:
    """Everything that has a channel's index has the same one."""
    t.touch(x)
    for tensor in tensors:
        t.touch(tensor)
        unify(tensor.dims[0], x.dims[1], t.at)
    if batch_statistics:
        for i, dim in enumerate(x.dims):
            if i != 1:
                t.mix(dim, "batch_norm")
    if several(t):
        rest = [Typed([x.dims[1]], s) if s == (x.shape[1],) else unknown(t, s) for s in t.shape[1:]]
        return (Typed(list(x.dims), x.shape, x.dtype), *rest)
    return Typed(list(x.dims), x.shape, x.dtype)


@rule("instance_norm")
def _instance_norm(
    t: Context, input: Typed, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    *args: Any, **kwargs: Any,
) -> Typed:  # fmt: skip
    """Statistics over positions, for every channel by itself."""
    for dim in input.dims[2:]:
        t.mix(dim, "batch_norm")
    return batch_norm(t, input, [a for a in (running_mean, running_var, weight, bias) if isinstance(a, Typed)], False)


@rule("layer_norm native_layer_norm rms_norm _fused_rms_norm")
def _layer_norm(
    t: Context, input: Typed, normalized_shape: Any, weight: Typed | None = None, bias: Any = None, eps: Any = None, *args: Any
) -> Any:
    """Statistics over the last dimensions together: they are mixed. Scale and shift have their index."""
    t.touch(input)
    count = len(normalized_shape)
    last = input.dims[len(input.dims) - count :]
    for number, dim in zip(normalized_shape, last, strict=True):
        t.mix(dim, "layer_norm")
        t.state(number, dim)
    for tensor in (weight, bias):
        if isinstance(tensor, Typed):
            t.touch(tensor)
            for a, b in zip(last, tensor.dims, strict=True):
                unify(a, b, t.at)
    if several(t):
        return (alike(input), *[Typed([d if n == m else ONE for d, n, m in zip(input.dims, input.shape, s, strict=True)], s)
                                 if len(s) == len(input.shape) else unknown(t, s) for s in t.shape[1:]])  # fmt: skip
    return alike(input)


def group_norm(t: Context, x: Typed, tensors: Sequence[Typed], groups: int) -> Typed:
    """Statistics within a group: whole groups are free, what is inside one is mixed."""
    t.touch(x)
    for tensor in tensors:
        t.touch(tensor)
        unify(x.dims[1], tensor.dims[0], t.at)
    parts = regroup(x.dims[1], [groups, x.shape[1] // groups], t.at)
    if parts is None:
        lock(x.dims[1], Lock("shape", t.at))
    else:
        t.state(groups, parts[0])
        t.mix(parts[1], "group_norm")
    for dim in x.dims[2:]:
        t.mix(dim, "group_norm")
    return alike(x)


@rule("group_norm")
def _group_norm(
    t: Context, input: Typed, num_groups: int, weight: Any = None, bias: Any = None, *args: Any, **kwargs: Any
) -> Typed:
    """See `group_norm`."""
    return group_norm(t, input, [a for a in (weight, bias) if isinstance(a, Typed)], num_groups)


@rule("native_group_norm")
def _native_group_norm(t: Context, x: Typed, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float) -> Any:
    """The ATen form."""
    made = group_norm(t, x, [a for a in (weight, bias) if isinstance(a, Typed)], groups)
    return (made, *[unknown(t, s) for s in t.shape[1:]])


@rule("_weight_norm_interface _weight_norm")
def _weight_norm(t: Context, v: Typed, g: Typed, dim: int = 0) -> Any:
    """W = g v / |v|: the norm runs over everything but `dim`."""
    t.touch(v)
    t.touch(g)
    for i, d in enumerate(v.dims):
        if i == dim and g.shape and g.shape[i] == v.shape[i]:
            unify(d, g.dims[i], t.at)
        elif i != dim:
            t.mix(d, "norm")
    if several(t):
        norms = t.shape[1]
        kept = len(norms) == len(v.shape) and norms[dim] == v.shape[dim]
        return (
            alike(v),
            Typed([d if i == dim else ONE for i, d in enumerate(v.dims)], norms) if kept else unknown(t, norms),
        )
    return alike(v)


@layer("BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm FrozenBatchNorm1d FrozenBatchNorm2d FrozenBatchNorm3d")
def _batch_norm_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    norm = cast(nn.BatchNorm2d, module)
    held = [v for n in ("weight", "bias", "running_mean", "running_var") if (v := t.tensor(n)) is not None]
    made = batch_norm(t, input, held, norm.running_mean is None)
    t.attribute("num_features", input.dims[1])
    return cast(Typed, made)


@layer("BatchNormAct2d FrozenBatchNormAct2d")
def _batch_norm_act(t: Context, module: nn.Module, input: Typed) -> Typed:
    if list(cast(Any, module).act.parameters()):
        raise Uncovered("its activation holds weights")
    return _batch_norm_layer(t, module, input)


@layer("InstanceNorm1d InstanceNorm2d InstanceNorm3d")
def _instance_norm_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    held = [v for n in ("weight", "bias", "running_mean", "running_var") if (v := t.tensor(n)) is not None]
    for dim in input.dims[2:]:
        t.mix(dim, "batch_norm")
    made = batch_norm(t, input, held, False)
    t.attribute("num_features", input.dims[1])
    return cast(Typed, made)


@layer("LayerNorm RMSNorm")
def _layer_norm_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    sizes = cast(nn.LayerNorm, module).normalized_shape
    t.touch(input)
    last = input.dims[len(input.dims) - len(sizes) :]
    kind = "layer_norm" if isinstance(module, nn.LayerNorm) else "rms_norm"
    for i, dim in enumerate(last):
        t.mix(dim, kind)
        t.attribute("normalized_shape", dim, item=i)
    for name in ("weight", "bias"):
        tensor = t.tensor(name)
        if tensor is not None:
            t.touch(tensor)
            for a, b in zip(last, tensor.dims, strict=True):
                unify(a, b, t.at)
    return Typed(list(input.dims), input.shape, input.dtype)


@layer("GroupNorm")
def _group_norm_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    held = [v for n in ("weight", "bias") if (v := t.tensor(n)) is not None]
    made = group_norm(t, input, held, cast(nn.GroupNorm, module).num_groups)
    stated = t.drop_last_statement()
    if stated is not None:
        t.attribute("num_groups", *stated)
    t.attribute("num_channels", input.dims[1])
    return made
