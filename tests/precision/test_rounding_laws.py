"""What narrow numbers do to weights, against numpy's float16 and against integers: bounds that are kept, and are reached."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from netxform.precision.int8 import EXCESS, half_steps, worst_step
from netxform.precision.rounding import HALF, SampleBySample, rounding, unit_roundoff

LEAST = 2.0**-24  # the smallest number of float16
NORMAL = 2.0**-14
LARGEST = 65504.0


@given(
    st.lists(
        st.one_of(
            st.floats(-7e4, 7e4, allow_nan=False, width=32),
            st.floats(-(2.0**-13), 2.0**-13, allow_nan=False, width=32),
            st.sampled_from([0.0, LEAST, LEAST / 2, LEAST / 4, NORMAL, 65519.0, 65520.0, -1e9]),
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=200)
def test_counts_of_float16_are_numpys(numbers: list[float]) -> None:
    w = np.array(numbers, dtype=np.float64)
    with np.errstate(over="ignore"):
        r = w.astype(np.float32).astype(np.float16).astype(np.float64)
    found = rounding([torch.tensor(numbers, dtype=torch.float32)], torch.float16)
    size, finite = np.abs(w), np.isfinite(r)
    small = finite & (size < NORMAL)
    assert found.numbers == len(w)
    assert found.overflow == int((~finite).sum())
    assert found.subnormal == int((small & (size > 0)).sum())
    assert found.zeroed == int((small & (size > 0) & (r == 0)).sum())
    assert found.largest == pytest.approx(size.max(), rel=1e-6)
    usual = finite & ~small
    worst = (np.abs(r - w)[usual] / size[usual]).max(initial=0.0)
    below = np.abs(r - w)[small].max(initial=0.0) / (LEAST / 2)
    assert found.worst == pytest.approx(worst, rel=1e-9) and found.worst <= unit_roundoff(torch.float16)
    assert found.below == pytest.approx(below, rel=1e-9) and found.below <= 1.0


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_the_unit_roundoff_is_reached_and_not_passed(dtype: str, bits: int) -> None:
    """Halfway between 1 and the next number lies the worst one."""
    assert unit_roundoff(HALF[dtype]) == 2.0**-bits
    half = torch.tensor([1 + 2.0**-bits], dtype=torch.float64)
    found = rounding([half], HALF[dtype])
    assert found.worst == pytest.approx(2.0**-bits / (1 + 2.0**-bits), rel=1e-12)
    grid = torch.linspace(1, 2, 5001, dtype=torch.float64)
    assert 0.9 * 2.0**-bits <= rounding([grid], HALF[dtype]).worst <= 2.0**-bits


@given(st.integers(1, 5), st.integers(2, 8), st.integers(0, 10**6))
@settings(max_examples=60)
def test_int8_moves_by_half_a_step_at_most(rows: int, columns: int, seed: int) -> None:
    """Rounded by hand: no number by more than half a step of its row, no layer by more than ½ √columns · ‖steps‖."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((rows, columns)) * 10.0 ** rng.integers(-3, 3, (rows, 1))
    scale = np.abs(w).max(1) / 127.5
    q = np.clip(np.round(w / scale[:, None]), -128, 127)
    given = (torch.from_numpy(w), torch.from_numpy(q).to(torch.int8), torch.from_numpy(scale))
    moved = np.abs(w - q * scale[:, None]) / (scale[:, None] / 2)
    assert worst_step(*given) == pytest.approx(moved.max(), rel=1e-9) and worst_step(*given) <= 1 + EXCESS
    assert np.linalg.norm(w - q * scale[:, None]) <= half_steps(given[2], columns)
    # the bound is reached where every number lies halfway
    halfway = torch.from_numpy((q - 0.5) * scale[:, None])
    assert worst_step(halfway, given[1], given[2]) == pytest.approx(1.0)
    assert float((halfway - torch.from_numpy(q * scale[:, None])).norm()) == pytest.approx(
        half_steps(given[2], columns), rel=1e-4
    )
    off = given[1].clone()
    off[0, 0] = q[0, 0] + (2 if q[0, 0] < 126 else -2)
    assert worst_step(given[0], off, given[2]) > 1 + EXCESS


@pytest.mark.parametrize("options", [{}, {"padding": 1, "stride": 2}, {"groups": 4}, {"dilation": 2, "bias": False}], ids=str)
def test_convolutions_sample_by_sample_have_the_same_bits(options) -> None:
    layer, x = torch.nn.Conv2d(4, 8, 3, **options).double(), torch.randn(3, 4, 9, 7, dtype=torch.float64)
    largest: list[int] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            largest.extend([len(args[0])] if func is torch.conv2d else [])
            return func(*args, **(kwargs or {}))

    with torch.no_grad():
        wanted = layer(x)
        with Watch(), SampleBySample():
            found = layer(x)
    assert torch.equal(found, wanted)
    assert largest == [1, 1, 1]
