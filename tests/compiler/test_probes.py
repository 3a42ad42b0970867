"""One set of inputs for a whole run: what a statement is measured on is what its claim is looked at again with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform.compiler.vacuous import APART


class Decides(nn.Module):
    """Its last part decides on values: the graph that is cut before it has no guard any more."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if x.sum() > 0:
            y = y * 2
        return self.head(y)


def test_a_cut_that_takes_a_guard_away_leaves_the_claims_in_force() -> None:
    torch.manual_seed(0)
    x = torch.rand(3, 4)
    result = nx.apply("cut at body", model=Decides().eval(), example_inputs=x)
    (claim,) = result.certificate["statements"][0]["claims"]
    assert claim["held"] and claim["in_force"] and claim["probes"] == "3 given, 5 varied"


class Offsets(nn.Module):
    """Each column of the input counts in a table of its own; the tables stand behind each other."""

    start: Tensor

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.register_buffer("start", torch.tensor([0, *sizes[:-1]]).cumsum(0))
        self.table, self.a, self.out = nn.Embedding(sum(sizes), 4), nn.Linear(4 * len(sizes), 6), nn.Linear(6, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.a(self.table(ids + self.start).flatten(1)).relu())


class Pooled(nn.Module):
    """The mean over the words that a mask lets through; `floor` keeps a mask of zeros from dividing by zero."""

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor
        self.table, self.q, self.out = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        m = mask.unsqueeze(-1).float()
        return self.out((self.q(self.table(ids)) * m).sum(1) / m.sum(1).clamp(min=self.floor))


def claims(result: nx.Result) -> list[Any]:
    return [c for s in result.record.statements for c in s.claims]


@pytest.mark.parametrize("sizes", [[10, 20, 30], [3, 40]])
@pytest.mark.parametrize("spec", ["deepen a", "prune a by magnitude amount=30%", "cast float16", "freeze **"])
def test_words_are_those_that_were_given(sizes: list[int], spec: str) -> None:
    torch.manual_seed(0)
    ids = torch.stack([torch.randint(n, (4,)) for n in sizes], 1)
    found = [c for c in claims(nx.apply(spec, model=Offsets(sizes).eval(), example_inputs=ids)) if c.probes]
    assert found and all(c.held and c.probes == "4 given, 4 varied" for c in found)


SPECS = ["deepen q", "widen q x2", "prune q by magnitude amount=30%", "factorize q using svd rank=2"]


@pytest.mark.parametrize("spec", SPECS)
def test_what_a_mask_hides_is_not_shown(spec: str) -> None:
    torch.manual_seed(0)
    ids, mask = torch.randint(20, (2, 6)), torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    assert all(c.held for c in claims(nx.apply(spec, model=Pooled(1e-9).eval(), example_inputs=(ids, mask))))
    result = nx.apply(spec, model=Pooled(1e-9).eval(), example_inputs=(ids, torch.zeros_like(mask)))
    hidden = [c for c in claims(result) if c.probes]
    assert hidden and all(c.vacuous and not c.held and not c.in_force for c in hidden)
    assert any("not shown" in w for s in result.record.statements for w in s.warnings)
    with pytest.raises(nx.NetxformError) as caught:
        nx.apply(spec, model=Pooled(0.0).eval(), example_inputs=(ids, torch.zeros_like(mask)))
    assert caught.value.diagnostics[0].code == "X0502"


def test_a_bundle_with_a_claim_that_nothing_was_shown_for_is_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    nn.init.zeros_(model[1].weight)
    nx.apply("freeze **", model=model.eval(), example_inputs=torch.randn(3, 4), out=tmp_path / "b")
    verdict = nx.verify(tmp_path / "b")
    assert verdict.held and verdict.counts["not measurable"] == 1 and not verdict.counts["superseded"]
    assert any("nothing was shown" in c.why for c in verdict.claims)


