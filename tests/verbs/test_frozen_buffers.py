"""Frozen means every tensor: what forward writes into buffers of a frozen or unselected part stands still, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn import utils as U
from torch.nn.utils import parametrizations as P

import netxform as nx
from netxform.graph.tensors import held


class Ema(nn.Module):
    """Keeps a mean of its inputs in training, a count of its calls always, and a norm by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("running", torch.zeros(6))
        self.register_buffer("spread", torch.ones(6))

    def forward(self, x):
        self.calls.add_(1)
        h = self.fc(x)
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(h.mean(0), alpha=0.1)
        h = F.batch_norm(h, self.running, self.spread, None, None, self.training)
        return h - self.mean


def part(kind: str) -> nn.Module:
    fc = nn.Linear(6, 6)
    match kind:
        case "ema":
            return Ema()
        case "norm":
            return nn.Sequential(fc, nn.BatchNorm1d(6))
        case "spectral":
            return nn.Sequential(P.spectral_norm(fc))
        case "spectral hook":
            return nn.Sequential(U.spectral_norm(fc))
        case _:
            return nn.Sequential(fc)


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.low, self.act, self.fc = part(kind), nn.ReLU(inplace=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.act(self.low(x)))


def made(kind: str) -> tuple[Net, torch.Tensor]:
    torch.manual_seed(1)
    model, x = Net(kind), torch.randn(32, 6)
    model.train()(x)
    return model.eval(), x


KINDS = ["ema", "norm", "spectral", "spectral hook", "plain"]


def steps(model: nn.Module, x: torch.Tensor, count: int = 3) -> None:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(count):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_part_keeps_every_tensor_in_training_of_any_kind(kind, tmp_path):
    model, x = made(kind)
    data = {"d": (x, torch.randint(0, 3, (32,)))}
    spec = "freeze low; train ** for 2epochs on d"
    result = nx.apply(spec, model=model, example_inputs=x, data=data, out=tmp_path / "b")
    before = {n: t.clone() for n, t in held(model).items() if n.startswith("low.")}
    for trained in (result.model, nx.load(tmp_path / "b")):
        steps(trained, x)  # a plain loop of the user's own
        after = held(trained)
        assert all(torch.equal(after[n], t) for n, t in before.items())
        assert not torch.equal(after["fc.weight"], model.fc.weight)
    assert all(torch.equal(t, held(model)[n]) for n, t in before.items())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_selected_keeps_every_tensor(kind):
    model, x = made(kind)
    data = {"d": (x, torch.randint(0, 3, (32,)))}
    trained = nx.apply("train fc for 2epochs on d", model=model, example_inputs=x, data=data).model
    after, before = held(trained), held(model)
    assert all(torch.equal(after[n], before[n]) for n in before if n.startswith("low."))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unfrozen_part_moves_as_the_models_own(kind):
    model, x = made(kind)
    again = nx.apply("freeze low; unfreeze low", model=model, example_inputs=x).model
    steps(again, x)
    own = made(kind)[0]
    steps(own, x)
    assert all(torch.allclose(t, held(own)[n], atol=1e-5) for n, t in held(again).items())


@pytest.mark.parametrize("kind", KINDS)
def test_freezing_changes_no_output_in_eval_mode(kind):
    model, x = made(kind)
    frozen = nx.apply("freeze low", model=model, example_inputs=x).model
    with torch.no_grad():
        assert torch.equal(frozen(x), made(kind)[0](x))


def test_the_frozen_norm_of_torchvision_is_frozen():
    ops = pytest.importorskip("torchvision.ops.misc")
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(1, 4, 3))
    model.add_module("norm", ops.FrozenBatchNorm2d(4))
    model.add_module("end", nn.Conv2d(4, 2, 1))
    x = torch.randn(2, 1, 6, 6)
    for spec in ("freeze **", "freeze conv", "freeze conv | norm"):
        result = nx.apply(spec, model=model, example_inputs=x)
        assert not result.certificate.get("warnings")
        before = {n: t.clone() for n, t in held(result.model).items() if n.startswith("norm")}
        result.model.train()(x)
        assert all(torch.equal(held(result.model)[n], t) for n, t in before.items())
        assert torch.equal(result.model.eval()(x), model.eval()(x))


def test_a_layer_that_cannot_be_frozen_is_refused():
    model = nn.Sequential()
    model.add_module("fc", nn.Conv1d(2, 4, 1))
    model.add_module("norm", nn.InstanceNorm1d(4, affine=True, track_running_stats=True))
    with pytest.raises(nx.NetxformError, match="X0306"):
        nx.apply("freeze **", model=model, example_inputs=torch.randn(2, 2, 5))
