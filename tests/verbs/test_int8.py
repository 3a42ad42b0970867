"""cast int8: within half a step of every row, within the stated bounds; plain tensors that load without torchao; cast last."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.compiler.measure import measure
from netxform.graph.layers import Int8Embedding, Int8Linear
from netxform.language.claims import Quantized
from netxform.precision.int8 import EXCESS, quantize, worst_step
from tests.emitted import imported

pytest.importorskip("torchao")
WORDS = 17


class Reader(nn.Module):
    """An embedding, dense layers of any widths, a norm, and an output that may share the embedding's table."""

    def __init__(self, widths: list[int], tied: bool, bias: bool, spread: float) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, widths[0], padding_idx=0)
        sizes = [*widths, widths[0]]
        self.body = nn.ModuleList(nn.Linear(a, b, bias) for a, b in itertools.pairwise(sizes))
        self.norm = nn.BatchNorm1d(widths[0])
        self.out = nn.Linear(widths[0], WORDS, bias=False)
        with torch.no_grad():  # rows of very different sizes, and one of zeros
            for part in self.body:
                part.weight.mul_(torch.logspace(-spread, spread, len(part.weight))[:, None])
                part.weight[0] = 0
        if tied:
            self.out.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x).mean(1)
        for part in self.body:
            h = torch.relu(part(h))
        return self.out(self.norm(h))


@st.composite
def readers(draw: st.DrawFn) -> Reader:
    torch.manual_seed(draw(st.integers(0, 999)))
    widths = draw(st.lists(st.integers(3, 12), min_size=1, max_size=3))
    return Reader(widths, draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from([0.0, 1.0, 3.0]))).eval()


def words(count: int) -> Tensor:
    return torch.randint(WORDS, (count, 6))


def claims(result: Any) -> dict[str, dict[str, Any]]:
    return {c["kind"]: c for c in result.certificate["statements"][-1]["claims"]}


@given(readers())
@settings(max_examples=12)
def test_every_number_layer_and_output_stays_within_its_bound(model: Reader) -> None:
    before = copy.deepcopy(model.state_dict())
    result = nx.apply("cast int8", model=model, example_inputs=words(1))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(c["held"] or c["vacuous"] for c in claims(result).values())
    made = result.model
    chosen = {n: m for n, m in made.named_modules() if isinstance(m, Int8Linear | Int8Embedding)}
    assert set(chosen) == {"words", "out", *(f"body.{i}" for i in range(len(model.body)))}
    gains = {r["layer"]: r["gain bound"] for r in claims(result)["layer errors"]["detail"]["layers"]}
    for path, part in chosen.items():
        assert type(part.weight) is type(part.scale) is Tensor
        assert part.weight.dtype == torch.int8
        whole = part.weight.double() * part.scale.double()[:, None]
        error = model.get_submodule(path).weight.detach().double() - whole
        assert bool((error.abs() <= part.scale.double()[:, None] / 2 * (1 + EXCESS)).all())
        assert float(torch.linalg.matrix_norm(error, 2)) <= gains[path]
    x = words(64)  # other inputs than the bound was stated for
    with torch.no_grad():
        exact, found = copy.deepcopy(model).double()(x), made(x)
    stated = claims(result)["within bound"]  # of a dead network nothing is said
    assert stated["vacuous"] or float((found - exact).abs().max() / exact.abs().max()) <= stated["bound"]
    assert torch.equal(made.norm.weight, model.norm.weight)


@given(readers())
@settings(max_examples=5)
def test_casting_twice_is_casting_once_and_ties_hold(model: Reader) -> None:
    once = nx.apply("cast int8", model=model, example_inputs=words(1)).model
    twice = nx.apply("cast int8; cast int8", model=model, example_inputs=words(1)).model
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), twice.state_dict().values(), strict=True))
    tied = model.out.weight is model.words.weight
    assert (once.out.weight is once.words.weight) == tied
    assert (once.out.scale is once.words.scale) == tied


def test_a_shared_weight_is_stored_once_or_not_at_all() -> None:
    model = Reader([8], True, True, 0.0)
    result = nx.apply("cast int8 keep out", model=model, example_inputs=words(1))
    assert result.model.out.weight is result.model.words.weight
    assert result.model.out.weight.dtype == torch.float32
    left = result.plan.steps[0].choice.values.entries()["left"]
    assert left == {"out": "kept", "words": "it shares its weight with `out`, which is left"}


