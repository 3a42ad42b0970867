"""What claims are made of, by formulas of their own: distances sample by sample, what counts as new, what was kept of a chain,
and what becomes of a value that the network computes no more, or in another precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

import netxform as nx
from netxform.compiler.claims import bounded, exact, lossy
from netxform.compiler.claims.registry import family, load
from netxform.compiler.evidence import Kept, Unmeasurable, doubled, half_distance, results, tolerance
from netxform.compiler.measure import measure
from netxform.graph.network import Network, detached
from netxform.language import claims as c
from netxform.language.certificate import ClaimRecord

load()
X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


def network(dtype: torch.dtype = torch.float32) -> Network:
    torch.manual_seed(2)
    return nx.capture(Net().to(dtype), X[:1].to(dtype))


class Data:
    """Six samples, and as many new ones; `kind`: what these are; `y`: the targets."""

    def __init__(self, kind: str, y: Tensor) -> None:
        self.kind, self.y = kind, y

    def batches(self, data: str, samples: int | None = None, *, skip: int = 0, **more: Any) -> Iterator[tuple[Tensor, Tensor]]:
        yield X[:samples], self.y[:samples]

    def fresh(self, data: str, samples: int, *, skip: int, **more: Any) -> Iterator[tuple[Tensor, Tensor]]:
        if self.kind:
            yield -X[:samples], self.y[:samples]

    def held_out(self, data: str) -> str:
        return self.kind


# --- distances -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "classes"), [(9, 2), (3, 8), (1, 4)])
def test_changes_are_told_sample_by_sample(samples: int, classes: int) -> None:
    rng = np.random.default_rng(samples)
    old, new = rng.normal(size=(samples, classes)) * 9, rng.normal(size=(samples, classes))
    errors: list[float] = []
    agree: list[bool] = []
    bounded._beside(torch.tensor(old), torch.tensor(new), errors, agree)
    wanted = [np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip(old, new, strict=True)]
    assert np.allclose(errors, wanted)
    assert agree == [int(a.argmax()) == int(b.argmax()) for a, b in zip(old, new, strict=True)]
    bounded._beside(torch.tensor(old), torch.full((samples, classes), float("nan")), errors, agree)
    assert errors[samples:] == [float("inf")] * samples


@pytest.mark.parametrize("kind", ["classes", "numbers", "several"])
def test_only_labels_of_classes_are_right_or_wrong(kind: str) -> None:
    y = {"classes": torch.arange(6) % 3, "numbers": torch.rand(6), "several": torch.ones(6, 3, dtype=torch.long)}[kind]
    before, after = network(), network()
    with torch.no_grad():
        after.module.get_parameter("b.bias")[0] += 5
    claim = c.OutputError("d", skip=0, samples=6)
    one = measure(claim, before, after, (X[:2],), 0, material=Data("test samples", y)).evidence
    detail: Any = one.detail
    outs = [n.module(-X).argmax(1) for n in (before, after)]
    wanted = [float((o == y).double().mean()) if kind == "classes" else None for o in outs]
    assert (detail.accuracy_before, detail.accuracy_after) == pytest.approx(tuple(wanted)) or wanted == [None, None]
    assert (detail.accuracy_before is None) == (kind != "classes")
    assert detail.agreement == pytest.approx(float((outs[0] == outs[1]).double().mean()))


# --- what is new, and what it is called ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "key"), [("test samples", "test_accuracy"), ("validation samples", "val_accuracy"),
                                           ("other training samples", None), ("", None)])  # fmt: skip
def test_a_loss_on_new_samples_is_known_by_what_they_are(kind: str, key: str | None) -> None:
    y = torch.arange(6) % 3
    before, after = network(), network()
    with torch.no_grad():
        after.module.get_parameter("b.bias")[0] += 5
    one = measure(c.LossChange("d", 6, "cross_entropy", 0.25), before, after, (X[:2],), 0, material=Data(kind, y))
    detail: Any = one.evidence.detail

    def loss(net: Network, x: Tensor) -> float:
        z = net.module(x).double().detach().numpy()
        logs = z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) - z.max(1, keepdims=True)
        return float(-logs[np.arange(6), y.numpy()].mean())

    def right(net: Network, x: Tensor) -> float:
        return float((net.module(x).argmax(1) == y).double().mean())

    assert one.evidence.measured == pytest.approx(loss(after, X) - loss(before, X), abs=1e-6)
    assert detail.loss_before == pytest.approx(loss(before, X)) and detail.loss_after == pytest.approx(loss(after, X))
    changes = {"test samples": detail.change_on_test_samples, "validation samples": detail.change_on_validation_samples,
               "other training samples": detail.change_on_other_training_samples}  # fmt: skip
    assert {k for k, v in changes.items() if v is not None} == ({kind} if kind else set())
    if kind:
        assert changes[kind] == pytest.approx(loss(after, -X) - loss(before, -X), abs=1e-6)
    assert detail.metrics_before() == ({key: pytest.approx(right(before, -X))} if key else {})
    assert detail.metrics_after()["accuracy"] == pytest.approx(right(after, -X if kind else X))
    place = -X if kind else X
    fell = right(before, place) - right(after, place)
    (harm,) = [h for h in detail.harms(one.evidence.measured) if h.about == "accuracy"] or [None]
    assert (harm is not None) == (fell > 0.01)
    if harm is not None:
        assert harm.figures["before"] == pytest.approx(right(before, place)) and (kind or "samples") in harm.text


def test_as_many_samples_are_kept_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = c.LossChange("d", 6, "cross_entropy", 0.0)
    y = torch.arange(6) % 3
    for room, count in ((10**6, 6), (2 * 20, 2), (1, 1), (3 * 20, 3)):  # a sample has five numbers of four bytes
        monkeypatch.setattr(lossy, "KEPT_BYTES", room)
        x, _, z = lossy._kept(network(), [(X[:2], y[:2]), (X[2:], y[2:])], claim)
        assert len(x) == len(z) == count and torch.equal(x, X[:count])


# --- measured again --------------------------------------------------------------------------------------------------


def again(claim: Any, one: Any, kept: Kept) -> Any:
    record = ClaimRecord.of(one.evidence, one.tensors)
    return family(record.kind).again(record.detail, record, kept)


def test_values_that_are_gone_or_in_another_precision() -> None:
    before = network()
    one = measure(c.SameValue("a"), before, before, (X,), 0)
    (name,) = one.values
    value = one.values[name]
    record, detail = ClaimRecord.of(one.evidence, one.tensors), one.evidence.detail

    def look(now: dict[str, Tensor], in_force: bool, slack: float = 0.0) -> Any:
        return exact.nodes_again(detail, record, Kept(before, (X,), one.values, now, slack=slack, in_force=in_force))

    for in_force in (True, False):
        found = look({name: value}, in_force)
        assert found.held and found.measured == 0.0 and found.dtype == "float32"
    assert not look({}, True).held and look({}, True).measured == float("inf")
    with pytest.raises(Unmeasurable):
        look({}, False)
    assert not look({name: value.double()}, True).held  # in force, it has the same type
    later = look({name: (value + 0.5).double()}, False)
    assert not later.held and later.measured == pytest.approx(0.5, abs=1e-6)
    assert look({name: value + 1e-7}, True, slack=1e-5).held and not look({name: value + 1e-3}, True, slack=1e-5).held


def test_what_is_kept_of_a_network_in_half_precision_is_told_apart() -> None:
    before = network(torch.float16)
    x = (X.half(),)
    wanted = results(doubled(before) or before, x)
    one = exact.as_stored(measure_case(before, x), wanted, results(before, x))
    size = len(wanted)
    assert len(one.reference) == 3 * size
    parts = one.reference[:size], one.reference[size : 2 * size], one.reference[2 * size :]
    assert torch.equal(parts[1][0], results(before, x)[0]) and torch.equal(parts[0][0], wanted[0])
    half = half_distance(parts[1], parts[2], parts[0])
    record = ClaimRecord.of(one.evidence, one.tensors)
    detail: Any = one.evidence.detail
    found = exact.stored_again(detail, record, Kept(before, x, {}, {n: r for n, r in zip(one.nodes, parts[1], strict=True)},
                                                    one.reference))  # fmt: skip
    assert found.bound == pytest.approx(tolerance(before, x, 0, half).allowed)
    assert found.held and found.measured == pytest.approx(one.evidence.measured)


def measure_case(before: Network, inputs: tuple[Tensor, ...]) -> Any:
    from netxform.compiler.evidence import Case

    return Case(before, before, inputs, 0)


@pytest.mark.parametrize("layer", ["linear", "convolution", "embedding", "gru"])
@pytest.mark.parametrize("kernels", [True, False])
def test_chains_are_measured_again_with_and_without_their_kernels(
    layer: str, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    made, x = {
        "linear": (nn.Linear(12, 10), torch.randn(2, 12)),
        "convolution": (nn.Conv2d(6, 8, 3), torch.randn(2, 6, 7, 7)),
        "embedding": (nn.Embedding(20, 12), torch.randint(20, (2, 4))),
        "gru": (nn.GRU(6, 8, batch_first=True), torch.randn(2, 5, 6)),
    }[layer]

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = made

        def forward(self, x: Tensor) -> Tensor:
            found = self.part(x)
            return found[0] if isinstance(found, tuple) else found

    model = One().eval()
    result = nx.apply("factorize part rank=2 gate=none when_smaller=false", model=model, example_inputs=x)
    claim = next(k for k in result.plan.steps[0].claims if k.kind == "layer errors")
    before, after = nx.capture(model, x), nx.capture(result.model, x)
    if not kernels:
        monkeypatch.setattr(bounded, "KEPT_BYTES", 1)
    one = measure(claim, before, after, (x,), 0)
    detail: Any = one.evidence.detail
    assert all(row.kept == kernels for row in detail.layers)
    kept = Kept(detached(after), (x,), {}, {}, one.reference)
    if kernels:
        found = again(claim, one, kept)
        assert found.held and found.measured == pytest.approx(one.evidence.measured, rel=1e-6)
    else:
        with pytest.raises(Unmeasurable) as caught:
            again(claim, one, kept)
        found = caught.value.evidence
        assert found is not None
    rows: Any = found.detail
    for was, now in zip(detail.layers, rows.layers, strict=True):
        assert now.gain == pytest.approx(was.gain, rel=1e-4) and now.kernel == pytest.approx(was.kernel, rel=1e-6)
    with torch.no_grad():
        for p in kept.network.module.parameters():
            p.add_(0.7)  # not a factor: the worst input lies where the chain gives nothing
    try:
        moved = again(claim, one, kept)
    except Unmeasurable as error:
        moved = error.evidence
    assert moved is not None and not moved.held and moved.measured > 1


def test_the_gain_of_matrices_is_their_norm() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    found = bounded.matrix_worst(torch.tensor(a), torch.tensor(b), 0)
    norm = np.linalg.svd(a - b, compute_uv=False)[0]
    assert norm * (1 - 1e-3) < found.gain <= norm * (1 + 1e-9)  # power iteration comes from below


def test_a_bound_is_compared_as_it_is_published() -> None:
    """On the bound is within it; a hair above is not."""
    before, after = network(), network()
    with torch.no_grad():
        after.module.get_parameter("b.bias")[0] += 0.1
    gap = float(measure(c.OutputError(), before, after, (X,), 0).evidence.measured)
    one = measure(c.OutputError(), before, after, (X,), 0)
    record = replace_bound(ClaimRecord.of(one.evidence, one.tensors), gap)
    now = dict(zip(one.nodes, results(after, (X,)), strict=True))
    for stated, held in ((gap, True), (gap * 2, True), (gap * (1 - 1e-3), False)):
        kept = Kept(after, (X,), {}, now, one.reference, claim={"bound": stated})
        assert bounded.within_again(bounded.WithinDetail(stated), record, kept).held == held


def replace_bound(record: ClaimRecord, bound: float) -> ClaimRecord:
    return replace(record, bound=bound)


@pytest.mark.parametrize("place", [0, 1])
def test_a_layer_that_is_no_number_is_above_its_bound_wherever_it_stands(place: int) -> None:
    good = bounded.LayerRow("fc", 0.5, 0.5, kernel_bound=1.0, gain_bound=1.0, how="")
    rows = [good, good]
    rows[place] = replace(good, kernel=float("nan"), gain=float("nan"))
    assert bounded._layers_evidence("layers", (good, good), 0).held
    assert not bounded._layers_evidence("layers", tuple(rows), 0).held
