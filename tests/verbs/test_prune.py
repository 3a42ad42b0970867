"""prune as a user meets it: what is promised holds, budgets are met, outputs stay, and what cannot be done is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.axes.reindex import axes_of, reindex
from tests.strategies import networks

DIGITS = 'model net = zoo.smallcnn(width=8) input="1x1x8x8"\ndata d = sklearn.digits(train=200, val=60, test=60)\n'


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def claims(result: nx.Result, index: int = -1) -> dict[str, dict[str, Any]]:
    return {c["kind"]: c for c in result.certificate["statements"][index]["claims"]}


@given(
    networks(),
    st.sampled_from(["prune", "prune stem", "prune parts"]),
    st.sampled_from(["obd", "magnitude", "random", "taylor"]),
    st.sampled_from(["", " ranking=layer", " round_to=2", " min_channels=2"]),
    st.integers(1, 9),
)
@settings(max_examples=6)
def test_pruning_is_certified_on_generated_networks(model: nn.Module, what: str, by: str, how: str, tenths: int) -> None:
    x, y = torch.randn(24, 2, 5, 5), torch.arange(24) % 3
    before = copy.deepcopy(model.state_dict())
    result = nx.apply(f"{what} by {by} amount={tenths}0%{how}", model=model, example_inputs=x[:1], data=(x, y))
    assert result.model(x).shape == (24, 3)  # no output is ever removed
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in before.items())
    choice = result.plan.steps[0].choice
    assert not choice.provisional
    if not choice.values.entries()["removed"]:
        with torch.no_grad():  # nothing pruned: the same bits
            assert torch.equal(result.model(x), model(x))
    else:
        found = claims(result)["masked twin"]
        assert found["held"]
        assert found["bound"] == 1e-10
        change = claims(result)["loss change"]["detail"]
        assert (change["predicted"] is None) == (by in ("magnitude", "random"))


def dead(seed: int) -> tuple[nn.Sequential, Tensor]:
    """Channels 1 and 4 are read as zeros, channel 2 is constant; no other is zero on all samples."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double().eval()
    with torch.no_grad():
        model[0].bias += 1
        model[2].weight[:, [1, 4]] = 0
        model[0].weight[2] = 0
        model[0].bias[2] = 1.5
    return model, torch.randn(30, 3, dtype=torch.float64)


@given(st.integers(0, 999))
@settings(max_examples=5)
def test_channels_that_nobody_reads_go_exactly_and_constant_ones_with_their_mean(seed: int) -> None:
    model, x = dead(seed)
    y = torch.arange(30) % 3
    result = nx.apply("prune `0` by obd amount=33.4%", model=model, example_inputs=x[:1], data=(x, y))
    assert result.plan.steps[0].choice.values.entries()["removed"] == {"c1": [1, 4]}
    with torch.no_grad():
        assert gap(result.model(x), model(x)) <= 1e-12
    # and the constant channel, scored by how much the readers' inputs vary: only its mean is lost, and that goes into the bias
    from netxform.pruning.compensate import fold
    from netxform.pruning.scores import Request

    network = nx.capture(model, x[:1])
    (axis,) = [a for a in axes_of(network) if a.size == 6]
    folded = fold(network, {axis.atom: [2]}, Request(lambda: iter([(x, y)])))
    small = reindex(network, {axis.name: [0, 1, 3, 4, 5]}).module
    with torch.no_grad():
        assert gap(small(x), model(x)) > 1e-3
        small.get_submodule("2").bias.copy_(folded.tensors["2.bias"])
        assert gap(small(x), model(x)) <= 1e-12


def test_refitting_the_readers_is_better_than_their_means_and_that_better_than_nothing() -> None:
    """On the data that was fitted, least squares is the best of the three: a theorem, so no tolerance."""
    from netxform.pruning.compensate import fold, refit
    from netxform.pruning.scores import Request

    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)).double().eval()
    x = torch.randn(8, 2, 8, 8, dtype=torch.float64)
    network = nx.capture(nn.Sequential(*model, nn.Flatten(), nn.Linear(64, 3)).double().eval(), x[:1])
    axis = next(a for a in axes_of(network) if a.size == 6)
    request = Request(lambda: iter([(x, x[:, 0, 0, 0])]))
    small = reindex(network, {axis.name: [0, 2, 3, 5]}).module
    errors = []
    with torch.no_grad():
        wanted = model(x)
        for how in (None, fold, refit):
            tensors = how(network, {axis.atom: [1, 4]}, request).tensors if how is not None else {}
            tried = copy.deepcopy(small)
            for name, tensor in tensors.items():
                if name.startswith("2."):
                    tried.get_parameter(name).copy_(tensor)
            errors.append(float((tried.get_submodule("2")(torch.relu(tried.get_submodule("0")(x))) - wanted).square().mean()))
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("text", ["params <= 40% of base", "macs <= 20k", "bytes <= 20kB"])
def test_budgets_are_met_and_hardly_more_is_removed(text: str) -> None:
    result = nx.apply(f"{DIGITS}prune by magnitude until {text}")
    final, base = result.plan.final, result.plan.base
    value, bound = {
        "params": (final.params, 0.4 * base.params), "macs": (final.macs, 20_000), "bytes": (final.bytes, 20_000)
    }[text.split()[0]]  # fmt: skip
    assert 0.85 * bound < value <= bound


