"""Batches of one sample: trained on, but for a short last one under BatchNorm with one value a channel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

import netxform as nx
from netxform.training.data import batch_count, batches


def net(norm: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def trained(model: nn.Module, count: int, batch: int, flat: bool = False) -> tuple[float, list[str], list[float]]:
    """How far the parameters moved, the warnings, and the loss."""
    torch.manual_seed(1)
    x, y = torch.randn(count, *((6,) if flat else (3, 6, 6))), torch.arange(count) % 3
    spec = f"train ** for 1epochs on d batch={batch}"
    found = nx.apply(spec, model=model, example_inputs=(x[:2],), data={"d": (x, y)})
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(found.model.parameters(), model.parameters(), strict=True))
    said = [w for s in found.certificate["statements"] for w in s["warnings"]]
    return moved, said, [found.metrics["train_loss"]]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Identity()])
def test_batches_of_one_train(norm: nn.Module) -> None:
    moved, said, (loss,) = trained(net(norm), 30, 1)
    assert moved > 0 and loss > 0 and not any("left" in w for w in said)


def test_one_value_a_channel_is_refused_where_every_batch_is_one() -> None:
    flat = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(nx.NetxformError):
        trained(flat, 30, 1, flat=True)


def test_a_last_batch_of_one_is_left_out_and_said_so() -> None:
    flat = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    # 25 of 40 samples are for training
    assert any("25 samples in batches of 24" in w for w in trained(flat, 40, 24, flat=True)[1])
    assert not any("left" in w for w in trained(flat, 40, 25, flat=True)[1])
    without = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    assert not any("left" in w for w in trained(without, 40, 24, flat=True)[1])


@given(st.integers(1, 40), st.integers(1, 12), st.booleans())
def test_only_a_short_last_batch_is_left_out(count: int, batch: int, drop: bool) -> None:
    data = TensorDataset(torch.arange(count), torch.zeros(count))
    sizes = [len(x) for x, _ in batches(data, batch, drop_single=drop)]
    assert len(sizes) == batch_count(data, batch, drop)
    left = count - sum(sizes)
    assert left == (1 if drop and batch > 1 and count > 1 and count % batch == 1 else 0)
