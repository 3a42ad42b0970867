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
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from netxform.artifacts.emit import emit
from netxform.artifacts.graph import from_json, ties, to_json
from netxform.artifacts.trajectory import store
from netxform.compiler.execute import Outcome
from netxform.compiler.measure import again, digest, distance, measure, probe, tensor_hash, tensors, values_at
from netxform.compiler.plan import Plan
from netxform.errors import fail
from netxform.graph.network import Network
from netxform.graph.outputs import outputs
from netxform.language.claims import FrozenInTraining
from netxform.language.laws import Evidence
from netxform.language.trajectory import Trajectory
from netxform.syntax.format import format as format_text

FORMAT = 1
_HELD_OUT_BYTES = 8_000_000


@dataclass(frozen=True)
class HeldOut:
    """Test samples that travel with the bundle, so that its accuracy can be measured again."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: one line a claim, and whether all held."""

    lines: tuple[tuple[str, Evidence], ...]

    @property
    def held(self) -> bool:
        """Whether every claim held."""
        return all(e.held for _, e in self.lines)


def certificate(outcome: Outcome, held_out: HeldOut | None, comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """What was promised and what was measured, statement by statement, as plain data."""
    plan, network = outcome.plan, outcome.network
    inputs = probe(network, plan.spec.seed)
    statements: list[dict[str, Any]] = []
    # what was settled on weights or data, in words
    chosen = {s.index: list(s.choice.values.recorded) for s in plan.steps}
    for entry, measured in zip(outcome.entries, outcome.measured, strict=True):
        claims: list[dict[str, Any]] = []
        for one in measured:
            force = False  # what is about other models, or about nothing that was kept, cannot be measured here again
            if one.values:
                now = values_at(network, one.values, inputs)
                force = all(distance(now.get(n), t) == 0.0 for n, t in one.values.items())
            elif one.reference:
                kind = {"kind": one.claim.kind if one.claim is not None else ""}
                force = again(asdict(one.evidence) | kind, one.reference, network, inputs).held
            elif one.tensors:
                force = digest(network.module, one.tensors) == one.evidence.detail["digest"]
            elif isinstance(one.claim, FrozenInTraining):
                flags = {n: p.requires_grad for n, p in network.module.named_parameters(remove_duplicate=False)}
                force = not any(flags.get(n, True) for n in one.claim.parameters)
            kind = one.claim.kind if one.claim is not None else ""
            claims.append(
                asdict(one.evidence) | {"kind": kind, "in_force": force, "tensors": list(one.tensors) if force else []}
            )
        statements.append(
            {
                "index": entry.index,
                "statement": entry.text,
                "verb": entry.verb,
                "contract": entry.contract.value,
                "claims": claims,
                "metrics": entry.metrics,
                "chosen": chosen.get(entry.index, []),
                "warnings": list(entry.warnings),
            }
        )
    return {
        "format": FORMAT,
        "subject": plan.subject,
        "plan": plan.digest(),
        "seed": plan.spec.seed,
        "cost": {"before": plan.base_totals, "after": plan.final.totals()},
        "statements": statements,
        "metrics": outcome.metrics,
        "comparisons": comparisons,
        "held_out": _score(network, held_out),
        "versions": environment(),
    }


def environment() -> dict[str, str]:
    """Versions and the kind of machine."""
    names = ("netxform", "torch", "numpy", "scikit-learn", "safetensors")
    out = {n: version(n) for n in names}
    return out | {"python": platform.python_version(), "machine": platform.machine(), "threads": str(torch.get_num_threads())}


def held_out_of(network: Network, data: Any) -> HeldOut | None:
    """Up to 256 test samples of the data that was trained on last, as many as fit into 8 MB."""
    if data is None or not len(data.test):
        return None
    x0, y0 = data.test[0]
    if torch.as_tensor(y0).dim():
        return None
    count = min(256, len(data.test), max(1, _HELD_OUT_BYTES // max(1, x0.numel() * x0.element_size())))
    pairs = [data.test[i] for i in range(count)]
    return HeldOut(torch.stack([p[0] for p in pairs]), torch.stack([torch.as_tensor(p[1]) for p in pairs]))


@torch.no_grad()
def _score(network: Network, held: HeldOut | None) -> dict[str, Any] | None:
    if held is None:
        return None
    result: Any = network.module.eval()(held.x)
    if not isinstance(result, Tensor) or result.dim() != 2 or held.y.dim() != 1 or held.y.dtype.is_floating_point:
        return None
    right = int((result.argmax(1) == held.y).sum())
    return {"samples": len(held.y), "right": right}


def write(
    folder: Path,
    outcome: Outcome,
    certificate_: dict[str, Any],
    held_out: HeldOut | None,
    curves: list[dict[str, Any]],
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
        _write_files(part, outcome, graph, source, certificate_, held_out, curves, estimators)
        store(part, trajectories)
        _seal(part, certificate_, network)
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
    graph: dict[str, Any],
    source: str,
    certificate_: dict[str, Any],
    held_out: HeldOut | None,
    curves: list[dict[str, Any]],
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
    inputs = probe(network, plan.spec.seed)
    evidence: dict[str, Tensor] = {f"input.{i}": t for i, t in enumerate(inputs)}
    ends = {n.name for n in outputs(network.module).values()}
    wanted = {n for s in certificate_["statements"] for c in s["claims"] if c["in_force"] for n in c["detail"].get("nodes", ())}
    for name, value in values_at(network, wanted | ends, inputs).items():
        evidence[f"value.{name}"] = value
    for i, several in enumerate(outcome.measured):
        for j, one in enumerate(several):
            if one.reference and certificate_["statements"][i]["claims"][j]["in_force"]:
                evidence |= {f"reference.{i}.{j}.{k}": t for k, t in enumerate(one.reference)}
    if held_out is not None:
        evidence |= {"held_out.x": held_out.x, "held_out.y": held_out.y}
    save_file({n: t.contiguous().clone() for n, t in evidence.items()}, part / "evidence.safetensors")
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


def _seal(part: Path, certificate_: dict[str, Any], network: Network) -> None:
    """The certificate, last: with the hash of every file and of every tensor."""
    tied = ties(network.module)
    stored = {n: t for n, t in tensors(network.module).items() if n not in tied}
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(part.iterdir())}
    hashes = {n: tensor_hash(t) for n, t in stored.items()}
    _json(part / "certificate.json", certificate_ | {"files": files, "tensors": hashes})


def resolved_text(plan: Plan) -> str:
    """The spec with everything put in: parameters, macros and files."""
    return format_text(plan.spec.program)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def read(folder: Path) -> tuple[Network, dict[str, Any]]:
    """The network of a bundle and its certificate, with every hash compared first. Nothing in the folder is run.

    Raises NetxformError X0815 (no bundle), X0822 (changed or damaged), X0904 (names what it may not).
    """
    if not (folder / "certificate.json").is_file():
        raise fail("X0815", f"`{folder.name}` is no bundle of netxform", helps=("a bundle holds certificate.json",))
    try:
        held = json.loads((folder / "certificate.json").read_text())
        for name, wanted in held["files"].items():
            path = folder / name
            if Path(name).name != name or not path.is_file():
                raise fail("X0822", f"`{name}` is missing from the bundle")
            if hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
                raise fail("X0822", f"`{name}` is not the file that was certified", notes=("its sha256 differs",))
        stored = load_file(folder / "model.safetensors")
        graph = json.loads((folder / "graph.json").read_text())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise fail("X0822", f"the bundle is damaged: {type(error).__name__}: {error}") from error
    return from_json(graph, stored), held


def verify(folder: Path) -> Verdict:
    """Measure every claim that is in force again, from the folder alone."""
    network, held = read(folder)
    stored = load_file(folder / "evidence.safetensors")
    inputs = tuple(stored[f"input.{i}"] for i in range(len(network.inputs)))
    nodes = [n.removeprefix("value.") for n in stored if n.startswith("value.")]
    values = values_at(network, nodes, inputs)
    lines: list[tuple[str, Evidence]] = []
    current = tensors(network.module)
    wrong = [n for n, h in held["tensors"].items() if tensor_hash(current[n]) != h]
    lines.append(("weights", Evidence("every tensor has the certified bits", 0.0, float(len(wrong)), not wrong)))
    worst = max(
        (distance(values.get(n.name), stored[f"value.{n.name}"]) for n in outputs(network.module).values()), default=0.0
    )
    count = inputs[0].shape[0] if inputs else 0
    # another machine may round differently: the outputs are compared within float32 rounding of the certified ones
    scale = max((float(stored[f"value.{n.name}"].abs().max()) for n in outputs(network.module).values()), default=1.0)
    bound = 0.0 if held["versions"] == environment() else 1e-5 * max(scale, 1.0)
    lines.append(("outputs", Evidence("outputs on the probe inputs", bound, worst, worst <= bound, count)))
    for i, statement in enumerate(held["statements"]):
        for j, claim in enumerate(statement["claims"]):
            if not claim["in_force"]:
                continue
            names = [n for n in stored if n.startswith(f"reference.{i}.{j}.")]
            if names:
                wanted = tuple(stored[n] for n in sorted(names, key=lambda n: int(n.rpartition(".")[2])))
                evidence = again(claim, wanted, network, inputs)
            else:
                evidence = _again(claim, network, values, stored, bound)
            lines.append((statement["statement"], evidence))
    if held["held_out"] is not None and "held_out.x" in stored:
        now = _score(network, HeldOut(stored["held_out.x"], stored["held_out.y"]))
        gap = abs((now or {"right": 0})["right"] - held["held_out"]["right"])
        allowed = 0.0 if bound == 0.0 else 0.01 * held["held_out"]["samples"]
        text = f"held-out samples right: {held['held_out']['right']} of {held['held_out']['samples']}"
        lines.append(("accuracy", Evidence(text, allowed, float(gap), gap <= allowed, held["held_out"]["samples"])))
    return Verdict(tuple(lines))


def _again(
    claim: dict[str, Any], network: Network, values: dict[str, Tensor], stored: dict[str, Tensor], bound: float
) -> Evidence:
    names = claim["detail"].get("nodes")
    if names is not None:
        worst = max((distance(values.get(n), stored[f"value.{n}"]) for n in names), default=0.0)
        return Evidence(claim["claim"], bound, worst, worst <= bound, claim["samples"], claim["seed"], claim["dtype"])
    if claim["kind"] in ("untouched", "rounded", "quantized", "taken", "zeros held", "sparse"):
        same = digest(network.module, claim["tensors"]) == claim["detail"]["digest"]
        return Evidence(claim["claim"], 0.0, 0.0 if same else 1.0, same, 0, 0, "bits")
    detail = claim["detail"]
    frozen = FrozenInTraining(tuple(detail["parameters"]), tuple(detail["buffers"]))
    inputs = tuple(stored[f"input.{i}"] for i in range(len(network.inputs)))
    return measure(frozen, network, network, inputs, claim["seed"]).evidence
