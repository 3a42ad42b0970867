"""Who reads a value reads it as it was where it was made, whatever writes into its memory later; on generated chains."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import netxform as nx
from netxform.capture.capture import capture
from netxform.graph.memory import as_it_was, memory_of
from netxform.graph.network import Network, exit_nodes
from netxform.training.taps import tapped

STEPS = "fc relu_module relu_function relu_method add_ mul_ iadd back slice_iadd slice_set view_write half_view sum old".split()


class Chain(nn.Module):
    """Layers and operations in place in the order of `steps`; `seen` gets the value of each layer as it is put out."""

    def __init__(self, steps: list[str]) -> None:
        super().__init__()
        self.steps = ["fc", *steps, "fc"]
        self.layers = nn.ModuleList(nn.Linear(6, 6) for s in self.steps if s == "fc")
        self.rectify = nn.ReLU(inplace=True)
        self.seen: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        h, before, count = x, x * 1, 0
        for step in self.steps:
            match step:
                case "fc":
                    before = h
                    h = self.layers[count](h)
                    count += 1
                    if self.seen is not None:
                        self.seen.append(h.clone())
                case "relu_module":
                    h = self.rectify(h)
                case "relu_function":
                    F.relu(h, inplace=True)
                case "relu_method":
                    h.relu_()
                case "add_":
                    h.add_(0.25)
                case "mul_":
                    h = h.mul_(1.5)
                case "iadd":
                    h += before
                case "back":
                    before = h
                    h = torch.tanh(h)
                case "slice_iadd":
                    h[:, 1:] += 0.5
                case "slice_set":
                    h[:, :2] = before[:, 2:4] * 2
                case "view_write":
                    h.view(-1, 2, 3).mul_(0.5)
                case "half_view":
                    part = h[:, 3:]
                    part.sub_(0.125)
                case "sum":
                    h = h + before
                case _:
                    h, before = before + 1, h
        return h


def made(steps: list[str]) -> tuple[Chain, Tensor, Tensor, list[Tensor]]:
    torch.manual_seed(len(steps))
    model, x = Chain(steps).eval(), torch.randn(3, 6)
    model.seen = []
    with torch.no_grad():
        y = model(x.clone())
    seen, model.seen = model.seen, None
    return model, x, y, seen


chains = st.lists(st.sampled_from(STEPS), min_size=1, max_size=6)


def nodes(network: Network, count: int) -> list[str]:
    return [exit_nodes(network, f"layers.{i}")[0].name for i in range(count)]


@settings(max_examples=60, deadline=None)
@given(chains)
def test_taps_read_values_as_they_were_and_change_no_output(steps):
    model, x, y, seen = made(steps)
    network = capture(model, x)
    with torch.no_grad():
        out, values = tapped(network.module, nodes(network, len(seen)))(x.clone())
    assert torch.equal(out, y)
    assert all(torch.equal(a, b) for a, b in zip(values, seen, strict=True))


@settings(max_examples=25, deadline=None)
@given(chains, st.data())
def test_cuts_and_heads_read_values_as_they_were(steps, data):
    model, x, y, seen = made(steps)
    i = data.draw(st.integers(0, len(seen) - 1))
    cut = nx.apply(f"cut at layers.{i}", model=model, example_inputs=x).model
    headed = nx.apply(
        f"attach h after layers.{i} {{ r = ReLU(inplace=true); o = Linear(auto, 2) }}", model=model, example_inputs=x
    ).model
    with torch.no_grad():
        assert torch.equal(cut(x.clone()), seen[i])
        out = headed(x.clone())
        assert torch.equal(out["output"], y)
        assert torch.equal(out["h"], headed.h.o(seen[i].relu()))


@settings(max_examples=25, deadline=None)
@given(chains, st.sampled_from(["deepen layers.0", "factorize layers.0 using svd rank=6 when_smaller=false", "freeze **"]))
def test_changes_that_keep_the_function_keep_it_around_writes_in_place(steps, spec):
    model, x, y, _ = made(steps)
    try:
        changed = nx.apply(spec, model=model, example_inputs=x).model
    except nx.NetxformError:
        return  # a clear refusal; what is silent is compared
    with torch.no_grad():
        assert torch.allclose(changed(x.clone()), y, atol=1e-4, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(chains)
def test_a_value_in_place_is_read_under_the_name_of_what_wrote_it(steps):
    model, x, _, _ = made(steps)
    network = capture(model, x)
    found = memory_of(network.module)
    assert found is not None
    order = {n: i for i, n in enumerate(network.module.graph.nodes)}
    for node, operand in found.gives_back.items():
        assert not [u for u in operand.users if order[u] > order[node]]


def test_a_value_that_nothing_overwrites_is_read_itself():
    model, x, _, _ = made(["back", "sum"])
    network = capture(model, x)
    found = memory_of(network.module)
    node = exit_nodes(network, "layers.0")[0]
    assert as_it_was(network.module, node, found) is node
    assert as_it_was(network.module, node, None) is not node  # where nothing is known, a copy


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.act(self.conv(x)).mean((2, 3)))


def test_penalties_speak_of_the_value_of_a_layer_not_of_what_is_rectified():
    """The gradient of l2(outputs(conv)) is that of the convolution's own values: negative ones shrink too."""
    torch.manual_seed(0)
    model, x = Stem(), torch.randn(8, 1, 6, 6)
    model.conv.weight.data.abs_().neg_()
    model.conv.bias.data.fill_(-5.0)
    data = {"d": (x, torch.randint(0, 2, (8,)))}
    spec = "train ** for 1epochs on d using sgd(lr=0.01) batch=8 regularize l2(outputs(conv), 10)"
    moved = nx.apply(spec, model=model, example_inputs=x, data=data).model
    assert float(moved.conv.bias.detach().mean()) > -5.0  # all values are negative: a rectified penalty would not move it


@pytest.mark.parametrize("batch", [1, 4])
def test_a_captured_graph_still_writes_where_the_model_does(batch):
    model, x, _, _ = made(["relu_method", "old", "slice_iadd", "sum"])
    with torch.no_grad():
        x = torch.randn(batch, 6)
        assert torch.equal(capture(model, x).module(x.clone()), model(x.clone()))
