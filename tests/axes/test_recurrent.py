"""Embeddings, GRU and LSTM under every law: permutation, widening, cutting, freezing, training what is selected."""

from __future__ import annotations

import random
import tempfile
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.axes.infer import types_of
from netxform.axes.reindex import reindex
from netxform.graph.layers import Factored
from netxform.graph.network import tokens
from netxform.graph.probes import samples
from netxform.precision.rounding import in_double
from tests.axes.test_axes import EXACT, free, gap, outputs, widened

WORDS = 13


class Reads(nn.Module):
    """An embedding, one or two recurrent layers, a dense layer; the last state or the mean of all.

    `start`: the first layer is given a state of zeros that the code makes. `first`: batch or time comes first.
    """

    def __init__(
        self, kinds: list[str], layers: int, both: bool, last: bool, width: int, start: bool = False, first: bool = True
    ) -> None:
        super().__init__()
        self.last, self.start, self.first = last, start, first
        self.embed = nn.Embedding(WORDS, 5, padding_idx=0)
        made: list[nn.Module] = []
        size = 5
        for kind in kinds:
            made.append(getattr(nn, kind)(size, width, num_layers=layers, bidirectional=both, batch_first=first))
            size = width * (2 if both else 1)
        self.cells = nn.ModuleList(made)
        self.fc = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x if self.first else x.transpose(0, 1))
        for i, cell in enumerate(self.cells):
            if self.start and i == 0:
                zeros = torch.zeros(cell.num_layers * (2 if cell.bidirectional else 1), x.shape[0], cell.hidden_size)
                h, _ = cell(h, (zeros, zeros) if isinstance(cell, nn.LSTM) else zeros)
            else:
                h, _ = cell(h)
        h = h if self.first else h.transpose(0, 1)
        return self.fc(h[:, -1] if self.last else h.mean(1))


class Steps(nn.Module):
    """A recurrent cell that the code steps through the words."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 5)
        self.cell = getattr(nn, kind)(5, width)
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        e = self.embed(x)
        h = c = torch.zeros(x.shape[0], self.cell.hidden_size)
        for t in range(x.shape[1]):
            if isinstance(self.cell, nn.LSTMCell):
                h, c = self.cell(e[:, t], (h, c))
            else:
                h = self.cell(e[:, t], h)
        return self.fc(h)


class Bag(nn.Module):
    """The mean, sum or largest of the words' vectors, and dense layers."""

    def __init__(self, mode: str, width: int) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(WORDS, 5, mode=mode)
        self.hidden = nn.Linear(5, width)
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.hidden(self.embed(x))))


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """Every way that words are read here."""
    seed = draw(st.integers(0, 999))
    kind = draw(st.sampled_from(["layers", "layers", "layers", "cell", "bag"]))
    width = draw(st.integers(3, 5))
    torch.manual_seed(seed)
    if kind == "cell":
        return Steps(draw(st.sampled_from(["GRUCell", "LSTMCell", "RNNCell"])), width).eval()
    if kind == "bag":
        return Bag(draw(st.sampled_from(["mean", "sum", "max"])), width).eval()
    kinds = draw(st.lists(st.sampled_from(["GRU", "LSTM", "RNN"]), min_size=1, max_size=2))
    layers, flags = draw(st.integers(1, 2)), [draw(st.booleans()) for _ in range(4)]
    torch.manual_seed(seed)
    return Reads(kinds, layers, flags[0], flags[1], width, flags[2], flags[3]).eval()


def recurrent(model: nn.Module) -> str:
    return {Reads: "cells.0", Steps: "cell", Bag: "embed"}[type(model)]


@st.composite
def readers(draw: st.DrawFn) -> Reads:
    torch.manual_seed(draw(st.integers(0, 999)))
    kinds = draw(st.lists(st.sampled_from(["GRU", "LSTM", "RNN"]), min_size=1, max_size=2))
    return Reads(kinds, draw(st.integers(1, 2)), draw(st.booleans()), draw(st.booleans()), draw(st.integers(2, 4))).eval()


def words(count: int) -> Tensor:
    return torch.randint(WORDS, (count, 6))


