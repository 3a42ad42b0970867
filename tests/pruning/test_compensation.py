"""What readers get for what went: its mean, or a fit by least squares; against numpy on the values themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from netxform.axes.algebra import Atom
from netxform.axes.reindex import axes_of
from netxform.capture.capture import capture
from netxform.graph.network import Network
from netxform.pruning.compensate import fold, refit
from netxform.pruning.scores import Request

GONE = [1, 4]
STAY = [0, 2, 3, 5]


def dense(bias: bool) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=bias)).double(), torch.randn(90, 4).double() + 0.3


def maps(bias: bool) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 2, bias=bias), nn.Flatten())
    return model.double(), torch.randn(20, 2, 6, 6).double() + 0.3


def read(model: nn.Sequential, x: Tensor) -> np.ndarray:
    """What the last layer with weights reads: a row a position, (positions, channels, taps)."""
    with torch.no_grad():
        a = torch.relu(model[0](x)).numpy()
    if a.ndim == 2:
        return a[:, :, None]
    windows = sliding_window_view(a, (2, 2), axis=(2, 3))  # N, C, h, w, 2, 2
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, a.shape[1], 4)


def given(model: nn.Sequential, x: Tensor) -> tuple[Network, dict[Atom, list[int]], Request]:
    network = capture(model.eval(), x[:2])
    atom = next(a.atom for a in axes_of(network) if ("0.weight", 0) in a.sites)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for part in x.split(32):
            yield part, torch.zeros(len(part), dtype=torch.long)

    return network, {atom: GONE}, Request(batches)


@pytest.mark.parametrize("make", [dense, maps])
@pytest.mark.parametrize("bias", [True, False])
def test_the_fold_is_the_mean_of_what_went(make: object, bias: bool) -> None:
    model, x = make(bias)  # type: ignore[operator]
    found = fold(*given(model, x))
    seen = torch.relu(model[0](x)).detach().numpy()
    mean = seen.mean(axis=tuple(i for i in range(seen.ndim) if i != 1))
    weight = model[2].weight.detach().numpy().reshape(3, 6, -1).sum(2)
    wanted = weight[:, GONE] @ mean[GONE] + (model[2].bias.detach().numpy() if bias else 0.0)
    np.testing.assert_allclose(found.tensors["2.bias"].numpy(), wanted, rtol=1e-10)
    assert found.biases == (() if bias else ("2",)) and not found.skipped


@pytest.mark.parametrize("make", [dense, maps])
@pytest.mark.parametrize("bias", [True, False])
def test_a_refit_is_least_squares_with_a_bias(make: object, bias: bool) -> None:
    model, x = make(bias)  # type: ignore[operator]
    found = refit(*given(model, x), ridge=1e-13)
    rows = read(model, x)
    whole = rows.reshape(len(rows), -1)
    target = whole @ model[2].weight.detach().numpy().reshape(3, -1).T + (model[2].bias.detach().numpy() if bias else 0.0)
    kept = rows[:, STAY].reshape(len(rows), -1)
    best, *_ = np.linalg.lstsq(np.column_stack([kept, np.ones(len(kept))]), target, rcond=None)
    np.testing.assert_allclose(found.tensors["2.weight"].numpy().reshape(3, -1), best[:-1].T, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.tensors["2.bias"].numpy(), best[-1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("padding", "clean"), [(0, True), ((0, 0), True), ("valid", True), (1, False), ((0, 1), False), ("same", False)]
)
def test_where_means_cannot_stand_for_what_went_is_said(padding: object, clean: bool) -> None:
    """At padded edges a mean is wrong, and is said to be; paddings by name are not fitted."""
    torch.manual_seed(4)
    layer = nn.Conv2d(6, 4, 3, padding=padding)  # type: ignore[arg-type]
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), layer, nn.Flatten()).double()
    x = torch.randn(8, 2, 9, 9).double()
    network, removed, request = given(model, x)
    assert (not fold(network, removed, request).padded) == clean
    skipped = refit(network, removed, request).skipped
    assert bool(skipped) == isinstance(padding, str)


def test_a_feature_that_never_varies_is_fitted() -> None:
    """The ridge makes the system solvable where a reader sees a constant; what it predicts is what the layer gives."""
    model, x = dense(True)
    with torch.no_grad():
        model[0].weight[0] = 0.0
        model[0].bias[0] = 1.0
        model[0].weight[2] = model[0].weight[3]
        model[0].bias[2] = model[0].bias[3]
    found = refit(*given(model, x))
    weight = found.tensors["2.weight"]
    assert bool(weight.isfinite().all())
    a = torch.relu(model[0](x))[:, STAY].detach()
    gap = a @ weight.T + found.tensors["2.bias"] - model(x).detach()
    # least squares: what is left is uncorrelated with every feature, up to the ridge
    centred = a - a.mean(0)
    assert (centred.T @ gap / len(a)).abs().max() < 1e-5 and gap.mean(0).abs().max() < 1e-9
