"""A spec from a stranger runs no code, and reads and writes nothing outside its folders, without the flag that says so."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

import netxform as nx
from netxform.cli import main
from netxform.sources.trust import write_path
from netxform.zoo import build

CODE = """
from pathlib import Path
from netxform.zoo import build as make
Path(__file__).with_name("ran").touch()
def build():
    return make("mlp")
"""


class Evil:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return (Path.touch, (self.place,))


def code_of(text: str, root: Path, **more) -> str:
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan(text, root=root, **more)
    return caught.value.diagnostics[0].code


def test_python_runs_only_with_the_flag(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CODE)
    text = 'model net = "net.py:build" input="1x1x28x28"\nfreeze fc1'
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan(text, root=tmp_path)
    assert caught.value.diagnostics[0].code == "X0902"
    assert "net.py:build" in str(caught.value)
    assert "--trust-code" in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert nx.plan(text, root=tmp_path, trust_code=True).steps
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../w.safetensors", "/etc/passwd", "a/../../w.safetensors", "C:\\w.safetensors", "link"])
def test_files_outside_are_not_read(tmp_path: Path, name: str) -> None:
    root = tmp_path / "spec"
    root.mkdir()
    (tmp_path / "w.safetensors").write_bytes(b"x")
    (root / "link").symlink_to(tmp_path / "w.safetensors")
    text = 'model net = zoo.mlp() weights="' + name.replace("\\", "\\\\") + '"\nfreeze fc1'
    assert code_of(text, root) == "X0901"
    assert code_of('use "' + name.replace("\\", "\\\\") + '"', root) == "X0901"


def test_outside_with_the_flag(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(build("mlp").state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "spec").mkdir()
    text = 'model net = zoo.mlp() weights="../w.safetensors"\nfreeze fc1'
    assert nx.plan(text, root=tmp_path / "spec", allow_outside=True).steps


@pytest.mark.parametrize("suffix", ["pt", "pth"])
def test_pickles_do_not_run(tmp_path: Path, suffix: str) -> None:
    place = tmp_path / "ran"
    torch.save({"fc1.weight": Evil(place)}, tmp_path / f"w.{suffix}")
    text = f'model net = zoo.mlp() weights="w.{suffix}"\nfreeze fc1'
    assert code_of(text, tmp_path) == "X0903"
    assert code_of(f'model net = "w.{suffix}" input="1x1x28x28"\nfreeze fc1', tmp_path) == "X0903"
    assert not place.exists()


def test_exported_programs_need_trust(tmp_path: Path) -> None:
    program = torch.export.export(build("mlp").eval(), (torch.randn(2, 1, 28, 28),))
    torch.export.save(program, tmp_path / "m.pt2")
    text = 'model net = "m.pt2" input="2x1x28x28"\nfreeze fc1'
    assert code_of(text, tmp_path) == "X0903"


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_a_subject_under_trust(tmp_path: Path) -> None:
    model, x = build("smallcnn").eval(), torch.randn(3, 1, 28, 28)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=dynamic), tmp_path / "m.pt2")
    text = 'model net = "m.pt2"\ncut at layer4\nfreeze conv1'
    result = nx.apply(text, root=tmp_path, trust_pickle=True, out=tmp_path / "b")
    wanted = nx.apply("cut at layer4", model=model, example_inputs=x).model
    assert torch.allclose(result.model(x), wanted(x), atol=1e-5)
    assert torch.equal(nx.load(tmp_path / "b")(x), result.model(x))
    (tmp_path / "m.pt2").write_bytes((tmp_path / "m.pt2").read_bytes()[:500])
    assert code_of(text, tmp_path, trust_pickle=True) == "X0808"


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", pickle.dumps({}))
        archive.writestr("w/data/0", b"\0" * 1_000_000)
    assert code_of('model net = zoo.mlp() weights="w.pt"\nfreeze fc1', tmp_path) == "X0812"


def test_writing_stays_in_the_output_folder(tmp_path: Path) -> None:
    assert write_path("a/b.onnx", tmp_path) == tmp_path / "a" / "b.onnx"
    for name in ("../x", "/abs/x", "a/../../x", ""):
        with pytest.raises(nx.NetxformError):
            write_path(name, tmp_path)


def test_the_command_line_says_which_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(CODE)
    spec = tmp_path / "s.xform"
    spec.write_text('model net = "net.py:build" input="1x1x28x28"\nfreeze fc1\n')
    assert main(["check", str(spec)]) == 0
    assert main(["plan", str(spec)]) == 1
    assert "--trust-code" in capsys.readouterr().err
    assert main(["plan", str(spec), "--trust-code"]) == 0
