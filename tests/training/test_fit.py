"""Training: what it must leave alone, what it must reproduce, and when it must stop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netxform as nx
from netxform.training.data import batch_count, batches, order
from netxform.zoo import build

TEXT = 'model net = zoo.smallcnn() input="1x1x8x8"\ndata d = sklearn.digits(train=96)\n'


def history(text: str):
    return nx.apply(TEXT + text).histories[0][1]


def test_it_learns_and_reports() -> None:
    found = history("train ** for 6epochs using adamw(lr=3e-3)")
    assert [r["epoch"] for r in found.rows] == [1, 2, 3, 4, 5, 6]
    assert found.rows[-1]["train_loss"] < found.rows[0]["train_loss"]
    assert {"train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy"} <= set(found.metrics)


def test_steps_are_steps_and_epochs_are_epochs() -> None:
    assert history("train ** for 7steps batch=32").steps == 7
    assert history("train ** for 2epochs batch=32").steps == 6


def test_the_best_epoch_is_put_back() -> None:
    text = "stage s { train ** for 5epochs using sgd(lr=0.3) batch=16; keep best by val_loss }"
    result = nx.apply(TEXT + text)
    found = result.histories[0][1]
    losses = [r["val_loss"] for r in found.rows]
    assert found.best == 1 + losses.index(min(losses))
    assert found.metrics["val_loss"] == min(losses)


def test_patience() -> None:
    found = history("train ** for 50epochs using sgd(lr=1e-12) patience=2")
    assert found.stopped
    assert len(found.rows) < 20


@pytest.mark.parametrize("schedule", ["cosine", "linear", "onecycle"])
def test_schedules_end_low(schedule: str) -> None:
    rates = [r["lr"] for r in history(f"train ** for 5epochs using adamw(lr=1e-2) schedule={schedule} warmup=2").rows]
    assert rates[-1] < 1e-6
    assert max(rates) <= 1e-2


def test_groups_have_rates_of_their_own() -> None:
    result = nx.apply(TEXT + "train ** for 1epochs using sgd(lr=0.1) { group conv1 lr=1e-30 }")
    model = nx.apply(TEXT.replace("train=96", "train=96") + "freeze bn1?").model
    assert torch.allclose(result.model.conv1.weight, model.conv1.weight, atol=1e-12)
    assert not torch.equal(result.model.conv2.weight, model.conv2.weight)


def test_a_loss_that_blows_up_stops_the_run() -> None:
    with pytest.raises(nx.NetxformError) as caught:
        history("train ** for 5epochs using sgd(lr=1e30)")
    assert caught.value.diagnostics[0].code == "X0804"
    assert caught.value.diagnostics[0].span.line == 3


def test_clipping_bounds_the_step() -> None:
    before = nx.apply(TEXT + "freeze bn1").model
    after = nx.apply(TEXT + "train ** for 1steps using sgd(lr=1) clip=0.01").model
    moved = sum(float((a - b).detach().square().sum()) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert 0 < moved**0.5 <= 0.01 * (1 + 1e-4)


def test_bfloat16_keeps_float32_weights() -> None:
    result = nx.apply(TEXT + "train ** for 1epochs precision=bfloat16")
    assert all(p.dtype == torch.float32 for p in result.model.parameters())


def test_mean_squared_error_on_values() -> None:
    x = torch.randn(80, 4)
    y = x @ torch.tensor([[1.0], [2.0], [-1.0], [0.5]])
    model = nn.Sequential(nn.Linear(4, 1))
    result = nx.apply("train ** for 30epochs using adam(lr=5e-2) loss=mse", model=model, example_inputs=x[:1], data=(x, y))
    assert result.metrics["test_loss"] < 0.05


def test_the_global_batch_does_not_depend_on_the_number_of_processes() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(23), torch.arange(23))
    alone = [x.tolist() for x, _ in batches(data, 8, shuffle=(3, 1))]
    shares = [[x.tolist() for x, _ in batches(data, 8, shuffle=(3, 1), rank=r, world=2)] for r in (0, 1)]
    for whole, first, second in zip(alone, *shares, strict=True):
        assert sorted(whole) == sorted(first + second)
    assert order(50, 1, 1).tolist() != order(50, 1, 2).tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 17])
def test_batches_are_counted_right(count: int) -> None:
    data = torch.utils.data.TensorDataset(torch.arange(count), torch.arange(count))
    assert batch_count(data, 8) == len(list(batches(data, 8, shuffle=(0, 0), drop_single=True)))


def test_the_input_model_and_the_random_state_are_as_before() -> None:
    model = build("smallcnn").train()
    state = {n: t.clone() for n, t in model.state_dict().items()}
    rng = torch.get_rng_state()
    x, y = torch.zeros(40, 1, 8, 8), torch.arange(40) % 10
    nx.apply("freeze conv1\ntrain ** for 1epochs", model=model, example_inputs=x[:1], data=(x, y))
    assert torch.equal(rng, torch.get_rng_state())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in state.items())
