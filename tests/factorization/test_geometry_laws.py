"""What a layer is, as numbers, against torch itself; what is seen on data, against numpy; and attacks that come near."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import netxform as nx
from netxform.capture.capture import capture
from netxform.factorization.difference import matrix_worst, worst
from netxform.factorization.factorized_layer import taps_bound
from netxform.factorization.geometry import Geometry, geometry, kernel, macs, moves, weight
from netxform.factorization.output_covariance import observe
from netxform.factorization.worst_case import worst_case

small = st.integers(1, 3)


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A convolution of any kind, and the shape of an input."""
    dims, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    k, s, d, p = (tuple(draw(small) for _ in range(dims)) for _ in range(4))
    channels = (groups * draw(small), groups * draw(small))
    bias = draw(st.booleans())
    torch.manual_seed(draw(st.integers(0, 99)))
    size = (channels[0], *(draw(st.integers(7, 9)) for _ in range(dims)))
    if draw(st.booleans()):
        extra = tuple(min(1, max(a, b) - 1) for a, b in zip(s, d, strict=True))
        cls: Any = getattr(nn, f"ConvTranspose{dims}d")
        return cls(*channels, k, s, p, extra, groups, bias, d), size
    cls = getattr(nn, f"Conv{dims}d")
    if set(s) == {1} and draw(st.booleans()):
        return cls(*channels, k, s, "same", d, groups, bias), size
    return cls(*channels, k, s, p, d, groups, bias), size


def behind(layer: nn.Module, size: tuple[int, ...]) -> Tensor | None:
    try:
        return layer(torch.randn(1, *size)).detach()
    except RuntimeError:  # nothing is left of the input
        return None


@given(layers())
@settings(max_examples=80)
def test_sizes_are_those_of_torch(made: tuple[nn.Module, tuple[int, ...]]) -> None:
    layer, size = made
    g, out = geometry(layer), behind(layer, size)
    assume(out is not None and out.numel() > 0)
    assert isinstance(g, Geometry) and out is not None
    assert moves(g, size[1:]) == tuple(out.shape[2:])
    assert torch.equal(weight(g, kernel(g, layer.weight)), layer.weight)


@given(layers())
@settings(max_examples=60)
def test_costs_are_those_that_torch_counts(made: tuple[nn.Module, tuple[int, ...]]) -> None:
    layer, size = made
    out = behind(layer, size)
    assume(out is not None and out.numel() > 0)
    g = geometry(layer)
    assert isinstance(g, Geometry)
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, *size))
    assert 2 * macs(g, size[1:]) == counter.get_total_flops()
    assert g.params == sum(p.numel() for p in layer.parameters())


# --- attacks come near ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_worst_input_comes_near_the_norm(seed: int) -> None:
    """A claim that is tried on a harmless input holds for nothing: the one that is found reaches nearly the norm."""
    torch.manual_seed(seed)
    old, first, last = nn.Linear(12, 9), nn.Linear(12, 3, bias=False), nn.Linear(3, 9)
    new = nn.Sequential(first, last)
    E = (old.weight - last.weight @ first.weight).detach().double().numpy()
    found = worst(old, new, (12,), seed)
    assert 0.9 * np.linalg.norm(E, 2) <= found.gain <= np.linalg.norm(E, 2) * (1 + 1e-6)
    reached = np.linalg.norm(E @ found.x.numpy()) / np.linalg.norm(found.x.numpy())
    assert found.gain == pytest.approx(reached, rel=1e-6)
    A, B = torch.randn(7, 9).double(), torch.randn(7, 9).double()
    alone = matrix_worst(A, B, seed)
    exact = np.linalg.norm((A - B).numpy(), 2)
    assert 0.9 * exact <= alone.gain <= exact * (1 + 1e-9)
    conv, changed = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
    basis = torch.eye(2 * 16).reshape(32, 2, 4, 4)
    with torch.no_grad():
        rows = (F.conv2d(basis, conv.weight - changed.weight, padding=1)).flatten(1).double().numpy()
    gain = worst(conv, nn.Sequential(changed), (2, 4, 4), seed).gain
    assert 0.9 * np.linalg.norm(rows, 2) <= gain <= np.linalg.norm(rows, 2) * (1 + 1e-6)


