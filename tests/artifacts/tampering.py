"""Ways to tamper with a bundle, and a long run of random ones: `python -m tests.artifacts.tampering --count 1000`.

Each changes a copy of a signed bundle. `resealed`: whoever changes it knows netxform, and writes every hash of the certificate
anew. `needs_signature`: nothing but a signature can tell, for the folder agrees with itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import netxform as nx
from netxform.artifacts import signing
from netxform.compiler.evidence import tensor_hash

SPEC = """
model net = zoo.smallcnn() input="1x1x8x8"
data d = sklearn.digits(train=60)
stage one { train ** for 1epochs on d; record trajectory }
features at layer4
attach random_forest(3)
"""
FILES = (
    "model.safetensors model.py graph.json spec.xform plan.json certificate.json evidence.safetensors curves.csv "
    "trajectory.json trajectory.safetensors head.skops"
).split()


@dataclass(frozen=True)
class Tampering:
    name: str
    change: Callable[[Path], None]
    resealed: bool = False
    needs_signature: bool = False


def keys(folder: Path) -> tuple[Path, Path]:
    """A private and a public key, made by openssl."""
    private, public = folder / "key.pem", folder / "key.pub"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run(["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)], check=True, capture_output=True)
    return private, public


def reseal(folder: Path) -> None:
    """Every hash of the certificate anew: what a stranger would do."""
    held = json.loads((folder / "certificate.json").read_text())
    held["files"] = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in held["files"] if (folder / n).exists()}
    held["tensors"] = {n: tensor_hash(t) for n, t in load_file(folder / "model.safetensors").items()}
    plan = json.loads((folder / "plan.json").read_text())
    held["plan"] = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    (folder / "certificate.json").write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")


def flip(name: str, where: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[min(len(data) - 1, int(where * len(data)))] ^= 1
        (folder / name).write_bytes(bytes(data))

    return change


def cut_short(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def longer(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b"\n")


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def added(name: str, text: str = "") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def renamed(name: str, to: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).rename(folder / to) and None


def as_link(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        other = folder.parent / f"{folder.name}.{name}"
        shutil.move(folder / name, other)
        (folder / name).symlink_to(other)

    return change


def subfolder(folder: Path) -> None:
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("raise SystemExit")


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def edited(name: str, edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        held = json.loads((folder / name).read_text())
        edit(held)
        (folder / name).write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")

    return change


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def weights(folder: Path) -> None:
    held = load_file(folder / "model.safetensors")
    save_file({n: t + 1 if t.is_floating_point() else t for n, t in held.items()}, folder / "model.safetensors")


def dropped_tensor(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        held = load_file(folder / name)
        held.pop(sorted(held)[0])
        save_file(held, folder / name)

    return change


def other_inputs(folder: Path) -> None:
    path = folder / "evidence.safetensors"
    held = load_file(path)
    with safe_open(path, "pt") as file:
        told = file.metadata()
    key = json.loads(told["netxform"])["index"]["input.0"]
    held[key] = torch.zeros_like(held[key])
    save_file(held, path, told)


def graph(edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    return edited("graph.json", edit)


def certificate(edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    return edited("certificate.json", edit)


def twice(held: Any) -> None:
    held["nodes"].insert(1, held["nodes"][1])


def another_layer(held: Any) -> None:
    held["modules"][0]["class"] = "Tanh"


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def listed(name: str, text: str) -> Callable[[Path], None]:
    """A file more, and the certificate names it."""
    return both(added(name, text), certificate(lambda c: c["files"].update({name: "0"})))


TABLE = (
    *(Tampering(f"a bit of {n}", flip(n, 0.6)) for n in FILES if n != "certificate.json"),
    *(Tampering(f"{n} cut short", cut_short(n)) for n in FILES),
    *(Tampering(f"{n} longer", longer(n)) for n in FILES),
    *(Tampering(f"{n} taken away", gone(n)) for n in FILES),
    *(Tampering(f"{n} renamed", renamed(n, f"x{n}")) for n in FILES),
    *(Tampering(f"{n} is a link", as_link(n)) for n in FILES),
    Tampering("torch.py beside model.py", added("torch.py", "raise SystemExit")),
    Tampering("sitecustomize.py beside it", added("sitecustomize.py", "raise SystemExit")),
    Tampering("an empty hidden file", added(".hidden", " ")),
    Tampering("a README", added("README.md", "trust me")),
    Tampering("a pickle beside it", added("extra.skops", "x")),
    Tampering("a folder torch beside model.py", subfolder),
    Tampering("a pipe", fifo),
    Tampering("torch.py, named by the certificate", listed("torch.py", "raise SystemExit"), resealed=True),
    Tampering("another skops, named by the certificate", listed("../x.skops", ""), resealed=True),
    Tampering("model.py with code", replaced("model.py", "import torch\n", "import os\nimport torch\n"), resealed=True),
    Tampering("model.py with a comment", replaced("model.py", "class ", "# harmless\nclass "), resealed=True),
    Tampering("model.py is another program", added("model.py", "print('hi')\n"), resealed=True),
    Tampering("spec.xform with another number", replaced("spec.xform", "1epochs", "9epochs"), resealed=True),
    Tampering("spec.xform without a statement", replaced("spec.xform", "features at layer4\n", ""), resealed=True),
    Tampering("spec.xform is no spec", added("spec.xform", "freeze {{\n"), resealed=True),
    Tampering("spec.xform in another form", replaced("spec.xform", "model net =", "model  net ="), resealed=True),
    Tampering("plan.json with another seed", edited("plan.json", lambda p: p.update(seed=99)), resealed=True),
    Tampering("plan.json without a step", edited("plan.json", lambda p: p["items"].pop()), resealed=True),
    Tampering("plan.json in another form", longer("plan.json"), resealed=True),
    Tampering("graph.json with a field more", graph(lambda g: g.update(more=1)), resealed=True),
    Tampering("graph.json of a later format", graph(lambda g: g.update(format=2)), resealed=True),
    Tampering("graph.json with a node more", graph(twice), resealed=True),
    Tampering("graph.json without a node", graph(lambda g: g["nodes"].pop(1)), resealed=True),
    Tampering("graph.json with another layer", graph(another_layer), resealed=True),
    Tampering("other weights", weights, resealed=True),
    Tampering("a tensor less", dropped_tensor("model.safetensors"), resealed=True),
    Tampering("evidence without its inputs", dropped_tensor("evidence.safetensors"), resealed=True),
    Tampering("other inputs in the evidence", other_inputs, resealed=True),
    Tampering("certificate with a key twice", replaced("certificate.json", "{\n", '{\n "seed": 0,\n')),
    Tampering("certificate with a field more", certificate(lambda c: c.update(more=1))),
    Tampering("certificate without a field", certificate(lambda c: c.pop("versions"))),
    Tampering("certificate in another form", replaced("certificate.json", "\n ", "\n  ")),
    Tampering("certificate of a later format", certificate(lambda c: c.update(format=99))),
    Tampering("certificate without a statement", certificate(lambda c: c["statements"].pop())),
    Tampering("certificate names a path", certificate(lambda c: c["files"].update({"../x": "0"}))),
    Tampering("certificate leaves model.py out", certificate(lambda c: c["files"].pop("model.py"))),
    Tampering("model.py with code, said to be of another version", both(
        replaced("model.py", "import torch\n", "import os\nimport torch\n"),
        certificate(lambda c: c["versions"].update(torch="0.0"))), resealed=True, needs_signature=True),
    Tampering("other metrics", certificate(lambda c: c["metrics"].update(test_accuracy=1.0)), needs_signature=True),
    Tampering("another subject", certificate(lambda c: c.update(subject="better")), needs_signature=True),
    Tampering("other curves", replaced("curves.csv", "0.", "1."), resealed=True, needs_signature=True),
    Tampering("another forest", cut_short("head.skops"), resealed=True, needs_signature=True),
    Tampering("another trajectory", flip("trajectory.safetensors", 0.99), resealed=True, needs_signature=True),
)  # fmt: skip


def told(folder: Path) -> bool:
    """Whether netxform finds that something is wrong, without any key."""
    try:
        return not nx.verify(folder).held
    except nx.NetxformError:
        return True


def refused_by_both(folder: Path, public: Path) -> tuple[bool, bool]:
    """Whether netxform with the key, and the stock tool, refuse the folder."""
    import model_signing.verifying

    try:
        signing.check(folder, public)
        ours = False
    except nx.NetxformError:
        ours = True
    stock = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public)
    try:
        stock.verify(folder, folder / signing.SIGNATURE)
        return ours, False
    except Exception:
        return ours, True


def at_random(folder: Path, draw: random.Random) -> str:
    """One file flipped, added, dropped or renamed; what was done, in words."""
    names = sorted(p.name for p in folder.iterdir() if p.name != signing.SIGNATURE)
    name, kind = draw.choice(names), draw.choice(("flip", "flip", "add", "drop", "rename", "cut", "swap"))
    match kind:
        case "flip":
            data = bytearray((folder / name).read_bytes())
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            (folder / name).write_bytes(bytes(data))
        case "add":
            name = f"{draw.choice(('torch', 'x', '.a', 'model2', 'safetensors'))}{draw.choice(('.py', '', '.json', '.skops'))}"
            (folder / name).write_text("pass\n")
        case "drop":
            (folder / name).unlink()
        case "rename":
            (folder / name).rename(folder / f"{name}{draw.randrange(10)}")
        case "cut":
            os.truncate(folder / name, draw.randrange((folder / name).stat().st_size))
        case _:
            other = draw.choice([n for n in names if n != name])
            first, second = (folder / name).read_bytes(), (folder / other).read_bytes()
            (folder / name).write_bytes(second)
            (folder / other).write_bytes(first)
    return f"{kind} {name}"


def long_run(bundle: Path, public: Path, count: int, seed: int = 0) -> dict[str, int]:
    """How many of so many random changes each tool refused, and how many netxform refused without a key."""
    draw = random.Random(seed)
    found = {"changes": count, "netxform with the key": 0, "model_signing": 0, "netxform without a key": 0}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(count):
            folder = Path(place) / bundle.name
            shutil.copytree(bundle, folder)
            said = at_random(folder, draw)
            ours, stock = refused_by_both(folder, public)
            alone = told(folder)
            found["netxform with the key"] += ours
            found["model_signing"] += stock
            found["netxform without a key"] += alone
            if not (ours and stock):
                print("not refused:", said)
            shutil.rmtree(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        private, public = keys(Path(place))
        nx.apply(SPEC, out=Path(place) / "b", sign=private)
        for name, number in long_run(Path(place) / "b", public, options.count, options.seed).items():
            print(f"{name}: {number}")


if __name__ == "__main__":
    main()
