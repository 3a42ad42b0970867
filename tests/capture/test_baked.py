"""Weights that are computed each time: right in every verb, or refused with the repair; baked in, a layer like others."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import utils as U
from torch.nn.utils import parametrizations as P
from torch.nn.utils import prune as masks

import netxform as nx
from netxform.capture.bake import bake, computed
from netxform.capture.capture import capture
from netxform.graph.tensors import held

KINDS = ["weight hook", "spectral hook", "weight", "spectral", "orthogonal", "own", "masks"]


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).T


def made(kind: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    match kind:
        case "weight hook":
            with pytest.warns(FutureWarning):
                U.weight_norm(layer)
        case "spectral hook":
            U.spectral_norm(layer)
        case "weight":
            P.weight_norm(layer)
        case "spectral":
            P.spectral_norm(layer)
        case "orthogonal":
            P.orthogonal(layer)
        case "own":
            nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
        case _:
            masks.l1_unstructured(layer, "weight", 0.3)
            masks.random_unstructured(layer, "bias", 0.3)
    model = nn.Sequential()
    model.add_module("a", layer)
    model.add_module("act", nn.ReLU())
    model.add_module("b", nn.Linear(8, 3))
    model.train()(torch.randn(4, 8))
    return model.eval(), torch.randn(4, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_baked_is_the_same_function_with_the_tensors_of_a_plain_layer(kind):
    model, x = made(kind)
    before = {n: t.clone() for n, t in held(model).items()}
    with torch.no_grad():
        wanted = model(x)
        baked = bake(model)
        assert torch.equal(baked(x), wanted)
        assert torch.equal(model(x), wanted) and torch.equal(copy.deepcopy(model)(x), wanted)
    assert all(torch.equal(t, held(model)[n]) for n, t in before.items())
    assert list(baked.state_dict()) == [
        "a.weight", "a.bias", "b.weight", "b.bias",
    ]  # fmt: skip
    assert type(baked.a) is nn.Linear and isinstance(baked.a.weight, nn.Parameter) and baked.a.weight.requires_grad
    assert computed(model) and not computed(baked)
    assert bake(baked) is baked


SPECS = [
    "freeze a",
    "cut at a",
    "attach h after a classes=2",
    "prune a by magnitude amount=25%",
    "factorize a using svd rank=8 when_smaller=false",
    "widen a x2",
    "deepen a",
    "cast bfloat16",
    "train ** for 1epochs on d",
]
KEEP = ("freeze", "factorize", "widen", "deepen", "attach")


@pytest.mark.parametrize("baked", [False, True])
@pytest.mark.parametrize("kind", ["weight hook", "spectral", "masks"])
def test_every_verb_keeps_its_promise_or_names_the_repair(kind, baked, tmp_path):
    model, x = made(kind)
    data = {"d": (torch.randn(16, 8), torch.randint(0, 3, (16,)))}
    for i, spec in enumerate(SPECS):
        given = data if "on d" in spec else None
        try:
            result = nx.apply(spec, model=model, example_inputs=x, data=given, out=tmp_path / f"b{i}", bake=baked)
        except nx.NetxformError as error:
            assert not baked and "bake=True" in str(error), f"{spec}: {error}"
            continue
        with torch.no_grad():
            found = result.model(x)
            again = nx.load(tmp_path / f"b{i}")(x)
            ours = found["output"] if isinstance(found, dict) else found
            assert torch.equal(ours, again["output"] if isinstance(again, dict) else again)
            if spec.startswith(KEEP):
                assert torch.allclose(ours, model(x), atol=1e-4)


def test_an_error_of_another_kind_says_nothing_of_baking():
    model, x = made("weight")
    with pytest.raises(nx.NetxformError) as caught:
        nx.apply("freeze nowhere", model=model, example_inputs=x)
    assert "bake" not in str(caught.value)


@pytest.mark.parametrize("kind", ["spectral", "spectral hook"])
def test_vectors_of_a_spectral_norm_move_in_training_as_the_models_own(kind):
    model, x = made(kind)
    graph = capture(model, x).module
    for one in (graph, model):
        one.train()
        one(x).square().mean().backward()
        one(x).square().mean().backward()  # no graph of the first pass hangs on a buffer
    assert all(torch.allclose(t, held(model)[n], atol=1e-6) for n, t in held(graph).items())


class Apart(nn.Module):
    """Half of it is computed without gradients."""

    def __init__(self, recorded: bool) -> None:
        super().__init__()
        self.fc, self.other, self.recorded = nn.Linear(4, 4), nn.Linear(4, 4), recorded
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        if self.recorded and float(x.sum()) > -1e9:
            x = x * 1
        h = self.fc(x)
        with torch.no_grad():
            target = self.other(h) * self.fc.weight.mean()
            self.mean.add_(h.mean(0))
        return (h - target).square() + self.mean


@pytest.mark.parametrize("recorded", [False, True])
def test_what_is_computed_without_gradients_has_none_in_the_graph(recorded):
    torch.manual_seed(0)
    model, x = Apart(recorded), torch.randn(3, 4)
    graph = capture(model, x).module
    for one in (model, graph):
        one(x).sum().backward()
        one(x).sum().backward()
    ours, theirs = dict(graph.named_parameters()), dict(model.named_parameters())
    assert theirs["other.weight"].grad is None and ours["other.weight"].grad is None
    assert torch.allclose(ours["fc.weight"].grad, theirs["fc.weight"].grad)


def test_a_declaration_bakes_too(tmp_path):
    model, x = made("weight")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.nn.utils import parametrizations as P\n\n\n"
        "def net():\n    torch.manual_seed(0)\n    return nn.Sequential(P.weight_norm(nn.Linear(8, 8)), nn.ReLU())\n"
    )
    spec = 'model m = "net.py:net" input="2x8" {}\nfactorize ** using svd rank=8 when_smaller=false'
    kept = nx.apply(spec.format("bake=true"), root=tmp_path, trust_code=True)
    assert any("_u" in n or ".0" in n for n, _ in kept.model.named_parameters())
    with pytest.raises(nx.NetxformError, match="X0323"):
        nx.apply(spec.format(""), root=tmp_path, trust_code=True)
    with pytest.raises(nx.NetxformError, match="true or false"):
        nx.check("model m = zoo.mlp() bake=maybe\nfreeze **")
    plain = nx.capture(model, x, bake=True)
    assert isinstance(plain.module.a, nn.Linear)
