"""Bundles: what is written loads without netxform, verifies from the folder alone, and shows every change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file
from torch import nn

import netxform as nx
from netxform.artifacts import bundle
from netxform.artifacts.emit import emit
from netxform.artifacts.graph import from_json, ties, to_json
from netxform.compiler.measure import tensors
from netxform.zoo import REGISTRY, build
from tests.strategies import networks, randomized, zoo_input

SPEC = """
model net = zoo.smallcnn() input="1x1x8x8"
data d = sklearn.digits(train=200)
cut at layer4; freeze body; attach head
stage one { train head for 2epochs on d }
"""


def stored(network) -> dict[str, torch.Tensor]:
    tied = ties(network.module)
    return {n: t.clone() for n, t in tensors(network.module).items() if n not in tied}


def outside(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python that cannot import netxform, in the folder."""
    block = "import sys; sys.modules['netxform'] = None; sys.path.insert(0, '.');"
    return subprocess.run([sys.executable, "-I", "-c", block + code], cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "b"
    nx.apply(SPEC, out=folder)
    return folder


@given(networks())
@settings(max_examples=15)
def test_graphs_come_back_from_json(model: nn.Module) -> None:
    network = nx.capture(model, torch.randn(1, 2, 5, 5))
    again = from_json(json.loads(json.dumps(to_json(network))), stored(network))
    x = torch.randn(3, 2, 5, 5)
    with torch.no_grad():
        assert torch.equal(again.module(x), model(x))
    assert list(again.module.state_dict()) == list(model.state_dict())
    assert emit(again) == emit(network)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_standalone_module_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    model = randomized(build(name))
    x = zoo_input(name, 3)
    network = nx.capture(model, x)
    (tmp_path / "model.py").write_text(emit(network))
    save_file(stored(network), tmp_path / "model.safetensors")
    with torch.no_grad():
        save_file({"x": x, "y": model(x).contiguous()}, tmp_path / "xy.safetensors")
    code = (
        "import model, torch; from safetensors.torch import load_file; torch.set_grad_enabled(False);"
        "t = load_file('xy.safetensors'); m = model.load(); assert torch.equal(m(t['x'].clone()), t['y'])"
    )
    done = outside(tmp_path, code)
    assert done.returncode == 0, done.stderr[-800:]


def test_a_bundle_verifies_and_loads(made: Path) -> None:
    verdict = nx.verify(made)
    assert verdict.held
    assert len(verdict.lines) >= 7
    assert outside(made, "import model; model.load()").returncode == 0
    model = nx.load(made)
    assert type(model).__module__.startswith("torch.fx")
    assert not model.conv1.weight.requires_grad
    assert model.head.out.weight.requires_grad
    # the loaded model is a subject again
    plan = nx.plan(f'model net = "{made.name}"\nunfreeze conv1', root=made.parent)
    assert plan.steps[0].choice.values.entries()["parameters"]


def test_same_spec_same_bytes(made: Path, tmp_path: Path) -> None:
    nx.apply(SPEC, out=tmp_path / "b")
    names = sorted(p.name for p in made.iterdir() if p.is_file())
    assert names == sorted(p.name for p in (tmp_path / "b").iterdir())
    for name in names:
        assert (made / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize("name", ["model.safetensors", "graph.json", "model.py", "evidence.safetensors", "spec.xform"])
def test_any_changed_byte_is_found(made: Path, tmp_path: Path, name: str) -> None:
    import shutil

    folder = tmp_path / "b"
    shutil.copytree(made, folder)
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(nx.NetxformError) as caught:
        nx.verify(folder)
    assert caught.value.diagnostics[0].code == "X0822"
    (folder / name).unlink()
    with pytest.raises(nx.NetxformError):
        nx.load(folder)


def test_broken_claims_are_seen_when_hashes_are_forged(made: Path, tmp_path: Path) -> None:
    import hashlib
    import shutil

    folder = tmp_path / "b"
    shutil.copytree(made, folder)
    weights = load_file(folder / "model.safetensors")
    weights["conv1.weight"][0, 0, 0, 0] += 1e-3
    save_file(weights, folder / "model.safetensors")
    held = json.loads((folder / "certificate.json").read_text())
    held["files"]["model.safetensors"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "certificate.json").write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
    verdict = nx.verify(folder)
    broken = {what for what, e in verdict.lines if not e.held}
    assert {"weights", "outputs", "cut at layer4", "freeze body"} <= broken


def test_nothing_is_left_on_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(bundle, "save_file", full)
    with pytest.raises(nx.NetxformError) as caught:
        nx.apply(SPEC, out=tmp_path / "b")
    assert caught.value.diagnostics[0].code == "X0819"
    assert "No space left" in str(caught.value)
    assert not (tmp_path / "b").exists()
    assert not [p for p in tmp_path.iterdir() if not p.name.endswith(".resume")]


def test_an_existing_folder_is_not_replaced(made: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not lose")
    for overwrite in (False, True):
        with pytest.raises(nx.NetxformError) as caught:
            nx.apply("model net = zoo.mlp()\nfreeze fc1", out=tmp_path / "mine", overwrite=overwrite)
        assert caught.value.diagnostics[0].code == "X0818"
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not lose"
    nx.apply("model net = zoo.mlp()\nfreeze fc1", out=tmp_path / "b")
    nx.apply("model net = zoo.mlp()\nfreeze fc2", out=tmp_path / "b", overwrite=True)
    assert not nx.load(tmp_path / "b").fc2.weight.requires_grad


@pytest.mark.parametrize(
    "change",
    [
        {"op": "call_function", "target": "os.system"},
        {"op": "call_function", "target": "torch.load"},
        {"op": "call_function", "target": "builtins.eval"},
        {"op": "call_method", "target": "__reduce__"},
        {"op": "call_method", "target": "numpy"},
    ],
)
def test_a_stored_graph_can_name_no_code(change: dict[str, str]) -> None:
    network = nx.capture(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.randn(1, 2))
    held = to_json(network)
    held["nodes"][-2] |= change
    with pytest.raises(nx.NetxformError) as caught:
        from_json(held, stored(network))
    assert caught.value.diagnostics[0].code == "X0904"
    held = to_json(network)
    held["modules"][0]["class"] = "Module.__subclasses__"
    with pytest.raises(nx.NetxformError):
        from_json(held, stored(network))


def test_an_interrupted_run_resumes_to_the_same_bytes(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import netxform.training.fit as fit

    real = fit.save
    calls = []

    def stop(run, path) -> None:
        real(run, path)
        calls.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        nx.apply(SPEC, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()
    monkeypatch.setattr(fit, "save", real)
    nx.apply(SPEC, out=tmp_path / "b", resume=True)
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    assert not (tmp_path / ".b.resume").exists()


def test_a_classifier_is_stored_without_pickle(tmp_path: Path) -> None:
    import skops.io

    text = 'model net = zoo.smallcnn() input="1x1x8x8"\ndata d = sklearn.digits(train=200)\nfeatures at layer4\n'
    result = nx.apply(text + "attach random_forest(20)", out=tmp_path / "b")
    assert result.metrics["test_accuracy"] > 0.5
    file = tmp_path / "b" / "head.skops"
    assert set(skops.io.get_untrusted_types(file=file)) <= {"sklearn.tree._tree.Tree"}
    forest = skops.io.load(file, trusted=["sklearn.tree._tree.Tree"])
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        flat = nx.load(tmp_path / "b")(x)
    assert flat.shape == (5, 64)
    assert (forest.predict(flat.numpy()) == result.estimators["head"].predict(flat.numpy())).all()
    assert nx.verify(tmp_path / "b").held
