"""Convolutions and patches: channels are contracted or carried, taps and positions are locked."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from netxform.axes.algebra import Lock, fresh, lock, regroup, unify
from netxform.axes.rules.context import Context, Typed, Uncovered, need
from netxform.axes.rules.registry import layer, rule


def convolve(t: Context, x: Typed, weight: Typed, bias: Typed | None, groups: int, transposed: bool) -> Typed:
    """Channels are contracted within groups; taps and positions are locked.

    Groups are an axis of their own: of the input (groups · inputs), of the output (groups · outputs).
    """
    t.touch(x)
    t.touch(weight)
    taps = len(weight.shape) - 2
    channel = len(x.shape) - taps - 1
    for dim in weight.dims[2:]:
        lock(dim, Lock("kernel", t.at))
    for dim in x.dims[channel + 1 :]:
        lock(dim, Lock("spatial", t.at))
    into, out = (0, 1) if transposed else (1, 0)
    if groups == 1:
        t.contract(x, channel, weight, into)
        made = weight.dims[out]
    else:
        if weight.shape[1] == 1:  # one channel a group: the groups are the channels
            lock(weight.dims[1], Lock("one", t.at))
        group = fresh(groups)
        t.state(groups, group)
        if transposed:
            inner = fresh(weight.shape[0] // groups)
            unify(weight.dims[0], group + inner, t.at)
            unify(x.dims[channel], weight.dims[0], t.at)
            within = Typed([inner], (weight.shape[0] // groups,))
            t.contract(within, 0, Typed([inner], within.shape, source=weight.source, axes=(_origin(weight, 0),)), 0)
            made = group + weight.dims[1]
        else:
            outer = fresh(weight.shape[0] // groups)
            unify(weight.dims[0], group + outer, t.at)
            unify(x.dims[channel], group + weight.dims[1], t.at)
            within = Typed([weight.dims[1]], weight.shape[1:2])
            t.contract(within, 0, weight, 1)
            made = weight.dims[0]
    if bias is not None:
        t.touch(bias)
        unify(made, bias.dims[0], t.at)
    dims = [*x.dims[:channel], made, *[fresh(n, Lock("spatial", t.at)) for n in t.shape[channel + 1 :]]]
    return Typed(dims, t.shape, x.dtype)


def _origin(x: Typed, i: int) -> int | None:
    return x.axes[i] if x.source is not None else None


@rule("conv1d conv2d conv3d")
def _conv(
    t: Context, input: Typed, weight: Typed, bias: Typed | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Typed:  # fmt: skip
    """See `convolve`."""
    return convolve(t, input, weight, bias, groups, False)


@rule("conv_transpose1d conv_transpose2d conv_transpose3d")
def _conv_transpose(
    t: Context, input: Typed, weight: Typed, bias: Typed | None = None,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Typed:  # fmt: skip
    """See `convolve`; the weight has the inputs first."""
    return convolve(t, input, weight, bias, groups, True)


@rule("convolution _convolution")
def _convolution(
    t: Context, x: Typed, weight: Typed, bias: Typed | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, *args: Any,
) -> Typed:  # fmt: skip
    """The ATen form of both."""
    return convolve(t, x, weight, bias, groups, bool(transposed))


@rule("im2col unfold")
def _unfold(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Patches: channels by taps, for every position."""
    if len(args) == 3 and all(isinstance(a, int) for a in args):
        raise Uncovered("a sliding window along one dimension")
    t.touch(x)
    if len(x.shape) != 4:
        raise Uncovered("patches of what is no batch of images")
    for dim in x.dims[2:]:
        lock(dim, Lock("spatial", t.at))
    taps = fresh(t.shape[1] // x.shape[1], Lock("kernel", t.at))
    return Typed([x.dims[0], x.dims[1] + taps, fresh(t.shape[2], Lock("spatial", t.at))], t.shape, x.dtype)


@rule("col2im fold")
def _fold(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Patches put together again."""
    t.touch(x)
    if len(x.shape) != 3:
        raise Uncovered("patches without a batch")
    channels = t.shape[1]
    parts = regroup(x.dims[1], [channels, x.shape[1] // channels], t.at)
    if parts is None:
        raise Uncovered("channels and taps cannot be told apart")
    lock(parts[1], Lock("kernel", t.at))
    lock(x.dims[2], Lock("spatial", t.at))
    return Typed([x.dims[0], parts[0], *[fresh(n, Lock("spatial", t.at)) for n in t.shape[2:]]], t.shape, x.dtype)


@layer("Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d")
def _conv_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    conv = cast(nn.Conv2d, module)
    weight = need(t, "weight")
    made = convolve(t, input, weight, t.tensor("bias"), int(conv.groups), conv.transposed)
    channel = len(input.shape) - len(weight.shape) + 1
    if conv.groups != 1:
        groups = t.drop_last_statement()  # stated by `convolve` as a number of the code: here it is an attribute
        t.attribute("groups", *(groups or ()))
    t.attribute("in_channels", input.dims[channel])
    t.attribute("out_channels", made.dims[channel])
    return made


@layer("Unfold")
def _unfold_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    return _unfold(t, input)


@layer("Fold")
def _fold_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    return _fold(t, input)
