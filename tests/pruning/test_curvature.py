"""Gates and scores against what they stand for: brute-force differences of the loss, double backward, the masked twin."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform import zoo
from netxform.axes.reindex import reindex
from netxform.capture.capture import capture
from netxform.graph.network import Network
from netxform.pruning.curvature import gate_loss, saliency
from netxform.pruning.exactness import curved
from netxform.pruning.gates import free, gates, masked
from netxform.pruning.needs import SCORES
from netxform.pruning.ranking import Ranking, until
from netxform.pruning.scores import Request, Scores, activity, known, score
from tests.strategies import networks

EXACT = 1e-10


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-300))


def tamed(model: nn.Module, x: Tensor) -> nn.Module:
    """The last layer scaled so that logits are of order one: a saturated softmax has no curvature to compare."""
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        size = model(x).abs().max()
        last.weight /= size
        if last.bias is not None:
            last.bias /= size
    return model


def chain(seed: int, activation: type[nn.Module] = nn.ReLU) -> tuple[Network, Tensor, Tensor]:
    """Convolutions, BatchNorm, grouped and depthwise, pooling, a flattened map: no path passes two gates of one class."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), activation(),
        nn.Conv2d(6, 8, 3, groups=2), activation(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.MaxPool2d(2),
        nn.Conv2d(8, 5, 1), activation(), nn.Flatten(), nn.Linear(20, 7), activation(), nn.Linear(7, 4),
    ).double().eval()  # fmt: skip
    with torch.no_grad():
        model[1].running_var.uniform_(0.5, 1.5)
        model[1].running_mean.normal_()
        model[1].weight.uniform_(0.5, 1.5)
    x = torch.randn(9, 2, 6, 6, dtype=torch.float64)
    return capture(tamed(model, x), x[:1]), x, torch.randint(4, (9,))


@given(st.integers(0, 10_000))
@settings(max_examples=4)
def test_gate_saliency_is_the_second_difference_of_the_loss(seed: int) -> None:
    network, x, y = chain(seed)
    found = saliency(network, [(x[:4], y[:4]), (x[4:], y[4:])])
    assert found.method == "gauss-newton"
    assert not found.missing
    wanted = list(gates(network).gates)
    h = 1e-4
    for axis in free(network):
        for k in range(0, axis.size, 3):

            def at(m: float, k: int = k, axis: Any = axis) -> float:
                vector = torch.ones(axis.size, dtype=torch.float64)
                vector[k] = m
                return float(gate_loss(network, wanted, x, y, {axis.atom: vector}, "cross_entropy"))

            second = (at(1 + h) - 2 * at(1.0) + at(1 - h)) / h**2
            first = (at(1 - h) - at(1 + h)) / (2 * h)
            # a second difference of step h in float64 is good to 4 eps L / h² ≈ 1e-7, and a kink within h spoils it: skip those
            if abs(at(1 + 2 * h) - 2 * at(1 + h) + at(1.0) - second * h**2) > 1e-6 * h**2 + 1e-3 * abs(second) * h**2 + 2e-15:
                continue
            assert float(found.second[axis.atom][k]) == pytest.approx(0.5 * second, rel=1e-3, abs=5e-7)
            assert float(found.first[axis.atom][k]) == pytest.approx(first, rel=1e-3, abs=1e-9)


@given(st.integers(0, 10_000), st.sampled_from(["cross_entropy", "mse"]))
@settings(max_examples=4)
def test_backward_passes_equal_double_backward_on_piecewise_linear_networks(seed: int, loss: Any) -> None:
    network, x, y = chain(seed)
    found, exact = (saliency(network, [(x, y)], method=m, loss=loss) for m in ("gauss-newton", "exact"))
    for axis in free(network):
        a = axis.atom
        assert gap(found.second[a], exact.second[a]) <= 1e-9
        assert gap(found.first[a], exact.first[a]) <= 1e-9


