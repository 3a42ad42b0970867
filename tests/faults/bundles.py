"""Bundles that accidents and strangers change: bits of every file, and JSON, tensors and texts mutated with every hash anew."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import netxform as nx
from netxform.artifacts import signing
from netxform.errors import NetxformError
from tests.artifacts.tampering import SPEC, keys, reseal
from tests.faults.damage import READERS, damaged, make, read_damaged
from tests.faults.watch import Row, Watch

RESUMED = 'model net = zoo.smallcnn(width=4) input="1x1x8x8"\ndata d = sklearn.digits(train=60)\ntrain fc for 2epochs on d'
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, 1e308, -0.0, "", "x", "inf", "nan", "../x", "a\x00b",
    "ü" * 9, "x" * 5000, [], {}, [[[[[]]]]], {"a": {"b": 1}}, {"node": "x"}, {"tuple": [1]}, {"float": "nan"}, [0] * 50,
)  # fmt: skip


def bundle(folder: Path) -> tuple[Path, Path]:
    """A signed bundle with every file that there is, and the public key."""
    private, public = keys(folder)
    nx.apply(SPEC, out=folder / "b", sign=private)
    return folder / "b", public


def flipped(data: bytes, draw: random.Random) -> bytes:
    """With one bit changed."""
    out = bytearray(data)
    out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def tensors(model: Any) -> dict[str, bytes]:
    """The bytes of every tensor."""
    return {n: t.contiguous().flatten().view(torch.uint8).numpy().tobytes() for n, t in model.state_dict().items() if t.numel()}


# --- bits ------------------------------------------------------------------------------------------------------------


def flips(count: int, seed: int, folder: Path) -> Row:
    """Bits of all files of a bundle, of the state that an interrupted run leaves, of data, and of vectors, in turns."""
    draw, watch = random.Random(seed), Watch("bits of bundles, states, data, vectors", folder)
    made, public = bundle(folder)
    of_bundle = _flips_of_a_bundle(made, public)
    resumed = _flips_of_a_state(folder / "state")
    (folder / "data").mkdir()
    make(folder / "data")
    watch.limit()
    every = sorted(made.iterdir())
    for number in range(count):
        if number % 20 == 19:
            watch.trial(f"{number}: a state", lambda: resumed(draw))
        elif number % 4 == 3:
            name = list(READERS)[number // 4 % len(READERS)]
            watch.trial(f"{number}: {name}", lambda name=name: read_damaged(folder / "data", name, draw, flipped))
        else:
            file = every[number % len(every)]
            watch.trial(f"{number}: {file.name}", lambda file=file: of_bundle(file, draw))
    return watch.done()


def _flips_of_a_bundle(made: Path, public: Path) -> Callable[[Path, random.Random], str]:
    wanted = tensors(nx.load(made))

    def one(file: Path, draw: random.Random) -> str:
        """Nobody with the key takes it for whole; without one the weights are the same, or it is refused."""
        whole = file.read_bytes()
        file.write_bytes(flipped(whole, draw))
        try:
            try:
                signing.check(made, public)
                return "lost: the signature holds"
            except NetxformError:
                pass
            if file.name == "model.sig":
                return "found by the signature"
            if tensors(nx.load(made)) != wanted:
                return "lost: other weights"
            return "not found without the key" if nx.verify(made).held else "found by verify"
        finally:
            file.write_bytes(whole)

    return one


def _flips_of_a_state(folder: Path) -> Callable[[random.Random], str]:
    import netxform.training.fit as fit

    folder.mkdir()
    nx.apply(RESUMED, out=folder / "whole")
    wanted = (folder / "whole" / "model.safetensors").read_bytes()
    real = fit.save

    def stop(run: Any, path: Path) -> None:
        real(run, path)
        raise KeyboardInterrupt

    def stopped() -> dict[Path, bytes]:
        fit.save = stop
        try:
            nx.apply(RESUMED, out=folder / "b")
        except KeyboardInterrupt:
            pass
        finally:
            fit.save = real
        return {p: p.read_bytes() for p in sorted((folder / ".b.resume").iterdir())}

    before = stopped()

    def one(draw: random.Random) -> str:
        """Going on gives the bytes of a run that nobody interrupted, or is refused."""
        nonlocal before
        file = draw.choice(sorted(before))
        file.write_bytes(flipped(before[file], draw))
        try:
            nx.apply(RESUMED, out=folder / "b", resume=True)
        except NetxformError:
            for path, held in before.items():
                path.write_bytes(held)
            raise
        same = (folder / "b" / "model.safetensors").read_bytes() == wanted
        shutil.rmtree(folder / "b")
        before = stopped()
        return "the same bytes" if same else "lost: other bytes than without the interruption"

    return one


def data(count: int, seed: int, folder: Path) -> Row:
    """Data and vector files, damaged in every way."""
    draw, watch = random.Random(seed), Watch("damaged data and vectors", folder)
    make(folder)
    for name in READERS:
        READERS[name](folder)
    watch.limit()
    for number in range(count):
        name = list(READERS)[number % len(READERS)]
        watch.trial(f"{number}: {name}", lambda name=name: read_damaged(folder, name, draw, damaged))
    return watch.done()


# --- mutations -------------------------------------------------------------------------------------------------------


def mutants(count: int, seed: int, folder: Path) -> Row:
    """A bundle whose JSON, tensors or texts are mutated, with every hash written anew; loaded, and verified."""
    draw, watch = random.Random(seed), Watch("mutated bundles", folder)
    made, _ = bundle(folder)
    nx.verify(made)
    watch.limit()
    for number in range(count):
        place = folder / "m" / "b"
        shutil.copytree(made, place)
        said = mutated(place, draw)
        watch.trial(f"{number}, seed {seed}: {said}", lambda place=place: _looked_at(place))
        shutil.rmtree(place.parent)
    return watch.done()


def _looked_at(folder: Path) -> str:
    nx.load(folder)
    return "held" if nx.verify(folder).held else "not held"


def mutated(folder: Path, draw: random.Random) -> str:
    """Change one to three things of one or more files, and seal the folder again, as far as it can be. What was done."""
    (folder / signing.SIGNATURE).unlink()
    said: list[str] = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        name = draw.choice(("graph.json",) * 4 + ("certificate.json",) * 3 + ("plan.json", "trajectory.json", "spec.xform",
                           "model.py", "curves.csv", "head.skops", "model.safetensors", "evidence.safetensors",
                           "trajectory.safetensors"))  # fmt: skip
        file = folder / name
        if name.endswith(".json"):
            try:
                held = json.loads(file.read_text())
            except ValueError:
                continue
            said.append(f"{name} {_mutate(held, draw)}")
            file.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
        elif name.endswith(".safetensors") and draw.random() < 0.7:
            said.append(f"{name} {_tensor(file, draw)}")
        else:
            said.append(f"{name} damaged")
            file.write_bytes(damaged(file.read_bytes(), draw))
    if draw.random() < 0.85:
        try:
            reseal(folder)
        except Exception:  # what was changed is no bundle any more
            said.append("as it is")
    return ", ".join(said)


def _mutate(held: Any, draw: random.Random) -> str:
    """One value somewhere in plain data: gone, doubled, exchanged with another, or something odd."""
    places: list[tuple[Any, Any]] = []
    stack = [held]
    while stack:
        now = stack.pop()
        keys = list(now) if isinstance(now, dict) else range(len(now)) if isinstance(now, list) else ()
        places += [(now, k) for k in keys]
        stack += [now[k] for k in keys if isinstance(now[k], dict | list)]
    owner, key = draw.choice(places)
    kind = draw.choice(("odd", "odd", "odd", "gone", "twice", "other", "renamed", "near"))
    match kind:
        case "gone":
            del owner[key]
        case "twice" if isinstance(owner, list):
            owner.insert(key, copy.deepcopy(owner[key]))
        case "renamed" if isinstance(owner, dict):
            owner[draw.choice(("x", "", f"{key}2", str(key)[:-1]))] = owner.pop(key)
        case "other":
            there, at = draw.choice(places)
            owner[key] = copy.deepcopy(there[at]) if at in there or (isinstance(there, list) and at < len(there)) else None
        case "near" if isinstance(owner[key], int | float) and not isinstance(owner[key], bool):
            owner[key] = owner[key] * draw.choice((-1, 2, 1000)) + draw.choice((-1, 0, 1))
        case _:
            owner[key] = copy.deepcopy(draw.choice(ODD))
    return f"{kind} {key}"


def _tensor(file: Path, draw: random.Random) -> str:
    """One tensor of a file: of another shape or type, not finite, gone, under another name."""
    try:
        held = load_file(file)
        with safe_open(file, "pt") as opened:  # pyright: ignore[reportUnknownVariableType]
            told: Any = opened.metadata()
    except Exception:  # an earlier change has broken it
        return "broken"
    name = draw.choice(sorted(held))
    kind = draw.choice(("shape", "type", "nan", "huge", "gone", "named", "more", "metadata"))
    tensor = held[name]
    match kind:
        case "shape":
            held[name] = tensor.flatten()[:-1].clone()
        case "type":
            held[name] = tensor.to(draw.choice((torch.float64, torch.int8, torch.bool, torch.float16)))
        case "nan":
            held[name] = torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor - 1
        case "huge":
            held[name] = tensor * 1e30 if tensor.is_floating_point() else tensor * 1000
        case "gone":
            del held[name]
        case "named":
            held[draw.choice(("x", "__class__", "a b", f"{name}.x"))] = held.pop(name)
        case "more":
            held["more"] = torch.zeros(3)
        case _:
            told = {"netxform": draw.choice(("", "[]", "null", '{"index": {}}', '{"index": {"input.0": 3}, "of": 1}'))}
    save_file(held, file, told)
    return f"{kind} {name}"
