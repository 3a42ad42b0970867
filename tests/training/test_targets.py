"""Targets of every shape train, or are refused before training in the words of the data; weights and draws that balance
classes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.language.methods import LOSSES, loss
from netxform.language.targets import targets_fit
from netxform.sources.data import check_python_data
from netxform.training.data import batches, steps
from netxform.training.losses import loss_of
from netxform.training.targets import look

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
C = torch.arange(60) % 4


def apply(text: str, y: Tensor, outputs: int, x: Tensor = X, end: nn.Module | None = None, **more: object):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(x.shape[1], outputs), *([end] if end is not None else []))
    return nx.apply(text, model=model, example_inputs=x[:1], data={"d": (x, y)}, **more)  # pyright: ignore[reportArgumentType]


def code(text: str, y: Tensor, outputs: int) -> str:
    with pytest.raises(nx.NetxformError) as caught:
        apply(text, y, outputs)
    assert caught.value.diagnostics[0].span.line == 1
    return caught.value.diagnostics[0].code


TRAIN = "train ** for 1epochs on d"
HOT = torch.nn.functional.one_hot(C, 4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_class_numbers_of_every_integer_type_are_the_same_training(dtype: torch.dtype) -> None:
    found = apply(TRAIN, C.to(dtype), 4).metrics
    assert found == apply(TRAIN, C, 4).metrics and "val_accuracy" in found


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_one_logit_and_two_classes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """As a closed form: accuracy is the share of logits on the right side of 0."""
    y = (X[:, 0] > 0).to(dtype).reshape(shape)
    result = apply("train ** for 60epochs on d loss=bce using adamw(lr=0.1)", y, 1)
    assert result.metrics["test_accuracy"] > 0.9
    test = check_python_data("d", (X, y)).test
    with torch.no_grad():
        logits = result.model(test.tensors[0])[:, 0]
    right = ((logits > 0) == (test.tensors[1].reshape(-1) > 0.5)).double().mean()
    assert result.metrics["test_accuracy"] == right.item()


@pytest.mark.parametrize(
    ("clause", "y", "outputs"),
    [
        ("loss=bce", HOT.float(), 4),
        ("loss=bce", HOT.bool(), 4),
        ("loss=bce", C, 4),
        ("loss=mse", torch.randn(60), 1),
        ("loss=mse", torch.randn(60, 1), 1),
        ("loss=mse", torch.randn(60, 3), 3),
        ("loss=mse", C, 1),
        ("loss=smooth_l1", torch.randn(60, 3, dtype=torch.float64), 3),
        ("", HOT.float(), 4),
        ("", torch.where(C == 0, -100, C), 4),
        ("loss=cross_entropy(ignore_index=-1)", torch.where(C == 0, -1, C), 4),
        ("loss=poisson_nll", C, 1),
        ("loss=hinge_embedding", 2 * (C > 1).long() - 1, 1),
        ("loss=multilabel_soft_margin", HOT, 4),
    ],
)
def test_what_fits_trains(clause: str, y: Tensor, outputs: int) -> None:
    assert apply(f"{TRAIN} {clause}", y, outputs).metrics["test_loss"] < float("inf")


@pytest.mark.parametrize(
    ("clause", "y", "outputs", "found"),
    [
        ("", HOT, 4, "X0351"),
        ("", torch.ones(60, 4), 4, "X0351"),
        ("", torch.randn(60, 4), 4, "X0351"),
        ("", C.float(), 4, "X0351"),
        ("", C[:, None], 4, "X0351"),
        ("", C - 1, 4, "X0351"),
        ("", C + 1, 4, "X0317"),
        ("", C, 3, "X0317"),
        ("", C, 1, "X0317"),
        ("loss=bce", C, 1, "X0317"),
        ("loss=bce", C, 3, "X0317"),
        ("loss=bce", torch.randn(60), 1, "X0351"),
        ("loss=mse", torch.randn(60), 3, "X0351"),
        ("loss=mse", torch.randn(60, 3), 1, "X0351"),
        ("loss=poisson_nll", torch.randn(60), 1, "X0351"),
        ("loss=soft_margin", C, 1, "X0351"),
        ("loss=cross_entropy(weight=[1, 2])", C, 4, "X0406"),
        ("loss=cross_entropy(weight=balanced)", C.clamp(max=2), 4, "X0817"),
        ("draw=balanced loss=mse", torch.randn(60), 1, "X0351"),
        ("loss=focal", C, 4, "X0408"),
        ("loss=focal(gamma=-1)", C, 4, "X0406"),
        ("loss=focal(gama=1)", C, 4, "X0404"),
        ("loss=focal(2)", C, 4, "X0401"),
        ("loss=mse label_smoothing=0.1", torch.randn(60), 1, "X0404"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(clause: str, y: Tensor, outputs: int, found: str) -> None:
    assert code(f"{TRAIN} {clause}", y, outputs) == found


def test_the_words_are_those_of_the_data() -> None:
    with pytest.raises(nx.NetxformError, match=r"labels of `d` are \(N, 1\) int64 for one of 4 classes"):
        apply(TRAIN, C[:, None], 4)
    with pytest.raises(nx.NetxformError, match=r"`d` has 5 classes \(labels 1 … 4\)"):
        apply(TRAIN, C + 1, 4)


shapes = st.sampled_from([(), (1,), (3,), (4,), (3, 1), (2, 2), (4, 2), (2, 4)])
KINDS = ("whole", "flags", "values", "shares")


@given(
    name=st.sampled_from(sorted(n for n in LOSSES if not n.startswith("demo"))),
    output=st.sampled_from([(1,), (3,), (4,), (4, 2), (2, 4), (4, 2, 2)]),
    shape=shapes,
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
@settings(max_examples=300)
def test_what_is_let_through_gives_a_number_of_the_right_mean(
    name: str, output: tuple[int, ...], shape: tuple[int, ...], kind: str, seed: int
) -> None:
    """The check is sound: whatever it lets through has a finite loss without a warning, and no target is broadcast."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (6, *shape), generator=g)
    y = {
        "whole": y,
        "flags": y % 2,
        "values": torch.randn(6, *shape, generator=g),
        "shares": torch.ones(6, *shape) / max((1, *shape[:1])),
    }[kind]
    z = torch.randn(6, *output, generator=g)
    chosen = loss(name, gamma=2.0) if name in ("focal", "sigmoid_focal") else loss(name)
    try:
        targets_fit(chosen, tuple(z.shape), look(y), "d", nx.errors.NOWHERE)
    except nx.NetxformError:
        return
    of = loss_of(chosen)
    whole = of(z, y)
    assert whole.shape == () and torch.isfinite(whole)
    rows = torch.stack([of(z[i : i + 1], y[i : i + 1]) for i in range(6)])
    assert whole.item() == pytest.approx(rows.mean().item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.Sigmoid()])
