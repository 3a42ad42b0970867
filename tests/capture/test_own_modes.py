"""Modules in modes of their own: what is behind one reads what it ends with in its own mode. And what else was left out."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform.capture.capture import capture


class Two(nn.Module):
    """Another layer in each mode."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if self.training else torch.relu(x)


class Noise(nn.Module):
    """Nothing in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


class Alone(nn.Module):
    """Nothing in training."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else torch.tanh(x)


class Skip(nn.Module):
    """Two modules in a row, and what they were given beside them."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return x + self.second(h)


class Recorded(nn.Module):
    """The same, in code that symbolic tracing does not enter."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if x.sum() < 1e9 else x


class Kept(nn.Module):
    """Code that neither front-end follows: it is kept whole."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.from_numpy(x.detach().numpy()).sum()


CHAINS: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(Two(), Two()),
    lambda: nn.Sequential(Alone(), Two()),
    lambda: nn.Sequential(Noise(), Two(), Alone()),
    lambda: Skip(Noise(), Two()),
    lambda: Skip(Alone(), Two()),
    lambda: nn.Sequential(Skip(Noise(), Alone()), Two()),
    lambda: Skip(Skip(Alone(), Noise()), nn.Sequential(Alone(), Two())),
]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("number", range(len(CHAINS)))
def test_every_mixture_of_modes_is_the_model(number: int, recorded: bool) -> None:
    torch.manual_seed(0)
    model = Recorded(CHAINS[number]()) if recorded else CHAINS[number]()
    x = torch.randn(3, 4)
    network = capture(model.eval(), x)
    assert not network.lost
    deciding = [p for p, m in model.named_modules() if isinstance(m, Two | Noise | Alone)]
    for modes in itertools.product((False, True), repeat=len(deciding)):
        for path, mode in zip(deciding, modes, strict=True):
            model.get_submodule(path).train(mode)
            network.module.get_submodule(path).train(mode)
        torch.manual_seed(1)
        wanted = model(x)
        torch.manual_seed(1)
        assert torch.equal(network.module(x), wanted)


@pytest.mark.parametrize("made", [Two, Noise])
def test_what_is_kept_whole_does_not_hide_the_modes_of_the_rest(made: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(Kept(), made(), Kept()).eval(), torch.randn(3, 4)
    network = capture(model, x)
    assert network.front_end == "islands"
    torch.manual_seed(1)
    wanted = model.train()(x)
    torch.manual_seed(1)
    assert bool(network.lost) or torch.equal(network.module.train()(x), wanted)


class Asks(nn.Module):
    """Decides by what kind of tensor it is, in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc, self.how = nn.Linear(4, 4), how
        self.table: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        match self.how:
            case "dim":
                return h if x.dim() == 3 else h * 2
            case "ndim":
                return h if x.ndim > 2 else h * 2
            case "shape":
                return h if len(x.shape) == 3 else h * 2
            case "contiguous":
                return h if x.is_contiguous() else h * 2
            case "learned":
                return h * 2 if h.requires_grad else h
            case "table":
                if x.shape[1] not in self.table:
                    self.table[x.shape[1]] = torch.arange(x.shape[1])[:, None] * 0.5
                return h + self.table[x.shape[1]]
            case _:
                with torch.no_grad():
                    self.fc.weight.clamp_(-0.3, 0.3)
                return self.fc(x)


@pytest.mark.parametrize("how", ["dim", "ndim", "shape", "contiguous", "learned", "table", "clamped"])
def test_what_is_asked_of_a_tensor_is_guarded(how: str) -> None:
    torch.manual_seed(0)
    model, x = Asks(how).eval(), torch.randn(2, 3, 4)
    held = model.fc.weight.detach().clone()
    network = capture(model, x)
    assert torch.equal(model.fc.weight, held)
    others = [x, x[0], x.mT.contiguous().mT, torch.randn(4, 3, 4), torch.randn(2, 5, 4)]
    for given, on in itertools.product(others, (False, True)):
        with torch.set_grad_enabled(on):
            try:
                found = network.module(given)
            except RuntimeError as error:
                assert "when this network was captured" in str(error)
                continue
            assert torch.equal(found, model(given))
    with torch.no_grad():
        assert torch.equal(network.module(x), model(x))


class Whole(nn.Module):
    """Sizes turned into ints, as code around einops has it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch, *rest = (int(n) for n in x.shape)
        if not isinstance(batch, int) or type(rest[0]) is str:
            raise TypeError
        return self.fc(x.reshape(int(batch), -1)).view(batch, 2, -1)


def test_an_int_of_a_size_stays_a_size() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Recorded(Whole())).eval()
    network = capture(model, torch.randn(2, 3, 4))
    for batch in (1, 2, 5, 7):
        x = torch.randn(batch, 3, 4)
        assert torch.equal(network.module(x), model(x))
    assert int is int and not any("shape" in str(note) for note in network.notes)


def test_a_decision_on_a_rank_names_its_line() -> None:
    plan = nx.plan("freeze **", model=Asks("dim").eval(), example_inputs=torch.randn(2, 3, 4))
    assert any("x.dim() == 3" in note for note in plan.notes)
