"""Each score against the formula that it is named after, written out here with numpy or one sample at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netxform.axes.reindex import Axis, axes_of
from netxform.capture.capture import capture
from netxform.graph.network import Network
from netxform.pruning.needs import SCORES
from netxform.pruning.ranking import Ranking
from netxform.pruning.scores import Request, Scores
from netxform.registry import called


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.two(torch.relu(self.one(x)))))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


torch.manual_seed(5)
X, Y = torch.randn(40, 3), torch.randint(3, (40,))


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(X.split(16), Y.split(16), strict=True)


def dense() -> Network:
    torch.manual_seed(2)
    return capture(Dense().eval(), X[:1])


def axis_of(network: Network, tensor: str, dim: int = 0) -> Axis:
    return next(a for a in axes_of(network) if (tensor, dim) in a.sites)


def scored(name: str, network: Network, seed: int = 0, **options: float) -> Scores:
    return called(SCORES.find(name).of)(network, Request(batches, seed=seed, options=options))


@pytest.mark.parametrize("power", [1, 2])
def test_magnitude_is_the_norm_of_the_weights_that_produce(power: int) -> None:
    network = dense()
    found = scored("magnitude", network, norm=power)
    for name in ("one.weight", "two.weight"):
        weight = network.module.get_parameter(name).detach().double().numpy()
        wanted = np.linalg.norm(weight, ord=power, axis=1)
        assert np.allclose(found.values[axis_of(network, name).atom].numpy(), wanted, rtol=1e-6)  # norms of float32 weights


def test_bn_scale_is_the_size_of_gamma() -> None:
    torch.manual_seed(3)
    model = Normed()
    with torch.no_grad():
        model.bn.weight.copy_(torch.tensor([-3.0, 0.5, 2.0, -0.1]))
    network = capture(model.eval(), torch.randn(1, 1, 4, 4))
    found = scored("bn-scale", network).values[axis_of(network, "bn.weight").atom]
    assert np.allclose(found.numpy(), [3.0, 0.5, 2.0, 0.1])


def test_taylor_is_the_mean_size_of_activation_times_gradient() -> None:
    network = dense()
    model = network.module
    sums = np.zeros(5)
    for x, y in zip(X, Y, strict=True):
        hidden = torch.relu(model.one(x[None])).detach().requires_grad_()
        loss = F.cross_entropy(model.last(torch.relu(model.two(hidden))), y[None])
        (slope,) = torch.autograd.grad(loss, hidden)
        sums += np.abs((hidden * slope).detach().double().numpy()[0])
    found = scored("taylor", network).values[axis_of(network, "one.weight").atom]
    assert np.allclose(found.numpy(), sums / len(X), rtol=1e-5)
    assert (found >= 0).all()


def test_the_fisher_diagonal_is_the_mean_square_of_gradients_under_the_networks_own_labels() -> None:
    network = dense()
    model = network.module
    produced = [model.get_parameter("two.weight"), model.get_parameter("two.bias")]
    exact = [torch.zeros(p.shape, dtype=torch.float64) for p in produced]
    for x in X:
        z = model(x[None])
        for label, chance in enumerate(z.detach().double().softmax(1)[0]):
            slopes = torch.autograd.grad(F.cross_entropy(z, torch.tensor([label])), produced, retain_graph=True)
            for total, slope in zip(exact, slopes, strict=True):
                total += chance * slope.double().square() / len(X)
    halves = [0.5 * h * p.detach().double().square() for h, p in zip(exact, produced, strict=True)]
    wanted = halves[0].sum(1) + halves[1]
    draws = torch.stack(
        [scored("obd-weights", network, seed).values[axis_of(network, "two.weight").atom] for seed in range(60)]
    )
    spread = draws.std(0) / len(draws) ** 0.5
    # four standard errors of the mean over the draws: 1 in 4,000 for all four rows
    assert ((draws.mean(0) - wanted).abs() <= 4 * spread + 1e-12).all()


def test_obd_is_half_the_curvature_of_a_gate_and_predicts_with_the_first_order() -> None:
    """Gauss–Newton for the last hidden layer, written out: ½ E[Σ p v² − (Σ p v)²], and −E[Σ (y − p) v] before it."""
    network = dense()
    found = scored("obd", network)
    atom = axis_of(network, "two.weight").atom
    model = network.module
    z = model(X)
    rows = torch.relu(model.two(torch.relu(model.one(X)))).detach()
    p = z.detach().double().softmax(1)
    v = rows.double()[:, :, None] * model.last.weight.detach().double().mT[None]  # samples × units × classes
    second = 0.5 * ((p[:, None] * v.square()).sum(2) - (p[:, None] * v).sum(2).square()).mean(0)
    assert np.allclose(found.values[atom].numpy(), second.numpy(), rtol=1e-4)
    first = -((p - F.one_hot(Y, 3))[:, None] * v).sum(2).mean(0)
    assert np.allclose(found.predicted[atom].numpy(), (first + second).numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("normalise", "of"),
    [("mean", lambda s: np.abs(s).mean()), ("max", lambda s: np.abs(s).max()), ("l2", np.linalg.norm), ("none", lambda s: 1.0)],
)
def test_scores_are_compared_after_they_are_normalised(normalise: str, of: object) -> None:
    network = dense()
    one, two = axis_of(network, "one.weight"), axis_of(network, "two.weight")
    scores = {
        one.atom: torch.tensor([10.0, 20.0, 30.0, 40.0, 900.0]).double(),
        two.atom: torch.tensor([0.5, 5.0, 6.0, 60.0]).double(),
    }
    removed = Ranking(scores, "global", normalise).lowest(4)  # type: ignore[arg-type]
    flat = [(float(v) / of(s.numpy()), a, i) for a, s in scores.items() for i, v in enumerate(s)]  # type: ignore[operator]
    wanted: dict[object, list[int]] = {}
    for _, atom, index in sorted(flat, key=lambda item: item[0])[:4]:
        wanted.setdefault(atom, []).append(index)
    assert {a: sorted(i) for a, i in removed.items()} == {a: sorted(i) for a, i in wanted.items()}


def test_what_goes_first_is_what_scores_lowest() -> None:
    network = dense()
    atom = axis_of(network, "one.weight").atom
    assert Ranking({atom: torch.tensor([3.0, -1.0, 2.0, 0.0, 9.0])}).lowest(2) == {atom: [1, 3]}