class Ways(nn.Module):
    """A residual stream, a hidden layer inside it, a layer before GELU; then a product of two values, or a quotient."""

    def __init__(self, product: bool) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 5)
        self.bent, self.behind, self.left, self.right = nn.Linear(5, 3), nn.Linear(3, 5), nn.Linear(5, 2), nn.Linear(5, 2)
        self.product, self.head = product, nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).relu()
        y = y + self.down(self.up(y).relu())
        y = y + self.behind(nn.functional.gelu(self.bent(y)))
        return self.head(self.left(y) * self.right(y) if self.product else 1 / (3 + self.left(y).abs()))


@pytest.mark.parametrize("product", [True, False])
def test_where_gauss_newton_is_said_to_be_exact_it_is_and_elsewhere_not(product: bool) -> None:
    torch.manual_seed(2)
    model, x, y = Ways(product).double().eval(), torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 3
    network = capture(model, x[:1])
    reasons = curved(network, gates(network))
    one, two = (saliency(network, [(x, y)], method=m) for m in ("gauss-newton", "exact"))
    for atom, why in reasons.items():
        assert (gap(one.second[atom], two.second[atom]) <= 1e-9) == (not why), why
    assert sum(not w for w in reasons.values()) == 1  # what `head` reads
    assert len([w for w in reasons.values() if w]) == 3


def test_gauss_newton_is_exact_on_chains_of_layers() -> None:
    for seed in range(2):
        network = chain(seed)[0]
        assert not any(curved(network, gates(network)).values())


@pytest.mark.parametrize("source", ["resnet_small", "densenet_small", "inception_small", "vit_small", "mlp"])
def test_first_order_is_right_everywhere_and_drawing_agrees_within_its_error(source: str) -> None:
    torch.manual_seed(1)
    model = zoo.build(source).double().eval()
    x, y = torch.randn(4, 1, 28, 28, dtype=torch.float64), torch.arange(4)
    network = capture(tamed(model, x), x[:1])
    found = saliency(network, [(x, y)])
    m = {a.atom: torch.ones(a.size, dtype=torch.float64, requires_grad=True) for a in free(network)}
    slopes = torch.autograd.grad(gate_loss(network, list(gates(network).gates), x, y, m, "cross_entropy"), list(m.values()))
    exact = dict(zip(m, slopes, strict=True))
    drawn = saliency(network, [(x, y)], method="monte-carlo", draws=20)
    assert not found.missing
    apart = []
    for axis in free(network):
        a = axis.atom
        assert gap(found.first[a], -exact[a]) <= 1e-9
        apart += ((drawn.second[a] - found.second[a]) / drawn.error[a].clamp_min(1e-30)).tolist()
    # standard errors: about two thirds within one, and hardly any beyond five
    assert sum(abs(z) < 2 for z in apart) > 0.8 * len(apart)
    assert sum(abs(z) > 6 for z in apart) < 0.02 * len(apart)


@given(networks(), st.integers(0, 99))
@settings(max_examples=15)
def test_removal_is_the_masked_twin_where_nothing_is_mixed(model: nn.Module, seed: int) -> None:
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    network = capture(model.double(), x[:1])
    rng = torch.Generator().manual_seed(seed)
    removed, maps = {}, {}
    for axis in free(network):
        order = torch.randperm(axis.size, generator=rng).tolist()
        count = int(torch.randint(axis.size, (1,), generator=rng))
        removed[axis.atom] = order[:count]
        maps[axis.name] = sorted(order[count:])
    with torch.no_grad():
        wanted = masked(network, gates(network), removed, (x,))
        assert gap(reindex(network, maps).module(x), wanted) <= EXACT
        # and nothing at all masked is the network itself
        assert torch.equal(masked(network, gates(network), {}, (x,)), network.module(x))


