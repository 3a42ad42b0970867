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


# --- where the classes are -------------------------------------------------------------------------------------------


class _Teacher:
    """Teachers whose answer is given."""

    def __init__(self, v: torch.Tensor) -> None:
        self.v = v

    def answers(self, x: torch.Tensor, places: torch.Tensor | None) -> tuple[list[torch.Tensor], dict[str, list[torch.Tensor]]]:
        return [self.v], {}


def _distilled(name: str, z: torch.Tensor, v: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    from netxform.graph.layer_spec import Invocation
    from netxform.language.methods import loss
    from netxform.language.work import Soft, Training
    from netxform.training.data import Batch
    from netxform.training.objective import Objective, View

    n = torch.arange(len(z))
    soft = Soft(("t",), (1.0,), "arithmetic", 3.0, 0.0, name)
    work = Training(
        ("w",),
        (),
        (),
        "d",
        1,
        "epochs",
        Invocation("SGD", (), {}),
        loss("cross_entropy"),
        len(z),
        0,
        soft=soft,
        outputs=("output",),
    )
    made = Objective(work, _Teacher(v))  # pyright: ignore[reportArgumentType]
    return made((z, (), ()), View(z.detach(), y), Batch(z.detach(), y, n, n, n, len(z)))


@pytest.mark.parametrize("name", ["kd", "ce", "logit_mse", "dist", "dkd"])
@pytest.mark.parametrize("last", [False, True])
@given(seed=st.integers(0, 2**20), classes=st.sampled_from([3, 4, 5]), padded=st.booleans())
@settings(max_examples=8)
def test_classes_are_where_the_hard_loss_has_them(name: str, last: bool, seed: int, classes: int, padded: bool) -> None:
    """(N, C, L) with labels (N, L) as in torch, (N, L, C) as language models have it: per position, by a closed form."""
    N, L, T = 3, 4, 3.0
    g = torch.Generator().manual_seed(seed)
    z, v = (torch.randn(N, L, classes, generator=g, dtype=torch.float64).requires_grad_() for _ in range(2))
    y = torch.randint(0, classes, (N, L), generator=g)
    if padded and name == "dkd":
        y[0, 1] = -100
    if not last and classes == L:
        return  # (N, 4, 4) with labels (N, 4) is read as a sequence, by the hard loss as well
    shown = [t if last else t.transpose(1, 2) for t in (z, v.detach())]
    found = torch.autograd.grad(_distilled(name, shown[0], shown[1], y), z)[0]
    kept = [(i, t) for i in range(N) for t in range(L) if name != "dkd" or y[i, t] != -100]
    total = torch.zeros((), dtype=torch.float64)
    rows_q, rows_p = [], []
    for i, t in kept:
        p, q = (torch.exp(a / T) / torch.exp(a / T).sum() for a in (v.detach()[i, t], z[i, t]))
        rows_q.append(q)
        rows_p.append(p)
        if name == "kd":
            total = total + T * T * (p * (p.log() - q.log())).sum()
        elif name == "ce":
            total = total - T * T * (p * q.log()).sum()
        elif name == "logit_mse":
            gap = z[i, t] - v.detach()[i, t]
            total = total + 0.5 * (gap - gap.mean()).square().mean()
        elif name == "dkd":
            k = int(y[i, t])
            others = [c for c in range(classes) if c != k]
            pair = p[k] * (p[k] / q[k]).log() + (1 - p[k]) * ((1 - p[k]) / (1 - q[k])).log()
            a, b = p[others] / p[others].sum(), q[others] / q[others].sum()
            total = total + T * T * (pair + 8 * (a * (a / b).log()).sum())
    if name == "dist":

        def unlike(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            a, b = a - a.mean(), b - b.mean()
            return 1 - (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())

        Q, P = torch.stack(rows_q), torch.stack(rows_p)
        by_row = torch.stack([unlike(a, b) for a, b in zip(Q, P, strict=True)]).mean()
        by_class = torch.stack([unlike(a, b) for a, b in zip(Q.T, P.T, strict=True)]).mean()
        total = len(kept) * T * T * (by_row + by_class)
    wanted = torch.autograd.grad(total / len(kept), z)[0]
    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-9)
