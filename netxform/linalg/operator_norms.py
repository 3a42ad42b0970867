"""Norms of a linear layer as an operator between l2 spaces: rigorous upper bounds, and lower ones to test them by.

A convolution on zero-padded inputs of a given size is a block of a circular convolution on a larger grid, whose norm is the
largest norm of its symbol over the grid's frequencies (Sedghi, Gupta, Long 2019, for the circular case). A strided one is an
unstrided one on the phases of its input.
"""

from __future__ import annotations

from math import ceil, gcd, sqrt

import torch
from torch import Tensor

from netxform.errors import fail
from netxform.linalg.gram import CHUNK, checked, gram, one_thread

Pair = tuple[int, int]


def spectral_norm(W_OI: Tensor) -> float:
    """‖W‖₂, the largest singular value, in float64."""
    W = checked("the matrix", W_OI, 2)
    with one_thread():
        values = torch.linalg.eigvalsh(gram(W if W.shape[0] <= W.shape[1] else W.mT))
        return float(values[-1].clamp_min(0.0)) ** 0.5


def conv_norm(
    K_OIHW: Tensor,
    *,
    stride: Pair | int = 1,
    padding: Pair | int = 0,
    dilation: Pair | int = 1,
    groups: int = 1,
    size: Pair,
    method: str = "fft",
) -> float:
    """An upper bound of ‖x ↦ conv(x)‖ (l2 → l2) over zero-padded inputs of `size` (height, width).

    `method` "fft" takes the circular embedding (typically 1.0–1.2 times the truth), "im2col" the cheap `im2col_bound`.
    A 1-D convolution is one of height 1. Raises X0411 for shapes that make no convolution, X0811 for NaN or infinity.
    """
    K = _kernel(K_OIHW, groups)
    s, p, d = _pair(stride), _pair(padding), _pair(dilation)
    match method:
        case "im2col":
            return im2col_bound(K_OIHW, stride=s, dilation=d, groups=groups)
        case "fft":
            with one_thread():
                # rounding of the transforms and of the eigenvalues, far above what they lose and far below what matters
                return max(_symbol_norm(part, s, p, d, size) for part in K.double().chunk(groups)) * (1 + 1e-9)
        case _:
            raise fail("X0411", f"unknown method `{method}`: fft or im2col")


def im2col_bound(K_OIHW: Tensor, *, stride: Pair | int = 1, dilation: Pair | int = 1, groups: int = 1) -> float:
    """√(copies) · ‖K as O×Ihw‖₂ bounds the norm for every input size: im2col copies a pixel at most `copies` times.

    Along one axis a pixel meets only the taps t with t·d ≡ const (mod s): ⌈k / (s / gcd(s, d))⌉ of k.
    """
    K = _kernel(K_OIHW, groups)
    s, d = _pair(stride), _pair(dilation)
    copies = 1
    for axis in (0, 1):
        copies *= ceil(K.shape[2 + axis] / (s[axis] // gcd(s[axis], d[axis])))
    return sqrt(copies) * max(spectral_norm(part.reshape(part.shape[0], -1)) for part in K.chunk(groups)) * (1 + 1e-9)


def _symbol_norm(K_OIHW: Tensor, s: Pair, p: Pair, d: Pair, size: Pair) -> float:
    """The largest norm of the symbol of one group, over the half of the frequencies that conjugation leaves."""
    from scipy.fft import next_fast_len

    kernel, grid = K_OIHW, list[int]()
    for axis in (2, 3):
        kernel, length = _phases(kernel, axis, s[axis - 2], p[axis - 2], d[axis - 2], size[axis - 2])
        grid.append(int(next_fast_len(length) or length))
    K = kernel if kernel.shape[0] <= kernel.shape[1] else kernel.transpose(0, 1)
    O, I = K.shape[:2]  # noqa: E741
    # rows in parts, then frequencies in parts, so that the symbols are never there all at once
    best = 0.0
    step = max(1, CHUNK // max(1, O * I))
    F_OIW = torch.fft.rfft(K, n=grid[1], dim=3)
    for row in range(grid[0]):
        angle = torch.arange(K.shape[2], dtype=torch.float64) * (-2 * torch.pi * row / grid[0])
        M_WOI = torch.einsum("oihw,h->woi", F_OIW, torch.polar(torch.ones_like(angle), angle))
        for part in M_WOI.split(step):
            G = part @ part.mH
            over = G.abs().square().sum((1, 2)).sqrt() > best
            if bool(over.any()):
                best = max(best, float(torch.linalg.eigvalsh(G[over])[:, -1].max()))
    return best**0.5


def _phases(K: Tensor, axis: int, s: int, p: int, d: int, n: int) -> tuple[Tensor, int]:
    """Along `axis`: the taps laid out with their dilation and dealt to s phases (more input channels); and the grid length.

    The padded input at s·v + φ is phase φ at v, so a tap at s·a + φ is tap a of phase φ. The grid holds the input and all taps.
    """
    reach = d * (K.shape[axis] - 1)
    taps = reach // s + 1
    spread = K.new_zeros(*K.shape[:axis], taps * s, *K.shape[axis + 1 :])
    spread.narrow(axis, 0, reach + 1).index_copy_(axis, torch.arange(0, reach + 1, d), K)
    dealt = spread.unflatten(axis, (taps, s)).movedim(axis + 1, 2).flatten(1, 2)
    length = (p + n - 1) // s - p // s + 1
    return dealt, length + taps - 1


def _kernel(K: Tensor, groups: int) -> Tensor:
    out = checked("the kernel", K)
    if out.ndim == 3:
        out = out[:, :, None]
    if out.ndim != 4 or groups < 1 or out.shape[0] % groups:
        raise fail("X0411", f"a kernel of shape {tuple(K.shape)} in {groups} groups is no 1-D or 2-D convolution")
    return out


def _pair(value: Pair | int) -> Pair:
    return (value, value) if isinstance(value, int) else value
