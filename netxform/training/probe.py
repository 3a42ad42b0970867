"""Points of a trajectory: where a network stands in function space, or in weight space."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from netxform.graph.inputs import arguments
from netxform.language.trajectory import sketch
from netxform.language.work import Training
from netxform.sources.data import DataSet
from netxform.sources.data.given.samples import part_of, size
from netxform.training.data import batches
from netxform.training.objective import full, pick, terms_of


@torch.no_grad()
def point(module: nn.Module, work: Training, data: DataSet, weights: Mapping[str, Tensor], device: torch.device) -> Tensor:
    """One point (D), float32: the outputs on the probe samples one behind the other, or a sketch of the trained weights.

    `module` gives the output first (see `taps.Student`). Its modes are as before afterwards.
    """
    assert work.record is not None
    if work.record.what == "weights":
        return sketch(torch.cat([weights[n].float().cpu().flatten() for n in work.parameters]))
    part = {"test": data.test, "val": data.val, "train": data.train}[work.record.part]
    there = size(part)
    probe = part_of(part, torch.arange(work.record.samples if there is None else min(work.record.samples, there)))
    term = terms_of(work)[0]
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    found: list[Tensor] = []
    for x, _ in batches(probe, 256):
        value = full(pick(module(*(t.to(device) for t in arguments(x)))[0], term.output)).float()
        found.append((value.softmax(1) if term.loss.kind.takes == "classes" else value).cpu())
    for owner, mode in modes:
        owner.training = mode
    return torch.cat(found).flatten()
