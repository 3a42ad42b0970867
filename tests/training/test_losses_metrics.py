"""Losses are those of torch.nn, metrics those of scikit-learn, however the samples are cut into batches."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import netxform as nx
from netxform.language.methods import METRICS, Library, Loss, loss
from netxform.registry import called
from netxform.training.losses import loss_of, mass_of
from netxform.training.metrics import Measures
from netxform.training.process import Processes

W = [0.5, 1.0, 3.0]
z = torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
y = torch.arange(9) % 3
values = torch.randn(9, 3, generator=torch.Generator().manual_seed(2))
hot = (values > 0).float()
tensor = torch.tensor
ORACLES: list[tuple[Loss, nn.Module, Tensor, Tensor]] = [
    (loss("cross_entropy", weight=tuple(W), ignore_index=0), nn.CrossEntropyLoss(tensor(W), ignore_index=0), z, y),
    (loss("cross_entropy", label_smoothing=0.2), nn.CrossEntropyLoss(label_smoothing=0.2), z, y),
    (loss("cross_entropy"), nn.CrossEntropyLoss(), z, values.softmax(1)),
    (loss("nll", weight=tuple(W)), nn.NLLLoss(tensor(W)), z.log_softmax(1), y),
    (loss("focal", gamma=0.0, weight=tuple(W)), nn.CrossEntropyLoss(tensor(W)), z, y),
    (loss("multi_margin", p=2, margin=0.5), nn.MultiMarginLoss(2, 0.5), z, y),
    (loss("bce", pos_weight=tuple(W)), nn.BCEWithLogitsLoss(pos_weight=tensor(W)), z, hot),
    (loss("bce", pos_weight=3.0), nn.BCEWithLogitsLoss(pos_weight=tensor(3.0)), z, hot),
    (loss("multilabel_soft_margin"), nn.MultiLabelSoftMarginLoss(), z, hot),
    (loss("mse"), nn.MSELoss(), z, values),
    (loss("l1"), nn.L1Loss(), z, values),
    (loss("huber", delta=0.3), nn.HuberLoss(delta=0.3), z, values),
    (loss("smooth_l1", beta=0.3), nn.SmoothL1Loss(beta=0.3), z, values),
    (loss("poisson_nll", full=True), nn.PoissonNLLLoss(full=True), z, values.abs()),
    (loss("soft_margin"), nn.SoftMarginLoss(), z, values.sign()),
    (loss("hinge_embedding", margin=0.7), nn.HingeEmbeddingLoss(0.7), z, values.sign()),
]


@pytest.mark.parametrize(("ours", "theirs", "output", "target"), ORACLES, ids=[str(o[0]) for o in ORACLES])
def test_losses_are_those_of_torch(ours: Loss, theirs: nn.Module, output: Tensor, target: Tensor) -> None:
    assert loss_of(ours)(output, target).item() == pytest.approx(theirs(output, target).item(), rel=1e-6)


def test_focal_losses_are_their_formulas() -> None:
    from torchvision.ops import sigmoid_focal_loss

    p = z.softmax(1)[torch.arange(9), y]
    assert loss_of(loss("focal", gamma=2.0))(z, y).item() == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-5)
    wanted = sigmoid_focal_loss(z, hot, alpha=0.3, gamma=1.5, reduction="mean").item()
    assert loss_of(loss("sigmoid_focal", gamma=1.5, alpha=0.3))(z, hot).item() == pytest.approx(wanted, rel=1e-5)


@given(seed=st.integers(0, 999), ours=st.sampled_from([o for o in ORACLES if o[3].dim() == 1]))
@settings(max_examples=40)
def test_a_mean_is_that_of_its_batches(seed: int, ours: tuple[Loss, nn.Module, Tensor, Tensor]) -> None:
    """Σ mean·mass / Σ mass over any parts, weights and left-out rows included; a part without a row that counts is nothing."""
    chosen, _, output, target = ours
    cut = sorted({0, 9, *np.random.default_rng(seed).integers(0, 10, 3).tolist()})
    parts = [(loss_of(chosen)(output[a:b], target[a:b]), mass_of(chosen, target[a:b])) for a, b in pairwise(cut)]
    found = sum(float(m) * w for m, w in parts) / sum(w for _, w in parts)
    assert found == pytest.approx(float(loss_of(chosen)(output, target)), rel=1e-5)


def test_accumulated_pieces_make_the_step_of_the_whole_with_weights_and_padding() -> None:
    x, labels = torch.randn(64, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(64) % 3
    labels[::5] = -100
    states = []
    for pieces in (1, 3):
        torch.manual_seed(0)
        text = f"train ** for 2epochs on d batch=16 using sgd(lr=0.1) accumulate={pieces} loss=cross_entropy(weight=[1, 2, 7])"
        result = nx.apply(text, model=nn.Sequential(nn.Linear(5, 3)).double(), example_inputs=x[:1], data={"d": (x, labels)})
        states.append([p.detach() for p in result.model.parameters()])
        losses = [r["train_loss"] for r in result.histories[0][1].rows]
        states[-1].append(torch.tensor(losses, dtype=torch.float64))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(*states, strict=True))


# --- metrics ---------------------------------------------------------------------------------------------------------


def measured(chosen: Loss, names: list[str], scores: Tensor, target: Tensor, seed: int) -> dict[str, float]:
    """Over random parts of the samples, in random order."""
    random = np.random.default_rng(seed)
    order = torch.as_tensor(random.permutation(len(scores)))
    cut = sorted({0, len(scores), *random.integers(1, len(scores), 3).tolist()})
    held = Measures(chosen, names)
    for a, b in pairwise(cut):
        held.update(scores[order[a:b]], target[order[a:b]])
    return held.values(Processes())


@given(seed=st.integers(0, 999), classes=st.integers(3, 6))
@settings(max_examples=10, deadline=None)
def test_metrics_of_classes_are_those_of_scikit_learn(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    t = np.concatenate([np.arange(classes), random.integers(0, classes, 30)])
    s = random.normal(size=(len(t), classes)) + 0.8 * np.eye(classes)[t]
    p, a = np.exp(s) / np.exp(s).sum(1, keepdims=True), s.argmax(1)
    wanted = {
        "accuracy": sk.accuracy_score(t, a),
        "f1": sk.f1_score(t, a, average="macro"),
        "f1_micro": sk.f1_score(t, a, average="micro"),
        "f1_weighted": sk.f1_score(t, a, average="weighted"),
        "dice": sk.f1_score(t, a, average="macro"),
        "precision": sk.precision_score(t, a, average="macro", zero_division=0),
        "recall": sk.recall_score(t, a, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(t, a),
        "iou": sk.jaccard_score(t, a, average="macro"),
        "mcc": sk.matthews_corrcoef(t, a),
        "kappa": sk.cohen_kappa_score(t, a),
        "hamming": 1 - sk.accuracy_score(t, a),
        "auroc": sk.roc_auc_score(t, p, multi_class="ovr", average="macro"),
        "average_precision": sk.average_precision_score(np.eye(classes)[t], p, average="macro"),
        "top2": sk.top_k_accuracy_score(t, p, k=2),
        "perplexity": math.exp(sk.log_loss(t, p)),
    }
    found = measured(loss("cross_entropy"), list(wanted), torch.as_tensor(s), torch.as_tensor(t), seed)
    assert found == pytest.approx(wanted, abs=2e-6)


@given(seed=st.integers(0, 999), labels=st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_metrics_of_labels_are_those_of_scikit_learn(seed: int, labels: int) -> None:
    random = np.random.default_rng(seed)
    t = np.concatenate([np.ones((1, labels)), np.zeros((1, labels)), random.random((30, labels)) < 0.4]).astype(int)
    s = random.normal(size=t.shape) + t
    a = (s > 0).astype(int)
    one = labels == 1
    more = {"average": "binary" if one else "macro", "zero_division": 0}
    t_, a_, s_ = (v[:, 0] if one else v for v in (t, a, s))
    wanted = {
        "accuracy": float((t == a).mean()),
        "f1": sk.f1_score(t_, a_, **more),
        "precision": sk.precision_score(t_, a_, **more),
        "recall": sk.recall_score(t_, a_, **more),
        "iou": sk.jaccard_score(t_, a_, **more),
        "auroc": sk.roc_auc_score(t_, s_),
        "average_precision": sk.average_precision_score(t_, s_),
        "hamming": float((t != a).mean()),
    }
    found = measured(loss("bce"), list(wanted), torch.as_tensor(s), torch.as_tensor(t), seed)
    assert found == pytest.approx(wanted, abs=2e-6)


@given(seed=st.integers(0, 999), outputs=st.integers(1, 3))
@settings(max_examples=10, deadline=None)
def test_metrics_of_values_are_those_of_scikit_learn_and_scipy(seed: int, outputs: int) -> None:
    random = np.random.default_rng(seed)
    t = random.uniform(0.5, 3, size=(30, outputs))
    s = t + 0.3 * np.abs(random.normal(size=t.shape))
    wanted = {
        "mae": sk.mean_absolute_error(t, s),
        "rmse": math.sqrt(sk.mean_squared_error(t, s)),
        "r2": 1 - ((t - s) ** 2).sum() / ((t - t.mean()) ** 2).sum(),
        "mape": sk.mean_absolute_percentage_error(t, s),
        "msle": sk.mean_squared_log_error(t, s),
        "explained_variance": sk.explained_variance_score(t, s),
        "pearson": np.mean([stats.pearsonr(t[:, i], s[:, i]).statistic for i in range(outputs)]),
        "spearman": np.mean([stats.spearmanr(t[:, i], s[:, i]).statistic for i in range(outputs)]),
    }
    found = measured(loss("mse"), list(wanted), torch.as_tensor(s), torch.as_tensor(t), seed)
    assert found == pytest.approx(wanted, abs=1e-5)


@given(seed=st.integers(0, 999))
@settings(max_examples=5, deadline=None)
def test_maps_are_measured_pixel_by_pixel_and_left_out_ones_are_not(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    scores, maps = torch.randn(6, 3, 4, 4, generator=g), torch.randint(0, 3, (6, 4, 4), generator=g)
    maps[0, 0] = -100
    kept = maps.reshape(-1) >= 0
    t, a = maps.reshape(-1)[kept].numpy(), scores.argmax(1).reshape(-1)[kept].numpy()
    found = measured(loss("cross_entropy"), ["iou", "dice"], scores, maps, seed)
    assert found["iou"] == pytest.approx(sk.jaccard_score(t, a, average="macro"), abs=1e-6)
    assert found["dice"] == pytest.approx(sk.f1_score(t, a, average="macro"), abs=1e-6)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(t, a))
    binary = measured(loss("bce"), ["iou"], scores[:, :1], (maps == 1)[:, None], seed)
    assert binary["iou"] == pytest.approx(
        sk.jaccard_score((maps == 1).reshape(-1).numpy(), (scores[:, 0] > 0).reshape(-1).numpy()), abs=1e-6
    )


def test_what_is_asked_for_is_measured_wherever_it_is_asked() -> None:
    net = 'model net = zoo.smallcnn(width=4) input="1x1x8x8"; data d = sklearn.digits(train=100); '
    result = nx.apply(net + "stage s { train ** for 2epochs metrics=[top5]; keep best by val_f1 }; assert test_auroc >= 0%")
    row = result.histories[0][1].rows[0]
    assert {"val_top5", "val_f1", "val_auroc", "val_accuracy"} <= set(row) and "val_iou" not in row
    assert {"test_top5", "test_f1", "test_auroc"} <= set(result.certificate["statements"][0]["metrics"])
    best = max(r["val_f1"] for r in result.histories[0][1].rows)
    assert result.metrics["val_f1"] == best
    compared = nx.apply(net + "train ** for 1epochs; compare to random seeds=2 metric=test_f1")
    assert compared.certificate["comparisons"][0]["metric"] == "test_f1"


@pytest.mark.parametrize(
    ("text", "found"),
    [("train ** for 1epochs metrics=[pearson]", "X0204"), ("train ** for 1epochs metrics=[beauty]", "X0401"),
     ("train ** for 1epochs loss=mse metrics=[top10]", "X0204"),
     ("train ** for 1epochs; compare to random metric=test_beauty", "X0204")],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(text: str, found: str) -> None:
    with pytest.raises(nx.NetxformError) as caught:
        nx.apply('model net = zoo.smallcnn() input="1x1x8x8"; data d = sklearn.digits(train=50); ' + text)
    assert caught.value.diagnostics[0].code == found


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in ("torchmetrics", "timm") else find(n, *a))
    for clause in ("metrics=f1", "using lion"):
        with pytest.raises(nx.NetxformError) as caught:
            nx.plan(f'model net = zoo.smallcnn() input="1x1x8x8"; data d = sklearn.digits(); train ** for 1epochs {clause}')
        assert caught.value.diagnostics[0].code == "X0814"


@pytest.mark.filterwarnings("ignore:Metric")
def test_every_metric_can_be_made() -> None:
    for name, metric in METRICS.items():
        if isinstance(metric, Library):
            for kind in metric.on:
                assert called(metric.make)(kind, 12 if kind == "classes" else 1) is not None, name
