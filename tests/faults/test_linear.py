"""What many statements cost: those that only flag tensors are not counted again, and the cost is what counting would say."""

from __future__ import annotations

import pytest

import netxform as nx
from netxform.compiler import resolve
from netxform.compiler.plan import Step
from netxform.graph.cost import cost
from netxform.graph.network import Network

TEXT = 'model net = zoo.smallcnn() input="1x1x8x8"\n'


def test_flags_are_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def counting(network: Network) -> object:
        counted.append(1)
        return cost(network)

    monkeypatch.setattr(resolve, "cost", counting)
    nx.plan(TEXT + "freeze conv1\nunfreeze conv1\n" * 10)
    assert len(counted) == 1


@pytest.mark.parametrize(
    "line", ["freeze conv1", "freeze **", "freeze **; unfreeze **", "freeze bn1 | bn2", "freeze fc; freeze conv1"]
)
def test_the_cost_is_what_counting_says(line: str) -> None:
    for item in nx.plan(TEXT + line).items:
        assert isinstance(item, Step) and item.twin is not None
        assert item.after == cost(item.twin)
