"""The bundle: a folder that a stranger can load with plain torch, and verify with netxform from the folder alone.

    model.safetensors  model.py  graph.json  spec.xform  plan.json  certificate.json  evidence.safetensors  curves.csv  *.skops
    trajectory.json  trajectory.safetensors  tokenizer.json, hf_config.json, … (`sources.companions`)

It is written beside its place and put there whole, in one step: whenever a run is killed, the old one is there or the new one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace as replace_
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from netxform.artifacts import signing
from netxform.artifacts.emit import emit, source_of
from netxform.artifacts.exchange import put, staged
from netxform.artifacts.graph import from_json, ties, to_json
from netxform.artifacts.manifest import CACHE, Sealed, not_yours, place, replaceable, sealed
from netxform.artifacts.trajectory import store
from netxform.compiler.evidence import tensor_hash, tensors
from netxform.compiler.execute import Outcome
from netxform.compiler.plan import Plan
from netxform.compiler.remeasure import Witness, environment
from netxform.compiler.scores import HeldOut, Part
from netxform.errors import fail
from netxform.graph.inputs import Given
from netxform.graph.network import Network
from netxform.language.certificate import Certificate
from netxform.language.trajectory import Trajectory
from netxform.sources.parts import cannot_write
from netxform.sources.state_dicts import with_numbers, without_numbers
from netxform.syntax.format import format as format_text


def write(
    folder: Path,
    outcome: Outcome,
    certificate: Certificate,
    witness: Witness,
    curves: Sequence[Mapping[str, object]],
    estimators: list[Any],
    overwrite: bool = False,
    trajectories: Sequence[Trajectory] = (),
    sign: Path | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write the bundle, signed with the private key in the file `sign`. `beside`: files that belong to the model, by name.

    Raises NetxformError X0818 (folder in the way), X0819 (cannot be written), X0820 (not storable), X0907 (no such key).
    """
    if os.path.lexists(folder):
        if not overwrite:
            raise fail("X0818", f"`{folder.name}` already exists", helps=(_ANOTHER,))
        replaceable(folder)
    seen = _look(folder)
    network = outcome.network
    graph = to_json(network)
    source = emit(network)
    try:
        with staged(folder) as new:
            part = new / folder.name  # a signature names the folder
            part.mkdir()
            _write_files(part, outcome, graph, source, certificate, witness, curves, estimators)
            store(part, trajectories)
            for name, held in (beside or {}).items():
                place(part, name).write_bytes(held)
            _seal(part, certificate, network)
            if sign is not None:
                signing.sign(part, sign)
            put(part, folder, lambda old: _look(old) == seen)
    except (OSError, SafetensorError) as error:
        raise cannot_write(f"`{folder}`", error) from error


_ANOTHER = "choose another name, or replace it: `--overwrite`"


def _look(folder: Path) -> list[tuple[str, int, int, int]]:
    """What is in a folder, as far as its names and numbers say; nothing where there is none."""
    if not folder.is_dir():
        return []
    found = [(p.name, p.lstat()) for p in folder.iterdir()]
    return sorted((n, s.st_ino, s.st_size, s.st_mtime_ns) for n, s in found)


