"""The state of a training on disk, by torch.distributed.checkpoint: every process writes what it holds.

A state is written to a folder of its own; then a small file that names it is moved into place, and the older state goes.
Whenever a run is killed, the file names a state that is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from netxform.errors import fail
from netxform.training.process import Processes, wait


def write(place: Path, epoch: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], processes: Processes) -> None:
    """Save tensors by name, and `facts` (plain data) beside them, as the state after that epoch."""
    folder = place.with_name(f"{place.name}.{epoch}")
    if processes.first:
        shutil.rmtree(folder, ignore_errors=True)
    wait(processes)
    with warnings.catch_warnings():  # that it saves for one process is what is meant
        warnings.simplefilter("ignore")
        save(dict(tensors), checkpoint_id=folder, no_dist=processes.world == 1)
    wait(processes)
    if not processes.first:
        return
    part = place.with_name(f"{place.name}.part")
    part.write_text(json.dumps({"folder": folder.name, "facts": facts}))
    os.replace(part, place)
    for old in place.parent.glob(f"{place.name}.*"):
        if old.is_dir() and old != folder:
            shutil.rmtree(old, ignore_errors=True)


def read(place: Path, like: Mapping[str, Tensor], processes: Processes) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The state that was saved last, None where there is none. Tensors that `like` names are laid out as there.

    Raises NetxformError X0822 for a damaged one.
    """
    if not place.exists():
        return None
    try:
        held: dict[str, Any] = json.loads(place.read_text())
        folder = place.with_name(held["folder"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known = FileSystemReader(folder).read_metadata().state_dict_metadata
            found = {n: _room(n, m, like) for n, m in known.items()}
            load(cast("dict[str, Any]", found), checkpoint_id=folder, no_dist=processes.world == 1)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
        text = (str(error).splitlines() or [""])[0]
        raise fail(
            "X0822",
            f"the state of the interrupted run cannot be read: {text}",
            helps=(f"remove `{place.parent.name}` and start anew",),
        ) from error
    return found, held["facts"]


def _room(name: str, described: Any, like: Mapping[str, Tensor]) -> Tensor:
    """An empty tensor to load into; sharded as the parameter is whose value or statistic it holds."""
    size = tuple(described.size)
    model = like.get(name)
    if model is not None and tuple(model.shape) == size:
        return torch.empty_like(model, dtype=described.properties.dtype)
    return torch.empty(size, dtype=described.properties.dtype)
