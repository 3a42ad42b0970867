"""Claims about weights as they are stored: half precision, int8, weights that were carried over, zeros among them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from msgspec.structs import replace as replace_detail
from torch import Tensor

from netxform.compiler.claims.registry import measures
from netxform.compiler.claims.training import Hashed, bits_again
from netxform.compiler.evidence import Case, Kept, Measured, Unmeasurable, digest, tensors
from netxform.language.certificate import ClaimRecord
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
    """How many zeros there are, and which part of all numbers they are; whether two in every four neighbours are."""

    zeros: int
    share: Real
    pattern: bool = False


def rounded_again(detail: RoundedDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The hash; and that the numbers are of that precision, as many, and finite. What they were is not kept."""
    found = bits_again(detail, record, kept)
    dtype = HALF.get(record.dtype)
    if dtype is None:
        return replace(found, bound=0.0, measured=math.inf, held=False)
    named = tensors(kept.network.module)
    there = [named[n] for n in record.tensors if n in named]
    count = sum(t.numel() for t in there)
    overflow = sum(int(torch.isinf(t).sum()) for t in there)
    right = all(t.dtype == dtype for t in there) and not any(bool(t.isnan().any()) for t in there)
    held = found.held and right and not overflow and record.measured <= unit_roundoff(dtype)
    made = replace_detail(detail, numbers=count, overflow=overflow)
    return replace(found, bound=unit_roundoff(dtype), measured=record.measured, held=held, dtype=record.dtype, detail=made)


def quantized_again(detail: QuantizedDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The hash; and that numbers and steps are of that kind. What they were is not kept."""
    found = bits_again(detail, record, kept)
    named = tensors(kept.network.module)
    count = sum(named[n].numel() for n in record.tensors if n in named and named[n].dtype == torch.int8)
    steps = [t for n, t in named.items() if n in record.tensors and t.dtype != torch.int8]
    held = found.held and all(bool((t > 0).all()) for t in steps) and record.measured <= 1 + EXCESS
    made = replace_detail(detail, numbers=count)
    return replace(found, bound=1 + EXCESS, measured=record.measured, held=held, dtype="int8", detail=made)


def sparse_again(detail: SparseDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The zeros counted once more."""
    named = tensors(kept.network.module)
    gone = [n for n in record.tensors if n not in named]
    if gone and not kept.in_force:
        raise Unmeasurable(f"`{gone[0]}` is gone")
    if gone or not record.tensors:
        return Evidence(record.claim, 0.0, math.inf, False, 0, 0, "bits", detail)
    wanted, pattern = int(kept.claim.get("zeros", detail.zeros)), bool(kept.claim.get("pattern", detail.pattern))
    return _zeros({n: named[n] for n in record.tensors}, wanted, pattern, digest(kept.network.module, record.tensors))


@measures(Rounded, RoundedDetail, again=rounded_again, by_digest=True)
def rounded(claim: Rounded, case: Case) -> Measured:
    """Each weight against what it was: exactly what rounding to nearest gives, and that within the unit roundoff."""
    old, new = tensors(case.before.module), tensors(case.after.module)
    dtype = HALF[claim.dtype]
    found = rounding([old[n] for n in claim.tensors], dtype)
    right = all(n in new and same(old[n].to(dtype), new[n]) for n in claim.tensors)
    bound = unit_roundoff(dtype)
    right = right and not any(bool(old[n].isnan().any()) for n in claim.tensors)
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


@measures(Quantized, QuantizedDetail, again=quantized_again, by_digest=True)
def quantized(claim: Quantized, case: Case) -> Measured:
    """Each weight against what it was, in half steps of its row."""
    before, after = case.before.module, case.after.module
    worst, count = 0.0, 0
    for path in claim.layers:
        old = before.get_parameter(f"{path}.weight").detach()
        q, scale = after.get_buffer(f"{path}.weight"), after.get_buffer(f"{path}.scale")
        right = q.dtype == torch.int8 and q.shape == old.shape and bool((scale > 0).all()) and bool(old.isfinite().all())
        worst = max(worst, worst_step(old, q, scale) if right else float("inf"))
        count += q.numel()
    held = worst <= 1 + EXCESS
    text = "weights moved, in half steps of their row"
    detail = QuantizedDetail(digest(after, claim.tensors), claim.layers, count)
    return Measured(Evidence(text, 1 + EXCESS, worst, held, 0, 0, "int8", detail), tensors=claim.tensors)


@measures(Taken, TakenDetail, again=bits_again, by_digest=True)
def taken(claim: Taken, case: Case) -> Measured:
    """The tensors against what the Edit brought."""
    new = tensors(case.after.module)
    wrong = [n for n in claim.tensors if n not in new or not same(case.edit.tensors[n], new[n])]
    detail = TakenDetail(digest(case.after.module, claim.tensors), len(claim.tensors))
    evidence = Evidence("tensors taken over, bit for bit", 0.0, float(len(wrong)), not wrong, 0, 0, "bits", detail)
    return Measured(evidence, tensors=claim.tensors)


@measures(Sparse, SparseDetail, again=sparse_again)
def sparse(claim: Sparse, case: Case) -> Measured:
    """The zeros counted, and every four neighbours looked at."""
    new = tensors(case.after.module)
    named = {n: new[n] for n in claim.tensors}
    evidence = _zeros(named, claim.zeros, claim.pattern, digest(case.after.module, claim.tensors))
    return Measured(evidence, tensors=claim.tensors)


def _zeros(named: dict[str, Tensor], wanted: int, pattern: bool, bits: str) -> Evidence:
    found = sum(int((t == 0).sum()) for t in named.values())
    count = sum(t.numel() for t in named.values())
    wrong = abs(found - wanted)
    name = f"{wanted:,} of {count:,} weights are zero"
    if pattern:
        name += ", two of every four along the inputs"
        for t in named.values():
            rows = t.movedim(1, -1)
            four = rows[..., : rows.shape[-1] // 4 * 4].unflatten(-1, (-1, 4))
            wrong += int(((four == 0).sum(-1) < 2).sum())
    detail = SparseDetail(bits, found, found / max(count, 1), pattern)
    return Evidence(name, 0.0, float(wrong), wrong == 0, 0, 0, "bits", detail)


def same(a: Tensor, b: Tensor) -> bool:
    """The same shape, precision and numbers; NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) if not a.is_floating_point() else bool(((a == b) | ((a != a) & (b != b))).all())