@given(st.integers(1, 9), st.integers(2, 9), st.integers(-12, 6), st.integers(0, 99))
def test_steps_of_any_size(rows: int, columns: int, power: int, seed: int) -> None:
    W = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 10.0**power
    q, scale = quantize(W)
    assert (q.shape, scale.shape) == (W.shape, (rows,))
    assert worst_step(W, q, scale) <= 1 + EXCESS


def test_a_number_that_is_off_by_one_breaks_the_claim() -> None:
    model = Reader([6], False, True, 0.0)
    before = nx.capture(model, words(1))
    after = nx.capture(nx.apply("cast int8", model=model, example_inputs=words(1)).model, words(1))
    claim = Quantized(("out",), ("out.weight", "out.scale"))
    assert measure(claim, before, after, (words(8),), 0).evidence.held
    assert worst_step(torch.tensor([[float("inf"), 1.0]]), after.module.out.weight[:1, :2], after.module.out.scale[:1]) > 2
    after.module.out.weight[0, 0] += 1 if after.module.out.weight[0, 0] < 127 else -2
    assert not measure(claim, before, after, (words(8),), 0).evidence.held


@pytest.mark.parametrize("name", ["text_mean", "text_lstm", "vit_small"])
def test_bundles_load_and_verify_without_torchao(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = "" if name == "vit_small" else "words=200"
    result = nx.apply(f"model net = zoo.{name}({arguments})\ncast int8", out=tmp_path / "b")
    cost = result.certificate["cost"]
    assert cost["after"]["params"] == cost["before"]["params"]
    sizes = [t.numel() * t.element_size() for t in (*result.model.parameters(), *result.model.buffers())]
    assert cost["after"]["bytes"] == result.plan.steps[0].after.bytes == sum(sizes) < cost["before"]["bytes"]
    values = result.plan.steps[0].choice.values.entries()
    before, after = values["bytes before"], values["bytes after"]
    assert cost["before"]["bytes"] - cost["after"]["bytes"] == before - after
    for module in [m for m in sys.modules if m.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torchao", None)
    assert nx.verify(tmp_path / "b").held
    emitted = imported(tmp_path / "b" / "model.py")
    with torch.no_grad():
        x = torch.randint(200, (3, 24)) if name != "vit_small" else torch.randn(3, 1, 28, 28)
        assert torch.equal(emitted.load()(x), nx.load(tmp_path / "b")(x))
        assert torch.equal(emitted.load()(x), result.model.eval()(x))


def test_without_torchao_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "torchao" else found(n, *a))
    with pytest.raises(nx.NetxformError, match=r"netxform\[quant\]") as error:
        nx.plan("cast int8", model=Reader([6], False, True, 0.0), example_inputs=words(1))
    assert error.value.diagnostics[0].code == "X0814"


def test_what_cannot_be_stored_is_refused_or_left() -> None:
    conv = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten())
    with pytest.raises(nx.NetxformError, match="Conv2d") as error:
        nx.apply("cast int8", model=conv, example_inputs=torch.randn(1, 2, 5, 5))
    assert error.value.diagnostics[0].code == "X0330"
    plan = nx.plan("model net = zoo.smallcnn()\ncast int8 keep fc")
    left = plan.steps[0].choice.values.entries()["left"]
    assert left["fc"] == "kept"
    assert all("Conv2d" in why for path, why in left.items() if path != "fc")


@pytest.mark.parametrize(
    ("statement", "code"),
    [("widen body.0 x2", "X0320"), ("factorize body.0 rank=2", "X0323"), ("prune body.0 by magnitude amount=50%", "X0331")],
)
def test_its_sizes_stay(statement: str, code: str) -> None:
    with pytest.raises(nx.NetxformError) as error:
        nx.apply(f"cast int8; {statement}", model=Reader([8, 8], False, True, 0.0), example_inputs=words(1))
    assert error.value.diagnostics[0].code == code


@given(readers())
@settings(max_examples=3)
def test_what_follows(model: Reader) -> None:
    x, y = words(24), torch.arange(24) % 3
    text = "cast int8; cast float16; cut after norm; freeze body; attach head classes=3; train ** for 1epochs using sgd(lr=0.1)"
    result = nx.apply(text, model=model, example_inputs=x[:1], data=(x, y))
    assert all(c["held"] for s in result.certificate["statements"] for c in s["claims"] if c["in_force"])
    made = result.model
    plain = nx.apply("cast int8", model=model, example_inputs=x[:1]).model
    assert torch.equal(made.get_buffer("body.0.weight"), plain.get_buffer("body.0.weight"))
    assert made.get_buffer("body.0.scale").dtype == torch.float16
