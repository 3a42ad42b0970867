"""A sample of `benchmarks.graft_sweep`: its cells are what happens, and a graft that differs is called wrong."""

from __future__ import annotations

import copy

import pytest
import torch

import netxform as nx
from benchmarks.graft_sweep import STATEMENTS, all_rows, cell, compared

pytest.importorskip("transformers")
pytest.importorskip("timm")


@pytest.mark.parametrize("key", ["transformers/DistilBert", "timm/test_resnet"])
def test_a_sample(key: str) -> None:
    torch.manual_seed(0)
    row = all_rows()[key]
    model, inputs, others = row.build().eval(), row.draw(2, row.sizes[0], False), row.draw(2, row.sizes[0], False)
    pruning = "prune heads" if key.startswith("transformers") else "prune"
    for name in (pruning, "widen", "factorize"):
        assert cell(model, inputs, others, STATEMENTS[name]).what == "same", name


def test_a_graft_that_differs_is_wrong() -> None:
    torch.manual_seed(0)
    row = all_rows()["timm/test_resnet"]
    model, inputs = row.build().eval(), row.draw(2, row.sizes[0], False)
    result = nx.apply("freeze **", model=model, example_inputs=inputs)
    other = copy.deepcopy(result.graft())
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    assert compared(other, result.model, inputs).what == "wrong"
