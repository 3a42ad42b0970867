"""Schedules, optimizers, averages of weights, transforms, and what one sees: against torch, by hand, and killed on the way."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn
from torch.optim import lr_scheduler as lrs

import netxform as nx
from netxform.graph.layer_spec import Invocation
from netxform.language.methods import OPTIMIZERS, SCHEDULES, Schedule
from netxform.registry import called
from netxform.training.augment import augment, augmented, cut
from netxform.training.data import shares, steps
from netxform.training.progress import Bar
from netxform.training.protocol import Epoch

G = torch.Generator().manual_seed(0)
X = torch.rand(48, 2, 6, 6, generator=G)
Y = torch.arange(48) % 3


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def apply(text: str, **more: object):
    return nx.apply(text, model=net(), example_inputs=X[:1], data={"d": (X, Y)}, **more)  # pyright: ignore[reportArgumentType]


# --- schedules -------------------------------------------------------------------------------------------------------

STEPS = 24


def theirs(name: str, optimizer: torch.optim.Optimizer) -> lrs.LRScheduler:
    match name:
        case "cosine":
            return lrs.CosineAnnealingLR(optimizer, STEPS)
        case "linear":
            return lrs.LinearLR(optimizer, 1.0, 0.0, STEPS)
        case "polynomial":
            return lrs.PolynomialLR(optimizer, STEPS, 2.0)
        case "exponential":
            return lrs.ExponentialLR(optimizer, 0.01 ** (1 / STEPS))
        case "cosine_restarts":
            return lrs.CosineAnnealingWarmRestarts(optimizer, STEPS // 3)
        case "steps":
            return lrs.MultiStepLR(optimizer, [STEPS // 2, 3 * STEPS // 4])
        case _:
            return lrs.ConstantLR(optimizer, 1.0)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "polynomial", "exponential", "cosine_restarts", "steps"])
def test_schedules_are_those_of_torch(name: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    schedule = theirs(name, optimizer)
    of, given = called(SCHEDULES.find(name).share), {n: s.default for n, s in Schedule.known(name).items()}
    for step in range(STEPS):
        assert of(step / STEPS, **given) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        schedule.step()


def test_the_tangent_is_that_of_timm() -> None:
    from timm.scheduler import TanhLRScheduler

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    schedule = TanhLRScheduler(optimizer, STEPS, lb=-7.0, ub=3.0, t_in_epochs=True)
    of = called(SCHEDULES.find("tanh").share)
    for step in range(STEPS):
        schedule.step(step)
        assert of(step / STEPS) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules_stay_between_nothing_and_the_rate(name: str) -> None:
    of, given = called(SCHEDULES.find(name).share), {n: s.default for n, s in Schedule.known(name).items()}
    assert all(0 <= of(i / 50, **given) <= 1 for i in range(51))
    rates = [r["lr"] for r in apply(f"train ** for 3epochs on d schedule={name}").histories[0][1].rows]
    assert max(rates) <= 1e-3


def test_rates_fall_from_layer_to_layer() -> None:
    text = "train ** for 1epochs on d layer_decay=0.5 using sgd(lr=0.1)"
    groups = nx.plan(text, model=net(), example_inputs=X[:1], data={"d": (X, Y)}).steps[0].choice.work.groups  # pyright: ignore
    rates = {n: g.settings["lr"] for g in groups for n in g.parameters}
    assert rates == pytest.approx(
        {"0.weight": 0.05, "0.bias": 0.05, "1.weight": 0.05, "1.bias": 0.05, "4.weight": 0.1, "4.bias": 0.1}
    )


# --- killed on the way -----------------------------------------------------------------------------------------------


class Kill:
    """A display that ends the run after so many epochs."""

    def __init__(self, after: int) -> None:
        self.left = after

    def start(self, title: str, total: int) -> None: ...

    def step(self, text: str, advance: int = 1) -> None: ...

    def epoch(self, epoch: Epoch) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def stop(self) -> None: ...


def same_bytes(text: str, folder: Path, after: int = 2) -> nx.api.Result:  # pyright: ignore
    whole = apply(text, out=folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        apply(text, out=folder / "killed", progress=Kill(after))
    apply(text, out=folder / "killed", resume=True)
    for name in ("model.safetensors", "curves.csv", "certificate.json"):
        assert (folder / "whole" / name).read_bytes() == (folder / "killed" / name).read_bytes(), name
    return whole


@pytest.mark.parametrize("clause", [
    "ema=0.9 schedule=cosine_restarts(cycles=2)",
    "ema=0.9 loss=focal(gamma=2, weight=balanced) draw=balanced metrics=[f1, auroc] cutmix=1.0",
    "augment=[RandomHorizontalFlip, RandomAffine(10)] loss=cross_entropy(label_smoothing=0.1) using lion(lr=1e-3)",
])  # fmt: skip
def test_a_killed_run_goes_on_to_the_same_bytes(clause: str, tmp_path: Path) -> None:
    same_bytes(f"stage s {{ train ** for 4epochs on d batch=16 {clause}; keep best by val_loss }}", tmp_path)


@pytest.mark.parametrize("name", sorted(n for n in OPTIMIZERS if not n.startswith("demo")))
def test_every_optimizer_trains_and_goes_on(name: str, tmp_path: Path) -> None:
    result = same_bytes(f"train ** for 3epochs on d batch=16 using {name}", tmp_path)
    assert not torch.equal(result.model.get_parameter("4.weight"), net().get_parameter("4.weight"))


# --- averages --------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), decay=st.sampled_from([0.0, 0.3, 0.9, 0.999]))
@settings(max_examples=6, deadline=None)
def test_the_result_is_the_average_by_hand_and_is_what_was_measured(seed: int, decay: float) -> None:
    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), torch.arange(40) % 2

    def model() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(3, 2)).double()

    def run(text: str):
        return nx.apply(
            f"train ** for {text} using sgd(lr=0.5) batch=8 seed=3", model=model(), example_inputs=x[:1], data=(x, y)
        )

    average = model().get_parameter("0.weight").detach().clone()
    for step in range(1, 7):
        now = run(f"{step}steps").model.get_parameter("0.weight").detach()
        kept = min(decay, (1 + step) / (10 + step))
        average = kept * average + (1 - kept) * now
    found = run(f"6steps ema={decay}")
    assert torch.allclose(found.model.get_parameter("0.weight"), average, atol=1e-12)
    again = nx.apply("train ** for 1steps using sgd(lr=1e-300)", model=found.model, example_inputs=x[:1], data=(x, y))
    for metric in ("test_loss", "test_accuracy", "val_loss"):
        assert again.metrics[metric] == pytest.approx(found.metrics[metric], abs=1e-12)


def test_an_average_of_nothing_is_the_training_itself() -> None:
    a, b = (apply(f"train ** for 2epochs on d {c}").model.state_dict() for c in ("", "ema=0"))
    assert all(torch.equal(a[n], b[n]) for n in a)


# --- transforms ------------------------------------------------------------------------------------------------------

NAMES = ("RandAugment", "TrivialAugmentWide", "ColorJitter", "RandomCrop", "RandomRotation", "RandomErasing", "GaussianBlur")


def call(name: str) -> Invocation:
    return {
        "ColorJitter": Invocation(name, (0.4,)),
        "RandomCrop": Invocation(name, (), {"padding": 2}),
        "RandomRotation": Invocation(name, (30,)),
        "GaussianBlur": Invocation(name, (3,)),
    }.get(name, Invocation(name))


@given(name=st.sampled_from(NAMES), world=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_views_of_torchvision_do_not_depend_on_the_number_of_processes(name: str, world: int, seed: int) -> None:
    data = torch.utils.data.TensorDataset(torch.rand(7, 3, 8, 8, generator=G), torch.arange(7))

    def seen(rank: int, world: int) -> dict[int, Tensor]:
        (batch,) = shares(data, 7, rank=rank, world=world)
        x = augment(batch.x, (call(name), Invocation("noise")), batch, torch.Generator().manual_seed(seed))
        return {int(p): x[i] for i, p in enumerate(batch.places[: batch.live])}

    alone = seen(0, 1)
    together = {p: x for r in range(world) for p, x in seen(r, world).items()}
    assert alone.keys() == together.keys() and all(torch.equal(alone[p], together[p]) for p in alone)


@given(seed=st.integers(0, 999), own=st.booleans())
@settings(max_examples=20, deadline=None)
def test_maps_follow_images(seed: int, own: bool) -> None:
    """Where the image is its own map, they are so afterwards; what comes in from outside is left out."""
    maps = torch.randint(1, 5, (5, 8, 8), generator=torch.Generator().manual_seed(seed))
    ((batch,),) = steps(torch.utils.data.TensorDataset(maps, maps), 5)
    calls = (Invocation("shift", (2,)), Invocation("flip")) if own else (
        call("RandomCrop"), Invocation("RandomHorizontalFlip"), Invocation("RandomVerticalFlip"))  # fmt: skip
    x, (moved, real) = augmented(maps[:, None].float(), (maps, maps.float()), calls, batch, torch.Generator().manual_seed(seed))
    assert torch.equal(moved, torch.where(x[:, 0] == 0, -100, x[:, 0].long()))
    assert torch.equal(real, x[:, 0])


@given(seed=st.integers(0, 999), alpha=st.floats(0.1, 4))
@settings(max_examples=20)
def test_the_share_of_cutmix_is_the_share_of_the_pixels(seed: int, alpha: float) -> None:
    x, more = torch.zeros(3, 2, 9, 7), torch.ones(3, 2, 9, 7)
    mixed, share, _ = cut(x, more, alpha, torch.Generator().manual_seed(seed))
    assert 1 - mixed.mean().item() == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(
    ("clause", "found"),
    [
        ("augment=[RandAugment(beauty=1)]", "X0411"),
        ("augment=[RandomCrop(size=3)]", "X0805"),
        ("augment=[RandBeauty]", "X0401"),
        ("mixup=0.2 cutmix=0.2", "X0404"),
        ("ema=1.5", "X0406"),
        ("layer_decay=0", "X0406"),
        ("schedule=cosin", "X0401"),
        ("schedule=cosine(ends=1)", "X0404"),
    ],
)
def test_what_is_no_such_thing_is_refused(clause: str, found: str) -> None:
    with pytest.raises(nx.NetxformError) as caught:
        apply(f"train ** for 1epochs on d {clause}")
    assert caught.value.diagnostics[0].code == found


def test_colours_of_normalised_images_are_refused() -> None:
    with pytest.raises(nx.NetxformError, match=r"works on images in \[0, 1\]"):
        nx.apply("train ** for 1epochs augment=ColorJitter(0.3)", model=net(), example_inputs=X[:1], data=(4 * X - 2, Y))


# --- what one sees ---------------------------------------------------------------------------------------------------


@given(
    width=st.integers(20, 120),
    metrics=st.lists(st.sampled_from(["val_accuracy", "val_f1", "val_average_precision", "val_auroc"]), unique=True),
    best=st.one_of(st.none(), st.integers(1, 100)),
    number=st.integers(1, 100),
)
def test_the_line_of_an_epoch_fits_and_keeps_what_matters(
    width: int, metrics: list[str], best: int | None, number: int
) -> None:
    row = {"train_loss": 0.123456, "val_loss": 1e-9, "lr": 1e-3} | dict.fromkeys(metrics, 0.5)
    line = Epoch(number, 100, row, metrics[-1] if metrics else "val_loss", best, 3725.0).line(width)
    assert len(line) <= width and line.startswith("epoch ")
    if width >= 80 and metrics:
        assert metrics[-1].removeprefix("val_").replace("_", " ") in line and "val loss" in line


@pytest.mark.parametrize("terminal", [False, True])
def test_epochs_stay_and_lines_fit(terminal: bool) -> None:
    held = io.StringIO()
    bar = Bar(Console(file=held, width=80, force_terminal=terminal, legacy_windows=False, color_system=None))
    apply("train ** for 3epochs on d batch=16 metrics=[f1, auroc] using adamw(lr=1e-3, weight_decay=0.0001)", progress=bar)
    shown = [line for line in held.getvalue().splitlines() if "epoch " in line]
    assert [f"epoch {i}/3" in line for i, line in zip((1, 2, 3), shown, strict=True)] == [True] * 3
    if not terminal:
        assert held.getvalue().count("\n") == 4 and "\x1b" not in held.getvalue() and held.getvalue().startswith("train **")
        assert all("lr" in line and "best" in line for line in shown)


def test_stages_are_named_in_both_tables() -> None:
    from netxform.artifacts.report import certificate_table, plan_table

    text = (
        "stage warm { train `4` for 1epochs on d }\n"
        "stage long { train ** for 1epochs on d loss=cross_entropy(weight=balanced) }"
    )
    plan = nx.plan(text, model=net(), example_inputs=X[:1], data={"d": (X, Y)})
    result = apply(text)
    for table in (plan_table(plan), certificate_table(result.record)):
        held = io.StringIO()
        Console(file=held, width=140).print(table)
        assert "stage warm" in held.getvalue() and "stage long" in held.getvalue()
    assert result.certificate["statements"][1]["chosen"][0].startswith("weight of `cross_entropy`")