@given(st.sampled_from(["reflect", "circular", "replicate"]), small, st.integers(1, 2), st.integers(0, 2), st.integers(0, 99))
@settings(max_examples=40)
def test_padding_that_copies_is_counted(mode: str, k: int, s: int, p: int, seed: int) -> None:
    """The sum over the taps lies above the norm of the whole map, which is written out column by column."""
    torch.manual_seed(seed)
    conv = nn.Conv1d(2, 2, k, s, p, padding_mode=mode, bias=False).double()
    nn.init.uniform_(conv.weight, 0.5, 1.0)
    basis = torch.eye(2 * 4).double().reshape(8, 2, 4)
    with torch.no_grad():
        matrix = conv(basis).flatten(1).numpy()
    g = geometry(conv)
    assert isinstance(g, Geometry)
    bound = taps_bound(kernel(g, conv.weight), g, (4,))
    assert np.linalg.norm(matrix, 2) <= bound * (1 + 1e-9)


def test_padding_that_copies_can_make_a_map_longer() -> None:
    """One tap, one channel, the border copied: what a bound that counts each pixel once would miss."""
    conv = nn.Conv1d(1, 1, 1, 1, 2, padding_mode="replicate", bias=False).double()
    nn.init.ones_(conv.weight)
    g = geometry(conv)
    assert isinstance(g, Geometry)
    x = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]).double()
    assert float(conv(x).norm().detach()) == pytest.approx(3**0.5)
    assert taps_bound(kernel(g, conv.weight), g, (4,)) >= 3**0.5 * (1 - 1e-12)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 2), nn.AdaptiveMaxPool2d(3)])
def test_windows_that_overlap_are_counted(pool: nn.Module) -> None:
    """A single large pixel is the largest of every window that it lies in: the change is there as often."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 1, 1, bias=False), pool
            nn.init.ones_(self.conv.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(self.conv(x)).flatten(1)

    stated = worst_case(capture(Net().eval(), torch.randn(2, 1, 5, 5)), {"conv": 0.5}, 1.0)
    reached = 0.0
    for place in range(25):
        x = torch.zeros(1, 1, 25)
        x[..., place] = 1.0
        before, after = (pool(f * x.reshape(1, 1, 5, 5)).flatten() for f in (1.0, 1.5))
        reached = max(reached, float((before - after).norm()))
    assert reached > 0.5 and reached <= stated


# --- what is seen on data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conv", [False, True])
def test_what_is_seen_of_outputs_is_numpys(conv: bool) -> None:
    torch.manual_seed(3)
    body = nn.Conv2d(2, 4, 3) if conv else nn.Linear(6, 4)
    model = nn.Sequential(body, nn.ReLU(), nn.AdaptiveAvgPool2d(1) if conv else nn.Identity(), nn.Flatten(), nn.Linear(4, 3))
    x, y = torch.randn(40, *((2, 5, 5) if conv else (6,))) + 1, torch.arange(40) % 3
    network = nx.capture(model, x[:2])
    found = observe(network, ["0"], [(x[:25], y[:25]), (x[25:], y[25:])], gradients=True)["0"]
    out = body(x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model[1:](out), y, reduction="sum"), out)
    rows = (out.movedim(1, -1) if conv else out).detach().reshape(-1, 4).double().numpy()
    np.testing.assert_allclose(found.mean_O.numpy(), rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.covariance_OO.numpy(), np.cov(rows.T, bias=True), rtol=1e-5, atol=1e-8)
    assert found.slope == pytest.approx(float((slope.double() ** 2).mean()), rel=1e-5)
    assert (found.count, found.samples) == (len(rows), 40)