def test_what_is_applied_twice_is_warned_of(last: nn.Module) -> None:
    result = apply(TRAIN, C, 4, end=last)
    plan = nx.plan(TRAIN, model=nn.Sequential(nn.Linear(5, 4), last), example_inputs=X[:1], data={"d": (X, C)})
    assert "applies a softmax itself" in plan.steps[0].choice.warnings[0]
    assert result.certificate["statements"][0]["warnings"] == [plan.steps[0].choice.warnings[0]]
    for fine in (nn.Tanh(), nn.LogSoftmax(1)):
        assert not apply(TRAIN, C, 4, end=fine).certificate["statements"][0]["warnings"]
    assert apply(f"{TRAIN} loss=bce", HOT, 4, end=nn.Sigmoid()).certificate["statements"][0]["warnings"]


def test_a_head_knows_how_many_values_the_data_has() -> None:
    for y, outputs in ((torch.randn(60), 1), (torch.randn(60, 3), 3), (HOT, 4), (C, 4)):
        result = apply(
            "cut before `1`; attach head; train head for 1epochs on d " + ("" if y is C else "loss=mse"),
            y,
            7,
            end=nn.Linear(7, 9),
        )
        assert result.model.head.out.out_features == outputs


def test_balanced_weights_are_those_of_scikit_learn_and_are_stated() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    y = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    text = "train ** for 1epochs on d loss=cross_entropy(weight=balanced)"
    data = nx.apply(text, model=nn.Linear(5, 3), example_inputs=X[:1],
                    data={"d": (X, y)})  # fmt: skip
    train = check_python_data("d", (X, y)).train.tensors[1]
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=train.numpy())
    said = data.certificate["statements"][0]["chosen"]
    assert said == [f"weight of `cross_entropy`, from {len(train)} training samples: {', '.join(f'{w:.4g}' for w in wanted)}"]


@given(seed=st.integers(0, 999), epoch=st.integers(1, 9), world=st.integers(1, 4))
@settings(max_examples=20)
def test_balanced_drawing_is_the_same_for_any_number_of_processes(seed: int, epoch: int, world: int) -> None:
    y = torch.tensor([0] * 180 + [1] * 20)
    data = torch.utils.data.TensorDataset(torch.arange(200), y)
    chances = torch.where(y == 0, 1 / 180, 1 / 20)
    alone = [p[0].chunk for p in steps(data, 32, shuffle=(seed, epoch), chances=chances)]
    shares = [list(steps(data, 32, shuffle=(seed, epoch), chances=chances, rank=r, world=world)) for r in range(world)]
    for i, chunk in enumerate(alone):
        assert all(torch.equal(s[i][0].chunk, chunk) for s in shares)
        assert sorted(int(v) for s in shares for v in s[i][0].x[: s[i][0].live]) == sorted(chunk.tolist())
    drawn = y[torch.cat(alone)].float().mean()
    assert 0.5 - 5 * 0.5 / 200**0.5 < drawn < 0.5 + 5 * 0.5 / 200**0.5  # five standard errors
    assert len(list(batches(data, 32, shuffle=(seed, epoch)))) == len(alone)
