"""Equal programs: what the proof accepts is the model, and what is not the model it does not accept. Copies are copies."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netxform.capture.capture import _recorded, _symbolic, capture
from netxform.capture.equivalence import program, provable
from netxform.capture.judge import Judge
from netxform.graph.copies import lent, structure, tensors_of, weightless
from netxform.graph.shape_cache import Kernels
from netxform.zoo import REGISTRY, build
from tests.strategies import networks, randomized, zoo_input


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_zoo_is_accepted_without_computing_anything(name: str) -> None:
    model = build(name)
    judge = Judge(model, (zoo_input(name, 1),))
    assert judge.accept(_symbolic(model))
    assert "runs" not in vars(judge)


@given(networks(), st.data())
@settings(max_examples=25)
def test_another_graph_is_not_accepted(model: nn.Module, data: st.DataObject) -> None:
    x = torch.randn(2, 2, 6, 6)
    judge = Judge(model, (x,))
    graph = _symbolic(model)
    node = data.draw(st.sampled_from([n for n in graph.graph.nodes if n.op == "call_module"]))
    with graph.graph.inserting_after(node):
        made = graph.graph.call_function(torch.neg, (node,))
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
    graph.recompile()
    shadow = structure(graph, weightless)
    assert program(shadow, (weightless(x),), {}, shadow) != judge.programs[0]


class Swapped(nn.Module):
    """Two layers of one shape: the order in which they are read is all that tells them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)

    def forward(self, x):
        return self.b(self.a(x))


def test_tensors_are_told_apart_by_name() -> None:
    model = Swapped()
    graph = _symbolic(model)
    calls = [n for n in graph.graph.nodes if n.op == "call_module"]
    calls[0].target, calls[1].target = calls[1].target, calls[0].target
    graph.recompile()
    judge = Judge(model, (torch.randn(2, 3),))
    shadow = structure(graph, weightless)
    assert judge.programs is not None
    assert program(shadow, (torch.empty(2, 3, device="meta"),), {}, shadow) != judge.programs[0]


class Writes(nn.Module):
    """`y += 1` on a view of x: tracing makes it `y + 1`, and x is another thing then."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.view = view

    def forward(self, x):
        x = self.fc(x)
        y = x.view(-1, 2, 2) if self.view else x * 2
        y += 1
        return x + y.reshape(x.shape)


@pytest.mark.parametrize("view", [False, True])
def test_writing_in_place_is_the_same_only_where_nobody_sees_it(view: bool) -> None:
    model = Writes(view).eval()
    x = torch.randn(3, 4)
    judge = Judge(model, (x,))
    graph = _symbolic(model)
    shadow = structure(graph, weightless)
    equal = program(shadow, (weightless(x),), {}, shadow) == judge.programs[0]
    assert equal is (not view)
    with torch.no_grad():
        assert torch.equal(graph(x), model(x)) is (not view)
        assert torch.equal(capture(model, x).module(x), model(x))


class Factories(nn.Module):
    """Tensors made on the way, with and without a device."""

    def forward(self, x):
        mask = torch.ones(x.shape[1], device=x.device) + torch.arange(3) + torch.zeros(3, device="cpu")
        return x * mask.to(x)


def test_tensors_that_an_operation_makes_are_known() -> None:
    x = torch.randn(2, 3)
    judge = Judge(Factories(), (x,))
    assert judge.accept(_recorded(Factories(), (x,)))
    assert not judge.accept(_symbolic(Factories()))  # there `arange` is a constant: values say that it is the same


class Constant(nn.Module):
    """A number that lives in a tensor made on the way, and a random one: programs do not say what they are."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x):
        return x + (torch.tensor([2.0]) if self.how == "tensor" else torch.rand(1))


@pytest.mark.parametrize("how", ["tensor", "random"])
def test_what_a_program_does_not_say_is_not_proved(how: str) -> None:
    judge = Judge(Constant(how), (torch.zeros(2, 3),))
    assert judge.programs is None


def test_layers_that_look_at_the_device_are_not_proved() -> None:
    assert not provable(nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8)))
    assert provable(nn.Sequential(nn.MultiheadAttention(4, 2)))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_copy_of_the_structure_is_what_deepcopy_makes(name: str) -> None:
    model = randomized(build(name)).eval()
    model.register_forward_hook(lambda m, a, out: None)
    x = zoo_input(name, 2)
    wanted = copy.deepcopy(model)
    made = structure(model, lent)
    for ours, theirs, old in zip(made.modules(), wanted.modules(), model.modules(), strict=True):
        assert type(ours) is type(theirs)
        assert ours is not old
        assert vars(ours).keys() == vars(theirs).keys()
        assert all(type(v) is type(vars(theirs)[k]) for k, v in vars(ours).items())
        mutable = [k for k, v in vars(old).items() if isinstance(v, dict | list | set)]
        assert not any(vars(ours)[k] is vars(old)[k] for k in mutable)
    with torch.no_grad():
        assert torch.equal(made(x), model(x))
    assert list(made.state_dict()) == list(model.state_dict())
    assert [p.data_ptr() for p in made.parameters()] == [p.data_ptr() for p in model.parameters()]
    assert not {id(t) for t in tensors_of(made)} & {id(t) for t in tensors_of(model)}
    next(made.parameters()).requires_grad_(False)
    assert next(model.parameters()).requires_grad


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_remembered_shapes_are_the_shapes(name: str) -> None:
    """Twice with a memory and once without: shapes, strides and dtypes of every result."""
    shadow = structure(build(name).eval(), weightless)
    x = weightless(zoo_input(name, 2))
    seen: list[list[object]] = []
    kernels = Kernels()
    for part in shadow.modules():
        if not list(part.children()) and not isinstance(part, nn.RNNBase | nn.MultiheadAttention):
            part.register_forward_hook(lambda m, a, out: seen[-1].append((out.shape, out.stride(), out.dtype)))
    with torch.no_grad(), torch.device("meta"):
        for mode in (kernels, kernels, None):
            seen.append([])
            if mode is None:
                shadow(x)
            else:
                with mode:
                    shadow(x)
    assert seen[0]
    assert seen[0] == seen[1] == seen[2]
