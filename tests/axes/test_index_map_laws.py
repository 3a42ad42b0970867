"""Axes that become one, equations, stacks, and what is filled in: laws that need no network of the couplings."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.axes.algebra import (
    Atom,
    Dim,
    Lock,
    Mix,
    concat,
    fresh,
    lock,
    mirrored,
    mix,
    normal,
    positions,
    regroup,
    size,
    unify,
)
from netxform.axes.index_maps import Fill, Reindex, Scale
from netxform.axes.reindex import axes_of, reindex
from netxform.graph.edits import Edit
from netxform.graph.surgery import perform

KINDS = ("mean", "softmax", "layer_norm")


@given(st.integers(2, 9), st.sets(st.sampled_from(KINDS)), st.sets(st.sampled_from(KINDS)), st.booleans(), st.booleans())
def test_what_is_known_of_two_axes_is_known_of_the_one_that_they_become(
    n: int, first: set[str], second: set[str], one_locked: bool, other_locked: bool
) -> None:
    a, b = fresh(n), fresh(n)
    for dim, kinds, locked in ((a, first, one_locked), (b, second, other_locked)):
        for kind in sorted(kinds):
            mix(dim, Mix(kind, "here"))
        if locked:
            lock(dim, Lock("position", "here"))
    unify(a, b)
    ((one,), (other,)) = normal(a), normal(b)
    assert one is other and isinstance(one, Atom)
    assert {m.kind for m in one.mixed} == first | second
    assert (one.locked is not None) == (one_locked or other_locked)


def indices(seed: int) -> Callable[[Atom], list[int]]:
    """An index map for every axis: some of its indices in any order, the same whenever it is asked for."""
    rng, known = random.Random(seed), dict[Atom, list[int]]()
    return lambda a: known.setdefault(a, rng.sample(range(a.size), rng.randint(1, a.size)))


@st.composite
def dims(draw: st.DrawFn, depth: int = 0) -> Dim:
    """A product of axes and of segments one behind the other."""
    factors: list[Dim] = []
    for _ in range(draw(st.integers(1, 2))):
        if depth < 2 and draw(st.booleans()):
            factors.append(concat([draw(dims(depth=depth + 1)) for _ in range(draw(st.integers(2, 3)))]))
        else:
            factors.append(fresh(draw(st.integers(2, 4))))
    return tuple(f for dim in factors for f in dim)


@given(dims(), st.integers(0, 10**6))
def test_backwards_is_from_the_last_to_the_first(dim: Dim, seed: int) -> None:
    index, n = indices(seed), size(dim)
    forwards, backwards = positions(dim, index), positions(mirrored(dim), index)
    assert backwards == [n - 1 - p for p in reversed(forwards)]
    assert positions(mirrored(mirrored(dim)), index) == forwards


@given(dims(), dims(), st.integers(0, 10**6))
def test_segments_stand_one_behind_the_other(a: Dim, b: Dim, seed: int) -> None:
    index = indices(seed)
    wanted = [*positions(a, index), *(size(a) + p for p in positions(b, index))]
    assert positions(concat([a, b]), index) == wanted


@given(st.lists(st.integers(2, 4), min_size=2, max_size=4), st.integers(0, 10**6))
def test_an_axis_can_be_taken_apart_into_any_factors(sizes: list[int], seed: int) -> None:
    """Row by row, as `reshape` does: the outermost factor first."""
    whole = fresh(int(np.prod(sizes)))
    parts = regroup(whole, sizes)
    assert parts is not None and [size(p) for p in parts] == sizes
    index = indices(seed)
    kept = [positions(p, index) for p in parts]
    wanted = np.arange(np.prod(sizes)).reshape(sizes)[np.ix_(*kept)].flatten().tolist()
    assert positions(whole, index) == wanted


class Two(nn.Module):
    """Two layers, what is made of them, and a head."""

    def __init__(self, of: Callable[[Tensor, Tensor], Tensor], head: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.of, self.head = nn.Linear(5, 6), nn.Linear(5, 6), of, nn.Linear(head, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.of(self.a(x), self.b(x)))


def permutes(model: nn.Module) -> int:
    """Every free axis permuted: the same function; how many indices were free."""
    model = model.double().eval()
    x = torch.randn(4, 5).double()
    network = nx.capture(model, x)
    rng = random.Random(0)
    maps = {a: rng.sample(range(a.size), a.size) for a in axes_of(network) if a.locked is None}
    with torch.no_grad():
        gap = (reindex(network, maps).module(x) - model(x)).abs().max()
    assert float(gap) <= 1e-10
    return sum(map(len, maps.values()))


def test_letters_of_an_equation_are_axes() -> None:
    assert permutes(Two(lambda a, b: torch.einsum("ni,ni->ni", a, b), 6)) == 6
    assert permutes(Two(lambda a, b: torch.einsum("ni,nj->nij", a, b).flatten(1), 36)) == 12
    assert permutes(Two(lambda a, b: torch.einsum("ni,ni->n", a, b)[:, None], 1)) == 6


def test_what_is_stacked_is_one_axis() -> None:
    assert permutes(Two(lambda a, b: torch.stack([a, b]).sum(0), 6)) == 6
    assert permutes(Two(lambda a, b: torch.stack([a, b], 1).flatten(1), 12)) == 6
    assert permutes(Two(lambda a, b: torch.stack([a, b], -1).mean(-1), 6)) == 6


@pytest.mark.parametrize("noise", [None, 0.05])
def test_new_slices_are_as_wide_as_the_tensor(noise: float | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, 3))
    model[0].weight.data.mul_(7.0)
    network = nx.capture(model, torch.randn(2, 300))
    axis = next(a for a in axes_of(network) if ("0.weight", 0) in a.sites)
    index = (*range(40), *range(20))
    fill = Fill("0.weight", 0, tuple(range(40, 60)), 3, noise)
    factors = tuple(np.linspace(0.5, 2, 60))
    made = perform(network, Edit((Reindex(((axis.name, index),), (Scale("2.weight", 1, factors),), (fill,)),)))
    old, new = model[0].weight.detach().numpy(), made.module.get_parameter("0.weight").detach().numpy()
    assert np.array_equal(new[:40], old)
    wide = old[list(index)].std()
    moved = new[40:] if noise is None else (new[40:] - old[:20]) / noise
    # six thousand numbers: the deviation of a deviation is 1 / √(2 n)
    assert moved.std() == pytest.approx(wide, rel=4 / (2 * moved.size) ** 0.5)
    assert abs(moved.mean()) <= 4 * wide / moved.size**0.5
    scaled = made.module.get_parameter("2.weight").detach().numpy()
    np.testing.assert_allclose(scaled, model[2].weight.detach().numpy()[:, list(index)] * np.float32(factors), rtol=1e-6)


class Head(nn.Module):
    """A layer, a function across its outputs, and a head of what is left."""

    def __init__(self, of: Callable[[Tensor], Tensor], wide: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.of, self.head = nn.Linear(5, 6), of, nn.Linear(wide, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.of(self.a(x)))


ACROSS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "softmax": (lambda h: torch.softmax(h, -1), 6),
    "log_softmax": (lambda h: torch.log_softmax(h, 1), 6),
    "sum": (lambda h: h.sum(1, keepdim=True), 1),
    "norm": (lambda h: h.norm(dim=1, keepdim=True), 1),
    "variance": (lambda h: h.var(1, keepdim=True), 1),
    "product": (lambda h: h.prod(1, keepdim=True), 1),
    "normalize": (lambda h: nn.functional.normalize(h, dim=1), 6),
}


@pytest.mark.parametrize("name", sorted(ACROSS))
def test_what_copies_would_change_is_refused_beforehand(name: str) -> None:
    """Each of them is another value where every index stands there twice."""
    of, wide = ACROSS[name]
    h = torch.randn(3, 6)
    assert not torch.allclose(of(torch.cat([h, h], 1))[:, :wide], of(h))
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan("widen a x2 mode=copy", model=Head(of, wide), example_inputs=torch.randn(2, 5))
    assert caught.value.diagnostics[0].code == "X0322"


@pytest.mark.parametrize("of", [lambda h: h.mean(1, keepdim=True), lambda h: h.amax(1, keepdim=True)])
def test_what_copies_leave_is_allowed(of: Callable[[Tensor], Tensor]) -> None:
    model, x = Head(of, 1), torch.randn(4, 5)
    made = nx.apply("widen a x2 mode=copy", model=model, example_inputs=x).model
    assert torch.allclose(made(x), model(x), atol=1e-6)