@given(readers(), st.integers(0, 99))
@settings(max_examples=6)
def test_permuted_and_widened_they_compute_the_same(model: Reads, seed: int) -> None:
    x = words(4)
    network = nx.capture(model.double(), x)
    wanted = outputs(network, (x,))
    rng = random.Random(seed)
    atoms = free(network)
    assert len(atoms) > len(model.cells)  # the vectors of words, and the states of every layer
    assert gap(wanted, outputs(reindex(network, {a: rng.sample(range(a.size), a.size) for a in atoms}), (x,))) <= EXACT
    for path in ("embed", "cells.0"):
        for mode in ("zero", "copy"):
            wide = widened(network, path, mode=mode)
            assert gap(wanted, outputs(wide, (x,))) <= EXACT, path
            assert sum(p.numel() for p in wide.module.parameters()) > sum(p.numel() for p in model.parameters())


@given(readers())
@settings(max_examples=6)
def test_a_cut_gives_the_states(model: Reads) -> None:
    x = words(3)
    with torch.no_grad():
        wanted, _ = model.cells[0](model.embed(x))
        cut = nx.apply("cut at cells.0", model=model, example_inputs=x[:1]).model
        assert torch.equal(cut(x), wanted)
        assert torch.equal(nx.apply("cut at embed", model=model, example_inputs=x[:1]).model(x), model.embed(x))


@given(readers(), st.sampled_from(["embed", "cells", "embed | cells.0"]))
@settings(max_examples=5)
def test_what_is_frozen_stands_still(model: Reads, chosen: str) -> None:
    x, y = words(40), torch.arange(40) % 3
    text = f"freeze {chosen}\ntrain ** for 2epochs using sgd(lr=0.1) batch=8"
    after = nx.apply(text, model=model, example_inputs=x[:1], data=(x, y)).model.state_dict()
    frozen = tuple(f"{p}." for p in chosen.split(" | "))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, after[name]) == name.startswith(frozen), name


def test_a_head_may_be_recurrent() -> None:
    model = Reads(["GRU"], 1, False, True, 4)
    text = "cut at cells.0\nattach head { rnn = LSTM(auto, 6, batch_first=true) }\nfreeze head.rnn"
    module = nx.apply(text, model=model, example_inputs=words(1)).model
    assert module(words(2)).shape == (2, 6, 6)


def test_probes_are_words_that_the_embedding_knows() -> None:
    network = nx.capture(Reads(["GRU"], 1, False, True, 3), words(1))
    assert list(tokens(network).values()) == [WORDS]
    (x,) = samples(network, 0)
    assert x.dtype == torch.int64
    assert 0 <= int(x.min()) < int(x.max()) < WORDS
    assert torch.equal(x, samples(network, 0)[0])


def held(result: Any) -> bool:
    return all(c["held"] for s in result.certificate["statements"] for c in s["claims"])


@given(networks(), st.integers(0, 99))
@settings(max_examples=8)
def test_every_free_axis_may_be_permuted(model: nn.Module, seed: int) -> None:
    x = words(4)
    network = nx.capture(model, x)
    rng = random.Random(seed)
    maps = {a: rng.sample(range(a.size), a.size) for a in free(network)}
    assert len(maps) >= 2
    assert not types_of(network).uncovered
    doubled = in_double(network)  # zeros that the code makes are doubled too
    twins = {a: rng.sample(range(a.size), a.size) for a in free(doubled)}
    assert gap(outputs(doubled, (x,)), outputs(reindex(doubled, twins), (x,))) <= EXACT


@given(networks(), st.sampled_from(["zero", "copy"]))
@settings(max_examples=5)
def test_widened_they_compute_the_same_and_say_so(model: nn.Module, mode: str) -> None:
    for path in dict.fromkeys(("embed", recurrent(model))):
        result = nx.apply(f"widen {path} x2 mode={mode}", model=model, example_inputs=words(1))
        assert held(result)
        assert result.certificate["cost"]["after"]["params"] > result.certificate["cost"]["before"]["params"]


@given(networks(), st.booleans(), st.integers(0, 99))
@settings(max_examples=5)
def test_pruned_they_are_the_masked_network_and_can_be_stored(model: nn.Module, embedding: bool, seed: int) -> None:
    path = "embed" if embedding else recurrent(model)
    text = f"prune {path} by random amount=40%"
    with tempfile.TemporaryDirectory() as folder:  # sizes of layers followed: the bundle makes them again
        result = nx.apply(text, model=model, example_inputs=words(1), seed=seed, out=f"{folder}/b")
        assert held(result)
        assert result.certificate["cost"]["after"]["params"] < result.certificate["cost"]["before"]["params"]
        assert nx.verify(f"{folder}/b").held


