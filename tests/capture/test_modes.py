"""Both modes: under one random state the graph does in train() what the model does, buffers included. Hooks are part of it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import netxform as nx
from netxform.artifacts.emit import emit
from netxform.artifacts.graph import from_json, to_json
from netxform.capture.capture import capture
from tests.emitted import forms


def drop_connect(x: Tensor, p: float, training: bool) -> Tensor:
    """Written as in EfficientNet."""
    if not training:
        return x
    return x / (1 - p) * torch.floor(1 - p + torch.rand((x.shape[0], 1)))


class Part(nn.Module):
    """Something that a module does in training alone, in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)
        self.p = 0.5
        self.register_buffer("mean", torch.ones(8))
        self.register_buffer("var", torch.ones(8) * 2)
        self.how = how

    def forward(self, x):
        h = self.fc(x)
        match self.how:
            case "flag":
                return F.dropout(h, self.p, self.training)
            case "if":
                if self.training:
                    h = F.dropout(h, p=self.p)
                return h
            case "layer":
                return self.drop(h) if self.training else h
            case "number":
                k = h[:, None]
                return F.scaled_dot_product_attention(k, k, k, dropout_p=self.p if self.training else 0.0)[:, 0]
            case "connect":
                return h + drop_connect(h, self.p, self.training)
            case "product":
                return h + torch.randn_like(h) * self.training
            case "bernoulli":
                return h if not self.training else h * torch.bernoulli(torch.full((x.shape[0], 1), 0.5))
            case "norm":
                return F.batch_norm(h, self.mean, self.var, None, None, self.training, 0.1, 1e-5)
            case "written":
                if self.training:
                    mean = h.mean(0)
                    self.mean.mul_(0.9).add_(mean.detach() * 0.1)
                else:
                    mean = self.mean
                return h - mean
            case "other":
                return h.relu() if self.training else torch.tanh(h) * 2
            case _:
                return h


HOW = "flag if layer number connect product bernoulli norm written other plain".split()


class Net(nn.Module):
    """Two such parts in a row."""

    def __init__(self, how: str, recorded: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Sequential(Part(how), nn.BatchNorm1d(8)), Part(how)
        self.recorded = recorded

    def forward(self, x):
        h = self.b(self.a(x))
        return h if not self.recorded or x.sum() < 1e9 else x


def assert_same(module: nn.Module, model: nn.Module, x: Tensor) -> None:
    """Results and buffers of copies of both, under one random state, in the modes that they are in."""
    outcomes: list[tuple[Tensor, dict[str, Tensor]]] = []
    for part in (copy.deepcopy(model), copy.deepcopy(module)):
        torch.manual_seed(3)
        with torch.no_grad():
            outcomes.append((part(x), dict(part.named_buffers())))
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    assert all(torch.equal(t, outcomes[1][1][n]) for n, t in outcomes[0][1].items())


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("how", HOW)
def test_train_does_what_the_model_does(how: str, recorded: bool, tmp_path: Path) -> None:
    model = Net(how, recorded)
    x = torch.randn(6, 8)
    network = capture(model.eval(), x)
    assert network.front_end == ("recorder" if recorded else "symbolic") or how == "bernoulli"
    assert not any("train()" in note for note in network.notes)
    for module in forms(network, "Net", tmp_path):
        for training in (True, False):
            assert_same(module.train(training), model.train(training), x)
            assert_same(module, model, torch.randn(5, 8))


@pytest.mark.parametrize("how", ["number", "connect", "written", "norm", "other"])
def test_a_frozen_part_keeps_its_own_mode(how: str) -> None:
    model = Net(how, False).train()
    model.a.eval()
    network = capture(model, torch.randn(4, 8))
    modes = {n: m.training for n, m in model.named_modules()}
    assert all(m.training is modes[n] for n, m in network.module.named_modules() if n in modes)
    assert_same(network.module, model, torch.randn(5, 8))


def test_what_cannot_be_kept_is_said() -> None:
    class Aux(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.aux = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            y = self.fc(x)
            return (y, self.aux(y)) if self.training else y

    network = capture(Aux(), torch.randn(4, 8))
    assert any("train() loses what `Aux` does" in note for note in network.notes)
    plan = nx.plan("freeze fc", model=Aux(), example_inputs=torch.randn(4, 8))
    assert any("train() loses" in note for note in plan.notes)


@pytest.mark.parametrize("how", ["connect", "written", "number", "if"])
def test_surgery_carries_what_training_does(how: str) -> None:
    model = Net(how, False).eval()
    x = torch.randn(6, 8)
    result = nx.apply("prune a by magnitude amount=25%", model=model, example_inputs=x)
    changed = result.model.train()
    with torch.no_grad():
        out = changed(x)
        assert out.shape == (6, 8)
        assert not torch.equal(out, changed.eval()(x))


class Layers(nn.Module):
    """Two layers to hang hooks on."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.b = nn.Linear(4, 4)

    def forward(self, x):
        return self.b(self.a(x))


HOOKS = ["forward", "pre", "scope", "root", "root pre", "weight_norm", "spectral_norm", "parametrized", "pruned"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_are_part_of_the_graph(kind: str) -> None:
    from torch.nn.utils import parametrizations, prune

    model = Layers().eval()
    match kind:
        case "forward":
            model.b.register_forward_hook(lambda m, i, o: o * 2)
        case "pre":
            model.b.register_forward_pre_hook(lambda m, i: (i[0] * 2,))
        case "scope":
            model.a.register_forward_hook(lambda m, i, o: o * 2)
        case "root":
            model.register_forward_hook(lambda m, i, o: o * 2)
        case "root pre":
            model.register_forward_pre_hook(lambda m, i: (i[0] - 0.5,))
        case "weight_norm":
            nn.utils.weight_norm(model.b)
            model(torch.randn(2, 4)).sum().backward()
        case "spectral_norm":
            nn.utils.spectral_norm(model.b)
        case "parametrized":
            parametrizations.weight_norm(model.b)
        case _:
            prune.l1_unstructured(model.b, "weight", 0.5)
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    x = torch.randn(3, 4)
    network = capture(model, x)
    again = from_json(to_json(network), dict(network.module.state_dict())).module
    emit(network)
    with torch.no_grad():
        for module in (network.module.eval(), again):
            assert torch.equal(module(x), model(x))
    assert list(network.module.state_dict()) == list(model.state_dict())
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


@pytest.mark.parametrize("draw", [torch.randn_like, lambda h: F.dropout(h, 0.5, training=True)])
def test_randomness_in_eval_is_called_so(draw) -> None:
    class Draws(nn.Module):
        def forward(self, x):
            return x + draw(x)

    with pytest.raises(nx.NetxformError, match="random in eval mode"):
        capture(Draws(), torch.randn(2, 8))
