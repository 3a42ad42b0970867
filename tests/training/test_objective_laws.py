"""Objectives against closed forms: labels beside teachers, mixed labels, smoothing, heads, penalties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from netxform.graph.layer_spec import Invocation
from netxform.language.methods import loss as named_loss
from netxform.language.work import Penalty, Soft, Term, Training
from netxform.training.data import Batch, steps
from netxform.training.losses import loss_of
from netxform.training.objective import Objective, View, show, shrink
from netxform.training.soft import soft_loss

seeds = st.integers(0, 2**20)


def work(**more: Any) -> Training:
    given = {"loss": "cross_entropy", "batch": 8, "seed": 0, "outputs": ("output",)} | more
    given["loss"] = named_loss(str(given["loss"]))
    return Training(("w",), (), (), "d", 1, "epochs", Invocation("SGD", (), {}), **given)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_of(x: Tensor, y: Tensor) -> Batch:
    n = torch.arange(len(x))
    return Batch(x, y, n, n, n, len(x))


class Teacher:
    """A teacher whose answer is given."""

    def __init__(self, v: Tensor) -> None:
        self.v = v

    def answers(self, x: Tensor, places: Tensor | None) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
        return [self.v], {}


@given(seeds, st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.sampled_from([1.0, 2.5, 6.0]))
@settings(max_examples=30)
def test_labels_and_teachers_share_the_loss(seed: int, hard: float, T: float) -> None:
    """α · CE + (1 − α) · T² · KL(softmax(v / T) ‖ softmax(z / T)), in means over the samples (Hinton et al. 2015)."""
    z, v = drawn(seed, 6, 4), drawn(seed + 1, 6, 4)
    y = torch.arange(6) % 4
    soft = Soft(("t",), (1.0,), "arithmetic", T, hard, "kd")
    made = Objective(work(soft=soft), Teacher(v))  # pyright: ignore[reportArgumentType]
    found = made((z, (), ()), View(z, y), batch_of(z, y))
    p, q = softmax(v.numpy() / T), softmax(z.numpy() / T)
    own = -np.log(softmax(z.numpy())[np.arange(6), y.numpy()]).mean()
    taught = T * T * (p * np.log(p / q)).sum(1).mean()
    assert float(found) == pytest.approx(hard * own + (1 - hard) * taught, rel=1e-10, abs=1e-12)


@given(seeds, st.integers(2, 9), st.floats(0.2, 4.0))
@settings(max_examples=40)
def test_labels_are_mixed_as_the_inputs_are(seed: int, count: int, alpha: float) -> None:
    """Each input is the unit vector of its label: so a mixed input says what the mixed label is."""
    y = torch.randint(0, 4, (count,), generator=torch.Generator().manual_seed(seed))
    x = torch.eye(4, dtype=torch.float64)[y]
    data = TensorDataset(x, y)
    asked = work(mixup=alpha, seed=seed, batch=count)
    ((batch,),) = steps(data, count, shuffle=(seed, 1))
    view = show(batch, asked, data, torch.device("cpu"), (1, 1))
    assert torch.allclose(view.x.sum(1), torch.ones(count, dtype=torch.float64))
    z = drawn(seed + 7, count, 4)
    found = Objective(asked)((z, (), ()), view, batch)
    wanted = -(view.x.numpy() * np.log(softmax(z.numpy()))).sum(1).mean()
    assert float(found) == pytest.approx(wanted, rel=1e-10)
    assert show(batch, work(), data, torch.device("cpu"), (1, 1)).x is batch.x


def test_the_shares_of_mixup_are_those_of_a_beta_distribution() -> None:
    y = torch.arange(4)
    data = TensorDataset(torch.eye(4, dtype=torch.float64), y)
    for alpha in (0.3, 1.0, 5.0):
        asked = work(mixup=alpha)
        ((batch,),) = steps(data, 4)
        shares = [show(batch, asked, data, torch.device("cpu"), (1, i)).share for i in range(1500)]
        # the mean is ½ and the variance 1 / (4 (2α + 1)); four standard errors of each, with room for the second
        deviation = (1 / (4 * (2 * alpha + 1))) ** 0.5
        assert abs(np.mean(shares) - 0.5) <= 4 * deviation / 1500**0.5
        assert np.std(shares) == pytest.approx(deviation, rel=0.08)


@given(seeds, st.sampled_from([0.05, 0.1, 0.4]))
@settings(max_examples=20)
def test_smoothed_labels_lie_between_the_label_and_chance(seed: int, s: float) -> None:
    z, y = drawn(seed, 7, 5), torch.arange(7) % 5
    log = np.log(softmax(z.numpy()))
    plain, chance = -log[np.arange(7), y.numpy()].mean(), -log.mean(1).mean()
    made = Objective(work(label_smoothing=s))
    assert float(made.labels(z, y)) == pytest.approx((1 - s) * plain + s * chance, rel=1e-10)
    ((total, mass),) = made.measured(z, y)
    assert total / mass == pytest.approx(plain, rel=1e-10)
    b = (drawn(seed + 1, 7, 5) > 0).double()
    p = 1 / (1 + np.exp(-z.numpy()))
    soft = (1 - s) * b.numpy() + s * 0.5
    wanted = -(soft * np.log(p) + (1 - soft) * np.log(1 - p)).mean()
    assert float(loss_of("bce", s)(z, b)) == pytest.approx(wanted, rel=1e-9)


@given(seeds, st.floats(0.1, 5), st.floats(0.1, 5))
@settings(max_examples=20)
def test_heads_are_summed_by_their_weights(seed: int, first: float, second: float) -> None:
    z, u = drawn(seed, 6, 3), drawn(seed + 1, 6)
    y = torch.stack([(torch.arange(6) % 3).double(), drawn(seed + 2, 6)], 1)
    made = Objective(work(terms=(Term("a", named_loss("mse"), 1, first), Term("b", named_loss("mae"), 0, second))))
    found = made.labels({"a": u, "b": z[:, 0]}, y)
    wanted = first * ((u - y[:, 1]) ** 2).mean() + second * (z[:, 0] - y[:, 0]).abs().mean()
    assert float(found) == pytest.approx(float(wanted), rel=1e-10)


@given(seeds, st.sampled_from(["l1", "l2"]), st.floats(0.01, 3))
@settings(max_examples=20)
def test_penalties_on_parameters_have_their_gradient(seed: int, norm: str, weight: float) -> None:
    w, given = nn.Parameter(drawn(seed, 4, 3)), drawn(seed + 1, 4, 3)
    w.grad = given.clone()
    shrink((Penalty(norm, weight, parameters=("w",)),), {"w": w})  # pyright: ignore[reportArgumentType]
    value = weight * (w.abs().sum() if norm == "l1" else 0.5 * w.square().sum())
    (slope,) = torch.autograd.grad(value, w)
    assert torch.allclose(w.grad, given + slope, rtol=1e-12)


@given(seeds, st.integers(3, 7), st.integers(3, 6), st.sampled_from([1.0, 4.0]))
@settings(max_examples=30)
def test_relations_are_correlations_of_rows_and_columns(seed: int, rows: int, classes: int, T: float) -> None:
    """DIST (Huang et al. 2022): one minus Pearson's correlation of the probabilities of each sample, and of each class."""
    z, v = drawn(seed, rows, classes), drawn(seed + 1, rows, classes)
    q, p = softmax(z.numpy() / T), softmax(v.numpy() / T)
    between = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    within = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    assert float(soft_loss("dist", z, v, T)) == pytest.approx(T * T * (between + within), rel=1e-6, abs=1e-9)
