"""Several inputs and outputs, data without labels, and teachers of every kind, through every statement that runs batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import netxform as nx
from netxform.graph.outputs import chosen
from netxform.graph.outputs import given as given_outputs
from netxform.pruning.curvature import saliency
from netxform.pruning.loss import chance_of, drawn, each_loss, laid, losses, slope_of, target_of
from netxform.training.soft import shared_classes

G = torch.Generator().manual_seed(0)
L, R = torch.randn(60, 4, generator=G), torch.randn(60, 3, generator=G)
Y = torch.arange(60) % 3
LOSS_KINDS = ["cross_entropy", "mse", "bce"]


class Two(nn.Module):
    """Two inputs."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b, self.h = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(16, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.h(torch.relu(torch.cat([self.a(left), self.b(right)], 1)))


class One(nn.Module):
    """The same function of both inputs in one."""

    def __init__(self) -> None:
        super().__init__()
        self.two = Two()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(x[:, :4], x[:, 4:])


class Named(NamedTuple):
    """Outputs with names."""

    scores: Tensor
    size: Tensor


class Outs(nn.Module):
    """Two outputs, in the form that is asked for."""

    def __init__(self, form: str, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.f, self.c, self.r, self.form = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 1), form

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.f(x))
        c, r = self.c(h), self.r(h)
        if self.form == "tuple":
            return c, r
        if self.form == "named":
            return Named(c, r)
        return {"cls": c, "reg": r} if self.form == "dict" else {"head": {"logits": c}, "reg": r}


def apply(text: str, model: nn.Module, data: Any, inputs: Any, **more: Any) -> Any:
    return nx.apply(text, model=model, example_inputs=inputs, data=data, **more)


BOTH = (L[:2], R[:2])
STATEMENTS = [
    "train ** for 1epochs on data",
    "prune ** by obd amount=25% over data",
    "prune ** by obd(method=exact) amount=25% over data",
    "prune ** by magnitude amount=25% over data",
    "prune ** by taylor amount=25% over data",
    "prune ** by activation amount=25% compensate=refit over data",
    "prune ** by obd-weights amount=30% granularity=weight over data",
    "factorize h rank=2 over data",
]


@pytest.mark.parametrize("text", STATEMENTS)
def test_two_inputs_are_as_one_input_that_holds_both(text: str, tmp_path: Path) -> None:
    """Every statement that runs batches gives the same numbers, and its bundle is measured again from the folder."""
    apart = apply(text, Two(), ((L, R), Y), BOTH, out=tmp_path / "two")
    together = apply(text.replace("factorize h", "factorize two.h"), One(), (torch.cat([L, R], 1), Y), torch.cat(BOTH, 1))
    x = apart.model(L, R), together.model(torch.cat([L, R], 1))
    assert torch.allclose(*x, atol=1e-5)
    assert apart.metrics == pytest.approx(together.metrics)
    assert nx.verify(tmp_path / "two").held


@pytest.mark.parametrize(
    ("form", "output"),
    [("tuple", "0"), ("named", 1 - 1), ("dict", "cls"), ("nested", '"head.logits"'), ("nested", "logits")],
)
@pytest.mark.parametrize("text", ["train ** for 1epochs on data", "prune ** by obd amount=25% over data"])
def test_an_output_by_name_or_place(form: str, output: str, text: str) -> None:
    found = apply(f"{text} output={output}", Outs(form), (L, Y), L[:2])
    only = apply("train f | c for 1epochs on data output=0", Outs("tuple"), (L, Y), L[:2])
    if text.startswith("train"):
        assert found.metrics.keys() == only.metrics.keys()
    assert found.model(L[:1]) is not None


@pytest.mark.parametrize("text", ["train ** for 1epochs on data", "prune ** by obd amount=25% over data"])
def test_several_outputs_and_none_named_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(nx.NetxformError) as caught:
        apply(text, Outs("tuple"), (L, Y), L[:2])
    (found,) = caught.value.diagnostics
    assert found.code == "X0319" and "`output=0`, `output=1`" in " ".join(found.helps)