class Apart(nn.Module):
    """A branch whose result is multiplied by zero, beside one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 4)
        self.gate = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(x) + self.gate * self.b(self.a(x).relu())


@pytest.mark.parametrize("spec", ["widen a x2", "deepen a", "factorize a rank=1", "prune a by magnitude amount=30%"])
def test_outputs_that_do_not_feel_the_change_show_nothing(spec: str) -> None:
    torch.manual_seed(0)
    model, x = Apart().eval(), torch.randn(4, 4)
    assert all(c.vacuous == APART for c in claims(nx.apply(spec, model=model, example_inputs=x)) if c.probes)
    with torch.no_grad():
        model.gate.fill_(0.5)
    assert all(c.held for c in claims(nx.apply(spec, model=model, example_inputs=x)))


def test_samples_of_data_go_before_drawn_ones() -> None:
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), (torch.rand(40, 4), torch.arange(40) % 3)
    result = nx.apply("freeze **", model=model, data={"d": data})
    assert {c.probes for c in claims(result) if c.probes} == {"8 of the data"}


class Decoder(nn.Module):
    """Attention whose keys and values come from another input."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.t = (
            nn.TransformerDecoderLayer(8, 2, 16, batch_first=True) if whole else nn.MultiheadAttention(8, 2, batch_first=True)
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k = self.a(x), self.b(y)
        return self.out(self.t(q, k) if isinstance(self.t, nn.TransformerDecoderLayer) else self.t(q, k, k)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("where", ["**", "b"])
def test_cross_attention_is_pruned_in_every_precision(dtype: torch.dtype, whole: bool, where: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 5, 6).to(dtype), torch.randn(2, 7, 6).to(dtype)
    result = nx.apply(f"prune {where} by magnitude amount=30%", model=Decoder(whole).eval().to(dtype), example_inputs=(x, y))
    assert all(c.held for c in claims(result))


class Tied(nn.Module):
    """Reads the weight of a layer that it calls, or its bias, a second time."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.e, self.f = name, nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.f(torch.relu(self.e(x)))
        return nn.functional.linear(h, self.e.weight) if self.name == "weight" else h + self.e.bias


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_layers_whose_tensors_are_read_elsewhere_are_left_by_factorize(name: str) -> None:
    torch.manual_seed(0)
    model, x = Tied(name).eval(), torch.randn(4, 6)
    result = nx.apply("factorize ** rank=2", model=model, example_inputs=x)
    assert isinstance(result.model.get_submodule("e"), nn.Linear) and not isinstance(result.model.get_submodule("f"), nn.Linear)
    with pytest.raises(nx.NetxformError, match=f"reads `e.{name}` elsewhere"):
        nx.apply("factorize e rank=2", model=model, example_inputs=x)


class Causal(nn.Module):
    """Scores with a mask of minus infinities, as a parameter or a buffer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.l, mask = nn.Linear(8, 8), torch.full((4, 4), float("-inf")).triu(1)
        if kind == "parameter":
            self.mask = nn.Parameter(mask)
        else:
            self.register_buffer("mask", mask, persistent=kind == "kept")

    def forward(self, x: Tensor) -> Tensor:
        h = self.l(x)
        return (h @ h.transpose(1, 2) + self.mask).softmax(-1) @ h


@pytest.mark.parametrize("kind", ["parameter", "kept", "passing"])
def test_masks_of_minus_infinities_go_through_casts_and_are_kept_by_name(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Causal(kind).eval(), torch.randn(2, 4, 8)
    for spec in ("cast float16", "cast bfloat16", "cast float16 keep [mask]", "deepen l", "factorize l rank=2", "freeze **"):
        result = nx.apply(spec, model=model, example_inputs=x)
        assert all(c.held for c in claims(result))
        assert result.model.mask.dtype == (torch.float32 if "cast" not in spec or "keep" in spec else
                                           torch.float16 if "float16" in spec.split() else torch.bfloat16)  # fmt: skip
