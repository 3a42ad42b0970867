"""Channels and positions exchanged: pixel and channel shuffles."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from netxform.axes.algebra import Lock, fresh, lock, regroup
from netxform.axes.rules.context import Context, Typed, Uncovered
from netxform.axes.rules.registry import layer, rule


@rule("pixel_shuffle")
def _pixel_shuffle(t: Context, x: Typed, upscale_factor: int) -> Typed:
    """Channels (c · r · r) become positions."""
    t.touch(x)
    parts = regroup(x.dims[-3], [t.shape[-3], upscale_factor**2], t.at)
    if parts is None:
        raise Uncovered("channels cannot be written as this product")
    lock(parts[1], Lock("spatial", t.at))
    for dim in x.dims[-2:]:
        lock(dim, Lock("spatial", t.at))
    return Typed([*x.dims[:-3], parts[0], *[fresh(n, Lock("spatial", t.at)) for n in t.shape[-2:]]], t.shape, x.dtype)


@rule("pixel_unshuffle")
def _pixel_unshuffle(t: Context, x: Typed, downscale_factor: int) -> Typed:
    """Positions become channels (c · r · r)."""
    t.touch(x)
    for dim in x.dims[-2:]:
        lock(dim, Lock("spatial", t.at))
    channels = x.dims[-3] + fresh(downscale_factor**2, Lock("spatial", t.at))
    return Typed([*x.dims[:-3], channels, *[fresh(n, Lock("spatial", t.at)) for n in t.shape[-2:]]], t.shape, x.dtype)


@rule("channel_shuffle native_channel_shuffle")
def _channel_shuffle(t: Context, x: Typed, groups: int) -> Typed:
    """Channels (groups · c) in the order (c · groups)."""
    t.touch(x)
    parts = regroup(x.dims[1], [groups, x.shape[1] // groups], t.at)
    if parts is None:
        raise Uncovered("channels cannot be written as this product")
    t.state(groups, parts[0])
    return Typed([x.dims[0], parts[1] + parts[0], *x.dims[2:]], t.shape, x.dtype)


@layer("PixelShuffle PixelUnshuffle")
def _pixels(t: Context, module: nn.Module, input: Typed) -> Typed:
    if isinstance(module, nn.PixelShuffle):
        return _pixel_shuffle(t, input, module.upscale_factor)
    return _pixel_unshuffle(t, input, cast(nn.PixelUnshuffle, module).downscale_factor)


@layer("ChannelShuffle")
def _channel_shuffle_layer(t: Context, module: nn.Module, input: Typed) -> Typed:
    made = _channel_shuffle(t, input, cast(Any, module).groups)
    t.attribute("groups", *(t.drop_last_statement() or ()))
    return made