@given(readers(), st.integers(1, 3))
@settings(max_examples=4)
def test_factors_of_full_rank_are_the_layer_and_fewer_stay_within_the_bound(model: Reads, rank: int) -> None:
    x = words(3)
    cell = model.cells[0]
    text = f"factorize cells.0 | embed using svd rank={rank}"
    result = nx.apply(text, model=model, example_inputs=x[:1])
    assert held(result)
    bounds = {r["layer"]: r for r in claim(result, "layer errors")["detail"]["layers"]}
    for name, held_ in bounds.items():
        path, _, matrix = name.partition("::")
        old = model.get_submodule(path).get_parameter(matrix or "weight").detach().double()
        new = result.model.get_submodule(path)
        if matrix:
            assert isinstance(new, Factored)
            rebuilt = new.get_parameter(f"{matrix}_u").double() @ new.get_parameter(f"{matrix}_v").double()
        else:
            first, second = (m.weight.double() for m in new.children())
            rebuilt = first @ second.T
        values = torch.linalg.svdvals(old)
        assert held_["kernel"] <= held_["kernel bound"] * (1 + 1e-6)
        # the best of that rank (Eckart, Young, 1936)
        best = float(values[rank:].square().sum().sqrt())
        assert abs(float((old - rebuilt.detach()).norm()) - best) <= 1e-5 * float(values.square().sum().sqrt())
    assert {n.partition("::")[0] for n in bounds} <= {"cells.0", "embed"}
    rows, columns = cell.weight_ih_l0.shape
    assert ("cells.0::weight_ih_l0" in bounds) == (rank * (rows + columns) < rows * columns)


def claim(result: Any, kind: str) -> dict[str, Any]:
    return next(c for s in result.certificate["statements"] for c in s["claims"] if c["kind"] == kind)


class Tied(nn.Module):
    """Packed sequences, rows that are renormalised in place, or the states alone: what must be refused by name."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.embed = nn.Embedding(WORDS, 4, max_norm=1.0 if way == "renormalised" else None)
        self.rnn = nn.LSTM(4, 6, batch_first=True, proj_size=3 if way == "projected" else 0)
        self.fc = nn.Linear(3 if way == "projected" else 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        e: Any = self.embed(x)
        if self.way == "packed":
            e = nn.utils.rnn.pack_padded_sequence(e, (x >= 0).sum(1), batch_first=True, enforce_sorted=False)
        if self.way == "states":
            h = self.rnn(e)[1]
            return self.fc((h[0] if isinstance(h, tuple) else h)[-1])
        y, (h, _) = self.rnn(e)
        return self.fc(y.mean(1) if self.way in ("renormalised", "projected") else h[-1])


@pytest.mark.parametrize(
    ("way", "statement", "code", "repair"),
    [
        ("packed", "freeze rnn", "X0802", "pad in front"),
        ("renormalised", "prune embed by magnitude amount=50%", "X0331", "max_norm"),
        ("renormalised", "widen embed x2", "X0320", "max_norm"),
        ("states", "cut at rnn", "X0316", "cut `before`"),
        ("projected", "widen rnn x2", "X0321", "stay wider"),
    ],
)
def test_what_is_not_handled_is_refused_by_name(way: str, statement: str, code: str, repair: str) -> None:
    with pytest.raises(nx.NetxformError) as error:
        nx.apply(statement, model=Tied(way), example_inputs=words(2))
    assert error.value.diagnostics[0].code == code
    assert repair in str(error.value)


@pytest.mark.parametrize("kind", ["GRUCell", "LSTMCell"])
def test_a_cell_that_runs_for_every_word_is_no_one_place(kind: str) -> None:
    with pytest.raises(nx.NetxformError, match="runs 6 times") as error:
        nx.apply("cut at cell", model=Steps(kind, 3), example_inputs=words(1))
    assert error.value.diagnostics[0].code == "X0314"


def test_states_are_pruned_by_what_the_loss_needs() -> None:
    x = words(8)
    model = Reads(["GRU"], 1, False, True, 4).eval()
    text = "prune cells by obd amount=50% over data"
    result = nx.apply(text, model=model, example_inputs=x[:1], data=(x, torch.arange(8) % 3))
    assert held(result)
    assert result.model.fc.in_features == 2
