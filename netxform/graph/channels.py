"""Mean and variance of values on the way, channel by channel, over batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from netxform.graph.inputs import Given, arguments
from netxform.graph.meta import evaluating
from netxform.graph.network import Network


class _Moments(fx.Interpreter):
    """Runs the graph; keeps count, mean and squared deviations of the watched values, merged batch by batch (Chan, 1979)."""

    def __init__(self, module: fx.GraphModule, nodes: Iterable[str]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.nodes = set(nodes)
        self.found: dict[str, tuple[float, Tensor, Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.nodes:
            rows = value.detach().double().movedim(1, 0).flatten(1)
            count, mean = float(rows.shape[1]), rows.mean(1)
            spread = (rows - mean[:, None]).square().sum(1)
            if n.name in self.found:
                held, old, squares = self.found[n.name]
                gap, whole = mean - old, held + count
                spread = squares + spread + gap.square() * held * count / whole
                mean, count = old + gap * count / whole, whole
            self.found[n.name] = (count, mean, spread)
        return value


def channel_moments(network: Network, nodes: Iterable[str], batches: Iterable[Given]) -> dict[str, tuple[Tensor, Tensor]]:
    """Of the value of each node (N, C, …), in eval mode: mean (C,) and variance (C,) over samples and places, in float64."""
    watch = _Moments(network.module, nodes)
    with torch.no_grad(), evaluating(network.module):
        for x in batches:
            watch.run(*arguments(x))
    return {name: (mean, spread / count) for name, (count, mean, spread) in watch.found.items()}
