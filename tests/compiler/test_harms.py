"""What hurts is said: in the plan, in the certificate as figures, in the last line of apply; nothing hurts, nothing is said."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform.cli import main
from netxform.compiler import harms
from netxform.compiler.harms import Course


def test_a_point_is_allowed_and_more_is_not() -> None:
    assert harms.accuracy_fell(0.90, 0.8901, 100, "samples") == ()
    assert harms.accuracy_fell(0.90, 0.95, 100, "samples") == ()
    (one,) = harms.accuracy_fell(0.992, 0.275, 512, "test samples")
    assert one.figures == {"before": 0.992, "after": 0.275, "samples": 512.0}
    assert one.suggestion == "assert accuracy >= 98%"
    assert harms.class_changed(0.995, 100, "samples") == ()
    assert harms.class_changed(0.98, 100, "samples")
    assert harms.loss_rose(1.0, 1.04, 9, "samples") == ()
    assert harms.loss_rose(1.0, 1.06, 9, "samples")


@pytest.mark.parametrize(
    ("predicted", "error", "measured", "told"),
    [
        (0.181, 0.01, 1.97, True),  # far outside
        (0.181, 0.01, 0.20, False),  # outside its interval, and nothing that matters
        (0.181, 1.0, 1.2, False),  # inside
        (0.181, None, 1.97, True),  # no interval is stated
        (-1.98, 0.08, -1.06, False),  # less than half of what was predicted
        (-1.98, 0.08, -0.5, True),
        (0.5, 0.01, -0.5, False),  # better than predicted
    ],
)
def test_a_prediction_is_missed_outside_its_interval_and_where_it_matters(
    predicted: float, error: float | None, measured: float, told: bool
) -> None:
    found = harms.beyond_prediction(predicted, error, 3.0, 3.0 + measured, 100, True)
    assert bool(found) == told
    if told:
        assert found[0].figures["measured"] == pytest.approx(measured)
        assert found[0].figures["predicted"] == predicted


def test_the_best_before_is_what_is_compared_with() -> None:
    course = Course()
    course.note("d", {"val_accuracy": 0.9, "test_accuracy": 0.95, "test_loss": 0.1}, "one")
    course.note("d", {"test_accuracy": 0.93}, "two")
    assert course.fell("other", {"test_accuracy": 0.1}) == ()
    assert course.fell("d", {"test_accuracy": 0.945, "test_loss": 9.0}) == ()
    (one,) = course.fell("d", {"val_accuracy": 0.2, "test_accuracy": 0.93})  # once, on test data
    assert one.figures == {"before": 0.95, "after": 0.93}
    assert "`one`" in one.text
    course.note("d", {"test_mae": 2.0}, "three")
    assert course.fell("d", {"test_mae": 2.05}) == ()
    assert course.fell("d", {"test_mae": 2.2})  # an error is worse where it is larger


def data() -> dict[str, tuple[Tensor, Tensor]]:
    """Four classes that one hidden unit each tells apart."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4, (600,), generator=g)
    x = 3 * torch.nn.functional.one_hot(y, 4).float() + 0.3 * torch.randn(600, 4, generator=g)
    return {"d": (x, y)}


def net() -> nn.Sequential:
    """Six hidden units: one a class, and two that do nothing."""
    model = nn.Sequential(OrderedDict(hidden=nn.Linear(4, 6), relu=nn.ReLU(), out=nn.Linear(6, 4)))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[:4] = 3 * torch.eye(4)
        model[0].weight[4:] = 0.01
        model[0].bias.zero_()
        model[2].weight.copy_(torch.cat([torch.eye(4), torch.zeros(4, 2)], 1))
        model[2].bias.zero_()
    return model


def run(spec: str) -> Any:
    return nx.apply(spec, model=net(), example_inputs=torch.zeros(2, 4), data=data())


@pytest.mark.parametrize("by", ["obd", "magnitude"])
@pytest.mark.parametrize("how", ["", " granularity=weight"])
def test_a_prune_that_hurts_says_so_and_its_assert_refuses_it(by: str, how: str) -> None:
    hurts = f"prune by {by} amount={'95%' if how else '60%'} over d{how}"
    found = run(hurts)
    (one,) = [w for w in found.record.warnings if w.about == "accuracy"]
    assert one.figures["before"] - one.figures["after"] > 0.2
    assert found.certificate["warnings"][0]["figures"] == dict(found.record.warnings[0].figures)
    with pytest.raises(nx.NetxformError) as error:
        run(f"{hurts}\n{one.suggestion}")
    assert error.value.diagnostics[0].code == "X0601"
    if not how:
        good = run(f"prune by {by} amount=34% over d")  # the two that do nothing
        assert good.record.warnings == ()
        assert run(f"prune by {by} amount=34% over d\nassert accuracy >= 95%").record.warnings == ()


def test_a_factorization_that_hurts_says_so() -> None:
    spec = "factorize hidden using svd rank=1 over d"
    found = run(spec)
    assert [w.about for w in found.record.warnings] == ["accuracy"]
    assert run("factorize hidden using svd rank=4 over d").record.warnings == ()


