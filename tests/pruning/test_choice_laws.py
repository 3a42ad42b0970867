"""What goes: shares, floors, multiples, equal sizes, budgets, single weights; against numpy and against trying everything."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netxform.axes.algebra import Atom
from netxform.axes.reindex import axes_of, reindex
from netxform.capture.capture import capture
from netxform.errors import NetxformError
from netxform.pruning.ranking import Ranking, alike, kept, until
from netxform.pruning.unstructured import _lowest, _two_of_four

sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4)
seeds = st.integers(0, 10**6)


def scored(many: list[int], seed: int) -> dict[Atom, torch.Tensor]:
    """Axes of these sizes with scores that all differ."""
    rng = np.random.default_rng(seed)
    return {Atom(n): torch.from_numpy(rng.permutation(n) + rng.random()) for n in many}


def lowest(scores: torch.Tensor, count: int) -> list[int]:
    return sorted(np.argsort(scores.numpy(), kind="stable")[:count].tolist())


@given(sizes, seeds, st.floats(0, 1), st.integers(1, 5))
def test_a_share_of_every_axis_and_never_below_the_floor(many: list[int], seed: int, share: float, floor: int) -> None:
    scores = scored(many, seed)
    total = sum(many)
    count = round(share * total)
    found = Ranking(scores, "layer", least=dict.fromkeys(scores, floor)).lowest(count)
    for atom, values in scores.items():
        wanted = min(math.floor(count / total * atom.size + 1e-9), atom.size - min(atom.size, floor))
        assert found.get(atom, []) == lowest(values, wanted)
    everything = Ranking(scores, least=dict.fromkeys(scores, floor)).lowest(total)
    assert all(a.size - len(everything.get(a, ())) == min(a.size, floor) for a in scores)


@given(sizes, seeds, st.integers(0, 30), st.integers(1, 5))
def test_what_is_left_is_a_multiple_and_no_more_goes_than_was_chosen(many: list[int], seed: int, count: int, to: int) -> None:
    scores = scored(many, seed)
    free, rounded = Ranking(scores).lowest(count), Ranking(scores, multiple=to).lowest(count)
    for atom, values in scores.items():
        before, after = len(free.get(atom, ())), len(rounded.get(atom, ()))
        left = atom.size - after
        assert after <= before and before - after < max(to, 2)
        assert not after or left % to == 0
        assert after == before or (atom.size - before) % to or to == 1
        assert rounded.get(atom, []) == lowest(values, after)


@given(sizes, seeds, st.integers(0, 30))
def test_axes_of_one_size_lose_equally_many(many: list[int], seed: int, count: int) -> None:
    scores = scored([*many, *many], seed)
    names = list(scores)
    groups = [list(pair) for pair in zip(names[: len(many)], names[len(many) :], strict=True)]
    free, equal = Ranking(scores).lowest(count), Ranking(scores, alike=groups).lowest(count)
    for one, other in groups:
        fewest = min(len(free.get(a, ())) for a in (one, other))
        assert equal.get(one, []) == lowest(scores[one], fewest)
        assert equal.get(other, []) == lowest(scores[other], fewest)


@given(sizes, seeds, st.floats(0, 1.1), st.integers(1, 3))
@settings(max_examples=60)
def test_a_budget_is_met_by_the_smallest_removal(many: list[int], seed: int, share: float, floor: int) -> None:
    scores = scored(many, seed)
    rank = Ranking(scores, least=dict.fromkeys(scores, floor))
    price = {a: 1.0 + i for i, a in enumerate(scores)}

    def fits(removed: dict[Atom, list[int]]) -> bool:
        return sum(price[a] * len(left) for a, left in kept({a: removed.get(a, []) for a in scores}).items()) <= budget

    budget = share * sum(price[a] * a.size for a in scores)
    tried = [rank.lowest(n) for n in range(rank.total + 1)]
    assert until(rank, fits) == next((t for t in tried if fits(t)), None)


@given(st.integers(1, 5), st.integers(0, 14), st.integers(0, 2), seeds, st.floats(0, 1))
def test_single_weights_go_from_the_lowest(rows: int, columns: int, taps: int, seed: int, share: float) -> None:
    values = torch.from_numpy(np.random.default_rng(seed).permutation(rows * columns * (taps + 1)).astype(float))
    gone = _lowest(values, share)
    assert sorted(values[gone].tolist()) == list(range(round(share * len(values))))
    mask = _two_of_four(values.reshape(rows, columns, taps + 1)).numpy()
    held = values.reshape(rows, columns, taps + 1).numpy()
    assert not mask[:, columns // 4 * 4 :].any()
    for start in range(0, columns // 4 * 4, 4):
        four, out = held[:, start : start + 4], mask[:, start : start + 4]
        assert (out.sum(1) == 2).all()
        assert (np.where(out, four, -1).max(1) < np.where(out, np.inf, four).min(1)).all()


@given(sizes, seeds, st.integers(0, 30), st.sampled_from(["mean", "max", "l2"]))
def test_what_is_normalised_has_no_unit(many: list[int], seed: int, count: int, how: str) -> None:
    """Each axis's scores in another unit, large or small: the same choice. One of each axis stays, also without a floor."""
    scores = {a: s + 1 for a, s in scored(many, seed).items()}
    units = {a: 10.0 ** (3 * i - 4) for i, a in enumerate(scores)}
    nothing = dict.fromkeys(scores, 0)
    one = Ranking(scores, "global", how, least=nothing).lowest(count)  # type: ignore[arg-type]
    other = Ranking({a: s * units[a] for a, s in scores.items()}, "global", how, least=nothing).lowest(count)  # type: ignore[arg-type]
    assert one == other
    assert all(len(one.get(a, ())) < a.size for a in scores)


class Reader(nn.Module):
    """A recurrent layer that has one size for all its states, and a dense one."""

    def __init__(self, cell: type[nn.RNNBase], layers: int, both: bool) -> None:
        super().__init__()
        self.cell = cell(3, 4, num_layers=layers, bidirectional=both, batch_first=True)
        self.wide, self.out = nn.Linear(8 if both else 4, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.wide(self.cell(x)[0][:, -1])))


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(("layers", "both", "states"), [(1, False, 1), (2, False, 2), (1, True, 2), (2, True, 4)])
def test_the_states_of_a_recurrent_layer_stay_alike(cell: type[nn.RNNBase], layers: int, both: bool, states: int) -> None:
    """`hidden_size` is one number: every state of every layer and direction has it, and nothing else is tied to it."""
    network = capture(Reader(cell, layers, both).eval(), torch.randn(2, 6, 3))
    groups = alike(network)
    hidden = [a for a in axes_of(network) if a.size == 4 and a.locked is None]
    assert len(hidden) == states
    assert [set(g) for g in groups] == ([{a.atom for a in hidden}] if states > 1 else [])
    with pytest.raises(NetxformError) if states > 1 else nullcontext():
        reindex(network, {hidden[0]: [0, 2]})
    assert reindex(network, {a: [0, 2] for a in hidden}).module.get_submodule("cell").hidden_size == 2
