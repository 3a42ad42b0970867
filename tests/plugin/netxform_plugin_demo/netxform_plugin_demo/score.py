"""`by demo-last`: the last index goes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netxform.pruning.needs import SCORES, ScoreKind

if TYPE_CHECKING:
    from netxform.graph.network import Network
    from netxform.pruning.scores import Request, Scores


def _last(network: Network, request: Request) -> Scores:
    import torch

    from netxform.pruning.gates import free
    from netxform.pruning.scores import Scores

    return Scores({a.atom: torch.arange(a.size).flip(0).double() for a in free(network)}, {}, "the last goes first")


SCORES.register("demo-last")(ScoreKind(_last, data=False))
