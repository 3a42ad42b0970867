"""The same architecture, narrower: every free axis keeps a share of its indices, and all weights are drawn anew.

Network, share ─shrink→ Network
"""

from __future__ import annotations

import torch

from netxform.axes.algebra import Atom
from netxform.axes.infer import types_of
from netxform.axes.reindex import Axis, axes_of, reindex
from netxform.errors import fail
from netxform.graph.network import Network, detached


def shrink(network: Network, width: float, seed: int) -> Network:
    """`width` in (0, 1] of every free axis, rounded, at least one index; weights by each layer's own initialisation.

    Of a dimension that is a product of several (heads × width of a head) only the outermost free one shrinks. Raises
    NetxformError X0320 where nothing is free, X0321 where a size is written in code that cannot follow.
    """
    inner: set[Atom] = set()
    for dims in types_of(network).tensors.values():
        for dim in dims:
            free = [f for f in dim if isinstance(f, Atom) and f.locked is None]
            inner |= set(free[1:])
    maps: dict[Axis | str, list[int]] = {
        a: list(range(max(1, round(a.size * width)))) for a in axes_of(network) if a.locked is None and a.atom not in inner
    }
    if not maps:
        raise fail("X0320", "no axis of the model is free to shrink")
    made = detached(reindex(network, maps))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in made.module.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
    return made
