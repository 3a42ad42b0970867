"""Bundles and their certificates: what travels with one, what a table says of one, and what is damaged."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import netxform as nx
from netxform.artifacts import bundle
from netxform.artifacts.report import certificate_table, verdict_table

SPEC = "model net = zoo.mlp()\nfactorize fc1 rank=2; freeze fc2; cast float16; snapshot t"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "b"
    nx.apply(SPEC, out=folder)
    return folder


def printed(table: object) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_what_is_read_is_what_was_written(made: Path) -> None:
    network, certificate = bundle.read(made)
    witness = bundle.witness(made, network)
    claims = {(i, j): c for i, s in enumerate(certificate.statements) for j, c in enumerate(s.claims)}
    assert set(witness.references) <= set(claims)
    assert any(witness.references.values())
    assert len(witness.inputs) == 1
    assert witness.held_out is None
    assert witness.certificate == certificate.digest()
    verdict = nx.verify(made)
    assert verdict.held
    assert len(verdict.claims) == 5 + len(claims)
    said = json.loads(verdict.dump())
    assert [row["what"] for row in said["claims"]] == [what for what, _ in verdict.lines]
    assert said["held"] and sum(said["counts"].values()) == len(verdict.claims)
    assert {row["state"] for row in said["claims"]} == {k for k, n in said["counts"].items() if n}


def test_the_table_says_held_broken_and_what_was_measured(made: Path) -> None:
    _, certificate = bundle.read(made)
    text = printed(certificate_table(certificate))
    assert "layer errors over their bounds, at the worst inputs: " in text and "superseded by statement 3" in text
    assert "change of the outputs, probe inputs: " in text
    assert "≤" in text  # rounding shows its size beside the bound
    assert "BROKEN" not in text
    first = certificate.statements[0]
    wrong = replace(first.claims[0], held=False, superseded_by=None, made=None, in_force=True)
    broken = replace(first, claims=(wrong, *first.claims[1:]))
    text = printed(certificate_table(replace(certificate, statements=(broken, *certificate.statements[1:]))))
    assert "layer errors over their bounds, at the worst inputs: BROKEN" in text
    assert "held" in printed(verdict_table(nx.verify(made)))


def forged(made: Path, folder: Path, leave_out: str) -> Path:
    """The bundle without some of what it rests on, and with a hash that says it is right so."""
    shutil.copytree(made, folder)
    path = folder / "evidence.safetensors"
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["netxform"])
    told["index"] = {n: k for n, k in told["index"].items() if not n.startswith(leave_out)}
    save_file(load_file(path), path, {"netxform": json.dumps(told)})
    held = json.loads((folder / "certificate.json").read_text())
    held["files"]["evidence.safetensors"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "certificate.json").write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
    return folder


def test_without_its_inputs_a_bundle_is_damaged(made: Path, tmp_path: Path) -> None:
    with pytest.raises(nx.NetxformError) as caught:
        nx.verify(forged(made, tmp_path / "b", "input."))
    assert caught.value.diagnostics[0].code == "X0822"


@pytest.mark.parametrize("part", ["value.", "reference.", "output."])
def test_what_it_rests_on_cannot_be_left_out(made: Path, tmp_path: Path, part: str) -> None:
    assert not nx.verify(forged(made, tmp_path / "b", part)).held


def test_a_claim_that_was_never_in_force_cannot_be_forged_into_it(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(made, folder)
    held = json.loads((folder / "certificate.json").read_text())
    claim = held["statements"][1]["claims"][0]
    claim |= {"kind": "teacher", "detail": {"digest": "0", "answers": "remembered"}, "in_force": True}
    (folder / "certificate.json").write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
    verdict = nx.verify(folder)
    assert not verdict.held
    assert "the claim `same outputs` of the plan is not in the certificate" in " ".join(c.why for c in verdict.claims)
