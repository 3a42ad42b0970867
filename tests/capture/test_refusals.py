"""What cannot be captured is called by its name, with the repair, quietly; trainings heed what train() loses."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import netxform as nx
from netxform.artifacts.bundle import read
from netxform.capture.capture import capture
from netxform.graph.probes import samples
from tests.emitted import imported


class Packed(nn.Module):
    """A recurrent layer on packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.rnn(packed)[1][0][-1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "said", "repair"),
    [
        (lambda: nn.Sequential(nn.LazyLinear(3)), "`0` .*lazy", "run the model once"),
        (lambda: torch.compile(nn.Sequential(nn.Linear(4, 3))), "is compiled", "model._orig_mod"),
        (lambda: nn.Sequential(torch.compile(nn.Linear(4, 3))), "`0` .*is compiled", "model.0._orig_mod"),
        (lambda: nn.DataParallel(nn.Linear(4, 3)), "spreads a model", "model.module"),
        (lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 3))), "TorchScript", "Python module"),
        (lambda: torch.jit.trace(nn.Linear(4, 3), torch.randn(2, 4)), "TorchScript", "Python module"),
        (Packed, "packs sequences", "pad in front"),
    ],
)
def test_unusual_models_are_refused_in_one_sentence(make, said: str, repair: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = make().eval()
    inputs = (torch.randn(2, 3, 4), torch.tensor([3, 2])) if isinstance(model, Packed) else (torch.randn(2, 4),)
    capfd.readouterr()
    with pytest.raises(nx.NetxformError, match=said) as caught:
        capture(model, *inputs)
    assert caught.value.diagnostics[0].code == "X0802"
    assert any(repair in h for h in caught.value.diagnostics[0].helps)
    assert capfd.readouterr() == ("", "")


class Aux(nn.Module):
    """A model with a second output in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.aux, self.out = nn.Linear(8, 8), nn.Linear(8, 2), nn.Linear(8, 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        h = self.drop(self.body(x).relu())
        if self.training:
            return self.out(h), self.aux(h)
        return self.out(h)


DATA = {"d": (torch.randn(64, 8), torch.randint(0, 2, (64,)))}


@pytest.mark.parametrize(
    "spec",
    [
        "train ** for 1epochs on d",
        "snapshot t; distill from t for 1epochs on d",
        "train ** for 1epochs on d regularize l2(outputs(body), 1e-3)",
        "prune body by magnitude amount=50% step=25% { recover { train ** for 1epochs on d } }",
    ],
)
def test_trainings_refuse_what_they_would_lose_unless_told(spec: str) -> None:
    x = torch.randn(4, 8)
    with pytest.raises(nx.NetxformError, match="does more in training") as caught:
        nx.plan(spec, model=Aux(), example_inputs=x, data=DATA)
    found = caught.value.diagnostics[0]
    assert found.code == "X0345"
    assert found.span.line == 1
    assert any("if self.training" in note and ".py:" in note for note in found.notes)
    assert any("lost=accept" in h for h in found.helps)
    told = spec.replace("on d", "on d lost=accept")
    plan = nx.plan(told, model=Aux(), example_inputs=x, data=DATA)
    assert any("train() loses" in w for w in plan.warnings)


def test_what_is_lost_travels_with_the_network(tmp_path: Path) -> None:
    x = torch.randn(4, 8)
    # where the module that decides stays in eval mode, nothing is lost
    result = nx.apply("train out for 1epochs on d", model=Aux(), example_inputs=x, data=DATA)
    assert not any("loses" in w for w in result.certificate["statements"][0]["warnings"])
    told = "train ** for 1epochs on d lost=accept"
    result = nx.apply(told, model=Aux(), example_inputs=x, data=DATA, out=str(tmp_path / "b"))
    for said in (result.certificate["plan_warnings"], result.certificate["statements"][0]["warnings"]):
        assert any("train() loses what `Aux` does" in w for w in said)
    network, _ = read(tmp_path / "b")
    assert [(one.path, one.what) for one in network.lost] == [("", "if self.training")]
    assert json.loads((tmp_path / "b" / "graph.json").read_text())["capture"]["eval_only"]
    space = imported(tmp_path / "b" / "model.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = space.load()
    with pytest.warns(UserWarning, match="train\\(\\) loses"):
        alone.train()
    assert alone.drop.training


class Loops(nn.Module):
    """A cell over time, and a decision on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(4, 8), nn.Linear(8, 3)

    def forward(self, x, scale):
        h = torch.zeros(x.size(0), 8)
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
        if scale.sum() > 7:
            h = h * 2
        return self.out(h)


def test_a_bundle_with_guards_is_measured_on_inputs_that_it_takes(tmp_path: Path) -> None:
    inputs = torch.randn(2, 5, 4), torch.full((2, 6), 3.0)
    network = capture(Loops().eval(), *inputs)
    assert any("free sizes: `scale.shape[1]`, and the batch" in n for n in network.notes)
    nx.apply("deepen out", model=Loops().eval(), example_inputs=inputs, out=str(tmp_path / "b"))
    again, _ = read(tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(samples(again, 0), again.given, strict=True))
    again.module(*samples(again, 0))
    assert nx.verify(tmp_path / "b").held


def test_gradients_and_flags_stay_as_they_were() -> None:
    model = Aux().train()
    model.body.weight.requires_grad_(False)
    model(torch.randn(4, 8))[0].sum().backward()
    grads = {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    network = capture(model, torch.randn(4, 8).requires_grad_())
    assert flags == {n: p.requires_grad for n, p in network.module.named_parameters()}
    assert flags == {n: p.requires_grad for n, p in model.named_parameters()}
    assert all((g is None) == (p.grad is None) for g, p in zip(grads.values(), model.parameters(), strict=True))
    assert torch.is_grad_enabled()
