"""The change of the loss, predicted and measured: behind minus before, with the sign that it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import netxform as nx
from netxform.compiler.measure import measure
from netxform.graph.network import Network, detached
from netxform.language.claims import LossChange
from netxform.pruning.spread import standard_error


def net() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))


g = torch.Generator().manual_seed(1)
X, NEW = torch.randn(60, 5, generator=g), torch.randn(40, 5, generator=g)
Y, Y_NEW = torch.randint(0, 3, (60,), generator=g), torch.randint(0, 3, (40,), generator=g)


class Data:
    """Samples that are scored on, and others."""

    def batches(self, data: str, samples: int | None = None, **more: Any) -> Iterator[tuple[Tensor, Tensor]]:
        yield X[:samples], Y[:samples]

    def fresh(self, data: str, samples: int, *, skip: int, **more: Any) -> Iterator[tuple[Tensor, Tensor]]:
        yield NEW[:samples], Y_NEW[:samples]

    def held_out(self, data: str) -> str:
        return "validation samples"


def losses(network: Network, count: int) -> tuple[float, float]:
    module = network.module.requires_grad_(False)
    seen, new = F.cross_entropy(module(X[:count]), Y[:count]), F.cross_entropy(module(NEW[:count]), Y_NEW[:count])
    return float(seen), float(new)


@pytest.mark.parametrize("amount", [0.2, -0.2, 1.0, -1.0])
def test_what_is_measured_is_the_loss_behind_minus_the_loss_before(amount: float) -> None:
    before = nx.capture(net(), X[:2])
    after = detached(before)
    with torch.no_grad():
        after.module.get_parameter("2.bias")[0] += amount
    found = measure(LossChange("d", 30, "cross_entropy", 0.1, 0.01), before, after, (X[:2],), 0, material=Data()).evidence
    (a, a_new), (b, b_new) = losses(before, 30), losses(after, 30)
    assert found.measured == pytest.approx(b - a, rel=1e-4)
    detail = found.detail
    assert (detail.loss_before, detail.loss_after) == pytest.approx((a, b), rel=1e-5)
    assert detail.change_on_validation_samples == pytest.approx(b_new - a_new, rel=1e-4)
    assert (detail.predicted, detail.standard_error, detail.validation_samples) == (0.1, 0.01, 30)
    right = [float((n.module(X[:30]).argmax(1) == Y[:30]).double().mean()) for n in (before, after)]
    assert [detail.accuracy_before, detail.accuracy_after] == pytest.approx(right)


def pruned(sign: float, spec: str) -> tuple[float, float]:
    """The predicted and the measured change where two units hardly matter, both for (or against) the one class."""
    model = net()
    with torch.no_grad():
        model[2].weight[:, 3:5] = 0.01 * sign * torch.tensor([1.0, -1.0, -1.0])[:, None]
        model[0].bias[3:5] = 1.0
    y = torch.zeros(60, dtype=torch.long)
    found = nx.apply(
        f"prune by obd amount=17% {spec} over d samples=30", model=model, example_inputs=(X[:2],), data={"d": (X, y)}
    )
    assert found.model.get_parameter("0.weight").shape[0] == 10
    (claim,) = [c for s in found.certificate["statements"] for c in s["claims"] if "predicted" in c["detail"]]
    change = claim["detail"]["loss after"] - claim["detail"]["loss before"]
    assert claim["measured"] == pytest.approx(change, rel=1e-3)
    return claim["detail"]["predicted"], change


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_small_removal_changes_the_loss_as_predicted(sign: float) -> None:
    """What is left out of the series is small."""
    predicted, change = pruned(sign, "")
    assert predicted == pytest.approx(change, rel=0.05)


def test_rounds_add_their_predictions_up() -> None:
    """In rounds, what lowers the loss goes first: so says the prediction, and so it does."""
    predicted, change = pruned(1.0, "step=10%")
    assert predicted < 0 and change < 0
    assert 0.5 <= predicted / change <= 2


@pytest.mark.parametrize("totals", [[1.0, 3.0], [2.0, 2.5, -1.0], [0.0, 0.0]])
def test_the_error_of_a_mean_is_numpys_from_two_samples_on(totals: list[float]) -> None:
    wanted = np.std(totals, ddof=1) / len(totals) ** 0.5
    assert standard_error(torch.tensor(totals)) == pytest.approx(wanted)
