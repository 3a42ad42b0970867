"""The bundle: a folder that a stranger can load with plain torch, and verify with netxform from the folder alone.

    model.safetensors  model.py  graph.json  spec.xform  plan.json  certificate.json  evidence.safetensors  curves.csv  *.skops
    trajectory.json  trajectory.safetensors

It is written beside its place and moved there whole: on any error nothing is there.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace as replace_
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from netxform.artifacts.emit import emit
from netxform.artifacts.graph import from_json, ties, to_json
from netxform.artifacts.trajectory import store
from netxform.compiler.claims.registry import detail_of
from netxform.compiler.evidence import tensor_hash, tensors
from netxform.compiler.execute import Outcome
from netxform.compiler.plan import Plan
from netxform.compiler.remeasure import HeldOut, Witness
from netxform.errors import fail
from netxform.graph.network import Network
from netxform.language.certificate import Certificate, load
from netxform.language.trajectory import Trajectory
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
) -> None:
    """Write the bundle. Raises NetxformError X0818 (folder in the way), X0819 (cannot be written), X0820 (not storable)."""
    if folder.exists() and not overwrite:
        raise fail("X0818", f"`{folder.name}` already exists", helps=("choose another name, or replace it: `--overwrite`",))
    if folder.exists() and any(folder.iterdir()) and not (folder / "certificate.json").exists():
        raise fail("X0818", f"`{folder.name}` is no bundle: it is not replaced", helps=("choose another name",))
    network = outcome.network
    graph = to_json(network)
    source = emit(network)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_files(part, outcome, graph, source, certificate, witness, curves, estimators)
        store(part, trajectories)
        _seal(part, certificate, network)
        part.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.replace(folder, old / "bundle")
            os.replace(part, folder)
            shutil.rmtree(old)
        else:
            os.replace(part, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise fail(
            "X0819", f"the bundle could not be written: {reason}", helps=("nothing was left behind; free some space",)
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


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
    save_file(stored, part / "model.safetensors")
    (part / "model.py").write_text(source)
    _json(part / "graph.json", graph)
    (part / "spec.xform").write_text(resolved_text(plan))
    _json(part / "plan.json", plan.to_dict())
    save_file({n: t.contiguous().clone() for n, t in _named(witness).items()}, part / "evidence.safetensors")
    if curves:
        columns = list(dict.fromkeys(k for row in curves for k in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(curves)
        (part / "curves.csv").write_text(text.getvalue())
    if estimators:
        import skops.io

        for fitted in estimators:
            skops.io.dump(fitted.estimator, part / f"{fitted.name}.skops")


def _named(witness: Witness) -> dict[str, Tensor]:
    """The tensors of the witness under the names that the file has for them."""
    named = {f"input.{i}": t for i, t in enumerate(witness.inputs)}
    named |= {f"value.{n}": t for n, t in witness.values.items()}
    named |= {f"reference.{i}.{j}.{k}": t for (i, j), several in witness.references.items() for k, t in enumerate(several)}
    if witness.held_out is not None:
        named |= {"held_out.x": witness.held_out.x, "held_out.y": witness.held_out.y}
    return named


def _seal(part: Path, certificate: Certificate, network: Network) -> None:
    """The certificate, last: with the hash of every file and of every tensor."""
    tied = ties(network.module)
    stored = {n: t for n, t in tensors(network.module).items() if n not in tied}
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(part.iterdir())}
    hashes = {n: tensor_hash(t) for n, t in stored.items()}
    (part / "certificate.json").write_text(replace(certificate, files=files, tensors=hashes).dump())


def resolved_text(plan: Plan) -> str:
    """The spec with everything put in: parameters, macros and files."""
    return format_text(plan.spec.program)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def read(folder: Path) -> tuple[Network, Certificate]:
    """The network of a bundle and its certificate, with every hash compared first. Nothing in the folder is run.

    Raises NetxformError X0815 (no bundle), X0822 (changed or damaged), X0827 (of another version, or with a claim that
    nothing here measures), X0904 (names what it may not).
    """
    if not (folder / "certificate.json").is_file():
        raise fail("X0815", f"`{folder.name}` is no bundle of netxform", helps=("a bundle holds certificate.json",))
    try:
        certificate = load((folder / "certificate.json").read_text(), detail_of)
        for name, wanted in (certificate.files or {}).items():
            path = folder / name
            if Path(name).name != name or not path.is_file():
                raise fail("X0822", f"`{name}` is missing from the bundle")
            if hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
                raise fail("X0822", f"`{name}` is not the file that was certified", notes=("its sha256 differs",))
        stored = load_file(folder / "model.safetensors")
        graph = json.loads((folder / "graph.json").read_text())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise fail("X0822", f"the bundle is damaged: {type(error).__name__}: {error}") from error
    network = from_json(graph, stored)
    return replace_(network, given=_given(folder, network)) if network.guards else network, certificate


def _given(folder: Path, network: Network) -> tuple[Tensor, ...]:
    """The inputs that the claims were measured on: the network takes them, whatever it guards."""
    try:
        kept = load_file(folder / "evidence.safetensors")
        return tuple(kept[f"input.{i}"] for i in range(len(network.inputs)))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise fail("X0822", f"the bundle is damaged: {type(error).__name__}: {error}") from error


def witness(folder: Path, network: Network) -> Witness:
    """What the claims of a bundle are measured again on. Raises NetxformError X0822 (damaged)."""
    try:
        stored = load_file(folder / "evidence.safetensors")
        inputs = tuple(stored[f"input.{i}"] for i in range(len(network.inputs)))
        values = {n.removeprefix("value."): t for n, t in stored.items() if n.startswith("value.")}
        references: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        places = [tuple(int(part) for part in n.split(".")[1:]) for n in stored if n.startswith("reference.")]
        for i, j, k in sorted(places):
            references[i, j] = (*references.get((i, j), ()), stored[f"reference.{i}.{j}.{k}"])
        held_out = HeldOut(stored["held_out.x"], stored["held_out.y"]) if "held_out.x" in stored else None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise fail("X0822", f"the bundle is damaged: {type(error).__name__}: {error}") from error
    return Witness(inputs, values, references, held_out)
