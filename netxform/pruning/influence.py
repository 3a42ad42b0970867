"""What a block does to what passes through it: how far it turns its input, or what the loss is without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from netxform.graph.blocks import passed_by
from netxform.graph.edits import Bypass, Edit
from netxform.graph.inputs import arguments
from netxform.graph.inputs import count as size_of
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.graph.surgery import perform
from netxform.pruning.loss import Loss, mean_loss

Source = Callable[[], Iterable[tuple[Tensor, Tensor]]]


class _Ends(fx.Interpreter):
    """Sums over the samples of 1 − cos(what a block is given, what it gives), a vector a position, in float64."""

    def __init__(self, module: fx.GraphModule, paths: Sequence[str]) -> None:
        super().__init__(module)
        self.ends = {p: passed_by(module, p)[1:] for p in paths}
        self.entries = {entry for entry, _ in self.ends.values()}
        self.given: dict[fx.Node, Tensor] = {}
        self.sums = dict.fromkeys(paths, 0.0)
        self.count = 0

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.entries:
            self.given[n] = value.detach().clone()
        for path, (entry, end) in self.ends.items():
            if n is end:
                self.sums[path] += float(_turned(self.given[entry], value).sum())
        return value


def _turned(x: Tensor, y: Tensor) -> Tensor:
    """1 − cos of the vectors of features, averaged over the positions: (N,). Maps (N, C, H, W) have them in dimension 1."""
    dim = 1 if x.dim() == 4 or x.dim() == 2 else -1
    turned = 1 - F.cosine_similarity(x.double(), y.double(), dim=dim)
    return turned.flatten(1).mean(1) if turned.dim() > 1 else turned


def by_cosine(network: Network, paths: Sequence[str], source: Source) -> dict[str, float]:
    """The mean of 1 − cos(input, output) of each block ("block influence"; Men et al., "ShortGPT", 2024)."""
    watch = _Ends(network.module, paths)
    count = 0
    with torch.no_grad(), evaluating(network.module):
        for x, _ in source():
            watch.run(*arguments(x))
            count += size_of(x)
    return {p: s / max(count, 1) for p, s in watch.sums.items()}


def by_loss(network: Network, paths: Sequence[str], source: Source, loss: Loss, output: str | None) -> dict[str, float]:
    """What the mean loss is more without each block alone."""
    before = mean_loss(network, source(), loss, output)[0]
    return {p: mean_loss(perform(network, Edit((Bypass((p,)),))), source(), loss, output)[0] - before for p in paths}
