"""A claim is in force while what it speaks of is as it was; what supersedes it is named, and what is shipped is measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import netxform as nx
from netxform.artifacts.report import plan_table
from netxform.compiler.evidence import ends
from netxform.compiler.standing import Hashes, digest_of
from netxform.graph.network import detached
from tests.artifacts.test_certified import printed
from tests.compiler.test_claims import X, add, changed, small

DATA = "data d = sklearn.digits(train=100)\n"
CNN = f'model net = zoo.smallcnn(width=4) input="1x1x8x8"\n{DATA}'


def claim(result: Any, kind: str, nth: int = 0) -> Any:
    return [c for s in result.certificate["statements"] for c in s["claims"] if c["kind"] == kind][nth]


def test_training_supersedes_what_was_said_of_the_layers(tmp_path: Path) -> None:
    text = f"{CNN}factorize fc1 rank=2\ntrain fc1 for 3epochs on d using adamw(lr=1e-1)"
    result = nx.apply(text, out=tmp_path / "b")
    found = claim(result, "layer errors")
    assert found["made"]["held"] and found["made"]["measured"] <= found["bound"]
    assert not found["in_force"] and found["superseded_by"] == 1
    assert found["measured"] > found["bound"] and not found["held"]  # of what is shipped
    assert result.record.held
    # by numpy, from the weights that are shipped
    first = nx.apply(CNN + "snapshot s").model
    rebuilt = getattr(result.model.fc1, "1").weight.detach().double() @ getattr(result.model.fc1, "0").weight.detach().double()
    error = first.fc1.weight.detach().double() - rebuilt
    row = found["detail"]["layers"][0]
    assert math.isclose(row["kernel"], float(error.norm()), rel_tol=1e-6)
    assert row["gain"] <= float(torch.linalg.matrix_norm(error, 2)) * (1 + 1e-6)
    verdict = nx.verify(tmp_path / "b")
    assert verdict.held and verdict.counts["superseded"] == 2
    assert {c.superseded_by for c in verdict.claims if c.state == "superseded"} == {1}


def test_what_stands_before_the_trained_part_stays_in_force() -> None:
    result = nx.apply(f"{CNN}cut at layer4; freeze body; attach head classes=10\ntrain head for 1epochs on d")
    assert claim(result, "frozen in training")["in_force"]
    assert claim(result, "untouched")["in_force"]
    outputs = claim(result, "same outputs")
    assert outputs["in_force"] or outputs["superseded_by"] > 1


def test_a_metric_is_superseded_by_what_changes_the_function(tmp_path: Path) -> None:
    text = f"{CNN}train ** for 1epochs on d\ncast bfloat16"
    result = nx.apply(text, out=tmp_path / "b")
    assert {s["superseded_by"] for s in result.certificate["scores"]} == {1}
    kept = nx.apply(f"{CNN}train ** for 1epochs on d\nsnapshot s")
    assert {s["superseded_by"] for s in kept.certificate["scores"]} == {None}
    assert nx.verify(tmp_path / "b").held


def test_the_digest_is_of_all_that_a_value_depends_on_and_of_nothing_else() -> None:
    network = small()
    hashes = Hashes().of(network)
    conv, out = digest_of(network, ("conv",), (), hashes), digest_of(network, ends(network), (), hashes)
    for name in hashes:
        other = changed(network, name, add(1) if "num_batches" in name else add(1e-3))
        again = Hashes().of(other)
        assert (digest_of(other, ("conv",), (), again) != conv) == name.startswith("conv")
        assert digest_of(other, ends(other), (), again) != out
        assert digest_of(other, (), (), again) != digest_of(network, (), (), hashes)
    same = detached(network)
    assert digest_of(same, ("conv",), (), Hashes().of(same)) == conv
    cut = nx.capture(nx.apply("cut at conv", model=network.module, example_inputs=X[:1]).model, X[:1])
    assert digest_of(cut, ends(network), (), Hashes().of(cut)) != out


def test_a_tensor_that_was_written_to_is_hashed_again() -> None:
    network = small()
    hashes = Hashes()
    before = hashes.of(network)
    with torch.no_grad():
        network.module.get_parameter("fc.weight").add_(1.0)
    after = hashes.of(network)
    assert {n for n in before if before[n] != after[n]} == {"fc.weight"}


@pytest.mark.parametrize("text", ["factorize ** rank=100", "prune conv1 amount=1% by magnitude"])
def test_a_statement_that_does_nothing_claims_nothing(text: str, tmp_path: Path) -> None:
    result = nx.apply(CNN + text, out=tmp_path / "b")
    (statement,) = result.certificate["statements"]
    assert statement["claims"] == [] and statement["nothing"]
    assert "nothing was done" in statement["warnings"][0]
    assert "nothing was done" in printed(plan_table(result.plan))
    assert nx.verify(tmp_path / "b").held


def test_everything_that_was_trained_leaves_nothing_untouched() -> None:
    result = nx.apply(f"{CNN}train ** for 1epochs on d")
    (statement,) = result.certificate["statements"]
    assert statement["claims"] == [] and statement["nothing"] == ["untouched"]
