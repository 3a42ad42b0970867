"""Whatever is done to a bundle is told: by netxform alone, or by a signature where the folder agrees with itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import netxform as nx
from netxform.artifacts import signing
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
