"""What distances and hashes see: NaN, one bit, the sign of zero, another name; and a loss that is another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.compiler.claims.registry import family
from netxform.compiler.evidence import Kept, digest, distance, relative, same_bits
from netxform.compiler.measure import measure
from netxform.graph.network import detached
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import LossChange

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
seeds = st.integers(0, 10**6)


def drawn(shape: list[int], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(shapes, seeds)
def test_a_relative_distance_is_the_largest_over_the_largest(shape: list[int], seed: int) -> None:
    a, b = drawn(shape, seed), drawn(shape, seed + 1)
    wanted = np.abs(a.double().numpy() - b.double().numpy()).max() / np.abs(b.double().numpy()).max()
    assert relative((a, b), (b, b)) == pytest.approx(wanted)
    assert relative((b,), (b,)) == 0.0
    broken = a.clone()
    broken.view(-1)[seed % a.numel()] = float("nan")
    assert relative((broken,), (b,)) == float("inf")
    assert relative((b, broken), (b, b)) == float("inf")
    assert relative((broken, b), (b, b)) == float("inf")
    assert relative((a[None],), (b,)) == float("inf")
    assert relative((a,), (a, a)) == float("inf")


@given(shapes, seeds)
def test_a_distance_is_the_largest_difference(shape: list[int], seed: int) -> None:
    a, b = drawn(shape, seed), drawn(shape, seed + 1)
    assert distance(a, b) == pytest.approx(np.abs(a.double().numpy() - b.double().numpy()).max())
    assert distance(a, a.clone()) == 0.0
    assert distance(a, None) == distance(None, a) == distance(a, a.double()) == distance(a, a[None]) == float("inf")
    broken = a.clone()
    broken.view(-1)[0] = float("nan")
    assert distance(broken, a) == float("inf")


@given(shapes, seeds, st.integers(0, 31))
def test_hashes_see_every_bit(shape: list[int], seed: int, bit: int) -> None:
    layer = nn.Module()
    layer.register_buffer("w", drawn(shape, seed))
    layer.register_buffer("v", drawn(shape, seed + 1))
    before = digest(layer, ("w", "v"))
    assert digest(layer, ("v", "w")) == before != digest(layer, ("w",))
    old = layer.w.clone()
    place = layer.w.view(torch.int32).view(-1)[:1]
    place.bitwise_xor_(torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32))
    assert digest(layer, ("w", "v")) != before and not same_bits(old, layer.w)
    layer.w, layer.v = layer.v, old
    assert digest(layer, ("w", "v")) != before
    del layer.w
    assert digest(layer, ("w", "v")) != before
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same_bits(torch.zeros(2), torch.zeros(2, 1))


@pytest.mark.parametrize("amount", [1.0, -1.0])
def test_another_loss_is_another_loss_a_lower_one_too(amount: float) -> None:
    torch.manual_seed(0)
    before = nx.capture(nn.Linear(4, 3), torch.randn(2, 4))
    x = torch.randn(9, 4)
    y = torch.zeros(9, dtype=torch.long)

    class Data:
        def batches(self, data: str, samples: int | None = None, **more: Any) -> Iterator[tuple[Tensor, Tensor]]:
            yield x[:samples], y[:samples]

        fresh = batches

        def held_out(self, data: str) -> str:
            return "test samples"

    one = measure(LossChange("d", 9, "cross_entropy", 0.0), before, before, (x[:2],), 0, material=Data())
    known, record = family("loss change"), ClaimRecord.of(one.evidence, one.tensors)
    other = detached(before)
    same = known.again(record.detail, record, Kept(other, (x[:2],), {}, {}, one.reference))
    assert same.measured == pytest.approx(record.measured, abs=1e-6)
    with torch.no_grad():
        next(p for p in other.module.parameters() if p.dim() == 1)[0] += amount
    moved = known.again(record.detail, record, Kept(other, (x[:2],), {}, {}, one.reference))
    assert abs(moved.measured - record.measured) > 0.05, "what is published is another number"
