"""Teachers at work: their answers to every batch, remembered where each sample is seen the same way every time.

A teacher is in eval mode, gets no gradient, and is hashed before and after: the evidence says that not one bit moved.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, fx, nn
from torch.utils.data import TensorDataset

from netxform.compiler.claims.training import TeacherDetail
from netxform.compiler.evidence import tensor_hash, tensors
from netxform.language.claims import TeacherKept
from netxform.language.laws import Evidence
from netxform.language.work import Soft, Training
from netxform.training.data import Samples, shares
from netxform.training.process import Processes
from netxform.training.taps import tapped

_BATCH = 256


def fingerprint(module: nn.Module) -> str:
    """A hash of everything that decides what the module answers: its code or structure, and the bits of every tensor."""
    own = getattr(module, "fingerprint", None)
    if callable(own):
        return str(own())
    text = module.graph if isinstance(module, fx.GraphModule) else str(module)
    out = hashlib.sha256(f"{text}\n{[repr(m) for m in module.modules()][1:]}".encode())
    for name, tensor in sorted(tensors(module).items()):
        out.update(f"{name} {tensor_hash(tensor)}\n".encode())
    return out.hexdigest()


class Teachers:
    """The teachers of one training, on its device."""

    def __init__(self, soft: Soft, known: Mapping[str, nn.Module], device: torch.device) -> None:
        self.soft = soft
        self.given = {n: known[n] for n in soft.teachers}
        self.before = {n: fingerprint(m) for n, m in self.given.items()}
        for model in self.given.values():
            model.eval()
        self.models = {n: m if device.type == "cpu" else copy.deepcopy(m).to(device) for n, m in self.given.items()}
        self.nodes = {n: [m.teacher_node for m in soft.matches if m.teacher == n] for n in self.given}
        self.runs: dict[str, nn.Module] = {
            n: tapped(cast(fx.GraphModule, m), self.nodes[n]) if self.nodes[n] else m for n, m in self.models.items()
        }
        self.device = device
        self.tables: dict[str, Tensor] = {}
        self.remembered = 0

    def remember(self, samples: Samples, work: Training, folder: Path | None, processes: Processes) -> None:
        """Answer all training samples once, if each is seen the same way in every epoch; from disk, if it was done before."""
        fixed = not work.augment and not work.mixup and not self.soft.matches
        if not (fixed and self.soft.cache and isinstance(samples, TensorDataset)):
            return
        data = tensor_hash(samples.tensors[0])
        for name, model in self.models.items():
            version = f"{torch.__version__} {self.device.type}"
            key = hashlib.sha256(f"{self.before[name]} {data} {version}".encode()).hexdigest()
            file = None if folder is None or not self.before[name] else folder / f"{key}.safetensors"
            found = None if file is None else _stored(file, key, len(samples))
            self.remembered += found is not None
            if found is None:
                found = torch.cat([self._ask(model, b.x) for b in shares(samples, _BATCH)])
                if file is not None and processes.first:
                    _store(file, key, found)
            self.tables[name] = found

    def _ask(self, model: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad(), _eval(model):
            return cast(Tensor, model(x.to(self.device))).detach()

    def answers(self, x: Tensor, places: Tensor | None = None) -> tuple[list[Tensor], dict[str, tuple[Tensor, ...]]]:
        """The output of every teacher, and the values that features are matched with."""
        outputs: list[Tensor] = []
        values: dict[str, tuple[Tensor, ...]] = {}
        for name, model in self.runs.items():
            if places is not None and name in self.tables:
                outputs.append(self.tables[name][places].to(self.device))
                continue
            with torch.no_grad(), _eval(model):
                found: Any = model(x)
            if self.nodes[name]:
                found, values[name] = found
            outputs.append(found)
        return outputs, values

    def evidence(self) -> tuple[Evidence, ...]:
        """Whether each teacher has the bits that it had."""
        out: list[Evidence] = []
        for name, before in self.before.items():
            after = fingerprint(self.given[name])
            moved = int(before != after) + sum(m.training for m in self.given[name].modules())
            what = f"teacher `{name}` untouched, bit for bit, and in eval mode"
            if not before:
                what = f"teacher `{name}` in eval mode (a function has no bits to compare)"
            detail = TeacherDetail(after, "remembered" if name in self.tables else "asked at every step")
            out.append(Evidence(what, 0.0, float(moved), moved == 0, 0, 0, "bits", detail, TeacherKept.kind))
        return tuple(out)


@contextlib.contextmanager
def _eval(model: nn.Module) -> Generator[None]:
    """Eval mode, whatever somebody else left."""
    if any(m.training for m in model.modules()):
        model.eval()
    yield


def cache_folder() -> Path | None:
    """Where answers are kept: `$NETXFORM_CACHE`, else the user's cache; None for an empty `$NETXFORM_CACHE`."""
    named = os.environ.get("NETXFORM_CACHE")
    if named is not None:
        return Path(named) if named else None
    return user_cache_path("netxform")


def _stored(file: Path, key: str, rows: int) -> Tensor | None:
    """What was stored under that key, if it is whole; anything else is made anew."""
    try:
        with safe_open(file, framework="pt") as held:
            found = cast(Tensor, held.get_tensor("output"))
            facts: Any = held.metadata() or {}
    except (OSError, SafetensorError, KeyError):
        return None
    right = facts.get("of") == f"{key} {tensor_hash(found)}" and len(found) == rows
    return found if right else None


def _store(file: Path, key: str, output: Tensor) -> None:
    """Keep answers; a full or read-only disk costs the next run time and this one nothing."""
    part = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=file.parent)
        os.close(descriptor)
        # one entry: several would be written in a random order
        save_file({"output": output.cpu().contiguous()}, part, {"of": f"{key} {tensor_hash(output)}"})
        os.replace(part, file)
    except (OSError, SafetensorError):
        if part is not None:
            Path(part).unlink(missing_ok=True)