def _write_files(
    part: Path,
    outcome: Outcome,
    graph: dict[str, object],
    source: str,
    certificate: Certificate,
    witness: Witness,
    curves: Sequence[Mapping[str, object]],
    estimators: list[Any],
) -> None:
    plan, network = outcome.plan, outcome.network
    every = tensors(network.module)
    tied = ties(network.module)
    stored = {n: t.cpu().contiguous().clone() for n, t in every.items() if n not in tied}
    save_file(stored, place(part, "model.safetensors"))
    place(part, "model.py").write_text(source)
    _json(place(part, "graph.json"), graph)
    place(part, "spec.xform").write_text(resolved_text(plan))
    _json(place(part, "plan.json"), plan.to_dict())
    _evidence(place(part, "evidence.safetensors"), witness)
    if curves:
        columns = list(dict.fromkeys(k for row in curves for k in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(curves)
        place(part, "curves.csv").write_text(text.getvalue())
    if estimators:
        from netxform.artifacts.estimator import dump

        for fitted in estimators:
            dump(fitted.estimator, place(part, f"{fitted.name}.skops"))


def _evidence(path: Path, witness: Witness) -> None:
    """The tensors of the witness in one file, equal ones once; which has which name is in its metadata."""
    named = {f"input.{i}": t for i, t in enumerate(witness.inputs)}
    named |= {f"output.{n}": t for n, t in witness.outputs.items()}
    named |= {f"value.{i}.{j}.{n}": t for (i, j), several in witness.values.items() for n, t in several.items()}
    named |= {f"reference.{i}.{j}.{k}": t for (i, j), several in witness.references.items() for k, t in enumerate(several)}
    parts = witness.held_out.parts if witness.held_out is not None else {}
    for n, p in parts.items():
        several = {"x": p.x} if isinstance(p.x, Tensor) else {f"x.{i}": t for i, t in enumerate(p.x)}
        named |= {f"held_out.{n}.{what}": t for what, t in (several | {"y": p.y}).items()}
    index = {n: tensor_hash(t)[:24] for n, t in named.items()}
    held = {index[n]: t.detach().cpu().contiguous().clone() for n, t in named.items()}
    told = {"index": index, "of": {n: p.of for n, p in parts.items()}, "certificate": witness.certificate}
    save_file(held, path, {"netxform": json.dumps(told, sort_keys=True)})


def _seal(part: Path, certificate: Certificate, network: Network) -> None:
    """The certificate, last: with the hash of every file and of every tensor."""
    tied = ties(network.module)
    stored = {n: t for n, t in tensors(network.module).items() if n not in tied}
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(part.iterdir())}
    hashes = {n: tensor_hash(t) for n, t in stored.items()}
    place(part, "certificate.json").write_text(replace(certificate, files=files, tensors=hashes).dump())


def resolved_text(plan: Plan) -> str:
    """The spec with everything put in: parameters, macros and files."""
    return format_text(plan.spec.program)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def read(folder: Path, most: int | None = None, weightless: bool = False) -> tuple[Network, Certificate]:
    """The network of a bundle and its certificate, with every byte of the folder accounted for. Nothing in it is run.

    `most`: the bytes that one file or tensor may take (None: the memory of the machine). `weightless`: every tensor of the
    network on the meta device. Raises NetxformError X0815 (no
    bundle), X0822 (changed or damaged), X0827 (of another version, or with a claim that nothing here measures), X0904 (names
    what it may not), X0906 (too large).
    """
    bundle = sealed(folder, most)
    network, certificate = opened(bundle, most, weightless), bundle.certificate
    if comparable(certificate) and bundle.texts["model.py"] != source_of(network):
        raise fail(
            "X0822",
            "`model.py` is not what the graph of the bundle says",
            notes=("it is Python that runs when it is imported; netxform wrote another file",),
        )
    return network, certificate


def opened(bundle: Sealed, most: int | None = None, weightless: bool = False) -> Network:
    """The network of a bundle whose bytes are accounted for."""
    try:
        path = bundle.folder / "model.safetensors"
        stored = without_numbers(path) if weightless else with_numbers(path)
    except PermissionError as error:
        raise not_yours(bundle.folder, error) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise fail("X0822", f"the bundle is damaged: {type(error).__name__}: {error}") from error
    network = from_json(bundle.json("graph.json"), stored, most)
    if json.loads(json.dumps(to_json(network))) != bundle.json("graph.json"):
        raise fail("X0822", "`graph.json` of the bundle says more than the network that it describes")
    return replace_(network, given=_given(bundle.folder, network)) if network.guards else network


def _given(folder: Path, network: Network) -> tuple[Tensor, ...]:
    """The inputs that the claims were measured on: the network takes them, whatever it guards."""
    return witness(folder, network).inputs


def remarks(bundle: Sealed) -> tuple[str, ...]:
    """What `verify` could not compare, and why."""
    certificate = bundle.certificate
    cached: tuple[str, ...] = ()
    if (bundle.folder / CACHE).exists():
        cached = (
            f"{CACHE} not compared: Python made it when model.py was imported, and may run it in the place of model.py; "
            "remove it from a bundle that somebody gave you",
        )
    if comparable(certificate):
        return cached
    of = " and ".join(f"{n} {certificate.versions.get(n, '?')}" for n in ("netxform", "torch"))
    return (
        *cached,
        f"model.py not compared: it is said to be written by {of}, whose words may be others; read it before you import it",
    )


def comparable(certificate: Certificate) -> bool:
    """Whether `model.py` was written by these versions: others may write the same graph in other words."""
    here = environment()
    return all(certificate.versions.get(n) == here[n] for n in ("netxform", "torch"))


def _samples(stored: dict[str, Tensor], part: str, inputs: int) -> Given:
    """The samples of a part: one tensor, or one for each input."""
    if inputs == 1:
        return stored[f"held_out.{part}.x"]
    return tuple(stored[f"held_out.{part}.x.{i}"] for i in range(inputs))


def witness(folder: Path, network: Network) -> Witness:
    """What the claims of a bundle are measured again on. Raises NetxformError X0822 (damaged)."""
    try:
        held = with_numbers(folder / "evidence.safetensors")
        with safe_open(folder / "evidence.safetensors", "pt") as file:  # pyright: ignore[reportUnknownVariableType]
            told = json.loads((file.metadata() or {}).get("netxform", "null"))  # pyright: ignore[reportUnknownMemberType]
        if told is None:  # formats 1 and 2: no claim says what it is about, and the outputs alone are compared
            inputs = tuple(held[f"input.{i}"] for i in range(len(network.inputs)))
            return Witness(inputs, {n.removeprefix("value."): t for n, t in held.items() if n.startswith("value.")}, {}, {})
        stored = {n: held[key] for n, key in told["index"].items()}
        inputs = tuple(stored[f"input.{i}"] for i in range(len(network.inputs)))
        outputs = {n.removeprefix("output."): t for n, t in stored.items() if n.startswith("output.")}
        values: dict[tuple[int, int], dict[str, Tensor]] = {}
        references: dict[tuple[int, int], dict[int, Tensor]] = {}
        for name, tensor in stored.items():
            what, _, rest = name.partition(".")
            if what in ("value", "reference"):
                i, j, last = rest.split(".", 2)
                if what == "value":
                    values.setdefault((int(i), int(j)), {})[last] = tensor
                else:
                    references.setdefault((int(i), int(j)), {})[int(last)] = tensor
        ordered = {place: tuple(several[k] for k in sorted(several)) for place, several in references.items()}
        parts = {n: Part(_samples(stored, n, len(inputs)), stored[f"held_out.{n}.y"], int(of)) for n, of in told["of"].items()}
        plan = json.loads((folder / "plan.json").read_text())
        return Witness(inputs, outputs, values, ordered, HeldOut(parts) if parts else None, plan, str(told["certificate"]))
    except PermissionError as error:
        raise not_yours(folder, error) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise fail("X0822", f"the bundle is damaged: {type(error).__name__}: {error}") from error
