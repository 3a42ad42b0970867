"""A bundle for other programs: what is written computes what the bundle computes, or nothing is written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

import netxform as nx
from netxform.artifacts.exporters import EXPORTERS, Exporter
from netxform.cli import main

MODELS = {
    "cnn": 'model net = zoo.smallcnn() input="1x1x8x8"\nfreeze conv1',
    "residual": 'model net = zoo.resnet_small() input="1x1x28x28"\nfreeze **',
    "transformer": 'model net = zoo.vit_small() input="1x1x28x28"\nfreeze **',
    "words": "model net = zoo.text_mean()\nfreeze **",
}


@pytest.fixture(scope="module", params=sorted(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    nx.apply(MODELS[request.param], out=made / "b")
    return made


@pytest.mark.parametrize("name", ["pt2", "py"])
def test_the_same_bits_or_nearly(folder: Path, name: str) -> None:
    made = nx.export(folder / "b", folder / f"net.{name}")
    assert (made.exporter, made.samples) == (name, 8)
    assert made.worst <= made.bound <= 1e-3
    if name == "py":
        assert made.worst == 0.0


def test_any_batch(folder: Path) -> None:
    nx.export(folder / "b", folder / "any.pt2")
    program = torch.export.load(folder / "any.pt2")
    shape = json.loads((folder / "b" / "graph.json").read_text())["inputs"][0]["shape"]
    x = torch.zeros(3, *shape[1:], dtype=torch.int64 if len(shape) == 2 else torch.float32)
    found, wanted = program.module()(x), nx.load(folder / "b")(x)
    assert float((found - wanted).detach().abs().max()) <= 1e-5


def test_onnx(folder: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    made = nx.export(folder / "b", folder / "net.onnx")
    assert 0 <= made.worst <= made.bound
    assert [p.name for p in folder.glob("net.onnx*")] == ["net.onnx"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("small") / "b"
    nx.apply('model net = zoo.mlp(width=4) input="1x1x28x28"\nfreeze **', out=made)
    return made


def code_of(bundle: Path, out: Path, to: str | None = None) -> tuple[str, int]:
    with pytest.raises(nx.NetxformError) as caught:
        nx.export(bundle, out, to)
    return caught.value.diagnostics[0].code, caught.value.exit_code


def test_from_the_command_line(bundle: Path, tmp_path: Path, capsys) -> None:
    assert main(["export", str(bundle), str(tmp_path / "net.pt2")]) == 0
    assert "by `pt2`" in capsys.readouterr().out
    assert main(["export", str(bundle), str(tmp_path / "other"), "--to", "pt2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exporter"] == "pt2"
    assert main(["export", str(bundle), str(tmp_path / "net.pt2")]) == 1
    assert "X0818" in capsys.readouterr().err


def test_what_is_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_of(bundle, tmp_path / "net.xyz") == ("X0834", 1)
    assert code_of(bundle, tmp_path / "net", "pt3") == ("X0834", 1)
    assert code_of(tmp_path / "nothing", tmp_path / "net.pt2") == ("X0815", 1)
    assert code_of(bundle, tmp_path / "no" / "net.pt2") == ("X0819", 1)
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *more: None if n == "onnx" else there(n, *more))
    assert code_of(bundle, tmp_path / "net.onnx") == ("X0814", 1)


def test_a_file_that_computes_something_else_is_not_kept(bundle: Path, tmp_path: Path) -> None:
    pt2 = EXPORTERS.find("pt2")
    EXPORTERS.register("off")(Exporter(pt2.write, lambda path, inputs: pt2.run(path, inputs) + 1, (".off",), slack=16))
    EXPORTERS.register("bad")(Exporter(lambda network, inputs, path: 1 / 0, pt2.run, (".bad",)))  # type: ignore[arg-type]
    try:
        assert code_of(bundle, tmp_path / "net.off") == ("X0501", 3)
        assert code_of(bundle, tmp_path / "net.bad") == ("X0820", 1)
    finally:
        del EXPORTERS["off"], EXPORTERS["bad"]
    assert not list(tmp_path.iterdir())