class Tied(nn.Module):
    """One weight is produced in one place and summed over in another; a layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.out = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)
        self.out.weight = nn.Parameter(self.first.weight.detach().T.clone())

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.shared(torch.relu(self.shared(torch.relu(self.first(x))))))
        return self.head(torch.relu(nn.functional.linear(y, self.first.weight.T)))


def test_tied_and_shared_modules_are_scored_once_and_removed_together() -> None:
    torch.manual_seed(3)
    x, y = torch.randn(8, 5, dtype=torch.float64), torch.arange(8) % 3
    network = capture(Tied().double().eval(), x[:1])
    found, exact = saliency(network, [(x, y)]), saliency(network, [(x, y)], method="exact")
    axes = [a for a in free(network) if a.size == 6]
    assert len(axes) == 1  # the two calls and the tied weight are one class
    assert gap(found.first[axes[0].atom], exact.first[axes[0].atom]) <= 1e-9
    with torch.no_grad():
        wanted = masked(network, gates(network), {axes[0].atom: [1, 4]}, (x,))
        assert gap(reindex(network, {axes[0].name: [0, 2, 3, 5]}).module(x), wanted) <= EXACT


class Squares(nn.Module):
    """A Gram matrix: its features are multiplied with themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 6), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        return self.head(torch.einsum("nif,njf->nij", y, y).flatten(1))


def test_what_cannot_be_scored_is_said() -> None:
    x = torch.randn(2, 3, 5)
    network = capture(Squares().eval(), x[:1])
    found = saliency(network, [(x, torch.arange(2))])
    assert found.second == {}
    assert "itself" in next(iter(found.missing.values()))
    with pytest.raises(nx.NetxformError) as caught:
        saliency(network, [])
    assert caught.value.diagnostics[0].code == "X0823"


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_gives_finite_numbers_of_the_right_length_or_a_reason(name: str) -> None:
    network, x, y = chain(5)
    found = known(name)(network, Request(lambda: iter([(x[:5], y[:5]), (x[5:], y[5:])])))
    for axis in free(network):
        if axis.atom in found.values:
            assert found.values[axis.atom].shape == (axis.size,)
            assert bool(torch.isfinite(found.values[axis.atom]).all())
            assert found.values[axis.atom].unique().numel() > 1
        else:
            assert found.missing[axis.atom]
    assert found.values


def test_activity_counts_what_the_readers_see() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double().eval()
    x = torch.randn(11, 3, dtype=torch.float64)
    network = capture(model, x[:1])
    seen = activity(network, Request(lambda: iter([(x[:4], x[:4, 0]), (x[4:], x[4:, 0])])))
    hidden = model[1](model[0](x)).detach()
    (atom,) = seen.zeros
    assert torch.allclose(seen.zeros[atom], (hidden == 0).double().mean(0))
    assert torch.allclose(seen.size[atom], hidden.abs().mean(0))


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=6), min_size=1, max_size=4), st.integers(1, 3), st.data())
@settings(max_examples=40)
def test_a_larger_amount_removes_more_and_floors_hold(numbers: list[list[float]], least: int, data: st.DataObject) -> None:
    from netxform.axes.algebra import Atom

    scores = {Atom(len(n)): torch.tensor(n, dtype=torch.float64) for n in numbers}
    scope = data.draw(st.sampled_from(["global", "layer"]))
    rank = Ranking(scores, scope, data.draw(st.sampled_from(["none", "mean", "max", "l2"])), dict.fromkeys(scores, least))
    last: set[tuple[int, int]] = set()
    for count in range(rank.total + 1):
        taken = rank.lowest(count)
        now = {(id(a), i) for a, indices in taken.items() for i in indices}
        assert last <= now
        assert len(now) <= count
        assert all(a.size - len(i) >= min(least, a.size) for a, i in taken.items())
        last = now
    budget = data.draw(st.integers(0, rank.total))
    found = until(rank, lambda removed: rank.total - sum(map(len, removed.values())) <= budget)
    most = sum(map(len, rank.lowest(rank.total).values()))
    assert (found is None) == (rank.total - most > budget)
    if found is not None and scope == "global":
        assert sum(map(len, found.values())) == max(0, rank.total - budget)


def test_a_score_of_the_user() -> None:
    @score("mine", data=False)
    def mine(network: Network, request: Request) -> Scores:
        return Scores({a.atom: torch.arange(a.size).flip(0).double() for a in free(network)}, {}, "the last goes first")

    try:
        result = nx.apply("model net = zoo.mlp(width=8)\nprune fc1 by mine amount=25%")
    finally:
        del SCORES["mine"]
    assert result.plan.steps[0].choice.values.entries()["removed"] == {"c1": [6, 7]}
