"""What strangers hand over: bundles, specs and folders whose payload plants a marker, each once; and bombs of every kind."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import netxform as nx
from netxform.cli import main
from netxform.sources.stored_classifiers import read as read_classifier
from tests.artifacts.tampering import reseal
from tests.artifacts.test_hostile_graphs import BOMBS as GRAPHS
from tests.artifacts.test_hostile_graphs import CALLS, NAMES, Net, code_of
from tests.faults.test_bombs import BOMBS, write
from tests.faults.watch import Row, Watch, inside
from tests.sources.test_exploits import MLP, TRAIN, Evil, bert, extra, forest

Case = tuple[str, Callable[[], Any]]


def small(folder: Path) -> Path:
    """A bundle of the network that the hostile graphs are made of."""
    torch.manual_seed(0)
    nx.apply("freeze **", model=Net().eval(), example_inputs=torch.randn(2, 4), out=folder / "small")
    return folder / "small"


def with_graph(made: Path, place: Path, change: Callable[[Any], Any]) -> None:
    """A copy of the bundle with another graph, sealed again; then loaded, verified and planned on."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(made, place, copy_function=shutil.copyfile)
    held = json.loads((place / "graph.json").read_text())
    change(held)
    (place / "graph.json").write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
    reseal(place)
    for look in (nx.load, nx.verify, lambda p: nx.plan(f'model net = "{p.name}"\nfreeze **', root=p.parent)):
        try:
            look(place)
        except nx.NetxformError as error:
            last = error
        else:
            raise AssertionError("it was taken")
    raise last


def refused(text: str, root: Path, **more: Any) -> None:
    """Plan and apply it. Raises what applying raises."""
    for act in (nx.plan, nx.apply):
        try:
            act(text, root=root, **more)
        except nx.NetxformError as error:
            last: nx.NetxformError | None = error
        else:
            last = None
    if last is None:
        raise AssertionError("it was carried out")
    raise last


# --- specs and files -------------------------------------------------------------------------------------------------


OUTSIDE = (
    "../secret",
    "../../secret",
    "/etc/passwd",
    "a/../../secret",
    "C:\\secret",
    "\\\\host\\share",
    "link",
    "~/secret",
    "",
)
READS = (
    'model net = zoo.mlp() weights="@"\nfreeze **', 'model net = "@"\nfreeze **', 'use "@"',
    'model net = "@.py:f"\nfreeze **', 'model net = zoo.mlp()\ndata d = folder("@", size=28)\ntrain ** for 1epochs on d',
    'model net = zoo.text_lstm()\ndata d = text("@")\ntrain ** for 1epochs on d',
    'model net = zoo.text_lstm()\ninit embed from glove("@") vocabulary="@"', 'model net = zoo.mlp()\ninit ** from peft("@")',
    'model net = hf.AutoModel("@")\nfreeze **', 'model net = timm.test_resnet(checkpoint_path="@")\nfreeze **',
)  # fmt: skip
NAMED = ("../x", "/tmp/x", "a/b", "..", ".", "a.b", "__class__", "x\ny", "forward", "model.safetensors")


def specs(folder: Path, marker: Path) -> Iterator[Case]:
    """Specs that name what lies outside, and files beside a spec that would run."""
    (folder.parent / "secret").write_text("secret")
    (folder / "link").symlink_to(folder.parent / "secret")
    for read in READS:
        for text in OUTSIDE:
            yield f"{read} of {text}", partial(refused, read.replace("@", text.replace("\\", "\\\\")), folder)
    for name in NAMED:
        text = f'model net = zoo.smallcnn()\ncut at layer4\nattach "{name}" classes=3'
        yield f"attach {name!r}", partial(refused, text.replace("\n", "\\n") if "\n" in name else text, folder)
    torch.save({"a": Evil(marker)}, folder / "evil.pt")
    torch.save(Evil(marker), folder / "whole.pth")
    (folder / "evil.bin").write_bytes(pickle.dumps(Evil(marker)))
    (folder / "evil.pkl").write_bytes(pickle.dumps(Evil(marker), protocol=0))
    np.save(folder / "evil.npy", np.array([Evil(marker)], dtype=object), allow_pickle=True)
    np.savez(folder / "evil.npz", a=np.array([Evil(marker)], dtype=object))
    (folder / "code.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\ndef f(): pass\n")
    shutil.copy(folder / "evil.pt", folder / "evil.safetensors")
    words = 'model net = zoo.text_lstm(words=20)\ninit embed from matrix("evil.npy") words="code.py" vocabulary="code.py"'
    for name in ("evil.pt", "whole.pth", "evil.bin", "evil.pkl", "evil.npy", "evil.npz", "evil.safetensors", "code.py"):
        yield f"weights {name}", partial(refused, MLP.format(name), folder)
        yield f"model {name}", partial(refused, f'model net = "{name}"\nfreeze **', folder)
    yield "vectors evil.npy", partial(refused, words, folder)
    yield "code", partial(refused, 'model net = "code.py:f"\nfreeze **', folder)
    yield "code by a teacher", partial(refused, TRAIN + 'model t = "code.py:f"\ndistill from t for 1epochs on d', folder)
    bert(folder / "bert", marker)
    for more in ("", ", trust_remote_code=true", ', code_revision="x"', ', attn_implementation="a/b"'):
        yield f"hf{more}", partial(refused, f'model net = hf.AutoModel("bert"{more})\nfreeze **', folder)
    keep = folder / ".b.resume"
    keep.mkdir()
    (keep / "001").write_bytes(pickle.dumps(Evil(marker)))
    (keep / "made_by_netxform.json").write_text(json.dumps({"uid": 0, "nonce": "0" * 32, "plan": ""}))
    yield "a state", lambda: nx.apply(TRAIN, out=folder / "b", resume=True)
    for loader, module, kind in (("FunctionNode", "sklearn.utils._testing", "function"), ("TypeNode", "os", "system"),
                                 ("ObjectNode", "pathlib", "Path"), ("PartialNode", "functools", "partial"),
                                 ("OperatorFuncNode", "operator", "call"), ("MethodNode", "builtins", "method")):  # fmt: skip
        change = extra(__loader__=loader, __module__=module, __class__=kind, content={})
        yield f"skops {module}.{kind}", lambda change=change: read_classifier(forest(folder, change), nx.errors.NOWHERE)


