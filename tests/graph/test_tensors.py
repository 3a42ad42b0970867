"""The tensors of a module by name, and the names of their types."""

from __future__ import annotations

import pytest
from torch import nn

from netxform.graph.shapes import times
from netxform.graph.tensors import DTYPES, NAMES, held


def test_shared_tensors_are_held_under_all_their_names() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[1].weight = model[0].weight
    found = held(model)
    assert list(found) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias",
                           "2.running_mean", "2.running_var", "2.num_batches_tracked"]  # fmt: skip
    assert found["0.weight"] is found["1.weight"]


def test_names_of_types_go_both_ways() -> None:
    assert {NAMES[d]: d for d in NAMES} == DTYPES


@pytest.mark.parametrize(("shape", "text"), [((3, 8, 8), "3 x 8 x 8"), ((5,), "5"), ((), "scalar")])
def test_shapes_in_words(shape: tuple[int, ...], text: str) -> None:
    assert times(shape) == text