@given(
    st.lists(st.sampled_from(["a", "b.a", "b.c", "0", "1.0"]), min_size=1, max_size=5, unique=True),
    st.text("ab.c01", max_size=4),
)
def test_an_output_is_the_one_that_is_called_so_or_refused(known: list[str], name: str) -> None:
    ends = [k for k in known if k.endswith(f".{name}")]
    try:
        found = chosen(known, name)
    except nx.NetxformError as error:
        assert name not in known and len(ends) != 1 and error.diagnostics[0].code == "X0319"
        return
    assert found == name or [found] == ends


def test_outputs_are_named_as_the_graph_names_them() -> None:
    found = given_outputs(({"a": torch.zeros(1), "b": None}, [torch.ones(1)], Named(torch.zeros(1), torch.zeros(1))))
    assert list(found) == ["0.a", "1.0", "2.0", "2.1"]
    assert list(given_outputs(torch.zeros(1))) == [None]


@pytest.mark.parametrize(("form", "heads", "targets"), [("dict", ("cls", "reg"), ("kind", "size")), ("tuple", (0, 1), (0, 1))])
def test_heads_learn_each_from_its_own_target(form: str, heads: Any, targets: Any) -> None:
    """As a bare loop: the sum of the two losses."""
    values = [Y, R[:, :1]]
    y: Any = dict(zip(targets, values, strict=True)) if form == "dict" else tuple(values)
    lines = f"head {heads[0]} target={targets[0]}; head {heads[1]} loss=mse weight=0.5 target={targets[1]}"
    text = f"train ** for 1epochs on data batch=60 using sgd(lr=0.1) {{ {lines} }}"
    whole = {"train": (L, y), "val": (L, y), "test": (L, y)}
    found = apply(text, Outs(form), whole, L[:2])
    model = Outs("tuple")
    c, r = model(L)
    (F.cross_entropy(c, Y) + 0.5 * F.mse_loss(r, R[:, :1])).backward()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p -= 0.1 * p.grad
            assert torch.allclose(p, dict(found.model.named_parameters())[name], atol=1e-6)


def test_a_target_that_is_not_there_is_refused() -> None:
    for lines in ("head cls target=colour; head reg loss=mse target=size", "head cls; head reg loss=mse target=size"):
        with pytest.raises(nx.NetxformError) as caught:
            text = f"train ** for 1epochs on data {{ {lines} }}"
            apply(text, Outs("dict"), (L, {"kind": Y, "size": R[:, :1]}), L[:2])
        assert caught.value.diagnostics[0].code == "X0351" and "kind, size" in str(caught.value)


# --- without labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [(L, R), {"right": R, "left": L}], ids=["place", "name"])
def test_distilling_without_labels_learns_from_the_teacher_alone(x: Any) -> None:
    teacher = {"teacher": Two(1)}
    found = apply("distill from teacher for 3epochs on data", Two(), (x, None), BOTH, models=teacher)
    told = apply("distill from teacher for 3epochs on data hard=0", Two(), (x, Y), BOTH, models=teacher)
    assert found.metrics["val_loss"] > 0 and "val_accuracy" not in found.metrics
    assert "no labels" in str(found.plan)
    assert len(told.metrics) > len(found.metrics)
    before = (Two()(L, R) - Two(1)(L, R)).square().mean()
    after = apply("distill from teacher for 60epochs on data using adamw(lr=1e-2)", Two(), (x, None), BOTH, models=teacher)
    assert (after.model(L, R).softmax(1) - Two(1)(L, R).softmax(1)).square().mean() < before


def test_what_needs_labels_says_so() -> None:
    teacher = {"models": {"teacher": Two(1)}}
    for text in ("train ** for 1epochs on data", "distill from teacher for 1epochs on data hard=0.5",
                 "distill from teacher for 1epochs on data loss=dkd", "prune ** by taylor amount=25% over data",
                 "prune ** by obd amount=25% over data loss=cross_entropy"):  # fmt: skip
        with pytest.raises(nx.NetxformError) as caught:
            apply(text, Two(), ((L, R), None), BOTH, **teacher)
        (found,) = caught.value.diagnostics
        assert found.code == "X0351" and "label" in found.message and found.span.line == 1


