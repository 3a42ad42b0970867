"""What a statement changes in train() mode, where its contract speaks of eval mode alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import Case, Measured, relative, tensors_in
from netxform.graph.inputs import arguments
from netxform.graph.network import Network, clone
from netxform.language.claims import TrainingGap
from netxform.language.laws import Detail, Evidence


class GapDetail(Detail, frozen=True):
    """What the new statistics were found on, and the samples that the gap was measured on."""

    calibrated_on: str | None
    measured_on: str

    def found(self, measured: float, bound: float) -> str:
        """The gap, and where it comes from."""
        return f"{measured:.2g}" + (
            "" if self.calibrated_on else "; statistics of the new BatchNorm: mean 0, variance 1, no data"
        )


@measures(TrainingGap, GapDetail, again="the network before the statement is not in the folder")
def training_gap(claim: TrainingGap, case: Case) -> Measured:
    """One batch in train() mode under one random state, before and after; new samples where there are some. Nothing is bounded:
    a new BatchNorm uses the statistics of the batch there.
    """
    inputs, where = case.inputs, "probe inputs"
    if claim.data is not None and case.material is not None:
        batch = next(iter(case.material.fresh(claim.data, 128, skip=claim.samples)), None)
        if batch is None:
            batch = next(iter(case.material.batches(claim.data, 128)))
        inputs, where = arguments(batch[0]), case.material.held_out(claim.data)
    count = inputs[0].shape[0] if inputs and inputs[0].dim() else 0
    gap = relative(_training(case.after, inputs, case.seed), _training(case.before, inputs, case.seed))
    name = f"change of the outputs in train() mode, on a batch of {count} {where}"
    said = None if claim.data is None else f"{claim.samples} samples of {claim.data}"
    return Measured(Evidence(name, float("inf"), gap, math.isfinite(gap), count, case.seed, "float32", GapDetail(said, where)))


def _training(network: Network, inputs: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """The outputs in train() mode; running statistics are those of a copy."""
    module = clone(network).module
    buffers = {n: b.clone() for n, b in module.named_buffers()}
    module.train()
    given = [t.to(i.dtype) for t, i in zip(inputs, network.inputs, strict=True)]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        found = torch.func.functional_call(module, buffers, tuple(given))
    return tuple(t for t in tensors_in(found) if t.is_floating_point())
