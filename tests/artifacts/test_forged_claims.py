"""A certificate that was changed by hand is never called held: every field of it, and the bundle written anew around it."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import netxform as nx
from netxform.artifacts import bundle
from netxform.compiler.claims.registry import detail_of
from netxform.compiler.evidence import tensor_hash
from netxform.compiler.remeasure import Witness
from netxform.compiler.verify import verify
from netxform.graph.network import Network
from netxform.language import certificate as cert

SPEC = """
model net = zoo.smallcnn() input="1x1x8x8"
data d = sklearn.digits(train=200)
train ** for 1epochs on d
prune amount=20% by magnitude over d samples=64
widen conv1 x2
factorize fc1 rank=4 over d samples=64
snapshot t
assert params <= 100% of base
train fc1 for 1epochs on d
freeze conv1
assert val_accuracy >= 1%
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "b"
    nx.apply(SPEC, out=folder)
    return folder


@pytest.fixture(scope="module")
def read(made: Path) -> tuple[Network, Witness]:
    network, _ = bundle.read(made)
    return network, bundle.witness(made, network)


def seen(read: tuple[Network, Witness], held: Any) -> bool:
    """Whether `verify` refuses what a forger wrote who knows the format, and made every digest fit."""
    network, witness = read
    try:
        forged = cert.load(json.dumps(held), detail_of)
    except nx.NetxformError:
        return True
    return not verify(network, forged, replace(witness, certificate=forged.digest())).held


def claims(held: Any) -> Iterator[Any]:
    return (c for s in held["statements"] for c in s["claims"])


def each(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def all_of_them(held: Any) -> None:
        for claim in claims(held):
            change(claim)

    return all_of_them


def first(kind: str, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda held: change(next(c for c in claims(held) if c["kind"] == kind))


# what a forger writes who makes every digest fit: found by measuring, counting and comparing with the plan
FORGED: dict[str, Callable[[Any], Any]] = {
    "bounds of almost nothing": each(lambda c: c.update(bound=1e-12)),
    "bounds of anything": each(lambda c: c.update(bound="inf")),
    "nothing in force": each(lambda c: c.update(in_force=False)),
    "all in force": each(lambda c: c.update(in_force=True, superseded_by=None, made=None, unmeasured="")),
    "superseded by another statement": each(lambda c: c.update(in_force=False, superseded_by=99)),
    "measured better": each(lambda c: c.update(measured=c["measured"] * 0.9 if isinstance(c["measured"], float) else 0.0)),
    "measured nothing": each(lambda c: c.update(measured=0.0)),
    "not held": each(lambda c: c.update(held=False)),
    "more samples": each(lambda c: c.update(samples=c["samples"] + 1)),
    "a kernel nearer": first("layer errors", lambda c: c["detail"]["layers"][0].update(kernel=1e-9)),
    "a kernel bound": first("layer errors", lambda c: c["detail"]["layers"][0].update({"kernel bound": 1e9})),
    "a layer left out": first("layer errors", lambda c: c["detail"].update(layers=[])),
    "a quantile": first("output error", lambda c: c["detail"].update(quantile=1e-3)),
    "an agreement": first("output error", lambda c: c["detail"].update(agreement=1.0)),
    "a prediction": first("loss change", lambda c: c["detail"].update({"accuracy after": 1.0})),
    "a loss": first("loss change", lambda c: c["detail"].update({"loss before": 9.0})),
    "a hash": first("untouched", lambda c: c["detail"].update(digest="0" * 64)),
    "fewer names": first("untouched", lambda c: c.update(tensors=[])),
    "frozen nothing": first("frozen in training", lambda c: c["detail"].update(parameters=[], buffers=[])),
    "a wider tolerance": first("as stored", lambda c: c.update(bound=1.0)),
    "a tolerance of its own": first("as stored", lambda c: c["detail"].update({"own noise": 1.0})),
    "no claims": lambda h: [s.update(claims=[]) for s in h["statements"]],
    "a claim less": lambda h: h["statements"][1]["claims"].pop(0),
    "a claim twice": lambda h: h["statements"][4]["claims"].append(copy.deepcopy(h["statements"][4]["claims"][0])),
    "a statement less": lambda h: h["statements"].pop(),
    "another statement": lambda h: h["statements"][1].update(statement="prune amount=90%"),
    "another contract": lambda h: h["statements"][1].update(contract="exact"),
    "metrics": lambda h: h["metrics"].update(dict.fromkeys(h["metrics"], 1.0)),
    "metrics everywhere": lambda h: (
        [m.update(dict.fromkeys(m, 1.0)) for m in (h["metrics"], *(s["metrics"] for s in h["statements"]))]
        + [s.update(value=1.0) for s in h["scores"]]
    ),
    "scores": lambda h: [s.update(kept=1.0) for s in h["scores"] if s["kept"] is not None],
    "no scores": lambda h: h.update(scores=[]),
    "no asserts": lambda h: h.update(asserts=[]),
    "another assert": lambda h: h["asserts"][0].update(text="assert params <= 1"),
    "fewer parameters": lambda h: h["cost"]["after"].update(params=1),
    "more parameters before": lambda h: h["cost"]["before"].update(params=10**9),
    "another subject": lambda h: h.update(subject="zoo.vit()"),
    "another seed": lambda h: h.update(seed=7),
    "another plan": lambda h: h.update(plan="0" * 64),
    "a tensor's hash": lambda h: h["tensors"].update(dict.fromkeys(h["tensors"], "0" * 64)),
    "no hashes of tensors": lambda h: h.update(tensors={}),
}


@pytest.mark.parametrize("what", sorted(FORGED))
def test_a_forged_certificate_is_seen(made: Path, read: tuple[Network, Witness], what: str) -> None:
    held = json.loads((made / "certificate.json").read_text())
    FORGED[what](held)
    assert seen(read, held)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every text, number and verdict stands."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return "x" if value is None else f"{value}x"


def test_every_field_of_the_certificate_is_looked_at(made: Path, read: tuple[Network, Witness]) -> None:
    """One field after the other is changed, and nothing else in the folder."""
    witness = read[1]
    held = json.loads((made / "certificate.json").read_text())
    checked = 0
    for path in leaves(held):
        if path[0] in ("files", "tensors"):
            continue  # each is compared with the file or the tensor that it is of
        other = copy.deepcopy(held)
        place = other
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = changed(place[path[-1]])
        try:
            tampered = cert.load(json.dumps(other), detail_of)
        except nx.NetxformError:
            checked += 1
            continue
        assert tampered.digest() != witness.certificate, path
        checked += 1
    assert checked > 300
    assert cert.load(json.dumps(held), detail_of).digest() == witness.certificate


def test_a_certificate_changed_alone_is_seen(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(made, folder)
    held = json.loads((folder / "certificate.json").read_text())
    held["statements"][0]["warnings"] = ["none"]
    (folder / "certificate.json").write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
    broken = [c for c in nx.verify(folder).claims if not c.held]
    assert [c.what for c in broken] == ["certificate"]


def test_weights_that_are_no_numbers_are_broken(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(made, folder)
    weights = load_file(folder / "model.safetensors")
    weights["fc1.0.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors")
    held = json.loads((folder / "certificate.json").read_text())
    held["files"]["model.safetensors"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    held["tensors"]["fc1.0.weight"] = tensor_hash(weights["fc1.0.weight"])
    (folder / "certificate.json").write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
    found = {c.what: c for c in nx.verify(folder).claims}
    assert not found["weights"].held and "NaN" in found["weights"].why
    assert not found["outputs"].held
