"""Capture: the graph computes, bit for bit, what the model computes; nothing about the model changes."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import netxform as nx
from netxform.graph.cost import cost
from netxform.graph.network import exit_nodes, twin
from netxform.zoo import REGISTRY, build
from tests.strategies import networks, randomized, zoo_input


def same(model: nn.Module, network, *inputs: torch.Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(model(*inputs), network.module.eval()(*inputs))


@given(networks())
@settings(max_examples=25)
def test_generated_networks(model: nn.Module) -> None:
    before = copy.deepcopy(model.state_dict())
    network = nx.capture(model, torch.randn(2, 2, 6, 6))
    for shape in ((2, 2, 6, 6), (5, 2, 6, 6), (1, 2, 9, 7)):
        assert same(model, network, torch.randn(shape))
    assert list(network.module.state_dict()) == list(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    x = torch.randn(2, 2, 6, 6)
    assert torch.equal(copy.deepcopy(network.module)(x), model(x))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_zoo(name: str) -> None:
    model = randomized(build(name))
    network = nx.capture(model, zoo_input(name, 1))
    assert network.front_end == "symbolic"
    assert same(model, network, zoo_input(name, 7))
    assert list(network.module.state_dict()) == list(model.state_dict())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "googlenet"])
def test_torchvision(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    model = models.get_model(name, weights=None).eval()
    x = torch.randn(2, 3, 96, 96)
    network = nx.capture(model, x)
    assert same(model, network, x)
    assert same(model, network, torch.randn(3, 3, 128, 128))
    assert list(network.module.state_dict()) == list(model.state_dict())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_timm_by_the_recorder(name: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name).eval()
    network = nx.capture(model, torch.randn(1, 3, 224, 224))
    assert network.front_end == "recorder"
    assert same(model, network, torch.randn(2, 3, 224, 224))


class Caching(nn.Module):
    """Counts its calls and keeps what it computed: a model that tracing must not touch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.calls = 0
        self.last = None

    def forward(self, x):
        self.calls += 1
        self.last = x
        return self.fc(x)


def test_the_model_is_not_touched() -> None:
    model = Caching().train()
    x = torch.randn(2, 3)
    state = torch.get_rng_state()
    nx.capture(model, x)
    assert model.calls == 0
    assert model.last is None
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


class Functional(nn.Module):
    """Functional dropout that follows `self.training`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.dropout(self.fc(x), 0.5, self.training)


@pytest.mark.parametrize("recorded", [False, True])
def test_train_and_eval_still_switch(recorded: bool) -> None:
    class Branching(Functional):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) < 1e9 else x

    model = (Branching if recorded else Functional)()
    network = nx.capture(model, torch.randn(2, 4))
    assert network.front_end == ("recorder" if recorded else "symbolic")
    x = torch.ones(64, 4)
    module = network.module
    assert torch.equal(module.eval()(x), module(x))
    assert (module.train()(x) == 0).float().mean() > 0.2
    assert list(module.state_dict()) == list(model.state_dict())


def test_batchnorm_updates_in_training_only() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    module = nx.capture(model, torch.randn(2, 1, 5, 5)).module
    before = module.get_buffer("1.running_mean").clone()
    module.eval()(torch.randn(4, 1, 5, 5))
    assert torch.equal(before, module.get_buffer("1.running_mean"))
    module.train()(torch.randn(4, 1, 5, 5))
    assert not torch.equal(before, module.get_buffer("1.running_mean"))


def test_what_eval_never_runs_survives_and_is_reported() -> None:
    network = nx.capture(build("inception_small"), torch.randn(1, 1, 28, 28))
    assert any("`aux`" in n for n in network.notes)
    assert "aux.weight" in network.module.state_dict()


def test_tied_weights_stay_tied_and_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    network = nx.capture(Tied(), torch.randn(1, 4))
    assert network.module.get_parameter("a.weight") is network.module.get_parameter("b.weight")
    assert cost(network).params == 16 + 4 + 4
    shadow = twin(network)
    assert shadow.module.get_parameter("a.weight") is shadow.module.get_parameter("b.weight")


def test_exits_of_containers() -> None:
    network = nx.capture(build("smallcnn"), torch.randn(1, 1, 28, 28))
    (node,) = exit_nodes(network, "layer4")
    assert node.meta["shape"] == (1, 64, 7, 7)
    assert exit_nodes(network, "layer4.1") == [node]
    assert len(exit_nodes(network, "relu")) == 4


@given(networks())
@settings(max_examples=10)
def test_cost_counts_what_pytorch_counts(model: nn.Module) -> None:
    network = nx.capture(model, torch.randn(1, 2, 6, 6))
    found = cost(network)
    assert found.params == sum(p.numel() for p in model.parameters())
    tensors = [*model.parameters(), *model.buffers()]
    assert found.bytes == sum(t.numel() * t.element_size() for t in tensors)
    wanted = sum(
        m.weight.numel() * 36 if isinstance(m, nn.Conv2d) else m.weight.numel()
        for m in model.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    )
    assert found.macs == wanted


def test_a_model_that_cannot_run_is_refused() -> None:
    with pytest.raises(nx.NetxformError) as caught:
        nx.capture(nn.Linear(3, 3), torch.randn(2, 5))
    assert caught.value.diagnostics[0].code == "X0802"


def test_costs_are_those_of_eval_whatever_mode_the_model_came_in() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    x = torch.randn(1, 3)  # a batch of one has no batch statistics
    found = [cost(nx.capture(model.train(mode), x)) for mode in (True, False)]
    assert found[0] == found[1]
    assert nx.plan("freeze `0`", model=model.train(), example_inputs=x).steps[0].after == found[0]
