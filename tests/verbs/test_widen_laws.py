"""What growing promises beside the same function: copies that part, even maps, random rows; cuts before; drawn words."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.verbs.widen import _map, _shares


@given(st.integers(1, 20), st.integers(0, 60), st.integers(0, 10**6))
def test_indices_are_copied_equally_often(old: int, more: int, seed: int) -> None:
    index = _map(old, old + more, random.Random(seed))
    assert index[:old] == list(range(old)) and len(index) == old + more
    often = Counter(index)
    assert max(often.values()) - min(often.values()) <= 1


@given(st.integers(1, 12), st.integers(0, 30), st.integers(0, 10**6), st.sampled_from(["equal", "unequal"]))
def test_shares_of_the_copies_of_one_index_add_up_to_one(old: int, more: int, seed: int, share: str) -> None:
    rng = random.Random(seed)
    index = _map(old, old + more, rng)
    found = np.array(_shares(index, old, "copy", share, rng))
    for i in range(old):
        mine = found[[k for k, j in enumerate(index) if j == i]]
        assert mine.sum() == pytest.approx(1.0) and (mine > 0).all()
        assert share == "unequal" or np.ptp(mine) <= 1e-12
        assert share == "equal" or len(mine) < 2 or np.ptp(mine) > 1e-6


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def stepped(text: str) -> np.ndarray:
    """The rows of the widened layer after a few steps of plain gradient descent."""
    x, y = torch.randn(40, 5), torch.arange(40) % 3
    model = nx.apply(text, model=net(), example_inputs=(x[:2],)).model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.get_parameter("0.weight").detach().double().numpy()


def test_copies_are_told_apart_by_training() -> None:
    """Equal copies get equal gradients for ever (Chen et al. 2016, sec. 2.1): the rank stays; unequal ones part (Wang 2023)."""
    rank = lambda w: np.linalg.matrix_rank(w, tol=1e-5 * np.linalg.norm(w, 2))  # noqa: E731
    parted, equal = stepped("widen .`0` x2 mode=copy"), stepped("widen .`0` x2 mode=copy share=equal")
    pairs = lambda w: sorted(min(np.abs(w[i] - w[j]).max() for j in range(16) if j != i) for i in range(16))  # noqa: E731
    assert max(pairs(equal)) < 1e-6  # every row still has its twin
    assert min(pairs(parted)) > 1e-5  # none has
    assert rank(equal) == rank(parted) == 5


def test_new_rows_are_random() -> None:
    made = nx.apply("widen .`0` x2 mode=zero", model=net(), example_inputs=(torch.randn(2, 5),)).model
    w = made.get_parameter("0.weight").detach()
    assert torch.equal(w[:8], net()[0].weight.detach())
    assert not any(bool((row == old).all()) for row in w[8:] for old in w[:8])
    assert torch.equal(made.get_parameter("2.weight")[:, 8:], torch.zeros(3, 8))


# --- deepen, cut -----------------------------------------------------------------------------------------------------


class Clipped(nn.Module):
    """A layer with an activation of its own behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(4, 4), nn.Hardtanh(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


@pytest.mark.parametrize(
    ("block", "fits"), [("{ h = Hardtanh() }", True), ("{ r = ReLU() }", False), ("{ r = ReLU6() }", False)]
)
def test_an_activation_is_put_only_behind_itself(block: str, fits: bool) -> None:
    if fits:
        assert nx.plan(f"deepen a {block}", model=Clipped(), example_inputs=torch.randn(2, 4)).steps
        return
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan(f"deepen a {block}", model=Clipped(), example_inputs=torch.randn(2, 4))
    assert caught.value.diagnostics[0].code == "X0322"


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.one, self.two, self.three = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.three(torch.tanh(self.two(torch.tanh(self.one(x)))))


def test_a_cut_before_a_layer_gives_its_input() -> None:
    model, x = Deep(), torch.randn(3, 4)
    wanted = {
        "before two": torch.tanh(model.one(x)),
        "after two": model.two(torch.tanh(model.one(x))),
        "before three": torch.tanh(model.two(torch.tanh(model.one(x)))),
        "at one": model.one(x),
    }
    for where, value in wanted.items():
        assert torch.equal(nx.apply(f"cut {where}", model=model, example_inputs=(x,)).model(x), value), where


def test_a_cut_drops_what_is_said_and_no_less() -> None:
    x = torch.randn(3, 4)
    assert nx.plan("cut after one drops=[two, three]", model=Deep(), example_inputs=(x,)).steps
    for said in ("[two]", "[three]", "[one, two, three]"):
        with pytest.raises(nx.NetxformError) as caught:
            nx.plan(f"cut after one drops={said}", model=Deep(), example_inputs=(x,))
        assert caught.value.diagnostics[0].code == "X0305", said


# --- init ------------------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc = nn.Embedding(1500, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embed(x).mean(1))


def test_missing_words_are_drawn_like_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centre, wide = np.array([5.0, -3, 0, 1, 40, -0.1]), np.array([1.0, 2, 0.1, 3, 5, 0.01])
    held = centre + wide * rng.standard_normal((300, 6))
    known = [f"known{i}" for i in range(300)]
    (tmp_path / "words.txt").write_text("\n".join([*known, *(f"new{i}" for i in range(1200))]) + "\n")
    rows = "\n".join(f"{w} " + " ".join(f"{v:.9g}" for v in row) for w, row in zip(known, held, strict=True))
    (tmp_path / "v.txt").write_text(f"300 6\n{rows}\n")
    text = 'init embed from word2vec("v.txt") vocabulary="words.txt" missing=normal'
    made = nx.apply(text, model=Reader(), example_inputs=torch.zeros(1, 4, dtype=torch.long), root=tmp_path).model
    new = made.get_parameter("embed.weight").detach().double().numpy()[300:]
    # 1200 rows: four standard errors of a mean, and of a deviation
    assert (np.abs(new.mean(0) - held.mean(0)) <= 4 * held.std(0) / 1200**0.5).all()
    np.testing.assert_allclose(new.std(0), held.std(0), rtol=4 / 2400**0.5)
