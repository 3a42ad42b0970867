"""Every kind of claim: what is broken by hand is called broken, at once and when it is measured again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform import registry
from netxform.compiler.claims.registry import FAMILIES, Family, family, load, measures
from netxform.compiler.evidence import Kept, Measured, Unmeasurable, values_at
from netxform.compiler.measure import measure
from netxform.compiler.verdict import differences
from netxform.graph.edits import Edit
from netxform.graph.network import Network, detached
from netxform.language import claims as c
from netxform.language.certificate import ClaimRecord
from netxform.language.laws import Evidence, plain
from netxform.training.teachers import Teachers
from tests.strategies import randomized

load()


class Small(nn.Module):
    """A convolution with a norm, and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.out(torch.relu(self.fc(h)))


X, Y = torch.randn(8, 2, 5, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


class Data:
    """Calibration data: the samples above."""

    def batches(self, data: str, samples: int | None = None, *, skip: int = 0, **more: Any) -> Iterator[tuple[Tensor, Tensor]]:
        stop = len(X) if samples is None else skip + samples
        if skip < len(X):
            yield X[skip:stop], Y[skip:stop]

    def held_out(self, data: str) -> str:
        return "other training samples"

    def fresh(self, data: str, samples: int, *, skip: int, **more: Any) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.batches(data, samples, skip=skip)


def small() -> Network:
    torch.manual_seed(1)
    return nx.capture(randomized(Small()), X[:1])


def changed(network: Network, name: str, by: Callable[[Tensor], Any]) -> Network:
    """The network with one tensor of its own changed by hand."""
    other = detached(network)
    held = dict(other.module.named_parameters()) | dict(other.module.named_buffers())
    with torch.no_grad():
        by(held[name])
    return other


def add(amount: float) -> Callable[[Tensor], Any]:
    return lambda t: t.view(-1)[:1].add_(amount)


def applied(text: str, kind: str, x: Tensor = X[:1]) -> tuple[c.Claim, Network, Network, Edit]:
    """What a statement claims of the small network; the network before and after it, and what was done."""
    before = small()
    result = nx.apply(text, model=before.module, example_inputs=X[:1])
    step = result.plan.steps[-1]
    return next(k for k in step.claims if k.kind == kind), before, nx.capture(result.model, x), step.edit


Broken = tuple[c.Claim, Network, Network, list[Network], Edit]


def same_value() -> Broken:
    network = small()
    return c.SameValue("conv"), network, network, [changed(network, "conv.bias", add(1e-6))], Edit()


def same_outputs() -> Broken:
    network = small()
    return c.SameOutputs(), network, network, [changed(network, "out.bias", add(1e-6))], Edit()


def same_function() -> Broken:
    claim, before, after, edit = applied("deepen conv", "same function")
    return claim, before, after, [changed(after, "out.bias", add(0.01))], edit


def frozen() -> Broken:
    network = nx.capture(nx.apply("freeze conv | norm", model=small().module, example_inputs=X[:1]).model, X[:1])
    claim = c.FrozenInTraining(("conv.weight",), ("norm.running_mean",))
    thawed = changed(network, "conv.weight", lambda t: t.requires_grad_(True))
    return claim, network, network, [thawed, small()], Edit()


def untouched() -> Broken:
    network = small()
    bad = [changed(network, "conv.weight", add(1e-6)), changed(network, "norm.running_var", add(1e-6))]
    return c.Untouched(("fc.weight",)), network, network, bad, Edit()


def zeros_held() -> Broken:
    network = changed(small(), "fc.weight", lambda t: t[0].zero_())
    return c.ZerosHeld(("fc.weight",)), network, network, [changed(network, "fc.weight", add(1e-9))], Edit()


def layer_errors() -> Broken:
    claim, before, after, edit = applied("factorize fc rank=2", "layer errors")
    return (
        claim,
        before,
        after,
        [changed(after, "fc.0.weight", add(1.0)), changed(after, "fc.1.weight", add(float("nan")))],
        edit,
    )


def output_error() -> Broken:
    network = small()
    far = changed(network, "out.bias", add(0.1))
    return (
        c.OutputError(worst=1e-3, radius=1.0),
        network,
        network,
        [far, changed(network, "fc.bias", add(float("nan")))],
        Edit(),
    )


def within_bound() -> Broken:
    network = small()
    return c.WithinBound(1e-3), network, network, [changed(network, "out.bias", add(1.0))], Edit()


def masked_twin() -> Broken:
    claim, before, after, edit = applied("prune amount=30% by magnitude", "masked twin")
    return claim, before, after, [changed(after, "out.bias", add(0.01))], edit


def loss_change() -> Broken:
    network = small()
    claim = c.LossChange("d", 4, "cross_entropy", 0.0)
    return claim, network, network, [changed(network, "out.bias", add(float("nan")))], Edit()


def training_mode() -> Broken:
    network = small()
    claim = c.TrainingGap(None, 4)
    return claim, network, network, [changed(network, "out.bias", add(float("nan")))], Edit()


def rounded() -> Broken:
    claim, before, after, edit = applied("cast float16", "rounded")
    return claim, before, after, [changed(after, "fc.weight", add(0.01))], edit


def quantized() -> Broken:
    pytest.importorskip("torchao")
    claim, before, after, edit = applied("cast int8", "quantized")
    bad = [
        changed(after, "fc.weight", lambda t: t.view(-1)[:1].bitwise_xor_(4)),
        changed(after, "fc.scale", lambda t: t.neg_()),
    ]
    return claim, before, after, bad, edit


def taken() -> Broken:
    network = small()
    brought = {"fc.weight": network.module.get_parameter("fc.weight").detach().clone()}
    return c.Taken(("fc.weight",)), network, network, [changed(network, "fc.weight", add(1e-6))], Edit((), brought)


def sparse() -> Broken:
    network = changed(small(), "out.weight", lambda t: t.view(3, 2, 4)[..., :2].zero_())
    moved = changed(
        network, "out.weight", lambda t: (t[0, :1].fill_(1.0), t[0, 2:3].zero_(), t[0, 4:5].fill_(1.0), t[0, 3:4].zero_())
    )
    return c.Sparse(("out.weight",), 12, True), network, network, [changed(network, "out.weight", add(1.0)), moved], Edit()


def bypassed() -> Broken:
    claim, before, after, edit = applied("remove norm", "bypassed")
    return claim, before, after, [before, changed(after, "out.weight", add(1e-6))], edit


BROKEN: dict[str, Callable[[], Broken]] = {
    "same value": same_value,
    "same outputs": same_outputs,
    "same function": same_function,
    "frozen in training": frozen,
    "untouched": untouched,
    "zeros held": zeros_held,
    "layer errors": layer_errors,
    "output error": output_error,
    "within bound": within_bound,
    "masked twin": masked_twin,
    "loss change": loss_change,
    "training mode": training_mode,
    "rounded": rounded,
    "quantized": quantized,
    "taken": taken,
    "sparse": sparse,
    "bypassed": bypassed,
}
# evidence that comes from who does the work, or stands beside that of another claim; broken below
ELSEWHERE = {"teacher", "as stored"}


def other_channels() -> Broken:
    claim, before, after, edit = applied("adapt input channels=1", "same function of old channels", X[:1, :1])
    return claim, before, after, [changed(after, "out.weight", add(1e-3))], edit


def other_size() -> Broken:
    network = small()
    claim = c.Resized(network.inputs[0].name, (5, 5), (5, 5))
    return claim, network, network, [changed(network, "out.weight", add(float("nan")))], Edit()


RESHAPED = {"same function of old channels": other_channels, "another size": other_size}


def again(one: Measured, network: Network) -> list[Evidence]:
    """The claim, and what stands beside it, measured again on a network from what was kept of them."""
    known = family(one.evidence.kind)
    assert not isinstance(known.again, str)
    record = ClaimRecord.of(one.evidence, one.tensors, one.nodes)
    kept = Kept(network, (X,), one.values, values_at(network, one.values, (X,)), one.reference)
    try:
        found = known.again(record.detail, record, kept)
    except Unmeasurable as error:  # of a float64 copy; what is stored stands beside it
        assert error.evidence is not None and one.beside
        found = error.evidence
    return [found, *(e for b in one.beside for e in again(b, network))]


def test_every_kind_is_broken_here() -> None:
    assert {*BROKEN, *RESHAPED} | ELSEWHERE == set(FAMILIES)
    assert {k for k, f in FAMILIES.items() if isinstance(f.measure, str)} == ELSEWHERE


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_what_is_broken_by_hand_is_called_broken(kind: str) -> None:
    claim, before, after, broken, edit = BROKEN[kind]()
    assert claim.kind == kind
    right = measure(claim, before, after, (X,), 0, edit, Data())
    assert right.evidence.held, right.evidence
    assert right.evidence.kind == kind
    lasting = not isinstance(family(kind).again, str)  # the others say why they cannot be measured again
    if lasting:
        once_more = again(right, after)
        assert all(e.held for e in once_more), once_more
        first = once_more[0]
        assert (first.claim, first.bound, first.held, first.samples) == (
            right.evidence.claim,
            right.evidence.bound,
            right.evidence.held,
            right.evidence.samples,
        )
        assert not differences(plain(right.evidence.detail), plain(first.detail), 1e-6, 1e-7)
    assert broken
    for i, network in enumerate(broken):
        found = measure(claim, before, network, (X,), 0, edit, Data())
        assert not all(e.held for e in (found.evidence, *(b.evidence for b in found.beside))), (i, found)
        if lasting:
            looked = again(right, network)
            assert not all(e.held for e in looked), (i, looked)


@pytest.mark.parametrize("kind", sorted(RESHAPED))
def test_claims_about_another_input_are_broken_by_hand(kind: str) -> None:
    claim, before, after, broken, edit = RESHAPED[kind]()
    assert claim.kind == kind
    assert measure(claim, before, after, (X,), 0, edit, Data()).evidence.held
    for network in broken:
        found = measure(claim, before, network, (X,), 0, edit, Data())
        assert not all(e.held for e in (found.evidence, *(b.evidence for b in found.beside))), found


def test_a_pattern_is_looked_at_where_the_count_is_right() -> None:
    claim, before, _, broken, _ = sparse()
    assert int((broken[1].module.get_parameter("out.weight") == 0).sum()) == 12
    assert not measure(claim, before, broken[1], (X,), 0).evidence.held


def test_an_edit_that_is_wrong_in_float64_alone_is_seen() -> None:
    claim, before, after, _ = applied("widen fc x2", "same function")
    assert not measure(claim, before, after, (X,), 0, applied("cut at fc", "same value")[3]).evidence.held


def test_a_removal_that_is_wrong_in_float64_alone_is_seen() -> None:
    claim, before, after, _, edit = masked_twin()
    assert measure(claim, before, after, (X,), 0, edit).evidence.held
    assert not measure(claim, before, after, (X,), 0, Edit()).evidence.held


def test_what_is_stored_is_compared_beside_the_twin() -> None:
    for made in (same_function, masked_twin):
        claim, before, after, broken, edit = made()
        (right,) = measure(claim, before, after, (X,), 0, edit).beside
        assert right.evidence.held and right.evidence.kind == "as stored"
        found = measure(claim, before, broken[0], (X,), 0, edit)
        assert found.evidence.held, "the edit itself is right"
        assert not found.beside[0].evidence.held


def test_a_teacher_that_moved_is_seen() -> None:
    teacher = randomized(Small())
    soft = SimpleNamespace(teachers=("t",), matches=(), cache=False, outputs=(), sights=())
    asked = Teachers(soft, {"t": teacher}, torch.device("cpu"))
    (right,) = asked.evidence()
    assert right.held
    with torch.no_grad():
        teacher.fc.bias[0] += 1e-6
    (moved,) = asked.evidence()
    assert not moved.held
    assert moved.kind == "teacher"
    assert isinstance(family("teacher").again, str)


def test_what_measures_must_give_its_own_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    known = FAMILIES["same value"]
    wrong = Family(known.claim, FAMILIES["sparse"].detail, known.measure, known.again)
    monkeypatch.setitem(FAMILIES, "same value", wrong)
    with pytest.raises(TypeError, match="gives Nodes, not SparseDetail"):
        measure(c.SameValue("conv"), small(), small(), (X,), 0)
    with pytest.raises(TypeError, match="not measured here"):
        measure(c.TeacherKept(), small(), small(), (X,), 0)


# --- a claim of another package -----------------------------------------------------------------------------------------

OUTSIDE = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import Case, Kept, Measured
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import Claim
from netxform.language.laws import Detail, Evidence, Real


@dataclass(frozen=True, slots=True)
class NormAtMost(Claim):
    """Claim: no weight is longer than `bound`."""

    bound: float
    kind: ClassVar[str] = "norm at most"


class NormDetail(Detail, frozen=True):
    """The weight that is longest, and the longest that was allowed before."""

    longest_weight: str
    before: Real


def norm(network):
    return max((float(p.detach().norm()), n) for n, p in network.module.named_parameters())


def norm_again(detail: NormDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    found = norm(kept.network)[0]
    return Evidence(record.claim, record.bound, found, found <= record.bound)


@measures(NormAtMost, NormDetail, again=norm_again)
def norm_at_most(claim: NormAtMost, case: Case) -> Measured:
    found, name = norm(case.after)
    evidence = Evidence("no weight is longer", claim.bound, found, found <= claim.bound, detail=NormDetail(name, float("inf")))
    return Measured(evidence, reference=(torch.zeros(1),))
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], type[c.Claim]]]:
    """Installs the package with the claim, or takes it away."""
    (tmp_path / "norm_claims.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(there: bool) -> Any:
        FAMILIES.pop("norm at most", None)
        sys.modules.pop("norm_claims", None)
        load.cache_clear()

        def point() -> None:
            __import__("norm_claims")

        points = {"norm": SimpleNamespace(load=point)} if there else {}
        monkeypatch.setattr(registry, "points", lambda group: points if group == "netxform.claims" else {})
        load()
        return sys.modules["norm_claims"].NormAtMost if there else None

    yield install
    FAMILIES.pop("norm at most", None)
    load.cache_clear()


def test_a_claim_from_outside(outside: Callable[[bool], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netxform.verbs.snapshot import Snap

    claim = outside(True)
    monkeypatch.setattr(Snap, "law", lambda self, choice: (claim(1e6),))
    folder = tmp_path / "b"
    result = nx.apply("snapshot t", model=small().module, example_inputs=X[:1], out=folder)
    (found,) = result.certificate["statements"][0]["claims"]
    assert (found["kind"], found["held"], found["in_force"]) == ("norm at most", True, True)
    assert found["detail"]["before"] == float("inf")
    assert '"before": "inf"' in (folder / "certificate.json").read_text()
    verdict = nx.verify(folder)
    assert verdict.held
    assert "no weight is longer" in [e.claim for _, e in verdict.lines]
    monkeypatch.setattr(Snap, "law", lambda self, choice: (claim(1e-6),))
    with pytest.raises(nx.NetxformError) as caught:
        nx.apply("snapshot t", model=small().module, example_inputs=X[:1])
    assert caught.value.diagnostics[0].code == "X0501"
    assert caught.value.exit_code == 3
    outside(False)
    with pytest.raises(nx.NetxformError) as caught:
        nx.verify(folder)
    assert caught.value.diagnostics[0].code == "X0827"


def test_a_kind_is_registered_once(outside: Callable[[bool], Any]) -> None:
    outside(True)
    sys.modules.pop("norm_claims")
    with pytest.raises(TypeError, match="twice"):
        __import__("norm_claims")
    with pytest.raises(TypeError, match="no Detail"):
        measures(c.SameValue, dict, again="never")(lambda claim, case: None)
    with pytest.raises(TypeError, match="no `kind`"):
        measures(c.Claim, FAMILIES["taken"].detail, again="never")(lambda claim, case: None)
