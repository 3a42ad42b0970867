"""The command line: what is printed, what is returned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import netxform as nx
from netxform.cli import main

SPEC = 'model net = zoo.smallcnn() input="1x1x8x8"\ncut at layer4; freeze body\nattach head classes=3\n'


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "s.xform"
    path.write_text(SPEC)
    return path


def test_check_plan_apply_verify(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(spec)]) == 0
    assert main(["plan", str(spec)]) == 0
    assert main(["plan", str(spec), "--detailed-exitcode"]) == 2
    shown = capsys.readouterr().out
    assert "cut at layer4" in shown and "Linear(64, 3)" in shown and "default" in shown
    out = tmp_path / "b"
    assert main(["apply", str(spec), "-o", str(out)]) == 0
    assert main(["apply", str(spec), "-o", str(out)]) == 1
    assert main(["apply", str(spec), "-o", str(out), "--overwrite", "--quiet"]) == 0
    assert main(["verify", str(out)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "measured again, 0 superseded" in last and "0 not measurable from the folder alone" in last
    assert "broken" not in last


def test_a_stale_plan_is_refused(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "x.plan"
    assert main(["plan", str(spec), "-o", str(saved)]) == 0
    assert main(["apply", str(spec), "--plan", str(saved), "-o", str(tmp_path / "a"), "--quiet"]) == 0
    spec.write_text(SPEC.replace("classes=3", "classes=4"))
    assert main(["apply", str(spec), "--plan", str(saved), "-o", str(tmp_path / "b"), "--quiet"]) == 1
    assert "X0701" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    saved.write_text(saved.read_text().replace("smallcnn", "bigcnn"))
    assert main(["apply", str(spec), "--plan", str(saved), "-o", str(tmp_path / "b"), "--quiet"]) == 1


def test_json(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(spec), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["items"][0]["verb"] == "cut"
    spec.write_text("cut at layer4 before fc\nfreez x")
    assert main(["check", str(spec), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["diagnostics"]
    assert [d["code"] for d in found] == ["X0301", "X0110"]
    assert found[0]["span"]["start"] == {"offset": 0, "line": 1, "column": 1}


def test_an_assert_that_fails_ends_with_3(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(SPEC + 'assert params < 5, "too big"\n')
    assert main(["apply", str(spec), "-o", str(tmp_path / "b")]) == 3
    assert "too big" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_model_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.xform"
    path.write_text("cut at layer3")
    assert main(["plan", str(path)]) == 1
    assert "X0214" in capsys.readouterr().err
    assert main(["plan", str(path), "--model", "zoo.resnet_small()"]) == 0


def test_ls_fmt_explain(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "zoo.resnet_small()", "layer{1..2}.**:Conv2d[stride == 2]"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["layer2.0.conv1", "layer2.0.downsample.0"]
    assert main(["ls", str(spec), "conv1::*"]) == 0
    assert "conv1.bias" in capsys.readouterr().out
    assert main(["fmt", str(spec), "--check"]) == 1
    assert main(["fmt", str(spec), "-w"]) == 0
    assert main(["fmt", str(spec), "--check"]) == 0
    assert nx.parse(spec.read_text()) == nx.parse(SPEC)
    assert main(["explain", "train"]) == 0
    assert "Contract: training" in capsys.readouterr().out
    assert main(["explain", "x0203"]) == 0
    assert main(["explain"]) == 0
    assert main(["explain", "trian"]) == 1
    assert "did you mean `train`" in capsys.readouterr().err
    assert main(["ls", "zoo.resnet_small()", "layer9"]) == 1
    assert "<selection>:1:1" in capsys.readouterr().err


def test_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "no_such.xform"]) == 1
    assert "X0807" in capsys.readouterr().err
