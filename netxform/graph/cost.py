"""What a network costs: parameters, multiply-accumulates of one sample's forward pass, bytes. Counted on the twin."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from netxform.graph.meta import MetaRun, evaluating
from netxform.graph.network import Network, example, numbers, weightless_parts


@dataclass(frozen=True, slots=True)
class Cost:
    """`params` and `bytes` of all parameters and buffers (tied ones once); `macs` of one sample.

    Weights that are stored as int8 count as parameters.
    """

    params: int
    macs: int
    bytes: int

    def totals(self) -> dict[str, int]:
        """The three, by name."""
        return asdict(self)


def cost(network: Network) -> Cost:
    """Count. MACs are half the floating-point operations of products and convolutions, at batch 1."""
    module = network.module
    params = numbers(module)
    held = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    batch = next((i.shape[0] for i in network.inputs if i.shape), 1)
    counter: Any = FlopCounterMode(display=False)
    parts = weightless_parts(network)
    learned = [p for p in parts.parameters() if p.requires_grad]
    try:
        for parameter in learned:
            parameter.requires_grad_(False)  # the counter takes a part that gives a view of its parameter for one that learns
        with torch.no_grad(), torch.device("meta"), evaluating(parts), counter:
            MetaRun(parts, graph=module.graph).run(*example(network))
    finally:
        for parameter in learned:
            parameter.requires_grad_()
    return Cost(params, counter.get_total_flops() // 2 // max(batch, 1), held)
