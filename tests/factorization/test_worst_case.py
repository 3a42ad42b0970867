"""A worst case is one: attacks on generated networks never exceed it; what it does not know is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netxform.capture.capture import capture
from netxform.errors import NetxformError
from netxform.factorization import worst_case as module
from netxform.factorization.worst_case import worst_case
from netxform.linalg.svd import truncate

Step = Callable[[Tensor, nn.Module], Tensor]

ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.GELU, lambda: nn.GELU("tanh"), nn.SiLU, nn.Hardswish, nn.Mish, nn.Hardsigmoid,
    lambda: nn.LeakyReLU(3.0), lambda: nn.LeakyReLU(-2.0), lambda: nn.ELU(4.0), lambda: nn.CELU(0.3),
    lambda: nn.Hardtanh(0.5, 2.0), lambda: nn.Softmax(1), lambda: nn.ReLU(inplace=True), nn.Dropout, nn.Identity,
]  # fmt: skip
# each keeps the shape; `m` has the constants c (like a sample) and v (like a channel)
STEPS: dict[str, Step] = {
    "h + 0.3": lambda h, m: h + 0.3,
    "2 - h": lambda h, m: 2 - h,
    "h + h": lambda h, m: h + h,
    "alpha": lambda h, m: torch.add(h, h, alpha=3),
    "sub": lambda h, m: torch.sub(h, m.c, alpha=-2.5),
    "h + c": lambda h, m: h + m.c,
    "h * 3": lambda h, m: 3 * h,
    "h / .4": lambda h, m: h / 0.4,
    "h * c": lambda h, m: h * m.c,
    "elu": lambda h, m: F.elu(h, 3.0),
    "leaky": lambda h, m: F.leaky_relu(h, negative_slope=2.0),
    "hardtanh": lambda h, m: F.hardtanh(h, 0.2, 0.9),
    "softmax": lambda h, m: F.softmax(h, dim=1),
    "residual": lambda h, m: h + torch.tanh(h),
    "softmax of sum": lambda h, m: torch.softmax(h + h, 1),
    "iadd": lambda h, m: _iadd(h, m),
    "cat": lambda h, m: torch.cat([h, h], 1).mean(1, keepdim=True) + h,
}


def _iadd(h: Tensor, m: nn.Module) -> Tensor:
    out = h + 1.0
    out += m.c
    return out


class Net(nn.Module):
    def __init__(self, conv: bool, acts: list[int], steps: list[str], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.steps = steps
        self.first: nn.Module = nn.Conv2d(2, 4, 3, padding=1) if conv else nn.Linear(6, 4)
        self.last: nn.Module = nn.Conv2d(4, 3, 3, stride=2) if conv else nn.Linear(4, 3)
        self.norm: nn.Module = nn.BatchNorm2d(4) if conv else nn.BatchNorm1d(4)
        self.acts = nn.ModuleList(ACTIVATIONS[a]() for a in acts)
        self.pool: nn.Module = nn.MaxPool2d(3, 1, 1) if conv else nn.Identity()
        self.c = nn.Parameter(torch.randn(4, *((1, 1) if conv else ())))
        for t in (self.norm.running_mean, self.norm.weight, self.norm.bias):
            nn.init.normal_(t.data)
        nn.init.uniform_(self.norm.running_var, 0.2, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x))
        for name in self.steps:
            h = STEPS[name](h, self)
        for act in self.acts:
            h = act(h)
        return self.last(self.pool(h)).flatten(1)


def shortened(net: nn.Module, seed: int) -> tuple[nn.Module, dict[str, float], dict[str, float]]:
    """The network with a layer of half the rank and another bias: and the exact gains, by numpy's singular values."""
    import copy

    made: Any = copy.deepcopy(net)
    W = made.first.weight.data
    cut = truncate(W.flatten(1), 2, seed=seed)
    new = (cut.U_OR @ cut.V_RI).reshape(W.shape)
    gain = float(torch.linalg.matrix_norm((W - new).double().flatten(1), 2)) * (3.0 if W.dim() == 4 else 1.0)
    made.first.weight.data = new
    move = 0.1 * torch.randn_like(made.first.bias)
    made.first.bias.data = made.first.bias.data + move
    return made, {"first": gain}, {"first": float(move.double().norm()) * (1 + 1e-6)}


