from __future__ import annotations
from dataclasses import dataclass
import torch, math
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    U_OR: Tensor
    V_RI: Tensor
    error: float
    norm: float
    method: str


def truncate(W_OI, rank, *, exact=False, seed=0, slack=1.005):
    W = W_OI.detach()
    U, S, V = torch.linalg.svd(W.double(), full_matrices=False)
    r = max(1, min(rank, *W.shape))
    s = S[:r].sqrt()
    u = (U[:, :r] * s).to(W.dtype).contiguous()
    v = (s[:, None] * V[:r]).to(W.dtype).contiguous()
    e = float((W.double() - u.double() @ v.double()).norm())
    return LowRank(u, v, e, float(W.double().norm()), "exact")


def spectrum(W):
    return torch.linalg.svdvals(W.double())


def rank_by_vbmf(W):
    return max(1, min(W.shape) // 3)
