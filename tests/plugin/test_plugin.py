"""A package outside netxform adds a thing a file; each is found by entry point, from a spec and from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent / "netxform_plugin_demo"
SPEC = """model net = demo.stack(width=6)
data d = demo.blobs(spread=0.3, val=0.2)
hold first
stage s {
  train second for 20epochs on d loss=demo_logcosh using demo_sign augment=[demo_dim(0.25)]
  keep best by val_error
}
assert test_error < 50%
prune first by demo-last amount=50%
"""


def installed(folder: Path, points: dict[str, dict[str, str]], name: str = "netxform-plugin-demo") -> None:
    """What `pip install` leaves of a package's metadata."""
    info = folder / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


def netxform(folder: Path, *arguments: str, code: int = 0, paths: tuple[Path, ...] = ()) -> str:
    """One command of netxform in a process of its own, with the package on its path."""
    path = os.pathsep.join(str(p) for p in (folder / "site", *paths, PLUGIN))
    done = subprocess.run(
        [sys.executable, "-m", "netxform", *arguments], cwd=folder, env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("plugin")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    installed(made / "site", project["entry-points"])
    (made / "demo.xform").write_text(SPEC)
    return made


def test_a_file_a_thing() -> None:
    points = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    named = [v for each in points.values() for v in each.values()]
    files = {f"netxform_plugin_demo.{p.stem}" for p in (PLUGIN / "netxform_plugin_demo").glob("*.py")}
    assert sorted(named) == sorted(files - {"netxform_plugin_demo.__init__"})


def test_all_of_them_from_a_spec(folder: Path) -> None:
    netxform(folder, "apply", "demo.xform", "-o", "demo.bundle", "--quiet")
    held = json.loads((folder / "demo.bundle" / "certificate.json").read_text())
    assert all(c["held"] or c["vacuous"] or c["superseded_by"] is not None for s in held["statements"] for c in s["claims"])
    assert "as many parameters" in {c["claim"] for s in held["statements"] if s["verb"] == "hold" for c in s["claims"]}
    metrics = next(s["metrics"] for s in held["statements"] if s["verb"] == "train")
    assert metrics["test_error"] == pytest.approx(1 - metrics["test_accuracy"])
    graph = json.loads((folder / "demo.bundle" / "graph.json").read_text())
    assert graph["inputs"][0]["shape"] == [1, 8]
    assert "broken" not in netxform(folder, "verify", "demo.bundle")
    told = netxform(folder, "export", "demo.bundle", "net.whole")
    assert "by `demo-whole`: 0 from the bundle's model" in told
    assert (folder / "net.whole").exists()


def test_a_model_and_a_format_from_the_command_line(folder: Path) -> None:
    assert "first" in netxform(folder, "ls", "demo.stack(width=3)")
    (folder / "net.matrix").write_text("1 0 2\n0 1 0\n")
    (folder / "hold.xform").write_text("hold **")
    assert "Linear" in netxform(folder, "ls", "net.matrix")
    assert "hold" in netxform(folder, "plan", "hold.xform", "--model", "net.matrix")


def test_names_are_known_without_torch(folder: Path) -> None:
    code = (
        "import sys, netxform as nx; from pathlib import Path; nx.check(Path('demo.xform'));"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    path = os.pathsep.join(str(p) for p in (folder / "site", PLUGIN))
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=os.environ | {"PYTHONPATH": path}, check=True, timeout=120)
    assert "demo-last" in netxform(folder, "explain", "scores")
    assert "Hold parameters" in netxform(folder, "explain", "hold")
    near = netxform(folder, "check", "-p", "x=1", "demo.xform", code=1)
    assert "X0403" in near


def test_a_package_that_fails_is_named(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    points = {"netxform.scores": {"sad": "netxform_sad", "silent": "netxform_silent"}}
    installed(broken, points, "netxform-sad")
    (broken / "netxform_sad.py").write_text("import no_such_package_at_all\n")
    (broken / "netxform_silent.py").write_text("")
    for name, why in (("sad", "No module named 'no_such_package_at_all'"), ("silent", "registers no score")):
        (folder / f"{name}.xform").write_text(f"model net = zoo.mlp(width=8)\nprune fc1 by {name} amount=25%")
        told = netxform(folder, "plan", f"{name}.xform", code=1, paths=(broken,))
        assert "X0833" in told and "netxform-sad" in told and why in told
    (folder / "other.xform").write_text("model net = zoo.mlp(width=8)\nprune fc1 by magnitude amount=25%")
    netxform(folder, "plan", "other.xform", paths=(broken,))
