"""Claims, what measures them, at once and again; statistics; held-out data."""

from __future__ import annotations

from tests.mutations.defect import Defect

DOUBLE = ("tests/compiler/test_claims.py::test_an_edit_that_is_wrong_in_float64_alone_is_seen",)
TEACHER = ("tests/compiler/test_claims.py::test_a_teacher_that_moved_is_seen",)
STORED = ("tests/compiler/test_claims.py::test_what_is_stored_is_compared_beside_the_twin",)
TWIN = ("tests/compiler/test_claims.py::test_a_removal_that_is_wrong_in_float64_alone_is_seen",)
AGAIN = ("tests/compiler/test_measured_again.py",)
STATISTICS = "tests/compiler/test_statistics.py"
QUANTILE = (f"{STATISTICS}::test_the_quantile_is_the_one_that_covers_the_next_sample",)
CLOPPER = (f"{STATISTICS}::test_the_lower_bound_is_clopper_pearsons",)
NEW = ("tests/pruning/test_prediction.py::test_new_samples_are_called_what_they_are",)


def broken(kind: str) -> tuple[str, ...]:
    """The test in which a claim of that kind is broken by hand."""
    return (f"tests/compiler/test_claims.py::test_what_is_broken_by_hand_is_called_broken[{kind}]",)


