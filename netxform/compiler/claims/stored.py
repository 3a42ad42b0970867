"""Claims about half precision and int8, about weights that were carried over and about zeros in weights, measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from netxform.compiler.evidence import Measured, relative, results
from netxform.graph.edits import Edit
from netxform.graph.network import Network
from netxform.language.claims import Quantized, Rounded, Sparse, Taken, ZerosHeld
from netxform.language.laws import Evidence
from netxform.precision.int8 import EXCESS, worst_step
from netxform.precision.rounding import HALF, rounding, unit_roundoff


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


def quantized(before: nn.Module, after: nn.Module, claim: Quantized, digest: str) -> Measured:
    """Each weight against what it was, in half steps of its row."""
    worst, count = 0.0, 0
    for path in claim.layers:
        old = before.get_parameter(f"{path}.weight").detach()
        q, scale = after.get_buffer(f"{path}.weight"), after.get_buffer(f"{path}.scale")
        right = q.dtype == torch.int8 and q.shape == old.shape and bool((scale > 0).all())
        worst = max(worst, worst_step(old, q, scale) if right else float("inf"))
        count += q.numel()
    held = worst <= 1 + EXCESS
    text = "weights moved, in half steps of their row"
    detail = {"layers": list(claim.layers), "numbers": count, "digest": digest}
    return Measured(Evidence(text, 1 + EXCESS, worst, held, 0, 0, "int8", detail), {}, claim.tensors)


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
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) if not a.is_floating_point() else bool(((a == b) | ((a != a) & (b != b))).all())
