"""The loop: views, orders, schedules, metrics, the best epoch, a run that goes on; against closed forms and scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, mean_squared_error, r2_score
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import netxform as nx
from netxform.graph.layer_spec import Invocation
from netxform.language.methods import Schedule
from netxform.language.methods import loss as named_loss
from netxform.language.work import Soft, Training
from netxform.sources.data import DataSet
from netxform.training.augment import augment
from netxform.training.data import Batch, order
from netxform.training.evaluate import evaluate
from netxform.training.fit import History, Quiet, fit
from netxform.training.optimize import schedule_of
from netxform.training.process import join

CPU = torch.device("cpu")


def work(**more: Any) -> Training:
    given = {
        "parameters": ("0.weight", "0.bias", "2.weight", "2.bias"), "buffers": (), "training_modules": ("0", "1", "2"),
        "data": "d", "length": 4, "unit": "epochs", "optimizer": Invocation("adamw", (), {"lr": 0.02}),
        "loss": "cross_entropy", "batch": 16, "seed": 3, "device": "cpu",
    }  # fmt: skip
    made = given | more
    made["loss"] = named_loss(str(made["loss"]))
    if "schedule" in made:
        made["schedule"] = Schedule(made["schedule"], {n: s.default for n, s in Schedule.known(made["schedule"]).items()})
    return Training(**made)


def net() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))


def data(values: bool = False, count: int = 70) -> DataSet:
    g = torch.Generator().manual_seed(5)
    x = torch.randn(count, 6, generator=g)
    y: Tensor = x[:, :3] ** 2 if values else x[:, :3].argmax(1)
    cuts = [slice(0, 40), slice(40, 55), slice(55, count)]
    train, val, test = (TensorDataset(x[c], y[c]) for c in cuts)
    return DataSet("d", train, val, test, None if values else 3, (6,), "")


# --- views and orders ------------------------------------------------------------------------------------------------


def test_augmentations_have_the_size_that_they_say() -> None:
    n = 4000
    rows = torch.arange(n)

    def seen(call: str, amount: float, x: Tensor) -> Tensor:
        return augment(x, (Invocation(call, (amount,)),), Batch(x, rows, rows, rows, rows, n), torch.Generator().manual_seed(0))

    x = torch.arange(3.0).expand(n, 1, 1, 3) + 1
    for share in (0.2, 0.5, 0.9):
        turned = (seen("flip", share, x) == x.flip(-1)).all(3).double().mean()
        assert float(turned) == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)
    for amount in (0.1, 0.4):
        factors = (seen("scale", amount, x) / x).flatten(1)
        assert torch.allclose(factors, factors[:, :1].expand_as(factors))  # one for a sample
        assert float((factors - 1).abs().max()) <= amount * (1 + 1e-5)
        assert float(factors.mean()) == pytest.approx(1.0, abs=4 * amount / (3 * n) ** 0.5)
        assert float(factors.std()) == pytest.approx(amount / 3**0.5, rel=0.05)
        moved = seen("noise", amount, x) - x
        assert float(moved.std()) == pytest.approx(amount, rel=0.05)
        assert abs(float(moved.mean())) <= 4 * amount / (3 * n) ** 0.5


@given(st.integers(5, 60), st.integers(0, 2**40), st.integers(0, 50))
def test_orders_are_a_function_of_seed_and_epoch(count: int, seed: int, epoch: int) -> None:
    assert sorted(order(count, seed, epoch).tolist()) == list(range(count))
    assert torch.equal(order(count, seed, epoch), order(count, seed, epoch))
    others = [order(count, seed + k, epoch) for k in range(1, 6)] + [order(count, seed, epoch + k) for k in range(1, 6)]
    assert sum(torch.equal(order(count, seed, epoch), o) for o in others) <= 1  # 5! orders of five


# --- rates -----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(["constant", "cosine", "linear", "onecycle"]), st.integers(2, 40), st.integers(0, 10))
def test_schedules_are_their_closed_forms(name: str, total: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    made = schedule_of(work(schedule=name, warmup=warmup), optimizer, total)
    rates: list[float] = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    for step, rate in enumerate(rates):
        if step < warmup:
            assert rate == pytest.approx(0.4 * (step + 1) / warmup)
            continue
        done = (step - warmup) / max(1, total - warmup)
        rising = np.interp(done, [0, 0.3], [0, 1])
        falling = 0.5 + 0.5 * math.cos(math.pi * (done - 0.3) / 0.7)
        wanted = {
            "constant": 1.0,
            "cosine": math.cos(math.pi * done / 2) ** 2,
            "linear": 1 - done,
            "onecycle": rising if done < 0.3 else falling,
        }
        assert rate == pytest.approx(0.4 * wanted[name], abs=1e-12)


# --- metrics ---------------------------------------------------------------------------------------------------------


class Told(nn.Module):
    """What is trained, as it is given: its output first."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[()], tuple[()]]:
        return self.body(x), (), ()


