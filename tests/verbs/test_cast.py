"""cast: rounding to nearest, within the stated bound; what is kept, kept; twice is once; what overflows is refused whole."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.precision.rounding import HALF, failing, rounding, unit_roundoff
from tests.strategies import networks

X = torch.randn(1, 2, 5, 5)
DTYPES = st.sampled_from(sorted(HALF))


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(x[k].dtype == y[k].dtype and torch.equal(x[k], y[k]) for k in x)


@given(networks(), DTYPES, st.sampled_from(["", " keep norms", " keep [norms, head]", " keep stem"]))
@settings(max_examples=10)
def test_outputs_stay_within_the_bound(model: nn.Module, dtype: str, keep: str) -> None:
    before = copy.deepcopy(model)
    result = nx.apply(f"cast {dtype}{keep}", model=model, example_inputs=X)
    bound = {c["kind"]: c for c in result.certificate["statements"][0]["claims"]}["within bound"]["bound"]
    assert same_bits(before, model)
    x = torch.randn(16, 2, 5, 5)  # other inputs than the bound was stated for
    with torch.no_grad():
        exact, found = copy.deepcopy(model).double()(x.double()), result.model(x)
    assert found.dtype == torch.float32
    assert float((found - exact).abs().max() / exact.abs().max()) <= bound
    for name, tensor in result.model.state_dict().items():
        was = model.state_dict()[name]
        kept = ("norms" in keep and ".1." in name) or ("head" in keep and "head" in name) or ("stem" in keep and "stem" in name)
        if was.is_floating_point():
            assert torch.equal(tensor, was if kept else was.to(HALF[dtype])), name
        else:
            assert torch.equal(tensor, was)


@given(networks(), DTYPES)
@settings(max_examples=4)
def test_casting_twice_is_casting_once(model: nn.Module, dtype: str) -> None:
    once = nx.apply(f"cast {dtype}", model=model, example_inputs=X).model
    twice = nx.apply(f"cast {dtype}; cast {dtype}", model=model, example_inputs=X).model
    assert same_bits(once, twice)
    assert once.code == twice.code
    with torch.no_grad():
        assert torch.equal(once(X), twice(X))


@given(st.lists(st.floats(-60000, 60000, width=32), min_size=1, max_size=40), DTYPES)
def test_rounding_is_to_nearest(numbers: list[float], dtype: str) -> None:
    w = torch.tensor(numbers)
    found = rounding([w], HALF[dtype])
    assert found.worst <= unit_roundoff(HALF[dtype])
    assert found.below <= 1.0
    assert found.overflow == 0
    small = (w != 0) & (w.abs() < torch.finfo(HALF[dtype]).smallest_normal)
    assert found.subnormal == int(small.sum())
    assert found.zeroed == int(((w != 0) & (w.to(HALF[dtype]) == 0)).sum())


@pytest.mark.parametrize("name", ["smallcnn", "resnet_small", "vit_small", "gru_small", "text_lstm", "text_mean"])
def test_the_zoo_in_half_and_what_follows(name: str, tmp_path: Path) -> None:
    text = f"model net = zoo.{name}()\ncast float16\ncut before fc; freeze body; attach head classes=3"
    result = nx.apply(text, out=tmp_path / "b")
    cost = result.certificate["cost"]
    assert result.plan.steps[0].after.bytes <= 0.51 * cost["before"]["bytes"]
    assert nx.verify(tmp_path / "b").held
    module = nx.load(tmp_path / "b")
    assert same_bits(module, result.model)


def test_a_cast_network_can_still_grow() -> None:
    result = nx.apply('model net = zoo.smallcnn(width=8) input="1x1x8x8"\ncast bfloat16\nwiden conv1 x2')
    assert all(c["held"] for s in result.certificate["statements"] for c in s["claims"])
    assert result.model.conv1.weight.dtype == torch.bfloat16


def test_overflow_is_refused_with_its_place() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[2].weight[0, 0] = 7e4
    with pytest.raises(nx.NetxformError) as error:
        nx.apply("cast float16", model=model, example_inputs=torch.randn(1, 3))
    assert error.value.diagnostics[0].code == "X0329"
    assert "2.weight" in str(error.value)
    kept = nx.apply("cast float16 keep [`2`]", model=model, example_inputs=torch.randn(1, 3)).model
    assert kept.get_parameter("2.weight").dtype == torch.float32
    assert nx.apply("cast bfloat16", model=model, example_inputs=torch.randn(1, 3)).model
    with torch.no_grad():  # every weight fits, and a value on the way does not
        model[0].weight.fill_(6e4)
        model[2].weight.fill_(1.0)
    with pytest.raises(nx.NetxformError, match="on the way"):
        nx.apply("cast float16", model=model, example_inputs=torch.randn(1, 3))


def test_small_numbers_are_counted() -> None:
    model = nn.Sequential(nn.Linear(10, 10))
    with torch.no_grad():
        model[0].weight.fill_(1e-9)  # becomes zero
        model[0].bias.fill_(1e-6)  # is subnormal
    plan = nx.plan("cast float16", model=model, example_inputs=torch.randn(1, 10), deep=True)
    values = plan.steps[0].choice.values.entries()
    assert (values["numbers"], values["subnormal"], values["zeroed"]) == (110, 110, 100)
    assert "too small" in plan.steps[0].choice.warnings[0]


def test_tied_tensors_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(11, 8)
            self.out = nn.Linear(8, 11, bias=False)
            self.out.weight = self.words.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.words(x).mean(1))

    module = nx.apply("cast float16", model=Tied(), example_inputs=torch.randint(11, (2, 4))).model
    assert module.get_parameter("out.weight") is module.get_parameter("words.weight")
    assert module.get_parameter("out.weight").dtype == torch.float16


class Coarse(nn.Module):
    """Passes through bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b((self.a(x).sigmoid() * 255).round().byte() / 255.0)


def test_where_a_network_stops_is_found() -> None:
    network = nx.capture(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval(), torch.randn(3, 4))
    assert failing(network, (torch.randn(3, 4),)) is None
    network.module.get_submodule("1").half()
    found = failing(network, (torch.randn(3, 4),))
    assert found is not None and found[0] == "1" and "dtype" in found[1]


@pytest.mark.parametrize("spec", ["deepen a", "widen a x2", "cast float16", "cast bfloat16", "prune a by magnitude amount=25%"])
def test_a_twin_in_float64_starts_at_integers_too(spec: str) -> None:
    torch.manual_seed(0)
    found = nx.apply(spec, model=Coarse().eval(), example_inputs=torch.randn(3, 4))
    assert all(c["held"] for s in found.certificate["statements"] for c in s["claims"])