def test_what_a_training_brings_back_is_made_good() -> None:
    hurts = "prune by magnitude amount=60% over d"
    (before,) = run(hurts).record.warnings
    assert not before.made_good
    spec = "train ** for 1epochs on d using adamw(lr=1e-4)\nprune by magnitude amount=50% least=0.5 over d\n"
    lasting = run(spec + "train out for 1epochs on d using adamw(lr=1e-6)").record.warnings
    assert [w.made_good for w in lasting] == [False, False]
    assert "worse by" in lasting[1].text
    again = run(spec + "train ** for 30epochs on d using adamw(lr=3e-2)").record.warnings
    assert [w.made_good for w in again] == [True]


def test_apply_ends_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "s.xform"
    head = 'model net = zoo.smallcnn(width=4) input="1x1x8x8"\ndata d = sklearn.digits(train=300)\n'
    spec.write_text(head + "train ** for 3epochs on d using adamw(lr=1e-2)\nprune by magnitude amount=70% over d")
    out = str(tmp_path / "b")
    assert main(["apply", str(spec), "-o", out]) == 0
    printed = capsys.readouterr().out
    last = printed.rstrip().splitlines()[-1]
    assert last.startswith("warning: `prune by magnitude amount=70% over d`: accuracy fell by")
    assert "assert accuracy >= " in last
    assert "\x1b" not in printed
    kept = json.loads((tmp_path / "b" / "certificate.json").read_text())["warnings"]
    assert kept[0]["figures"]["after"] < kept[0]["figures"]["before"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["apply", str(spec), "-o", out, "--overwrite", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\x1b[1;31m" in captured.err
    monkeypatch.setenv("NO_COLOR", "1")
    main(["apply", str(spec), "-o", out, "--overwrite", "--quiet"])
    assert "31m" not in capsys.readouterr().err


HEAD = 'model net = zoo.smallcnn(width=4) input="1x1x8x8"\ndata d = sklearn.digits(train=200)\n'


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (HEAD + "prune saliency<1e-3", "nothing has trained this network"),
        (HEAD + "prune by magnitude amount=10%", "nothing has trained this network"),
        (HEAD + "prune by random amount=10%", ""),
        (HEAD + "train ** for 1epochs\nprune saliency<1e-3", ""),
        (HEAD + "train fc for 1epochs\nprune saliency<1e-3", "nothing has trained this network"),
        (HEAD + "train ** for 1epochs\ncut at layer4; attach head\nprune saliency<1e-3", "nothing has trained `head`"),
        (HEAD + "train ** for 1epochs\ncut at layer4; attach head\nprune by magnitude amount=10%", ""),
        (HEAD + "train ** for 1epochs\ncut at layer4; attach head\ntrain head for 1epochs\nprune saliency<1e-3", ""),
        (HEAD + "train ** for 1epochs\ncut at layer4; attach head\nprune by obd granularity=weight amount=10%", "`head`"),
    ],
)
def test_a_plan_says_where_nothing_has_been_trained(spec: str, word: str) -> None:
    said = [w for s in nx.plan(spec).steps for w in s.choice.warnings if "nothing has trained" in w]
    assert bool(said) == bool(word)
    assert not word or word in said[0]


def test_a_network_that_came_with_weights_is_taken_as_trained_and_measured() -> None:
    from netxform.pruning.loss import little_learnt

    x, y = data()["d"]
    model = net()
    plan = nx.plan("prune saliency<1e-3", model=model, example_inputs=x[:2], data=data())
    assert plan.steps[0].choice.warnings == ()
    assert little_learnt(nx.capture(model, x[:2]), [(x, y)], "cross_entropy") is None
    with torch.no_grad():
        model[2].weight.mul_(0.01)
    said = little_learnt(nx.capture(model, x[:2]), [(x, y)], "cross_entropy")
    assert said is not None
    assert "hardly learnt" in said
    deep = nx.plan("prune saliency<1e-9", model=model, example_inputs=x[:2], data=data(), deep=True)
    assert any("hardly learnt" in w for w in deep.steps[0].choice.warnings)
    values = y.float()[:, None]
    assert little_learnt(nx.capture(nn.Linear(4, 1), x[:2]), [(x, values)], "mse") is not None


@pytest.mark.parametrize("samples", [8, 64, 1000, 10_000])
def test_what_so_few_samples_cannot_tell_is_said(samples: int) -> None:
    """Law: the words come where drawing anew, without any change, shows as large a fall in 2.5 % of the draws or more."""
    rng = np.random.default_rng(samples)
    for before, after in ((0.9, 0.88), (0.95, 0.85), (0.5, 0.4), (0.99, 0.97), (0.7, 0.2)):
        (one,) = harms.accuracy_fell(before, after, samples, "test samples")
        middle = (before + after) / 2
        falls = (rng.binomial(samples, middle, 20_000) - rng.binomial(samples, middle, 20_000)) / samples
        share = float((falls >= before - after - 1e-12).mean())
        if not 0.01 < share < 0.06:  # at the edge the normal interval is as good as it is
            assert ("from chance" in one.text) == (share > 0.025), (before, after, share)


def test_the_page_says_the_numbers_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "warnings.md").read_text()
    assert harms.POINT == 0.01 and harms._WORSE == 1.05 and harms._HALF == 0.5 and harms._SIDES == 1.96
    assert harms._MATERIAL == pytest.approx(math.log(1.05)) and f"{harms._MATERIAL:.3f}"[1:] in page
    for n, p, told in ((64, 0.9, "10.4"), (10_000, 0.9, "0.8")):
        assert f"{100 * 1.96 * math.sqrt(2 * p * (1 - p) / n):.1f}" == told and told in page