@pytest.mark.parametrize("count", [1, 255, 257, 700])
@pytest.mark.parametrize("training", [True, False])
def test_metrics_over_batches_are_those_of_scikit_learn(count: int, training: bool) -> None:
    g = torch.Generator().manual_seed(count)
    x, y = torch.randn(count, 6, generator=g), torch.randint(0, 3, (count,), generator=g)
    model = Told(nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train(training)).train(training)
    model.body[0].training = not training
    modes = [m.training for m in model.modules()]
    found = evaluate(model, TensorDataset(x, y), work(), CPU, join())
    assert [m.training for m in model.modules()] == modes
    with torch.no_grad():
        z = model.eval().body(x)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, z.argmax(1)))
    assert found["loss"] == pytest.approx(log_loss(y, z.double().softmax(1), labels=[0, 1, 2]), rel=1e-5)
    if count > 1:
        values = x[:, :3] + 5
        found = evaluate(model, TensorDataset(x, values), work(loss="mse"), CPU, join())
        assert found["loss"] == pytest.approx(mean_squared_error(values, z), rel=1e-5)
        assert found["mae"] == pytest.approx(mean_absolute_error(values, z), rel=1e-5)
        flat = r2_score(values.flatten().double(), z.flatten().double())
        assert found["r2"] == pytest.approx(flat, rel=1e-5)


# --- the best epoch, and going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss", "train_loss"])
def test_the_best_epoch_by_any_metric_is_kept(metric: str) -> None:
    network = nx.capture(net(), torch.randn(2, 6))
    asked = work(keep=metric, length=7, optimizer=Invocation("sgd", (), {"lr": 1.5}))
    trained, found = fit(network, asked, data(), Quiet())
    values = [r[metric] for r in found.rows]
    assert len(set(values)) > 2
    assert found.best == 1 + values.index(max(values) if "accuracy" in metric else min(values))
    again = evaluate(Told(trained.module), data().val, asked, CPU, join())
    assert again["loss"] == pytest.approx(found.rows[found.best - 1]["val_loss"], rel=1e-5)


class Stop(Exception):
    pass


class Interrupt(Quiet):
    """Stops behind so many steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, text: str, advance: int = 1) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stop


@pytest.mark.parametrize(
    "more",
    [
        {"schedule": "cosine", "warmup": 2},
        {"optimizer": Invocation("sgd", (), {"lr": 0.3, "momentum": 0.9}), "keep": "val_loss"},
        {"optimizer": Invocation("sgd", (), {"lr": 1e-9}), "patience": 2, "length": 9},
        {"length": 11, "unit": "steps", "mixup": 0.4},
    ],
    ids=["schedule", "momentum", "patience", "steps"],
)
@pytest.mark.parametrize("after", [4, 8])
def test_a_run_that_goes_on_ends_where_it_would_have_ended(more: dict[str, Any], after: int, tmp_path: Path) -> None:
    def run(place: Path | None, progress: Quiet) -> tuple[dict[str, Tensor], History]:
        trained, history = fit(nx.capture(net(), torch.randn(2, 6)), work(**more), data(), progress, place)
        return trained.module.state_dict(), history

    whole, all_of_it = run(None, Quiet())
    with pytest.raises(Stop):
        run(tmp_path / "state", Interrupt(after))
    gone_on, rest = run(tmp_path / "state", Quiet())
    assert rest.rows == all_of_it.rows and (rest.best, rest.steps, rest.stopped) == (
        all_of_it.best, all_of_it.steps, all_of_it.stopped,
    )  # fmt: skip
    assert all(torch.equal(t, gone_on[n]) for n, t in whole.items())


# --- teachers --------------------------------------------------------------------------------------------------------


def test_answers_that_are_remembered_are_those_that_would_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETXFORM_CACHE", "")
    torch.manual_seed(8)
    teacher = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3)).eval()
    made: list[dict[str, Tensor]] = []
    for cache in (True, False):
        soft = Soft(("t",), (1.0,), "arithmetic", 3.0, 0.2, "kd", cache=cache)
        trained, history = fit(nx.capture(net(), torch.randn(2, 6)), work(soft=soft), data(), Quiet(), teachers={"t": teacher})
        (told,) = history.evidence
        assert told.held and (told.detail.answers == "remembered") == cache
        made.append(trained.module.state_dict())
    # a batch of another size may round otherwise
    assert all(torch.allclose(t, made[1][n], atol=1e-5) for n, t in made[0].items())


# --- what is frozen --------------------------------------------------------------------------------------------------


@settings(max_examples=4)
@given(st.integers(0, 99))
def test_a_frozen_norm_stands_still_in_training(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    model[1].running_mean.copy_(torch.randn(8))
    before = {n: t.clone() for n, t in model.state_dict().items()}
    x, y = torch.randn(40, 6) * 3 + 1, torch.arange(40) % 3
    made = nx.apply("freeze .`1`\ntrain ** for 2epochs", model=model, example_inputs=(x[:2],), data={"d": (x, y)}).model
    after = made.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("1."))
    assert not torch.equal(before["0.weight"], after["0.weight"])
