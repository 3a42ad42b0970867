"""What reads an axis: scaling every place where it is carried is undone by scaling every place where it is summed over."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netxform.axes.algebra import fresh
from netxform.axes.infer import types_of
from netxform.axes.reindex import axes_of
from netxform.axes.roles import along, carried, roles
from netxform.capture.capture import capture


class Linears(nn.Module):
    """Dense layers without a nonlinearity: every hidden axis is carried by one layer and summed over by the next."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@given(st.lists(st.integers(2, 5), min_size=3, max_size=5), st.data())
@settings(max_examples=40)
def test_a_scale_that_is_carried_is_undone_where_it_is_summed(sizes: list[int], data: st.DataObject) -> None:
    model = Linears(sizes).double().eval()
    network = capture(model, torch.randn(1, sizes[0], dtype=torch.float64))
    types = types_of(network)
    x = torch.randn(4, sizes[0], dtype=torch.float64)
    wanted = model(x)
    axis = data.draw(st.sampled_from([a for a in axes_of(network) if a.locked is None]))
    factors = data.draw(st.lists(st.floats(0.5, 2.0), min_size=axis.size, max_size=axis.size))
    found = roles(types, axis.atom)
    assert len(found.consumers) == 1 and not found.inner and not found.tied
    where = carried(types, axis.atom, found.consumers)
    tensors = dict(network.module.named_parameters())
    with torch.no_grad():
        for places, scales in ((where, factors), (found.consumers, [1 / f for f in factors])):
            for name, dim in places:
                vector = torch.tensor(along(types.tensors[name][dim], {}, {axis.atom: scales}), dtype=torch.float64)
                tensors[name].mul_(vector.reshape([-1 if i == dim else 1 for i in range(tensors[name].dim())]))
    assert torch.allclose(network.module(x), wanted, rtol=1e-10, atol=1e-12)
    # and every place is one or the other
    assert {*where, *found.consumers} == set(axis.sites)


def test_a_sum_over_two_activations_is_inner() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.q(x) @ self.k(x).transpose(1, 2)

    network = capture(Product().eval(), torch.randn(1, 5, 3))
    axis = next(a for a in axes_of(network) if ("q.weight", 0) in a.sites)
    assert ("k.weight", 0) in axis.sites
    found = roles(types_of(network), axis.atom)
    assert len(found.inner) == 1 and not found.consumers


def test_a_tensor_that_is_carried_here_and_summed_there_is_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(self.table(x), self.table.weight)

    network = capture(Tied().eval(), torch.zeros(1, 3, dtype=torch.long))
    axis = next(a for a in axes_of(network) if ("table.weight", 1) in a.sites)
    assert roles(types_of(network), axis.atom).tied == (("table.weight", 1),)


def test_products_of_axes_take_the_product_of_the_factors() -> None:
    (a,), (b,) = fresh(2), fresh(3)
    assert along((a, b), {}, {a: [1.0, 10.0], b: [1.0, 2.0, 3.0]}) == [1, 2, 3, 10, 20, 30]
    assert along((a, b), {b: [2, 0]}, {a: [1.0, 10.0]}) == [1, 1, 10, 10]
