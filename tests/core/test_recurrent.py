"""Embeddings, GRU and LSTM under every law: permutation, widening, cutting, freezing, training what is selected."""

from __future__ import annotations

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.core.network import samples, tokens
from tests.core.test_axes import EXACT, free, gap, outputs, widened

WORDS = 13


class Reads(nn.Module):
    """An embedding, one or two recurrent layers, a dense layer; the last state or the mean of all."""

    def __init__(self, kinds: list[str], layers: int, both: bool, last: bool, width: int) -> None:
        super().__init__()
        self.last = last
        self.embed = nn.Embedding(WORDS, 5, padding_idx=0)
        made: list[nn.Module] = []
        size = 5
        for kind in kinds:
            made.append(getattr(nn, kind)(size, width, num_layers=layers, bidirectional=both, batch_first=True))
            size = width * (2 if both else 1)
        self.cells = nn.ModuleList(made)
        self.fc = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for cell in self.cells:
            h, _ = cell(h)
        return self.fc(h[:, -1] if self.last else h.mean(1))


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
    assert gap(wanted, outputs(network.reindex({a: rng.sample(range(a.size), a.size) for a in atoms}), (x,))) <= EXACT
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
