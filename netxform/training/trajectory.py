"""Points of a trajectory: where a network stands in function space, or in weight space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from netxform.core.objective import Training
from netxform.core.trajectory import sketch
from netxform.sources.data import DataSet
from netxform.training.data import Samples, batches


def probe_samples(data: DataSet, work: Training) -> Samples:
    """The samples that a trajectory is recorded on: the first of the part that was asked for."""
    from torch.utils.data import Subset

    assert work.record is not None
    part = cast(Any, {"test": data.test, "val": data.val, "train": data.train}[work.record.part])
    return Subset(part, range(min(work.record.samples, len(part))))


@torch.no_grad()
def point(module: nn.Module, work: Training, probe: Samples, output: Callable[[Any], Tensor], device: torch.device) -> Tensor:
    """One point (D), float32: the outputs on the probe samples one behind the other, or a sketch of the trained weights.

    The modes of the module are as before afterwards.
    """
    assert work.record is not None
    if work.record.what == "weights":
        named = dict(module.named_parameters(remove_duplicate=False))
        return sketch(torch.cat([named[n].detach().float().cpu().flatten() for n in work.parameters]))
    modes = {m: m.training for m in module.modules()}
    module.eval()
    found: list[Tensor] = []
    for x, _ in batches(probe, 256):
        value = output(module(x.to(device))).float()
        found.append((value.softmax(1) if work.loss == "cross_entropy" else value).cpu())
    for part, mode in modes.items():
        part.training = mode
    return torch.cat(found).flatten()
