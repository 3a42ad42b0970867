"""The ± of a predicted change of the loss: from per-sample totals, which an oracle knows too; and its intervals cover."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import netxform as nx
from netxform.pruning.curvature import saliency
from netxform.pruning.spread import standard_error


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3)).double()


def population(count: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(count, 6, generator=g, dtype=torch.float64)
    return x, torch.randint(0, 3, (count,), generator=g)


def one_by_one(net: nn.Sequential, x: Tensor, y: Tensor) -> list[Tensor]:
    """f + ½ h of every gate for one sample, by double backward through gates written out here."""
    m = [torch.ones(8, dtype=torch.float64, requires_grad=True), torch.ones(7, dtype=torch.float64, requires_grad=True)]
    h = torch.relu(net[0](x)) * m[0]
    h = torch.relu(net[2](h)) * m[1]
    slopes = torch.autograd.grad(F.cross_entropy(net[4](h)[None], y[None]), m, create_graph=True)
    out: list[Tensor] = []
    for slope, gate in zip(slopes, m, strict=True):
        second = torch.stack([torch.autograd.grad(s, gate, retain_graph=True)[0][k] for k, s in enumerate(slope)])
        out.append((-slope + 0.5 * second).detach())
    return out


def test_each_sample_has_the_change_that_double_backward_gives() -> None:
    net = mlp()
    x, y = population(30)
    network = nx.capture(net, x[:2])
    for method in ("gauss-newton", "auto"):
        found = saliency(network, [(x[:13], y[:13]), (x[13:], y[13:])], method=method)
        assert len(found.each) == 2
        for atom, rows in found.each.items():
            layer = 0 if atom.size == 8 else 1
            wanted = torch.stack([one_by_one(net, a, b)[layer] for a, b in zip(x, y, strict=True)])
            torch.testing.assert_close(rows.double(), wanted, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(rows.double().mean(0), found.first[atom] + found.second[atom], rtol=1e-5, atol=1e-6)


def test_the_first_order_alone_and_draws_have_it_too_and_exact_says_nothing() -> None:
    x, y = population(40)
    network = nx.capture(mlp(), x[:2])
    first = saliency(network, [(x, y)], method="first")
    drawn = saliency(network, [(x, y)], method="monte-carlo", draws=3)
    for atom, rows in drawn.each.items():
        torch.testing.assert_close(rows.double().mean(0), drawn.first[atom] + drawn.second[atom], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(first.each[atom].double().mean(0), first.first[atom], rtol=1e-5, atol=1e-6)
    assert saliency(network, [(x, y)], method="exact").each == {}


@pytest.mark.parametrize("method", ["gauss-newton", "monte-carlo"])
def test_intervals_cover(method: str) -> None:
    """Samples are drawn from a population again and again, the removed indices stay: ≥ 93 % of nominal 95 % intervals hold."""
    net, (x, y) = mlp(1), population(2000)
    # a fitted network, whose first order is not far from zero and whose indices move together
    for _ in range(30):
        for p, g in zip(net.parameters(), torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters())), strict=True):
            p.data -= 0.3 * g
    network = nx.capture(net, x[:2])
    removed = [0, 2, 3, 5]

    def predicted(rows: Tensor, seed: int) -> tuple[float, float]:
        found = saliency(network, [(x[rows], y[rows])], method=method, seed=seed)  # pyright: ignore[reportArgumentType]
        totals = torch.stack([e[:, removed].sum(1) for e in found.each.values()]).sum(0)
        mean = sum(float((found.first[a] + found.second[a])[removed].sum()) for a in found.each)
        error = standard_error(totals)
        assert error is not None
        assert float(totals.double().mean()) == pytest.approx(mean, rel=1e-4, abs=1e-6)
        return mean, error

    # the population's own prediction, without draws
    whole = saliency(network, [(x, y)], method="gauss-newton")
    truth = sum(float((whole.first[a] + whole.second[a])[removed].sum()) for a in whole.each)
    g = torch.Generator().manual_seed(0)
    held = 0
    runs = 400
    for run in range(runs):
        mean, error = predicted(torch.randint(0, len(x), (150,), generator=g), run)
        held += abs(mean - truth) <= 1.96 * error
    assert held / runs >= 0.93


def test_the_error_is_that_of_a_mean() -> None:
    totals = torch.tensor([1.0, 2.0, 4.0, 9.0])
    assert standard_error(totals) == pytest.approx(math.sqrt(((3**2 + 2**2 + 0 + 5**2) / 3) / 4))
    assert standard_error(totals[:2]) == pytest.approx(0.5)  # two samples, half a step from their mean each
    assert standard_error(totals[:1]) is None
    # over two processes
    halves = [totals[:1], totals[1:]]
    sums = [torch.tensor(4.0), totals.sum()]
    seen = iter([tuple(s.double() for s in sums), ((totals - 4).square().sum().double(),)])
    assert standard_error(halves[0], lambda *given: next(seen)) == pytest.approx(standard_error(totals))


@pytest.mark.parametrize(
    ("by", "stated"), [("obd", True), ("taylor", True), ("obd(method=exact)", False), ("magnitude", False)]
)
def test_what_is_not_known_is_not_stated(by: str, stated: bool) -> None:
    net = mlp()
    x, y = population(200)
    spec = f"prune by {by} amount=20% step=10% over d samples=60"
    found = nx.apply(spec, model=net, example_inputs=(x[:2],), data={"d": (x, y)})
    (detail,) = [c["detail"] for c in found.certificate["statements"][0]["claims"] if "standard error" in c["detail"]]
    assert (detail["standard error"] is not None and detail["standard error"] > 0) == stated
    assert "change on test samples" in detail


def test_new_samples_are_called_what_they_are() -> None:
    from netxform.training.calibration import Calibration
    from netxform.training.progress import Bar

    x, y = population(40)

    def calibration(val: int, test: int) -> Calibration:
        from torch.utils.data import TensorDataset

        from netxform.sources.data import DataSet

        ends = [40 - val - test, 40 - test, 40]
        parts = [TensorDataset(x[a:b], y[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
        return Calibration(lambda: {"d": DataSet("d", *parts, 3, (6,), "")}, 0, Bar())

    for val, test, what, start in (
        (5, 7, "test samples", 33),
        (5, 0, "validation samples", 35),
        (0, 0, "other training samples", 0),
    ):
        made = calibration(val, test)
        assert made.held_out("d") == what
        fresh = torch.cat([a for a, _ in made.fresh("d", 100, skip=30)])
        assert len(fresh) == (10 if not (val or test) else 40 - start)
        old = torch.cat([a for a, _ in made.batches("d", 30)])
        assert not any(bool((row == old).all(1).any()) for row in fresh)
