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
from typing import Any, TypeAlias, cast

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, fx, nn
from torch.utils.data import TensorDataset

from netxform.compiler.claims.training import TeacherDetail
from netxform.compiler.evidence import tensor_hash, tensors
from netxform.errors import fail
from netxform.graph.inputs import Given, arguments
from netxform.graph.outputs import picked
from netxform.language.claims import TeacherKept
from netxform.language.laws import Evidence
from netxform.language.work import Sight, Soft, Training
from netxform.sources.data.given.samples import Bound, Table, leaves
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


Normal: TypeAlias = "tuple[tuple[float, ...], tuple[float, ...]] | None"


def _channels(numbers: tuple[float, ...], x: Tensor) -> Tensor:
    """A number for each channel of x (N, C, H, W), or one for all. Raises NetxformError X0343 for another number of
    channels.
    """
    if len(numbers) not in (1, x.shape[1]):
        raise fail("X0343", f"`normalize` has {len(numbers)} numbers, and the images {x.shape[1]} channels")
    return torch.tensor(numbers, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)


def _inputs_in_memory(samples: Samples) -> list[Tensor]:
    """The inputs of all samples, where they lie in memory as they are given to the model; else nothing."""
    if isinstance(samples, TensorDataset) and len(samples.tensors) == 2:
        return [samples.tensors[0]]
    if isinstance(samples, Bound) and isinstance(samples.source, Table):
        held = leaves(samples.source.x)
        if all(isinstance(t, Tensor) for t in held):
            x = samples.take(torch.arange(len(samples)))[0]
            return [] if isinstance(x, dict) else list(arguments(x))
    return []


class Teachers:
    """The teachers of one training, on its device. `normal`: what the images of the data were normalised by."""

    def __init__(self, soft: Soft, known: Mapping[str, nn.Module], device: torch.device, normal: Normal = None) -> None:
        self.soft, self.normal = soft, normal
        several = len(soft.teachers)
        self.output = dict(zip(soft.teachers, soft.outputs or (None,) * several, strict=True))
        self.sights = dict(zip(soft.teachers, soft.sights or (Sight(),) * several, strict=True))
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
        fixed = not work.augment and not work.mixup and not work.cutmix and not self.soft.matches
        held = _inputs_in_memory(samples)
        if not (fixed and self.soft.cache and held):
            return
        data = " ".join(tensor_hash(t) for t in held) if len(held) > 1 else tensor_hash(held[0])
        for name, model in self.models.items():
            version = f"{torch.__version__} {self.device.type}"
            more = f"{self.output[name]} {self.sights[name]}" if self.output[name] or self.sights[name] != Sight() else ""
            key = hashlib.sha256(f"{self.before[name]} {data} {version}{more}".encode()).hexdigest()
            file = None if folder is None or not self.before[name] else folder / f"{key}.safetensors"
            found = None if file is None else _stored(file, key, len(held[0]))
            self.remembered += found is not None
            if found is None:
                found = torch.cat([self._ask(name, model, b.x) for b in shares(samples, _BATCH)])
                if file is not None and processes.first:
                    _store(file, key, found)
            self.tables[name] = found

    def _ask(self, name: str, model: nn.Module, x: Given) -> Tensor:
        with torch.no_grad(), _eval(model):
            found: Any = model(*self._shown(name, tuple(t.to(self.device) for t in arguments(x))))
        return picked(found, self.output[name]).detach()

    def _shown(self, name: str, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The samples as that teacher is to be shown them."""
        sight = self.sights[name]
        if sight == Sight():
            return given
        (x,) = given
        if x.dim() != 4:
            raise fail("X0343", f"the teacher `{name}` is shown images (C, H, W), and the samples are {tuple(x.shape[1:])}")
        if sight.mean:
            if self.normal is not None:
                x = x * _channels(self.normal[1], x) + _channels(self.normal[0], x)
            x = (x - _channels(sight.mean, x)) / _channels(sight.std, x)
        if sight.size is not None and tuple(x.shape[2:]) != sight.size:
            x = nn.functional.interpolate(x, sight.size, mode="bilinear", align_corners=False, antialias=True)
        return (x,)

    def answers(self, x: Given, places: Tensor | None = None) -> tuple[list[Tensor], dict[str, tuple[Tensor, ...]]]:
        """The output of every teacher, and the values that features are matched with."""
        outputs: list[Tensor] = []
        values: dict[str, tuple[Tensor, ...]] = {}
        for name, model in self.runs.items():
            if places is not None and name in self.tables:
                outputs.append(self.tables[name][places].to(self.device))
                continue
            with torch.no_grad(), _eval(model):
                found: Any = model(*self._shown(name, arguments(x)))
            if self.nodes[name]:
                found, values[name] = found
            outputs.append(picked(found, self.output[name]))
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
            found = cast(Tensor, held.get_tensor("output")).clone()
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
