"""Every kind of file that holds a model is one for `--model`, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import netxform as nx
from netxform.cli import main
from netxform.sources.formats import FORMATS, suffix_of
from netxform.zoo import build

KINDS = ("pt2", "onnx", "skops", "safetensors", "pt", "pth", "bin", "pkl", "py", "bundle")
SPEC = "freeze **"


def make(folder: Path, kind: str) -> str:
    """A file of that kind in the folder; what `--model` is told."""
    net = build("mlp", width=4).eval()
    x = torch.zeros(1, 1, 28, 28)
    place = folder / f"net.{kind}"
    match kind:
        case "pt2":
            torch.export.save(torch.export.export(net, (x,)), place)
        case "onnx":
            pytest.importorskip("onnxruntime")
            nx.apply('model net = zoo.mlp(width=4) input="1x1x28x28"\nfreeze **', out=folder / "made.bundle")
            nx.export(folder / "made.bundle", place)
        case "skops":
            import numpy as np
            import skops.io
            from sklearn.linear_model import LogisticRegression

            skops.io.dump(LogisticRegression().fit(np.eye(4), [0, 1, 2, 3]), place)
        case "safetensors":
            from safetensors.torch import save_file

            save_file(net.state_dict(), place)
        case "py":
            place.write_text("from netxform.zoo import build\ndef make():\n    return build('mlp', width=4)\n")
            return "net.py:make"
        case "bundle":
            nx.apply('model net = zoo.mlp(width=4) input="1x1x28x28"\nfreeze **', out=place)
        case _:
            torch.save(net, place)
    return place.name


def test_every_kind_is_here() -> None:
    assert set(FORMATS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_takes_it(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    source = make(tmp_path, kind)
    (tmp_path / "spec.xform").write_text(SPEC)
    shape = [] if kind in ("onnx", "bundle", "pt2") else ["--input", "1x4" if kind == "skops" else "1x1x28x28"]
    code = main(["plan", "spec.xform", "--model", source, *shape, "--trust-pickle", "--trust-code"])
    told = "".join(capsys.readouterr())
    # what can only teach, and what is weights alone, is refused for what it is, and not as an unknown name
    refused = {"safetensors": "X0815", "onnx": "X0802", "skops": "X0802"}.get(kind)
    assert "X0211" not in told
    assert (code, refused is None or refused in told) == (0 if refused is None else 1, True), told


def test_names_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.xform").write_text(SPEC)
    assert main(["check", "spec.xform"]) == 0
    assert main(["plan", "spec.xform", "--model", "zoo.mlp(width=4)"]) == 0
    assert [suffix_of(t) for t in ("a/net.pt2", "net.py:make", "zoo.mlp()", "x.bundle")] == ["pt2", "py", "mlp()", "bundle"]


def test_an_unknown_kind_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "net.xyz").write_text("")
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan('model net = "net.xyz" input="1x4"\nfreeze **', root=tmp_path)
    assert caught.value.diagnostics[0].code == "X0815"


def test_a_written_program_is_a_model_again(tmp_path: Path) -> None:
    nx.apply('model net = zoo.smallcnn(width=4) input="1x1x8x8"\nfreeze conv1', out=tmp_path / "b")
    nx.export(tmp_path / "b", tmp_path / "net.pt2")
    again = nx.apply('model net = "net.pt2"\nfreeze ** bn=train', root=tmp_path, trust_pickle=True)
    x = torch.randn(3, 1, 8, 8)
    assert isinstance(again.model, nn.Module)
    assert torch.equal(again.model(x), nx.load(tmp_path / "b")(x))