def attacked(before: nn.Module, after: nn.Module, shape: tuple[int, ...], radius: float, seed: int) -> float:
    """Gradient ascent from several starts in the ball, in float64."""
    before, after = before.double().eval(), after.double().eval()
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(12, *shape, generator=g, dtype=torch.float64)
    ones = (1,) * len(shape)
    best = 0.0
    for step in range(40):
        length = x.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, *ones)
        x = (x / length * (radius if step % 4 else length.clamp_max(radius))).detach().requires_grad_()
        gap = (before(x) - after(x)).flatten(1).norm(dim=1)
        best = max(best, float(gap.max().detach()))
        (slope,) = torch.autograd.grad(gap.sum(), x)
        x = x.detach() + 0.3 * radius * slope / slope.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, *ones)
    return best


@given(
    st.booleans(),
    st.lists(st.integers(0, len(ACTIVATIONS) - 1), max_size=2),
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3),
    st.integers(0, 10**4),
    st.sampled_from([0.1, 1.0, 10.0]),
)
@settings(max_examples=60, deadline=None)
def test_no_attack_exceeds_the_worst_case(conv: bool, acts: list[int], steps: list[str], seed: int, radius: float) -> None:
    shape = (2, 5, 5) if conv else (6,)
    net = Net(conv, acts, steps, seed).eval()
    after, gains, shifts = shortened(net, seed)
    stated = worst_case(capture(net, torch.randn(3, *shape)), gains, radius, shifts)
    reached = attacked(net, after, shape, radius, seed)
    assert reached <= stated * (1 + 1e-6)


def test_the_case_that_was_certified_too_low() -> None:
    """h + 0.3 before a layer that changes: the constant is what the change multiplies."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2, bias=False)
            self.fc = nn.Linear(2, 2, bias=False)
            self.first.weight.data = torch.eye(2)
            self.fc.weight.data = torch.eye(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.first(x) + 0.3)

    stated = worst_case(capture(Shifted(), torch.randn(3, 2)), {"fc": 1.0}, 0.5)
    # fc → 0: ‖x + (.3, .3)‖ is .5 + .3·√2 at the worst
    assert stated == pytest.approx(0.5 + 0.3 * 2**0.5, rel=1e-6)


@pytest.mark.parametrize("name", sorted(module._ELEMENTWISE))  # pyright: ignore[reportPrivateUsage]
def test_slopes_are_the_largest(name: str) -> None:
    slope, zero = module._ELEMENTWISE[name]  # pyright: ignore[reportPrivateUsage]
    function = getattr(torch, name, None) or getattr(F, name)
    ways = [function] if name != "gelu" else [F.gelu, lambda x: F.gelu(x, approximate="tanh")]
    for one in ways:
        x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
        y = one(x)
        real = float(((y[1:] - y[:-1]) / (x[1:] - x[:-1])).abs().max())
        assert real <= slope * (1 + 1e-9) and slope <= 1.02 * real
        assert float(one(torch.zeros((), dtype=torch.float64))) == zero


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.fc(x) * m.fc(x),
        lambda m, x: torch.exp(m.fc(x)),
        lambda m, x: m.fc(x).cumsum(1),
        lambda m, x: F.linear(m.fc(x), m.fc.weight),
        lambda m, x: m.fc(x).mean(),
        lambda m, x: m.fc(x)[:, [0, 0, 1]],
        lambda m, x: m.norm(m.fc(x)),
        lambda m, x: torch.cat([m.fc(x), x], 0),
        lambda m, x: m.fc(x).softmax(0),
        lambda m, x: 1 / m.fc(x),
    ],
)
def test_what_it_does_not_know_is_refused_by_name(forward: Any) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Tensor:
            return forward(self, x)

    with pytest.raises(NetxformError, match="X0324"):
        worst_case(capture(Odd().eval(), torch.randn(3, 4)), {"fc": 0.1}, 1.0)


def test_a_value_written_in_place_and_read_again_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.fc(x)
            k = h.view(-1, 4)
            h.add_(5.0)
            return k + h

    with pytest.raises(NetxformError, match="X0324"):
        worst_case(capture(Twice(), torch.randn(3, 4)), {"fc": 0.1}, 1.0)
