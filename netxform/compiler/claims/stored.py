"""Claims about weights as they are stored: half precision, int8, weights that were carried over, zeros among them."""

from __future__ import annotations

import torch
from torch import Tensor

from netxform.compiler.claims.registry import measures
from netxform.compiler.claims.training import Hashed, bits_again
from netxform.compiler.evidence import Case, Measured, digest, tensors
from netxform.language.claims import Quantized, Rounded, Sparse, Taken
from netxform.language.laws import Evidence, Real
from netxform.precision.int8 import EXCESS, worst_step
from netxform.precision.rounding import HALF, rounding, unit_roundoff


class RoundedDetail(Hashed, frozen=True):
    """How many numbers were rounded; how many came below the normal range, became zero or infinite; the largest of all."""

    sized = True

    numbers: int
    subnormal: int
    zeroed: int
    overflow: int
    largest: Real


class QuantizedDetail(Hashed, frozen=True):
    """The layers, and how many numbers they have."""

    sized = True

    layers: tuple[str, ...]
    numbers: int


class TakenDetail(Hashed, frozen=True):
    """How many tensors were taken over."""

    tensors: int


class SparseDetail(Hashed, frozen=True):
    """How many zeros there are, and which part of all numbers they are."""

    zeros: int
    share: Real


@measures(Rounded, RoundedDetail, again=bits_again)
def rounded(claim: Rounded, case: Case) -> Measured:
    """Each weight against what it was: exactly what rounding to nearest gives, and that within the unit roundoff."""
    old, new = tensors(case.before.module), tensors(case.after.module)
    dtype = HALF[claim.dtype]
    found = rounding([old[n] for n in claim.tensors], dtype)
    right = all(n in new and same(old[n].to(dtype), new[n]) for n in claim.tensors)
    bound = unit_roundoff(dtype)
    held = right and not found.overflow and found.worst <= bound and found.below <= 1.0
    detail = RoundedDetail(
        digest(case.after.module, claim.tensors),
        numbers=found.numbers,
        subnormal=found.subnormal,
        zeroed=found.zeroed,
        overflow=found.overflow,
        largest=found.largest,
    )
    text = f"weights rounded to {claim.dtype}, relative change in the normal range"
    return Measured(Evidence(text, bound, found.worst, held, 0, 0, claim.dtype, detail), tensors=claim.tensors)


@measures(Quantized, QuantizedDetail, again=bits_again)
def quantized(claim: Quantized, case: Case) -> Measured:
    """Each weight against what it was, in half steps of its row."""
    before, after = case.before.module, case.after.module
    worst, count = 0.0, 0
    for path in claim.layers:
        old = before.get_parameter(f"{path}.weight").detach()
        q, scale = after.get_buffer(f"{path}.weight"), after.get_buffer(f"{path}.scale")
        right = q.dtype == torch.int8 and q.shape == old.shape and bool((scale > 0).all())
        worst = max(worst, worst_step(old, q, scale) if right else float("inf"))
        count += q.numel()
    held = worst <= 1 + EXCESS
    text = "weights moved, in half steps of their row"
    detail = QuantizedDetail(digest(after, claim.tensors), claim.layers, count)
    return Measured(Evidence(text, 1 + EXCESS, worst, held, 0, 0, "int8", detail), tensors=claim.tensors)


@measures(Taken, TakenDetail, again=bits_again)
def taken(claim: Taken, case: Case) -> Measured:
    """The tensors against what the Edit brought."""
    new = tensors(case.after.module)
    wrong = [n for n in claim.tensors if n not in new or not same(case.edit.tensors[n], new[n])]
    detail = TakenDetail(digest(case.after.module, claim.tensors), len(claim.tensors))
    evidence = Evidence("tensors taken over, bit for bit", 0.0, float(len(wrong)), not wrong, 0, 0, "bits", detail)
    return Measured(evidence, tensors=claim.tensors)


@measures(Sparse, SparseDetail, again=bits_again)
def sparse(claim: Sparse, case: Case) -> Measured:
    """The zeros counted, and every four neighbours looked at."""
    new = tensors(case.after.module)
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
    detail = SparseDetail(digest(case.after.module, claim.tensors), found, found / max(count, 1))
    return Measured(Evidence(name, 0.0, float(wrong), wrong == 0, 0, 0, "bits", detail), tensors=claim.tensors)


def same(a: Tensor, b: Tensor) -> bool:
    """The same shape, precision and numbers; NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) if not a.is_floating_point() else bool(((a == b) | ((a != a) & (b != b))).all())