@pytest.mark.parametrize("by", ["magnitude", "obd", "obd(method=exact)", "activation", "obd-weights"])
def test_scores_without_labels_measure_how_far_the_outputs_move(by: str, tmp_path: Path) -> None:
    """One sample many times: whichever of them are measured, the mean is that of the one."""
    x = (L[:1].expand(60, 4).contiguous(), R[:1].expand(60, 3).contiguous())
    data = {"train": (x, None), "val": (x, None), "test": (x, None)}
    found = apply(f"prune ** by {by} amount=25% over data", Two(), data, BOTH, out=tmp_path / "out")
    claim = next(c for s in found.certificate["statements"] for c in s["claims"] if "no labels" in c["claim"])
    moved = (found.model(L[:1], R[:1]) - Two()(L[:1], R[:1])).detach().double().square().mean()
    assert claim["measured"] == pytest.approx(float(moved), rel=1e-4, abs=1e-10)
    assert claim["detail"]["change on test samples"] == pytest.approx(float(moved), rel=1e-4, abs=1e-10)
    assert nx.verify(tmp_path / "out").held


@pytest.mark.parametrize(
    "text", ["factorize h rank=2 over data", "factorize ** until params <= 80% of base over data gate=none"]
)
def test_factors_are_fitted_without_labels(text: str) -> None:
    assert apply(text, Two(), ((L, R), None), BOTH).certificate["statements"]


# --- losses of outputs of every shape --------------------------------------------------------------------------------

SHAPES = [
    ((6, 4), "classes"),
    ((6, 5, 4), "sequence"),
    ((6, 4, 3, 2), "map"),
    ((6, 4), "values"),
    ((6, 2, 3), "values"),
    ((6, 1), "values"),
]


def case(shape: tuple[int, ...], kind: str, loss: str) -> tuple[Tensor, Tensor] | None:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rng = torch.Generator().manual_seed(2)
    if kind == "values":
        y = torch.rand(shape, generator=rng, dtype=torch.float64)
        return None if loss == "cross_entropy" else (z, (y > 0.5).double() if loss == "bce" else y)
    if loss != "cross_entropy":
        return None
    places = shape[:-1] if kind == "sequence" else (shape[0], *shape[2:])
    y = torch.randint(4, places, generator=rng)
    if y.dim() > 1:
        y.reshape(len(y), -1)[:, 0] = -100
    return z, y


@pytest.mark.parametrize("loss", LOSS_KINDS)
@pytest.mark.parametrize(("shape", "kind"), SHAPES)
def test_slopes_and_curvature_are_those_of_autograd(shape: tuple[int, ...], kind: str, loss: Any) -> None:
    """The slope is the gradient of a sample's loss, and E[s sᵀ] of what is drawn its second derivative in the scores."""
    held = case(shape, kind, loss)
    if held is None:
        return
    z, y = laid(held[0], held[1], loss), held[1]
    target = target_of(y, z, loss)
    each = each_loss(z.clone().requires_grad_(), target, loss)
    leaf = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(each_loss(leaf, target, loss).sum(), leaf)
    assert torch.allclose(slope_of(z, target, loss), slope, atol=1e-12) and each.shape == (6,)
    one = lambda v: each_loss(v.reshape(1, *z.shape[1:]), target[:1], loss).sum()  # noqa: E731
    hessian: Any = torch.autograd.functional.hessian(one, z[0].reshape(-1))
    rng = torch.Generator().manual_seed(3)
    many = 20_000
    s = drawn(
        z[:1].expand(many, *z.shape[1:]),
        target[:1].expand(many, *target.shape[1:]) if loss == "cross_entropy" else None,
        loss,
        rng,
    )
    flat = s.reshape(many, -1)
    assert torch.allclose(flat.T @ flat / many, hessian, atol=5 * float(hessian.abs().max()) / many**0.5 + 1e-9)
    assert chance_of(z, "bce").shape == z.shape


