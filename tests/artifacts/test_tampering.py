"""Whatever is done to a bundle is told: by netxform alone, or by a signature where the folder agrees with itself."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import netxform as nx
from netxform.artifacts import attest, signing
from netxform.cli import main
from tests.artifacts.tampering import FILES, SPEC, TABLE, Tampering, keys, long_run, refused_by_both, reseal, told

CODES = {"X0815", "X0821", "X0822", "X0827", "X0904", "X0901"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pair of keys and a signed bundle `b`."""
    folder = tmp_path_factory.mktemp("signed")
    private, _ = keys(folder)
    nx.apply(SPEC, out=folder / "b", sign=private)
    return folder


def test_the_table_is_over_every_kind_of_file(place: Path) -> None:
    assert len(TABLE) >= 40
    assert sorted(p.name for p in (place / "b").iterdir()) == sorted([*FILES, signing.SIGNATURE])
    assert len({t.name for t in TABLE}) == len(TABLE)


def test_an_untouched_bundle_is_accepted_by_both_tools(place: Path, tmp_path: Path) -> None:
    assert refused_by_both(place / "b", place / "key.pub") == (False, False)
    assert nx.verify(place / "b", key=place / "key.pub").held
    shutil.copytree(place / "b", tmp_path / "copy")
    reseal(tmp_path / "copy")  # writing the same hashes again is no change
    assert refused_by_both(tmp_path / "copy", place / "key.pub") == (False, False)
    assert not told(tmp_path / "copy")


@pytest.mark.parametrize("way", TABLE, ids=lambda t: t.name)
def test_tampering_is_told(way: Tampering, place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(place / "b", folder)
    way.change(folder)
    if way.resealed:
        reseal(folder)
    if not way.needs_signature:
        assert told(folder)
    assert refused_by_both(folder, place / "key.pub") == (True, True)


def test_random_changes_are_refused_by_both_tools(place: Path) -> None:
    found = long_run(place / "b", place / "key.pub", 25)
    assert found["netxform with the key"] == found["model_signing"] == 25


def test_the_words_about_signatures(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "b"
    shutil.copytree(place / "b", folder)
    assert main(["verify", str(folder)]) == 0
    assert "signed, not checked" in capsys.readouterr().out
    assert main(["verify", str(folder), "--key", str(place / "key.pub")]) == 0
    assert "signed by the owner of" in capsys.readouterr().out
    (folder / signing.SIGNATURE).unlink()
    assert main(["verify", str(folder)]) == 0
    assert "unsigned: " in capsys.readouterr().out
    assert main(["verify", str(folder), "--key", str(place / "key.pub")]) == 1
    assert "X0908" in capsys.readouterr().err
    with pytest.raises(nx.NetxformError, match="X0908"):
        nx.load(folder, key=place / "key.pub")
    assert main(["sign", str(folder), "--key", str(place / "key.pem")]) == 0
    assert refused_by_both(folder, place / "key.pub") == (False, False)
    other, public = keys(tmp_path)
    assert refused_by_both(folder, public) == (True, True)
    for key in (public, folder / "model.py", tmp_path / "nothing"):
        assert main(["sign", str(folder), "--key", str(key)]) == 1
        assert "X0907" in capsys.readouterr().err
    (folder / "torch.py").write_text("")
    assert main(["sign", str(folder), "--key", str(other)]) == 1
    assert "X0822" in capsys.readouterr().err


def test_what_is_not_compared_is_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "b"
    shutil.copytree(place / "b", folder)
    next(t for t in TABLE if "of another version" in t.name).change(folder)
    reseal(folder)
    main(["verify", str(folder)])
    assert "model.py not compared" in capsys.readouterr().out
    main(["verify", str(place / "b")])
    assert "not compared" not in capsys.readouterr().out


def test_a_bad_key_is_said_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    with pytest.raises(nx.NetxformError, match="X0907"):
        nx.apply("model net = zoo.mlp(width=4)\nfreeze fc1", out=tmp_path / "b", sign=tmp_path / "key")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["notes.txt", "torch.py"])
def test_only_what_was_written_is_overwritten(place: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "b"
    shutil.copytree(place / "b", folder)
    (folder / name).write_text("mine")
    spec = "model net = zoo.mlp(width=4)\nfreeze fc1"
    with pytest.raises(nx.NetxformError, match="X0818"):
        nx.apply(spec, out=folder, overwrite=True)
    assert (folder / name).read_text() == "mine"
    (folder / name).unlink()
    nx.apply(spec, out=folder, overwrite=True)
    assert len(json.loads((folder / "graph.json").read_text())["nodes"]) < 10


@pytest.mark.parametrize(("what", "kind"), [("claims", attest.CLAIMS), ("verdict", attest.VERDICT)])
def test_statements_of_in_toto(what: str, kind: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed, bare = tmp_path / "signed.json", tmp_path / "bare.json"
    assert main(["attest", str(place / "b"), str(signed), "--what", what, "--key", str(place / "key.pem")]) == 0
    assert main(["attest", str(place / "b"), str(bare), "--what", what]) == 0
    assert "unsigned" in capsys.readouterr().out
    held, plain = attest.read(signed, place / "key.pub"), json.loads(bare.read_text())
    assert held["predicateType"] == plain["predicateType"] == kind
    assert held["_type"] == attest.STATEMENT
    digests = {s["name"]: s["digest"]["sha256"] for s in held["subject"]}
    assert sorted(digests) == sorted(FILES)
    assert digests["model.py"] == hashlib.sha256((place / "b" / "model.py").read_bytes()).hexdigest()
    assert held["subject"] == plain["subject"]
    if what == "claims":
        record = json.loads((place / "b" / "certificate.json").read_text())
        assert len(held["predicate"]["attributes"]) == sum(len(s["claims"]) for s in record["statements"])
    _, other = keys(tmp_path)
    with pytest.raises(nx.NetxformError, match="X0907"):
        attest.read(signed, other)
    envelope = json.loads(signed.read_text())
    payload = envelope["dsseEnvelope"]["payload"]
    envelope["dsseEnvelope"]["payload"] = payload[:-8] + ("A" if payload[-8] != "A" else "B") + payload[-7:]
    signed.write_text(json.dumps(envelope))
    with pytest.raises(nx.NetxformError, match="X0907"):
        attest.read(signed, place / "key.pub")
    assert main(["attest", str(place / "b"), str(bare)]) == 1
    assert "X0818" in capsys.readouterr().err


def test_a_broken_bundle_has_no_verdict(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "b", tmp_path / "b")
    next(t for t in TABLE if t.name == "other weights").change(tmp_path / "b")
    reseal(tmp_path / "b")
    assert main(["attest", str(tmp_path / "b"), str(tmp_path / "v.json")]) == 1
    assert not (tmp_path / "v.json").exists()
