"""What every factorization shares: sound inputs, one thread, Gram matrices in float64, eigenvectors with canonical signs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from netxform.errors import fail

# elements of the float64 copies that are held at once beside a matrix of another type (32 MB)
CHUNK = 1 << 22
# elements of a float64 chunk that stays in the cache (2 MB)
CACHED = 1 << 18


@contextmanager
def one_thread() -> Generator[None]:
    """One thread inside: decompositions give other bits on two (products do not), so their number is not left to chance."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def checked(what: str, tensor: Tensor, order: int | None = None) -> Tensor:
    """`tensor` detached and contiguous, half precision lifted to float32.

    Raises X0811 where it holds NaN or infinity (`eigh` and `qr` would not say so), X0411 where it is empty, not of real
    floating point, or not of the given order (number of dimensions).
    """
    if not tensor.dtype.is_floating_point or tensor.numel() == 0 or (order is not None and tensor.ndim != order):
        wanted = "a non-empty real tensor" if order is None else f"a non-empty real tensor of order {order}"
        raise fail("X0411", f"{what} has shape {tuple(tensor.shape)} and type {tensor.dtype}: {wanted} is needed")
    out = tensor.detach()
    out = out if out.dtype in (torch.float32, torch.float64) else out.float()
    # a sum is finite where all its terms are, and costs no mask of the tensor's size; an overflow is looked into
    if not bool(torch.isfinite(out.sum())) and not bool(torch.isfinite(out).all()):
        raise fail(
            "X0811",
            f"{what} of shape {tuple(tensor.shape)} holds NaN or infinity",
            notes=("a factorization of it would be meaningless",),
            helps=("check how these weights were trained or converted",),
        )
    return out.contiguous()


def gram(A_MN: Tensor) -> Tensor:
    """A Aᵀ (M×M) in float64, by columns of A in float64 a chunk at a time."""
    rows, columns = A_MN.shape
    if A_MN.dtype == torch.float64:
        return A_MN @ A_MN.mT
    out_MM = torch.zeros(rows, rows, dtype=torch.float64)
    # wide enough for the product, and small enough to stay in the cache where it can
    step = max(256, CACHED // rows)
    for start in range(0, columns, step):
        part = A_MN[:, start : start + step].double()
        out_MM.addmm_(part, part.mT)
    return out_MM


def frobenius(A: Tensor) -> float:
    """‖A‖_F, accumulated in float64; scaled first where squares would leave the range."""
    flat = A.reshape(-1)
    total = sum(float(part.dot(part)) for part in (a.double() for a in flat.split(CACHED)))
    if 1e-240 < total < 1e240:
        return total**0.5
    scale = float(flat.abs().max())
    if scale == 0.0:
        return 0.0
    return scale * sum(float((a.double() / scale).square().sum()) for a in flat.split(CACHED)) ** 0.5


def descending(A_NN: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (descending, clipped at 0) and eigenvectors (columns) of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(A_NN)
    return values.flip(0).clamp_min(0.0), vectors.flip(1)


def leading(A_MN: Tensor, rank: int) -> Tensor:
    """The `rank` leading left singular vectors of A (M×rank, orthonormal, float64), by the Gram matrix of its shorter side."""
    rows, columns = A_MN.shape
    if rows <= columns:
        return signed(descending(gram(A_MN))[1][:, :rank])
    V = descending(gram(A_MN.mT))[1]
    # the images of the right vectors, made orthonormal again: dividing by small singular values would not do
    Q, _ = torch.linalg.qr(A_MN.double() @ V[:, :rank])
    return signed(Q)


def signs(U_MR: Tensor) -> Tensor:
    """The signs (R) that make the largest entry of each column positive; of equal ones the first counts."""
    largest = U_MR.gather(0, U_MR.abs().argmax(0, keepdim=True))[0]
    return torch.where(largest < 0, -1.0, 1.0).to(U_MR.dtype)


def signed(U_MR: Tensor) -> Tensor:
    """The columns with canonical signs."""
    return (U_MR * signs(U_MR)).contiguous()


def distance(A_MN: Tensor, U_MR: Tensor, V_RN: Tensor) -> float:
    """‖A − U V‖_F in float64, by columns a chunk at a time."""
    rows, U = A_MN.shape[0], U_MR.double()
    step = max(256, CACHED // rows)
    total = 0.0
    for start in range(0, A_MN.shape[1], step):
        part = slice(start, start + step)
        rest = torch.addmm(A_MN[:, part].double(), U, V_RN[:, part].double(), alpha=-1).reshape(-1)
        total += float(rest.dot(rest))
    return total**0.5