def test_a_budget_out_of_reach_and_nothing_to_prune_are_refused() -> None:
    for text, code in {
        "prune until params <= 10": "X0603",
        "prune fc amount=50%": "X0331",
        "prune by salience amount=50%": "X0412",
        "prune amount=50% step=10% { stop_if val_accuracy < 50% }": "X0602",
        "prune conv1": "X0408",
        "prune conv1 amount=50% until macs <= 1M": "X0408",
        "prune sharpness < 3": "X0412",
        "prune amount=150%": "X0406",
        "prune conv1 amount=10% { recover { train ** for 1epochs on d } }": "X0408",
        "prune until latency >= 3ms": "X0406",
    }.items():
        with pytest.raises(nx.NetxformError) as caught:
            nx.apply(DIGITS + text)
        assert caught.value.diagnostics[0].code == code, text


def test_rounds_with_recovery_train_in_between_and_can_be_stopped(tmp_path: Path) -> None:
    text = DIGITS + "train ** for 4epochs on d using adamw(lr=5e-3)\nprune by obd amount=60% step=20% "
    result = nx.apply(text + "{ recover { train ** for 2epochs on d using adamw(lr=2e-3) } }", out=tmp_path / "out")
    assert result.certificate["metrics"] or result.histories
    assert len(result.histories) == 4  # the first training, and one recovery a round
    assert nx.verify(tmp_path / "out").held
    again = nx.apply(text + "{ recover { train ** for 2epochs on d using adamw(lr=2e-3) } }")
    assert all(
        torch.equal(a, b) for a, b in zip(result.model.state_dict().values(), again.model.state_dict().values(), strict=True)
    )
    stopped = nx.apply(text + "{ recover { train ** for 1epochs on d }; stop_if val_accuracy < 101% }")
    assert not stopped.plan.steps[1].choice.values.entries()["removed"]
    assert any("stopped" in w for w in stopped.plan.steps[1].choice.warnings)


def test_the_deep_plan_shows_the_prediction_beside_the_measurement() -> None:
    plan = nx.plan(DIGITS + "prune saliency < 1e-3", deep=True)
    (step,) = plan.steps
    assert not step.choice.provisional
    change = next(e for e in step.measured if "predicted" in e.detail)
    assert change.detail["predicted"] is not None
    assert nx.plan(DIGITS + "prune saliency < 1e-3").steps[0].choice.provisional


@pytest.mark.parametrize("how", ["amount=50%", "amount=50% by obd", "amount=50% ranking=layer", 'granularity="2:4"'])
def test_single_weights(how: str, tmp_path: Path) -> None:
    how = how if "2:4" in how else f"{how} granularity=weight"
    by = "" if "by" in how else "by magnitude "
    result = nx.apply(f"{DIGITS}prune fc1 | conv2 {by}{how}", out=tmp_path / "out")
    weights = [result.model.get_parameter(f"{n}.weight") for n in ("fc1", "conv2")]
    assert sum(int((w == 0).sum()) for w in weights) == sum(w.numel() for w in weights) // 2
    if "2:4" in how:
        for w in weights:
            assert bool(((w.movedim(1, -1).unflatten(-1, (-1, 4)) == 0).sum(-1) == 2).all())
    assert nx.verify(tmp_path / "out").held


def test_dead_units_are_found_by_their_zeros() -> None:
    model, x = dead(0)
    with torch.no_grad():
        model[0].weight[3], model[0].bias[3] = 0, -1.0  # ReLU never lets it through
    result = nx.apply("prune ** where zeros >= 99%", model=model, example_inputs=x[:1], data=(x, torch.arange(30) % 3))
    assert result.plan.steps[0].choice.values.entries()["removed"] == {"c1": [3]}
    with torch.no_grad():
        assert gap(result.model(x), model(x)) <= 1e-12


