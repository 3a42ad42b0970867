"""Soft losses: zero at the teacher, the limit of high temperature, ensembles; and the losses on labels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from netxform.language.work import SOFT_LOSSES
from netxform.training.losses import class_rows, loss_of
from netxform.training.metrics import count, rates
from netxform.training.soft import ensemble, feature_loss, soft_loss

sizes = st.tuples(st.integers(2, 9), st.integers(3, 7), st.integers(0, 2**20))


def logits(size: tuple[int, int, int], scale: float = 3.0) -> torch.Tensor:
    rows, classes, seed = size
    return scale * torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [n for n in SOFT_LOSSES if n != "mse"])
@given(size=sizes, temperature=st.floats(0.5, 30))
@settings(max_examples=15)
def test_no_loss_and_no_gradient_at_the_teacher_up_to_a_constant(
    name: str, size: tuple[int, int, int], temperature: float
) -> None:
    v = logits(size)
    z = (v + torch.linspace(-5, 5, len(v), dtype=torch.float64)[:, None]).requires_grad_()
    target = torch.arange(len(v)) % v.shape[1]
    loss = soft_loss(name, z, v, temperature, target)
    (gradient,) = torch.autograd.grad(loss, z)
    if name == "ce":  # its least value is the teacher's entropy
        p = F.softmax(v / temperature, 1)
        loss = loss + temperature**2 * (p * p.log()).sum(1).mean()
    # dist divides by the spread of probabilities, which a high temperature makes small
    allowed = 1e-6 if name == "dist" else 1e-10
    assert abs(loss.item()) <= allowed * temperature**2
    assert gradient.abs().max() <= allowed * temperature**2
    assert soft_loss(name, z + logits((*size[:2], size[2] + 1)), v, temperature, target) > loss


@given(size=sizes)
@settings(max_examples=20)
def test_at_high_temperature_the_gradient_is_that_of_matching_logits(size: tuple[int, int, int]) -> None:
    z, v = logits(size, 1.0).requires_grad_(), logits((*size[:2], size[2] + 1), 1.0)
    (gradient,) = torch.autograd.grad(soft_loss("kd", z, v, 1e3), z)
    gap = (z - v) - (z - v).mean(1, keepdim=True)
    wanted = gap.detach() / v.shape[1] / len(v)
    # the next term of the series is of the order of the logits over T
    assert (gradient - wanted).abs().max() <= 10 * wanted.abs().max() * 1e-3 * max(
        1.0, z.abs().max().item(), v.abs().max().item()
    )
    (same,) = torch.autograd.grad(soft_loss("logit_mse", z, v, 1.0), z)
    assert torch.allclose(same, wanted, atol=1e-12)


def test_the_loss_is_summed_over_classes_averaged_over_samples_and_scaled() -> None:
    z, v = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 3.0], [2.0, 0.0, 0.0]])
    p, q = F.softmax(v / 2, 1), F.softmax(z / 2, 1)
    wanted = sum(4 * p[i, c] * math.log(p[i, c] / q[i, c]) for i in range(2) for c in range(3)) / 2
    assert soft_loss("kd", z, v, 2.0).item() == pytest.approx(float(wanted), rel=1e-5)


@given(size=sizes, temperature=st.floats(0.5, 20), mean=st.sampled_from(["arithmetic", "geometric"]))
@settings(max_examples=20)
def test_equal_teachers_are_one(size: tuple[int, int, int], temperature: float, mean: str) -> None:
    v = logits(size)
    together = ensemble([v, v, v], [0.5, 0.3, 0.2], mean, temperature)
    assert torch.allclose(F.softmax(together / temperature, 1), F.softmax(v / temperature, 1), atol=1e-7)


@given(size=sizes, temperature=st.floats(0.5, 20))
@settings(max_examples=20)
def test_means_of_teachers(size: tuple[int, int, int], temperature: float) -> None:
    a, b = logits(size), logits((*size[:2], size[2] + 1))
    found = F.softmax(ensemble([a, b], [0.6, 0.4], "arithmetic", temperature) / temperature, 1)
    assert torch.allclose(found, 0.6 * F.softmax(a / temperature, 1) + 0.4 * F.softmax(b / temperature, 1), atol=1e-6)
    found = F.softmax(ensemble([a, b], [0.6, 0.4], "geometric", temperature) / temperature, 1)
    product = F.softmax(a / temperature, 1) ** 0.6 * F.softmax(b / temperature, 1) ** 0.4
    assert torch.allclose(found, product / product.sum(1, keepdim=True), atol=1e-6)
    only = ensemble([a, b], [1.0, 0.0], "arithmetic", temperature)
    assert torch.allclose(F.softmax(only, 1), F.softmax(a, 1))


def test_attention_sees_places_and_not_channels() -> None:
    x = torch.randn(3, 4, 5, 5)
    assert feature_loss(2 * x[:, [2, 0, 1, 3]], x, "attention") < 1e-12
    assert feature_loss(x.flip(-1), x, "attention") > 1e-3
    assert feature_loss(F.adaptive_avg_pool2d(x, 2), x, "none") < 1e-12


@given(st.integers(1, 4), st.integers(2, 5), st.integers(2, 6), st.integers(0, 999))
@settings(max_examples=15)
def test_sequences_are_rows(n: int, t: int, c: int, seed: int) -> None:
    torch.manual_seed(seed)
    output, target = torch.randn(n, t, c), torch.randint(0, c, (n, t))
    target[0, 0] = -100
    loss = loss_of("cross_entropy")
    if bool((target != -100).any()):
        assert torch.allclose(loss(output, target), F.cross_entropy(output.reshape(-1, c), target.reshape(-1)))
    kept = target != -100
    sums = count(output, target)
    assert sums["rows"] == int(kept.sum())
    assert sums["right"] == int(((output.argmax(-1) == target) & kept).sum())
    maps, labels = torch.randn(n, c, t, 2), torch.randint(0, c, (n, t, 2))
    assert torch.allclose(loss(maps, labels), F.cross_entropy(maps, labels))
    assert class_rows(maps, labels)[0].shape == (n * t * 2, c)


def test_values_are_measured_as_values() -> None:
    target = torch.tensor([[1.0], [2.0], [3.0]])
    assert rates(count(target.clone(), target)) == {"mae": 0.0, "r2": 1.0}
    assert rates(count(torch.full((3, 1), 2.0), target))["r2"] == pytest.approx(0.0)
    assert loss_of("huber")(target + 0.5, target).item() == pytest.approx(0.125)
    assert loss_of("mae")(target + 0.5, target).item() == pytest.approx(0.5)