def test_a_loss_of_sequences_is_the_mean_over_tokens_that_count() -> None:
    z, y = torch.randn(3, 5, 4, generator=G), torch.randint(4, (3, 5), generator=G)
    y[0, 2:] = -100
    each, right = losses(z, y, "cross_entropy")
    for i in range(3):
        kept = y[i] != -100
        assert each[i] == pytest.approx(float(F.cross_entropy(z[i][kept].double(), y[i][kept])))
    wanted = sum(float((z[i].argmax(1) == y[i])[y[i] != -100].double().mean()) for i in range(3))
    assert right == pytest.approx(wanted)


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse"])
def test_whole_curvature_of_gates_is_exact_where_the_network_is_linear_between(loss: Any) -> None:
    """Gauss–Newton against the second derivative by double backward, of sequences and of values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4)).double()
    x = torch.randn(5, 4, 3, dtype=torch.float64) if loss == "cross_entropy" else torch.randn(5, 3, dtype=torch.float64)
    y = torch.randint(4, (5, 4)) if loss == "cross_entropy" else (torch.rand(5, 4) > 0.5).double()
    network = nx_capture(model, x)
    whole, exact = (saliency(network, [(x, y)], method=m, loss=loss) for m in ("gauss-newton", "exact"))
    for atom, value in whole.second.items():
        assert torch.allclose(value, exact.second[atom], atol=1e-9)
        assert torch.allclose(whole.first[atom], exact.first[atom], atol=1e-9)


def nx_capture(model: nn.Module, x: Tensor) -> Any:
    from netxform.capture import capture

    return capture.capture(model.eval(), x)


@pytest.mark.parametrize("by", ["obd", "obd(method=exact)", "obd-weights", "taylor", "activation", "magnitude"])
def test_every_score_takes_sequences_images_and_labels(by: str) -> None:
    image = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))
    words = nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 5))
    x, t = torch.randn(20, 3, 6, 6), torch.randint(0, 30, (20, 7))
    labels = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    for model, given_, y, loss in ((image, x, torch.randn(20, 3, 12, 12), " loss=mse"), (words, t, t % 5, ""),
                                   (labels, L, (torch.rand(60, 4) > 0.5).float(), " loss=bce")):  # fmt: skip
        assert apply(f"prune ** by {by} amount=25% over data{loss}", model, (given_, y), given_[:1]).certificate


@pytest.mark.parametrize("by", ["obd", "magnitude"])
def test_several_labels_without_being_told_are_refused_in_their_own_words(by: str) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(nx.NetxformError, match="multi-hot"):
        apply(f"prune ** by {by} amount=25% over data", model, (L, (torch.rand(60, 4) > 0.5).float()), L[:1])


# --- teachers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "output"), [("tuple", 0), ("dict", "cls"), ("named", 1 - 1), ("nested", '"head.logits"')])
def test_a_teacher_with_several_outputs(form: str, output: Any) -> None:
    student = nn.Sequential(nn.Linear(4, 3))
    text = "distill from t for 1epochs on data"
    with pytest.raises(nx.NetxformError) as caught:
        apply(text, student, (L, Y), L[:2], models={"t": Outs(form)})
    assert caught.value.diagnostics[0].code == "X0343" and "teacher_output=" in str(caught.value)
    found = apply(f"{text} teacher_output={output}", student, (L, Y), L[:2], models={"t": Outs(form)})
    alone = apply(text, student, (L, Y), L[:2], models={"t": Only()})
    assert torch.equal(found.model(L), alone.model(L))


class Only(nn.Module):
    """The class scores of `Outs` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Outs("tuple")

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]


@given(st.permutations(range(5)), st.integers(2, 4), st.integers(0, 9))
@settings(max_examples=40)
def test_classes_are_shared_by_their_numbers(order: list[int], known: int, seed: int) -> None:
    """The teacher that knows some of the student's classes under other numbers teaches as one that is cut and sorted."""
    classes = [order[i] if i < known else None for i in range(4)]
    rng = torch.Generator().manual_seed(seed)
    rows, v = torch.randn(6, 4, generator=rng), torch.randn(6, 5, generator=rng)
    target = torch.randint(4, (6,), generator=rng)
    mine, (theirs,), numbers = shared_classes(classes, rows, [v], target)
    assert mine.shape == theirs.shape == (6, known) and numbers is not None
    for row in range(6):
        for k in range(known):
            assert theirs[row, k] == v[row, order[k]] and mine[row, k] == rows[row, k]
        assert numbers[row] == (target[row] if target[row] < known else -100)


