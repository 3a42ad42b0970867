"""Norms of convolutions: upper bounds stay above what power iteration finds, and near it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from netxform.errors import NetxformError
from netxform.linalg.operator_norms import conv_norm, im2col_bound, spectral_norm

small = st.integers(1, 3)


def _below(
    K_OIHW: Tensor,
    *,
    stride: tuple[int, int] | int = 1,
    padding: tuple[int, int] | int = 0,
    dilation: tuple[int, int] | int = 1,
    groups: int = 1,
    size: tuple[int, int],
    iterations: int = 50,
    seed: int = 0,
) -> tuple[float, Tensor]:
    """A lower bound of the norm of the convolution by power iteration, and the unit input (1×C×H×W) that attains it."""
    K = K_OIHW.double()
    s, p, d = ((a, a) if isinstance(a, int) else a for a in (stride, padding, dilation))
    shape = (1, K.shape[1] * groups, *size)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x / x.norm()
    if any(size[a] + 2 * p[a] <= d[a] * (K.shape[2 + a] - 1) for a in (0, 1)):
        return 0.0, x
    # the adjoint: a transposed convolution, and what the stride left over at the far edge
    y = F.conv2d(x, K, stride=s, padding=p, dilation=d, groups=groups)
    over = [size[a] + 2 * p[a] - d[a] * (K.shape[2 + a] - 1) - 1 - s[a] * (y.shape[2 + a] - 1) for a in (0, 1)]
    for _ in range(iterations):
        back = F.pad(F.conv_transpose2d(y, K, stride=s, dilation=d, groups=groups), (0, over[1], 0, over[0]))
        back = back[:, :, p[0] : p[0] + size[0], p[1] : p[1] + size[1]]
        length = float(back.norm())
        if length == 0.0:
            break
        x = back / length
        y = F.conv2d(x, K, stride=s, padding=p, dilation=d, groups=groups)
    return float(y.norm()), x


@given(
    st.tuples(small, small, st.integers(1, 4), st.integers(1, 4)),
    st.tuples(small, small),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.tuples(small, small),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 3),
    st.sampled_from(["random", "positive", "decaying"]),
    st.integers(0, 1000),
)
@settings(max_examples=120)
def test_bounds_hold_against_the_worst_input_found(
    shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
    groups: int,
    kind: str,
    seed: int,
) -> None:
    O, I, h, w = shape  # noqa: E741
    K = torch.randn(O * groups, I, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    K = K.abs() if kind == "positive" else K * 0.3 ** torch.arange(w) if kind == "decaying" else K
    below, x = _below(K, stride=stride, padding=padding, dilation=dilation, groups=groups, size=size, iterations=60)
    assert x.shape == (1, I * groups, *size) and float(x.norm()) == pytest.approx(1.0)
    if below > 0:
        y = F.conv2d(x, K, stride=stride, padding=padding, dilation=dilation, groups=groups)
        assert below == pytest.approx(float(y.norm()))
    assert below <= conv_norm(K, stride=stride, padding=padding, dilation=dilation, groups=groups, size=size)
    assert below <= im2col_bound(K, stride=stride, dilation=dilation, groups=groups)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_bound_is_near_the_truth(stride: int, dilation: int) -> None:
    ratios = []
    for seed in range(5):
        K = torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(seed))
        place = {"stride": stride, "padding": dilation, "dilation": dilation, "size": (14, 14)}
        ratios.append(conv_norm(K, **place) / _below(K, **place, iterations=200)[0])
    # measured 1.01 to 1.12
    assert sum(ratios) / len(ratios) <= 1.2


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 100))
@settings(max_examples=30)
def test_pointwise_is_a_matrix(O: int, I: int, seed: int) -> None:  # noqa: E741
    W = torch.randn(O, I, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    exact = float(torch.linalg.matrix_norm(W, 2))
    assert spectral_norm(W) == pytest.approx(exact, rel=1e-9)
    assert conv_norm(W[:, :, None, None], size=(5, 4)) == pytest.approx(exact, rel=1e-8)
    assert im2col_bound(W[:, :, None, None]) == pytest.approx(exact, rel=1e-8)


def test_scaling_zero_and_refusals() -> None:
    K = torch.randn(4, 3, 3, 3)
    assert conv_norm(K * 8, size=(6, 6)) == pytest.approx(8 * conv_norm(K, size=(6, 6)))
    assert conv_norm(K * 0, size=(6, 6)) == im2col_bound(K * 0) == 0.0
    assert conv_norm(torch.randn(4, 3, 5), size=(1, 9)) > 0
    with pytest.raises(NetxformError):
        conv_norm(K * float("nan"), size=(6, 6))
    with pytest.raises(NetxformError):
        conv_norm(K, size=(6, 6), groups=3)
    with pytest.raises(NetxformError):
        conv_norm(K, size=(6, 6), method="guess")


@pytest.mark.parametrize(
    ("shape", "groups"), [((4,), 1), ((4, 3), 1), ((4, 3, 3, 3, 3), 1), ((4, 3, 3, 3), 0), ((4, 3, 3, 3), 3)]
)
def test_what_is_no_convolution_is_refused(shape: tuple[int, ...], groups: int) -> None:
    for bound in (lambda k: conv_norm(k, size=(5, 5), groups=groups), lambda k: im2col_bound(k, groups=groups)):
        with pytest.raises(NetxformError, match="X0411"):
            bound(torch.randn(shape))


def test_padding_is_none_unless_it_is_given() -> None:
    kernel = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    bare, padded = (conv_norm(kernel, size=(5, 4), stride=2, padding=p) for p in (0, 1))
    assert bare == conv_norm(kernel, size=(5, 4), stride=2) != padded
