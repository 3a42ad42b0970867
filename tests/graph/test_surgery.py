"""Edits are performed on a copy, the same on the twin and on the real network, and what cannot be performed is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netxform.axes.index_maps import Reindex
from netxform.axes.reindex import Axis, axes_of
from netxform.capture.capture import capture
from netxform.errors import NetxformError
from netxform.graph.edits import Append, Assign, Bias, Edit, Insert, Operation, Replace, Trainable, Truncate
from netxform.graph.layer_spec import Invocation, Layer
from netxform.graph.network import Network, exit_nodes, twin
from netxform.graph.surgery import perform
from netxform.graph.tensors import held
from netxform.zoo.cnn import SmallCNN
from tests.strategies import networks, randomized


def small() -> Network:
    torch.manual_seed(1)
    return capture(randomized(SmallCNN()), torch.randn(1, 1, 8, 8))


def place(network: Network, path: str) -> str:
    return exit_nodes(network, path)[0].name


def a_norm() -> Layer:
    return Layer("norm", Invocation("Identity"))


def append(network: Network) -> Edit:
    return Edit((Append("extra", place(network, "fc1"), (Layer("out", Invocation("Linear", (64, 3))),), False, False, 3),))


def freeze(network: Network) -> Edit:
    return Edit((Trainable(tuple(k for k, _ in network.module.named_parameters() if "1" in k), False),))


def backwards(network: Network) -> Edit:
    axis = free(network)[0]
    return Edit((Reindex(((axis.name, tuple(reversed(range(axis.size)))),)),))


EDITS = {
    "truncate": lambda n: Edit((Truncate(place(n, "layer4")),)),
    "append": append,
    "insert": lambda n: Edit((Insert("more", place(n, "layer4"), (a_norm(),), "identity", 0),)),
    "freeze": freeze,
    "reindex": backwards,
    "bias": lambda n: Edit((Bias(("fc",)),)),
}


def free(network: Network) -> list[Axis]:
    return [a for a in axes_of(network) if a.locked is None]


@pytest.mark.parametrize("name", EDITS)
def test_the_given_network_stays_as_it_was_and_the_twin_changes_alike(name: str) -> None:
    network = small()
    x = torch.randn(3, 1, 8, 8)
    code, values = network.module.code, {k: t.clone() for k, t in held(network.module).items()}
    wants = {k: p.requires_grad for k, p in network.module.named_parameters()}
    before = network.module(x)
    edit = EDITS[name](network)
    changed = perform(network, edit)
    shadow = perform(twin(network), edit)
    assert network.module.code == code and torch.equal(network.module(x), before)
    assert all(torch.equal(t, values[k]) for k, t in held(network.module).items())
    assert wants == {k: p.requires_grad for k, p in network.module.named_parameters()}
    assert shadow.module.code == changed.module.code
    assert {k: t.shape for k, t in held(shadow.module).items()} == {k: t.shape for k, t in held(changed.module).items()}
    assert [n.meta.get("shape") for n in shadow.module.graph.nodes] == [n.meta.get("shape") for n in changed.module.graph.nodes]


@given(networks(), st.data())
@settings(max_examples=25)
def test_what_is_cut_is_the_value_that_was_there(model: nn.Module, data: st.DataObject) -> None:
    network = capture(model, torch.randn(1, 2, 6, 6))
    nodes = [
        n for n in network.module.graph.nodes if n.op not in ("placeholder", "output") and isinstance(n.meta["shape"], tuple)
    ]
    node = data.draw(st.sampled_from([n.name for n in nodes]))
    seen: dict[str, torch.Tensor] = {}

    class Seeing(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            seen[n.name] = value = super().run_node(n)
            return value

    x = torch.randn(2, 2, 6, 6)
    Seeing(network.module).run(x)
    if not isinstance(seen[node], torch.Tensor):
        return
    cut = perform(network, Edit((Truncate(node),)))
    assert torch.equal(cut.module(x), seen[node])
    assert len(cut.module.graph.nodes) <= len(network.module.graph.nodes)
    needed = {n for n, _ in cut.module.named_parameters()}
    assert needed <= {n for n, _ in network.module.named_parameters()}


def test_untouched_tensors_are_shared_and_others_are_not() -> None:
    network = small()
    new = torch.full_like(network.module.get_parameter("fc.weight"), 0.5)
    changed = perform(network, Edit((Assign(("fc.weight",)),), {"fc.weight": new}))
    assert torch.equal(changed.module.get_parameter("fc.weight"), new)
    ours, theirs = held(changed.module), held(network.module)
    assert {k for k in ours if ours[k].data_ptr() != theirs[k].data_ptr()} == {"fc.weight"}


def test_a_replaced_layer_computes_what_its_tensors_say() -> None:
    network = small()
    weight = network.module.get_parameter("fc.weight")
    bias = network.module.get_parameter("fc.bias")
    rows, columns = weight.shape
    layers = (
        Layer("down", Invocation("Linear", (columns, columns), {"bias": False})),
        Layer("up", Invocation("Linear", (columns, rows))),
    )
    tensors = {"fc.down.weight": torch.eye(columns), "fc.up.weight": weight.detach(), "fc.up.bias": bias.detach()}
    changed = perform(network, Edit((Replace("fc", layers),), tensors))
    x = torch.randn(4, 1, 8, 8)
    assert torch.allclose(changed.module(x), network.module(x), rtol=1e-5, atol=1e-6)


def test_an_edit_that_breaks_the_graph_is_refused_whole() -> None:
    network = small()
    wrong = Edit((Replace("fc", (Layer("out", Invocation("Linear", (3, 10))),)),), {})
    with pytest.raises((NetxformError, ValueError)):
        perform(network, wrong)
    assert network.module(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_an_operation_that_nobody_performs_is_an_error_that_names_it() -> None:
    @dataclass(frozen=True)
    class Unheard(Operation):
        pass

    with pytest.raises(TypeError, match="Unheard"):
        perform(small(), Edit((Unheard(),)))
