"""Optimizers and schedules by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from netxform.errors import fail
from netxform.language.methods import OPTIMIZERS, SCHEDULES
from netxform.language.work import Training
from netxform.registry import called


def optimizer_of(work: Training, named: Mapping[str, nn.Parameter], more: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of the objective: its groups, then all others, then `more` (the maps of matched features).

    Raises NetxformError X0409 for settings that it does not take.
    """
    grouped = {n for g in work.groups for n in g.parameters}
    rest = list({id(named[n]): named[n] for n in work.parameters if n not in grouped}.values())
    groups: list[dict[str, Any]] = [{"params": rest + more}] if rest or more else []
    groups += [{"params": [named[n] for n in g.parameters], **g.settings} for g in work.groups]
    try:
        return called(OPTIMIZERS.find(work.optimizer.name).make)(groups, **work.optimizer.keywords)
    except (TypeError, ValueError) as error:
        raise fail("X0409", f"`{work.optimizer}`: {error}", work.optimizer.span, "bad settings") from None


def schedule_of(work: Training, optimizer: torch.optim.Optimizer, total: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate's share of itself, step by step: `total` steps, the first `warmup` of them rising."""
    warmup = work.warmup

    of = called(SCHEDULES.find(work.schedule.name).share)

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return of(done, **work.schedule.settings)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)
