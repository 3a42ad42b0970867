"""Removal is the masked twin, on every kind of hard coupling; also across statistics, which are taken over what remains."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import netxform as nx
from netxform.axes.algebra import Atom
from netxform.axes.reindex import reindex
from netxform.pruning.gates import free, gates, masked, unmasked
from tests.axes.couplings import CASES
from tests.axes.test_axes import EXACT, gap, outputs, scattered

# what has no form over the rest: a size used as a number, a product over an index set
WITHOUT_FORM = {"MeanOverChannels", "Einsum"}
# index sets that cannot be gated: a value multiplied with itself; code that is kept whole
WITHOUT_GATE = {"Gram", "Cell", "spectral_norm", "PackedCross"}
# one attribute states the sizes of several states, and a projection is smaller than the state
TOGETHER = {"gru_deep_both_ways", "lstm", "lstm_projected"}


@pytest.mark.parametrize("name", sorted(CASES))
def test_removal_is_masking(name: str) -> None:
    """All free index sets at once, and each alone: the code must follow it without the others."""
    network, inputs = scattered(name)
    found = gates(network)
    rng = random.Random(name)
    missing = {a.atom for a in free(network) if found.missing.get(a.atom, "nothing reads it") != "nothing reads it"}
    assert bool(missing) == (name in WITHOUT_GATE)
    names = {a.atom: a.name for a in free(network)}
    chosen = [a for a in names if a.size > 1 and a not in missing]
    removed = {a: rng.sample(range(a.size), rng.randrange(1, a.size)) for a in chosen}
    parts: list[dict[Atom, list[int]]] = [removed, *({a: i} for a, i in removed.items())]
    for part in parts if chosen else []:
        maps: dict[Any, list[int]] = {names[a]: [i for i in range(a.size) if i not in gone] for a, gone in part.items()}
        if unmasked(network, part):
            assert name in WITHOUT_FORM
            continue
        if name in TOGETHER:
            try:
                small = reindex(network, maps)
            except nx.NetxformError as refused:
                assert refused.diagnostics[0].code == "X0321"
                continue
        else:
            small = reindex(network, maps)
        wanted = [t for t in pytree.tree_leaves(masked(network, found, dict(part), inputs)) if isinstance(t, Tensor)]
        assert gap(wanted, outputs(small, inputs)) <= EXACT


class Norms(torch.nn.Module):
    """Every statistic across channels, as a layer and as a function, and softmax and extrema over them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(2, 12, 1)
        self.layer, self.rms, self.group = torch.nn.LayerNorm(12), torch.nn.RMSNorm(12), torch.nn.GroupNorm(1, 12)
        self.weight = torch.nn.Parameter(torch.randn(12))
        self.head = torch.nn.Conv2d(12, 4, 1)
        self.gate = torch.nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        z = y.permute(0, 2, 3, 1)
        f = torch.nn.functional
        z = self.layer(z) + f.layer_norm(z, (12,), self.weight) + self.rms(z) + f.rms_norm(z, (12,), self.weight, 1e-3)
        y = self.group(z.permute(0, 3, 1, 2)) + f.group_norm(y, 1, self.weight, eps=1e-2) + y.softmax(1)
        seen = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True), y.min(1, keepdim=True)[0]], 1)
        return self.head(y * torch.sigmoid(self.gate(seen))).mean((2, 3))


def test_every_statistic_is_taken_over_what_remains() -> None:
    torch.manual_seed(0)
    model, x = Norms().double().eval(), torch.randn(3, 2, 5, 4, dtype=torch.float64)
    network = nx.capture(model, x[:1])
    (axis,) = [a for a in free(network) if a.size == 12]
    small = reindex(network, {axis.name: [0, 3, 4, 7, 11]})
    removed = {axis.atom: [1, 2, 5, 6, 8, 9, 10]}
    assert not unmasked(network, removed)
    wanted = masked(network, gates(network), dict(removed), (x,))
    with torch.no_grad():
        assert gap([wanted], [small.module(x)]) <= EXACT
        assert gap([wanted], [network.module(x)]) > 1e-3


class Covariance(torch.nn.Module):
    """Attention over channels: queries and values have one index set, along both dimensions of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(4, 36), torch.nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 4, 1)
        weights = (torch.nn.functional.normalize(q, dim=-1) @ k.transpose(-2, -1)).softmax(-1)
        return self.out((weights @ v).permute(0, 3, 1, 2).flatten(2))


def test_attention_over_channels() -> None:
    torch.manual_seed(0)
    model, x = Covariance().double().eval(), torch.randn(3, 7, 4, dtype=torch.float64)
    network = nx.capture(model, x[:1])
    removed = {a.atom: list(range(a.size // 2)) for a in free(network)}
    assert sorted(a.size for a in removed) == [2, 6]
    assert not unmasked(network, removed)
    assert not gates(network).missing
    small = reindex(network, {a.name: range(a.size // 2, a.size) for a in free(network)})
    with torch.no_grad():
        assert gap([masked(network, gates(network), dict(removed), (x,))], [small.module(x)]) <= EXACT


class Registers(torch.nn.Module):
    """Tokens of the network's own beside those of the input: keys that can go."""

    def __init__(self, mask: bool) -> None:
        super().__init__()
        self.tokens = torch.nn.Parameter(torch.randn(1, 6, 8))
        self.q, self.k, self.v = (torch.nn.Linear(8, 8) for _ in range(3))
        self.head, self.mask = torch.nn.Linear(8, 3), mask

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.tokens.expand(x.shape[0], -1, -1), x], 1)
        given = (y.sum(-1) > -3)[:, None, None] if self.mask else None
        q, k, v = (f(y)[:, None] for f in (self.q, self.k, self.v))
        return self.head(torch.nn.functional.scaled_dot_product_attention(q, k, v, given)[:, 0].mean(1))


@pytest.mark.parametrize("mask", [False, True])
def test_keys_that_go_are_masked(mask: bool) -> None:
    torch.manual_seed(1)
    model, x = Registers(mask).double().eval(), torch.randn(3, 4, 8, dtype=torch.float64)
    network = nx.capture(model, x[:2])
    (axis,) = [a for a in free(network) if a.size == 6]
    removed = {axis.atom: [0, 2, 5]}
    small = reindex(network, {axis.name: [1, 3, 4]})
    assert not unmasked(network, removed)
    assert not gates(network).missing
    with torch.no_grad():
        wanted = masked(network, gates(network), dict(removed), (x,))
        assert gap([wanted], [small.module(x)]) <= EXACT
        assert gap([wanted], [network.module(x)]) > 1e-6