def test_a_mapping_of_classes_teaches_and_is_checked() -> None:
    student, teacher = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 5))
    sorted_ = nn.Sequential(nn.Linear(4, 3))
    with torch.no_grad():
        for a, b in zip(sorted_.parameters(), teacher.parameters(), strict=True):
            a.copy_(b[[4, 0, 2]])
    text = "distill from t for 2epochs on data"
    found = apply(f"{text} classes=[4, 0, 2]", student, (L, Y), L[:2], models={"t": teacher})
    other = apply(text, student, (L, Y), L[:2], models={"t": sorted_})
    assert torch.equal(found.model(L), other.model(L))
    assert found.metrics["teacher_val_accuracy"] == other.metrics["teacher_val_accuracy"]
    for classes in ("[4, 0]", "[4, 0, 7]", "[4, none, none]"):
        with pytest.raises(nx.NetxformError) as caught:
            apply(f"{text} classes={classes}", student, (L, Y), L[:2], models={"t": teacher})
        assert caught.value.diagnostics[0].code == "X0343"


def test_a_teacher_is_shown_images_in_its_size_and_its_normalisation() -> None:
    """Its answers are those to images that were resized and normalised by hand, the data's own normalisation undone."""
    from netxform.language.work import Sight, Soft
    from netxform.training.teachers import Teachers

    x = torch.rand(6, 1, 8, 8, generator=G)
    shown = (x - 0.3) / 0.2
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
    soft = Soft(("t",), (1.0,), "arithmetic", 4.0, 0.0, "kd", sights=(Sight((16, 16), (0.5,), (0.25,)),))
    held = Teachers(soft, {"t": teacher}, torch.device("cpu"), ((0.3,), (0.2,)))
    (found,), _ = held.answers(shown)
    wanted = F.interpolate((x - 0.5) / 0.25, (16, 16), mode="bilinear", align_corners=False, antialias=True)
    assert torch.allclose(found, teacher(wanted), atol=1e-5)
    y = torch.arange(60) % 3
    text = """model net = zoo.smallcnn(classes=3) input="1x1x8x8"
    model t = zoo.smallcnn(classes=3) input="1x1x16x16" normalize=[0.5, 0.25]
    distill from t for 1epochs on data"""
    assert nx.apply(text, data=(torch.rand(60, 1, 8, 8), y)).metrics["teacher_val_accuracy"] >= 0
    with pytest.raises(nx.NetxformError, match="a mean and a spread"):
        nx.plan(text.replace("[0.5, 0.25]", "[0.5, 0.0]"), data=(torch.rand(60, 1, 8, 8), y))


# --- one logit and two classes ---------------------------------------------------------------------------------------


@given(st.integers(0, 30))
@settings(max_examples=10, deadline=None)
def test_one_logit_is_the_difference_of_two(seed: int) -> None:
    """`bce` on z is cross-entropy on (0, z): the same loss, and the same gradient."""
    from netxform.training.losses import loss_of

    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(9, 1, generator=rng, dtype=torch.float64, requires_grad=True)
    y = torch.randint(2, (9,), generator=rng)
    one, two = loss_of("bce")(z, y), loss_of("cross_entropy")(torch.cat([torch.zeros_like(z), z], 1), y)
    slopes = [torch.autograd.grad(v, z, retain_graph=True)[0] for v in (one, two)]
    assert torch.allclose(one, two) and torch.allclose(*slopes)


def test_one_logit_learns_built_in_data_with_two_classes() -> None:
    text = """model net = zoo.smallcnn(classes=1) input="1x1x8x8"
    data d = sklearn.digits(classes=[0, 1], train=80)
    train ** for 8epochs on d loss=bce"""
    assert nx.apply(text).metrics["test_accuracy"] > 0.9