DEFECTS: tuple[Defect, ...] = (
    # --- statistics
    Defect(
        "the plain quantile for the conformal one", "compiler/claims/bounded.py",
        "rank = math.ceil((len(errors) + 1) * level)", "rank = math.ceil(len(errors) * level)",
        "the next sample is covered", QUANTILE,
    ),
    Defect(
        "the median for the quantile", "compiler/claims/bounded.py",
        "return sorted(errors)[rank - 1] if rank <= len(errors) else math.inf", "return sorted(errors)[len(errors) // 2]",
        "the next sample is covered", QUANTILE,
    ),
    Defect(
        "the wrong side of Clopper and Pearson", "compiler/claims/bounded.py",
        "betaincinv(right, count - right + 1, 1 - level)", "betaincinv(right, count - right + 1, level)",
        "the bound lies below", CLOPPER,
    ),
    Defect(
        "held-out samples are those of the calibration", "training/calibration.py",
        "yield from self._of(part, samples, skip if part is held.train else 0, batch, shared)",
        "yield from self._of(held.train, samples, 0, batch, shared)",
        "new samples are those that nothing was calibrated on", NEW,
    ),
    Defect(
        "held-out samples are not skipped", "training/calibration.py",
        "skip if part is held.train else 0", "0",
        "new samples are those that nothing was calibrated on", NEW,
    ),
    # --- what is broken is called broken
    Defect(
        "same value always holds", "compiler/claims/exact.py",
        "Evidence(claim, 0.0, worst, worst == 0.0, case.count", "Evidence(claim, 0.0, worst, True, case.count",
        "what is broken is called broken", broken("same value"),
    ),
    Defect(
        "same function always holds", "compiler/claims/exact.py",
        'exact, exact <= EXACT, case.count, case.seed, "float64", FunctionDetail()',
        'exact, True, case.count, case.seed, "float64", FunctionDetail()',
        "an edit that is wrong in float64 alone is seen", DOUBLE,
    ),
    Defect(
        "what is stored is always the same up to rounding", "compiler/claims/exact.py",
        "held = gap <= detail.allowed", "held = True",
        "the network as it is stored is compared, too", STORED,
    ),
    Defect(
        "within bound always holds", "compiler/claims/bounded.py",
        "Evidence(what, allowed, gap, gap <= allowed, case.count", "Evidence(what, allowed, gap, True, case.count",
        "what is broken is called broken", broken("within bound"),
    ),
    Defect(
        "no layer is over its bound", "compiler/claims/bounded.py",
        "if s > 1 + _ROUNDING)", "if s > 1e9)",
        "what is broken is called broken", broken("layer errors"),
    ),
    Defect(
        "a gain that is no number is within its bound", "compiler/claims/bounded.py",
        "    if math.isnan(measured):\n        return math.inf\n", "",
        "NaN is above every bound",
        ("tests/compiler/test_claim_laws.py::test_a_layer_that_is_no_number_is_above_its_bound_wherever_it_stands",),
    ),
    Defect(
        "the worst case is not compared", "compiler/claims/bounded.py",
        "held = held and reached <= claim.worst * (1 + _ROUNDING)", "pass",
        "what is broken is called broken", broken("output error"),
    ),
    Defect(
        "masked twin always holds", "compiler/claims/lossy.py",
        'exact, exact <= EXACT, case.count, case.seed, "float64", TwinDetail()',
        'exact, True, case.count, case.seed, "float64", TwinDetail()',
        "a removal that is wrong in float64 is seen", TWIN,
    ),
    Defect(
        "untouched always holds", "compiler/claims/training.py",
        "float(len(changed)), not changed,", "float(len(changed)), True,",
        "what is broken is called broken", broken("untouched"),
    ),
    Defect(
        "frozen always holds", "compiler/claims/training.py",
        'Evidence("frozen in train() mode", 0.0, float(moved), moved == 0,',
        'Evidence("frozen in train() mode", 0.0, float(moved), True,',
        "what is broken is called broken", broken("frozen in training"),
    ),
    Defect(
        "zeros need not be held", "compiler/claims/training.py",
        'Evidence("zeros held", 0.0, float(lost), lost == 0,', 'Evidence("zeros held", 0.0, float(lost), True,',
        "what is broken is called broken", broken("zeros held"),
    ),
    Defect(
        "a teacher that moved is untouched", "training/teachers.py",
        "Evidence(what, 0.0, float(moved), moved == 0,", "Evidence(what, 0.0, float(moved), True,",
        "a teacher that moved is seen", TEACHER,
    ),
    Defect(
        "what is rounded need not be", "compiler/claims/stored.py",
        "held = right and not found.overflow", "held = not found.overflow",
        "what is broken is called broken", broken("rounded"),
    ),
    Defect(
        "int8 may be any number", "compiler/claims/stored.py",
        "held = worst <= 1 + EXCESS", "held = True",
        "what is broken is called broken", broken("quantized"),
    ),
    Defect(
        "taken over always holds", "compiler/claims/stored.py",
        "float(len(wrong)), not wrong,", "float(len(wrong)), True,",
        "what is broken is called broken", broken("taken"),
    ),
    Defect(
        "zeros are not counted", "compiler/claims/stored.py",
        "float(wrong), wrong == 0,", "float(wrong), True,",
        "what is broken is called broken", broken("sparse"),
    ),
    Defect(
        "the smallest difference for the largest", "compiler/evidence.py",
        "gap = (found.double() - wanted.double()).abs().max()", "gap = (found.double() - wanted.double()).abs().min()",
        "what is broken is called broken", broken("same value"),
    ),
    Defect(
        "outputs that are no numbers are near", "compiler/evidence.py",
        'worst = max(worst, gap if gap == gap else float("inf"))', "worst = max(worst, gap)",
        "NaN is infinitely far", AGAIN,
    ),
    Defect(
        "hashes without the tensors", "compiler/evidence.py",
        'out.update(tensor_hash(held[name]).encode() if name in held else b"?")', 'out.update(b"?")',
        "bits that changed are seen again", AGAIN,
    ),
    # --- measured again
    Defect(
        "same function always holds when it is measured again", "compiler/claims/exact.py",
        "found.allowed, gap, gap <= found.allowed, kept.count", "found.allowed, gap, True, kept.count",
        "what is broken in the folder is called broken", broken("same function"),
    ),
    Defect(
        "same value always holds when it is measured again", "compiler/claims/exact.py",
        "held, dtype = worst <= kept.slack, dtype_of(", "held, dtype = True, dtype_of(",
        "what is broken in the folder is called broken", broken("same value"),
    ),
    Defect(
        "layer errors always hold when they are measured again", "compiler/claims/bounded.py",
        "1 + _ROUNDING, top, top <= 1 + _ROUNDING, len(rows)", "1 + _ROUNDING, top, True, len(rows)",
        "what is broken in the folder is called broken", broken("layer errors"),
    ),
    Defect(
        "within bound always holds when it is measured again", "compiler/claims/bounded.py",
        "Evidence(record.claim, allowed, gap, gap <= allowed, kept.count",
        "Evidence(record.claim, allowed, gap, True, kept.count",
        "what is broken in the folder is called broken", broken("within bound"),
    ),
    Defect(
        "bits always agree when they are measured again", "compiler/claims/training.py",
        "same = digest(kept.network.module, record.tensors) == detail.digest", "same = True",
        "what is broken in the folder is called broken", broken("taken"),
    ),
)  # fmt: skip