def test_a_run_killed_between_recoveries_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no `train` statement stands in the spec; what was trained is not trained again."""
    import netxform.training.fit as module

    text = DIGITS + "prune by obd amount=40% step=20% samples=50 { recover { train ** for 2epochs on d } }"
    nx.apply(text, out=tmp_path / "a")
    real, calls = module._step, []

    def stop(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 7 * 3 + 2:  # in the second epoch of the second recovery; an epoch is 7 batches
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "_step", stop)
    with pytest.raises(KeyboardInterrupt):
        nx.apply(text, out=tmp_path / "b")
    monkeypatch.setattr(module, "_step", lambda *args: (calls.append(1), real(*args))[1])
    before = len(calls)
    nx.apply(text, out=tmp_path / "b", resume=True)
    assert len(calls) - before == 7  # the epoch that was interrupted, and no other
    first, second = ((tmp_path / n / "model.safetensors").read_bytes() for n in "ab")
    assert first == second
    assert not (tmp_path / ".b.resume").exists()


def test_the_deep_plan_trains_nothing() -> None:
    plan = nx.plan(DIGITS + "prune by magnitude amount=40% step=20% { recover { train ** for 900epochs on d } }", deep=True)
    assert plan.steps[0].choice.provisional


def test_a_latency_budget_chooses_the_same_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Times are measured once for each structure. Here they are made up, so that the law does not hang on the machine."""
    import netxform.factorization.latency as module

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[int] = []

    def seconds(call: Any) -> float:
        asked.append(1)
        size = sum(p.numel() for p in call.__closure__[1].cell_contents.module.parameters())
        return size * (1 + 0.1 * (len(asked) % 3)) * 1e-6  # a machine that never says the same twice

    monkeypatch.setattr(module, "_median", seconds)
    text = f"{DIGITS}prune by magnitude until latency <= 50% of base"
    first = nx.apply(text).plan.steps[0].choice.values.entries()
    count = len(asked)
    second = nx.apply(text).plan.steps[0].choice.values.entries()
    assert len(asked) == count
    assert first["removed"] == second["removed"]
    assert first["latency"] == second["latency"]
    assert "ms" in first["latency"]
    with pytest.raises(nx.NetxformError) as caught:
        nx.apply(f"{DIGITS}prune by magnitude until latency <= 0.001ms")
    assert caught.value.diagnostics[0].code == "X0603"


@given(
    st.sampled_from(["sgd(lr=0.1, momentum=0.9)", "adamw(lr=1e-2)", "rmsprop(lr=1e-3)", "nadam(lr=1e-2)"]), st.integers(1, 9)
)
@settings(max_examples=4)
def test_zeros_that_are_held_stay_through_every_optimizer_and_others_move(using: str, tenths: int) -> None:
    text = f"{DIGITS}prune by magnitude amount={tenths}0% granularity=weight\ntrain ** for 2epochs on d using {using}"
    first, last = (nx.apply(t) for t in (f"{text} zeros=hold regularize l1(**::weight, 1e-4)", text))
    before = nx.apply(text.partition("\n" + "train")[0]).model
    found = claims(first)["zeros held"]
    assert found["held"]
    assert found["detail"]["zeros"] > 0
    moved = 0
    for name, weight in before.named_parameters():
        zero = weight == 0
        if weight.dim() > 1:
            assert bool((first.model.get_parameter(name)[zero] == 0).all())
            moved += int((last.model.get_parameter(name)[zero] != 0).sum())
            assert bool((first.model.get_parameter(name)[~zero] != weight[~zero]).any())
    assert moved > 0  # without `hold` they do not stay


def test_weights_in_rounds_with_recovery_keep_their_zeros_and_meet_the_amount(tmp_path: Path) -> None:
    text = f"{DIGITS}prune by magnitude amount=60% step=30% granularity=weight {{ recover {{ train ** for 1epochs on d }} }}"
    result = nx.apply(text, out=tmp_path / "out")
    weights = [p for n, p in result.model.named_parameters() if p.dim() > 1]
    total = sum(w.numel() for w in weights)
    assert sum(int((w == 0).sum()) for w in weights) == round(0.6 * total)
    assert len(result.histories) == 2
    assert nx.verify(tmp_path / "out").held
    assert claims(result)["sparse"]["detail"]["zeros"] == round(0.6 * total)


def test_a_threshold_on_single_weights_and_what_has_no_meaning_for_them() -> None:
    result = nx.apply(f"{DIGITS}prune conv2 by magnitude where magnitude < 0.01 granularity=weight")
    assert not bool((result.model.get_parameter("conv2.weight").abs() < 0.01).logical_and(
        result.model.get_parameter("conv2.weight") != 0).any())  # fmt: skip
    for text, code in {
        "prune granularity=weight amount=10% round_to=8": "X0407",
        "prune by magnitude until macs <= 10k granularity=weight": "X0407",
        "prune by taylor granularity=weight amount=10%": "X0412",
        "prune where zeros >= 99% granularity=weight": "X0406",
        "prune where zeros <= 99% granularity=weight": "X0412",
        'prune granularity="2:4" amount=30%': "X0407",
    }.items():
        with pytest.raises(nx.NetxformError) as caught:
            nx.apply(DIGITS + text)
        assert caught.value.diagnostics[0].code == code, text
