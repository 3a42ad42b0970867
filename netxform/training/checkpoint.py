"""The state of a training on disk: tensors as safetensors, facts as JSON, each with its checksum. Nothing in it can run.

A state is written to a file of its own; then a small file that names it is moved into place, and the older state goes.
Whenever a run is killed, the small file names a state that is whole. One process writes; every one reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from netxform.errors import fail
from netxform.sources.parts import cannot_write, sync
from netxform.sources.state_dicts import with_numbers
from netxform.training.process import Processes, like_it, wait, whole

_FACTS = 1 << 28


def write(place: Path, epoch: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], processes: Processes) -> None:
    """Save tensors by name, and `facts` (plain data) beside them, as the state after that epoch."""
    held = {n: whole(t).detach().cpu().contiguous().clone() for n, t in tensors.items()}  # every process has its part in this
    if processes.first:
        try:
            _write(place, epoch, held, facts)
        except (OSError, SafetensorError) as error:
            raise cannot_write(f"the state of the run (`{place.parent.name}`)", error, _FREE) from error
    wait(processes)


_FREE = "free some space, then go on from the epoch that was finished before: `--resume`"


def _write(place: Path, epoch: int, held: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
    file = place.with_name(f"{place.name}.{epoch}.safetensors")
    part = place.with_name(f"{place.name}.part")
    try:
        save_file(held, file)
        sync(file)
        said = json.dumps({"file": file.name, "sha256": _hash_of(file), "facts": facts})
        part.write_text(json.dumps({"state": said, "sha256": hashlib.sha256(said.encode()).hexdigest()}))
        sync(part)
        os.replace(part, place)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
            file.unlink(missing_ok=True)
        raise
    sync(place.parent)
    for old in place.parent.glob(f"{place.name}.*.safetensors"):
        if old != file:
            with contextlib.suppress(OSError):
                old.unlink()


def read(place: Path, like: Mapping[str, Tensor], processes: Processes) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The state that was saved last, None where there is none. Tensors that `like` names are laid out as there.

    Raises NetxformError X0822 for one of which a single bit is another.
    """
    if not place.exists():
        return None
    try:
        if place.is_symlink() or place.stat().st_size > _FACTS:
            raise ValueError(f"`{place.name}` is no file that netxform wrote")
        outer: dict[str, str] = json.loads(place.read_bytes().decode())
        if json.dumps(outer) != place.read_bytes().decode() or set(outer) != {"state", "sha256"}:
            raise ValueError(f"`{place.name}` is not as it was written")
        if hashlib.sha256(outer["state"].encode()).hexdigest() != outer["sha256"]:
            raise ValueError(f"the checksum of `{place.name}` differs")
        held: dict[str, Any] = json.loads(outer["state"])
        file = place.with_name(str(held["file"]))
        if file.is_symlink() or _hash_of(file) != held["sha256"]:
            raise ValueError(f"the checksum of `{file.name}` differs")
        found = with_numbers(file)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        text = (str(error).splitlines() or [""])[0]
        raise fail(
            "X0822",
            f"the state of the interrupted run is damaged: {text}",
            helps=("leave `--resume` out to start anew",),
        ) from error
    return {n: like_it(t, like.get(n)) for n, t in found.items()}, cast("dict[str, Any]", held["facts"])


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
