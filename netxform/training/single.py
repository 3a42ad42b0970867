"""Batches of one sample: where BatchNorm cannot train on them."""

from __future__ import annotations

import math
from typing import Any, cast

from torch import fx, nn

from netxform.graph.network import Network


def one_value(network: Network, module: fx.GraphModule) -> bool:
    """Whether a BatchNorm that takes the statistics of the batch would see one value a channel in a batch of one sample.

    `module` has the modes of the training; the shapes are those of `network`.
    """
    norms = {
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)  # pyright: ignore[reportPrivateUsage]
        and (part.training or part.running_mean is None)
    }
    looked = set[str]()
    for node in network.module.graph.nodes:
        name = str(node.target)
        if node.op == "call_function" and getattr(node.target, "__name__", "") == "batch_norm":
            return True
        if node.op == "call_module" and name in norms:
            before: Any = node.args[0].meta.get("shape") if node.args else None
            if not isinstance(before, tuple) or math.prod(cast("tuple[int, ...]", before)[2:]) == 1:
                return True
            looked.add(name)
    # what stands in code that is kept whole is not looked into
    return norms != looked


def left_out(samples: int, batch: int) -> str:
    """What is said of the last sample of an epoch."""
    return (
        f"{samples} samples in batches of {batch} leave a last batch of one, which BatchNorm cannot train on: one sample, "
        "another in every epoch, is left out"
    )