def evil(count: int, seed: int, folder: Path) -> Row:
    """Every evil bundle, spec and folder, once. `count` and `seed` change nothing."""
    watch = Watch("evil bundles, specs, folders", folder)
    made = small(folder)
    cases: list[Case] = [(f"graph: {n}", partial(with_graph, made, folder / "g", lambda h, c=c: c(h, code_of(watch.marker))))
                         for n, c in NAMES.items()]  # fmt: skip
    cases += [(f"graph: {n}", partial(with_graph, made, folder / "g", c)) for n, c in CALLS.items()]
    cases += specs(folder, watch.marker)
    for name, work in cases:
        watch.trial(name, work)
    return watch.done()


# --- bombs -----------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> Iterator[Case]:
    """Files that are small, and claim or become much."""
    from PIL import Image

    head = json.dumps({"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (folder / "huge.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    (folder / "head.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{")
    with zipfile.ZipFile(folder / "zip.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zip/data/0", b"\0" * (1 << 28))
    with zipfile.ZipFile(folder / "zip.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b" " * (1 << 28))
    for name in ("sparse.safetensors", "sparse.pt", "sparse.onnx", "sparse.skops", "sparse.txt", "sparse.xform"):
        with (folder / name).open("wb") as file:
            file.truncate(1 << 40)
    shape = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }"
    (folder / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + shape.ljust(117).encode() + b"\n")
    (folder / "huge.vec").write_text("1000000000 1000000000\na 1 2\n")
    for name in ("f", "images/a", "images/b"):
        (folder / name).mkdir(parents=True)
    with gzip.open(folder / "f" / "train-images-idx3-ubyte.gz", "wb") as zipped:
        for _ in range(300):
            zipped.write(b"\0" * (1 << 20))
    for kind in "ab":
        Image.new("1", (30_000, 30_000)).save(folder / "images" / kind / "x.png")
    vectors = 'model net = zoo.text_lstm(words=20)\ninit embed from {} vocabulary="words.txt"'
    (folder / "words.txt").write_text("a\nb\n")
    for name in ("huge.safetensors", "head.safetensors", "zip.pt", "sparse.safetensors", "sparse.pt"):
        yield f"weights {name}", partial(refused, MLP.format(name), folder)
    for name in ("sparse.onnx", "sparse.skops", "zip.skops"):
        yield f"model {name}", partial(refused, f'model net = "{name}"\nfreeze **', folder)
    yield "a sparse spec", partial(refused, 'use "sparse.xform"', folder)
    yield "sparse words", partial(refused, vectors.format('glove("sparse.txt")'), folder)
    yield "a huge matrix", partial(refused, vectors.format('matrix("huge.npy") words="words.txt"'), folder)
    yield "a huge table", partial(refused, vectors.format('word2vec("huge.vec")'), folder)
    train = "model net = zoo.mlp(width=4)\ndata d = {}\ntrain ** for 1epochs on d"
    yield "zipped images", partial(refused, train.format('fashion_mnist(root="f")'), folder)
    yield "images of a gigapixel", partial(refused, train.format('folder("images", size=28, channels=1)'), folder)


def _planned(name: str, code: str | None) -> str:
    number = main(["plan", name])
    if number != (0 if code is None else 1):
        raise AssertionError(f"{name} ended with {number}, not {code}")
    return code or "read"


def bombs(count: int, seed: int, folder: Path) -> Row:
    """Every bomb once: specs, graphs in bundles, files. `count` and `seed` change nothing."""
    watch = Watch("bombs", folder)
    made = small(folder)
    cases: list[Case] = []
    for name, (text, code) in BOMBS.items():
        cases.append((name, partial(_planned, write(folder, name, text).name, code)))
    cases += [(f"graph: {n}", partial(with_graph, made, folder / "g", c)) for n, c in GRAPHS.items()]
    cases += _files(folder)
    with inside(folder):
        main(["plan", "whole.xform"])
        watch.limit()
        for name, work in cases:
            watch.trial(name, work)
    return watch.done()
