from __future__ import annotations
import torch, math


def spectral_norm(W):
    return float(torch.linalg.matrix_norm(W.double(), 2))


def im2col_bound(K, *, stride):
    c = 1
    for k, s in zip(K.shape[2:], stride):
        c *= -(-k // s)
    return math.sqrt(c) * spectral_norm(K.flatten(1))


def conv_norm(K, *, stride, padding, dilation, groups, size, method="fft"):
    return max(im2col_bound(k, stride=stride) for k in K.reshape(groups, -1, *K.shape[1:]))
