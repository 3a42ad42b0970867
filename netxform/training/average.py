"""An exponential average of the weights, which is what is measured, kept and given back in their place.

After step t the average keeps min(decay, (1 + t) / (10 + t)) of itself and takes the rest from the weights, so that a short
training is not held at its start. Running statistics are averaged with the weights; what counts is taken as it is.
Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the warm-up is that of TensorFlow and timm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from netxform.training.state import Run, state_of


def begin(run: Run) -> None:
    """The average is the network as it is."""
    if run.work.ema is not None and not run.average:
        run.average = {n: t.clone() for n, t in _moving(run).items()}


@torch.no_grad()
def follow(run: Run, step: int) -> None:
    """One step is done."""
    if run.work.ema is None:
        return
    kept = min(run.work.ema, (1 + step) / (10 + step))
    now = _moving(run)
    several = [n for n, t in now.items() if t.is_floating_point()]
    get_ema_multi_avg_fn(kept)([run.average[n] for n in several], [now[n] for n in several], step)
    for name, tensor in now.items():
        if not tensor.is_floating_point():
            run.average[name].copy_(tensor)


def _moving(run: Run) -> dict[str, Tensor]:
    wanted = {*run.work.parameters, *run.work.buffers}
    return {n: t for n, t in state_of(run).items() if n in wanted or n.startswith("adapters.")}


@contextlib.contextmanager
def shown(run: Run) -> Generator[None]:
    """While the network has the average in the place of its weights."""
    if not run.average:
        yield
        return
    now = {n: t.clone() for n, t in state_of(run).items() if n in run.average}
    put(run, run.average)
    try:
        yield
    finally:
        put(run, now)


@torch.no_grad()
def put(run: Run, state: Mapping[str, Tensor]) -> None:
    """The network takes on these tensors."""
    held = state_of(run)
    for name, tensor in state.items():
        held[name].copy_(tensor)
