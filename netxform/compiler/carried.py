"""Claims about half precision, about weights that were carried over and about zeros in weights, measured."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from netxform.compiler.evidence import Measured, relative, results
from netxform.core.edit import Edit, Rounded, Sparse, Taken, ZerosHeld
from netxform.core.law import Evidence
from netxform.core.network import Network
from netxform.core.rounding import HALF, rounding, unit_roundoff


def within(before: Network, after: Network, exact: Network, inputs: tuple[Tensor, ...], seed: int, bound: float) -> Measured:
    """The outputs against those of the network as it was, `exact`: in float64 where it is not huge."""
    wanted = results(exact, inputs)
    gap = relative(results(after, inputs), wanted)
    allowed = bound * (1 + 1e-6)
    dtype = str(next((p.dtype for p in after.module.parameters()), "")).removeprefix("torch.")
    count = inputs[0].shape[0] if inputs and inputs[0].dim() else 0
    detail = {"allowed as stored": allowed}
    evidence = Evidence("relative change of the outputs", allowed, gap, gap <= allowed, count, seed, dtype, detail)
    return Measured(evidence, {}, reference=wanted)


def rounded(old: dict[str, Tensor], new: dict[str, Tensor], claim: Rounded, digest: str) -> Measured:
    """Each weight against what it was: exactly what rounding to nearest gives, and that within the unit roundoff."""
    dtype = HALF[claim.dtype]
    found = rounding([old[n] for n in claim.tensors], dtype)
    right = all(n in new and same(old[n].to(dtype), new[n]) for n in claim.tensors)
    bound = unit_roundoff(dtype)
    held = right and not found.overflow and found.worst <= bound and found.below <= 1.0
    detail: dict[str, Any] = {"numbers": found.numbers, "subnormal": found.subnormal, "zeroed": found.zeroed}
    detail |= {"overflow": found.overflow, "largest": found.largest, "digest": digest}
    text = f"weights rounded to {claim.dtype}, relative change in the normal range"
    return Measured(Evidence(text, bound, found.worst, held, 0, 0, claim.dtype, detail), {}, claim.tensors)


def taken(new: dict[str, Tensor], claim: Taken, edit: Edit, digest: str) -> Measured:
    """The tensors against what the Edit brought."""
    wrong = [n for n in claim.tensors if n not in new or not same(edit.tensors[n], new[n])]
    detail: dict[str, Any] = {"tensors": len(claim.tensors), "digest": digest}
    evidence = Evidence("tensors taken over, bit for bit", 0.0, float(len(wrong)), not wrong, 0, 0, "bits", detail)
    return Measured(evidence, {}, claim.tensors)


def zeros_held(old: dict[str, Tensor], new: dict[str, Tensor], claim: ZerosHeld, digest: str) -> Measured:
    """The zeros that were there against what is there now."""
    lost = sum(int((new[n][old[n] == 0] != 0).sum()) for n in claim.tensors)
    detail: dict[str, Any] = {"zeros": sum(int((old[n] == 0).sum()) for n in claim.tensors), "digest": digest}
    return Measured(Evidence("zeros held", 0.0, float(lost), lost == 0, 0, 0, "bits", detail), {}, claim.tensors)


def sparse(new: dict[str, Tensor], claim: Sparse, digest: str) -> Measured:
    """The zeros counted, and every four neighbours looked at."""
    found = sum(int((new[n] == 0).sum()) for n in claim.tensors)
    count = sum(new[n].numel() for n in claim.tensors)
    wrong = abs(found - claim.zeros)
    name = f"{claim.zeros:,} of {count:,} weights are zero"
    if claim.pattern:
        name += ", two of every four along the inputs"
        for n in claim.tensors:
            rows = new[n].movedim(1, -1)
            four = rows[..., : rows.shape[-1] // 4 * 4].unflatten(-1, (-1, 4))
            wrong += int(((four == 0).sum(-1) < 2).sum())
    detail: dict[str, Any] = {"zeros": found, "share": found / max(count, 1), "digest": digest}
    return Measured(Evidence(name, 0.0, float(wrong), wrong == 0, 0, 0, "bits", detail), {}, claim.tensors)


def same(a: Tensor, b: Tensor) -> bool:
    """The same shape, precision and numbers; NaN equals NaN."""
    import torch

    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) if not a.is_floating_point() else bool(((a == b) | ((a != a) & (b != b))).all())
