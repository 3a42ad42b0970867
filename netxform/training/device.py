"""Where a training runs, and what it does to the state of torch around it: nothing that stays."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch

from netxform.errors import fail


def device_of(name: str) -> torch.device:
    """`auto` is the accelerator, if there is one, else the CPU. Raises NetxformError X0806."""
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found if found is not None and found.type == "cuda" else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        message = str(error).split("\n")[0]
        raise fail("X0806", f"device `{name}` cannot be used: {message}", helps=("write `device=cpu`",)) from None


@contextlib.contextmanager
def seeded() -> Generator[None]:
    """Leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


@contextlib.contextmanager
def deterministic() -> Generator[None]:
    """Same bytes out on the same machine. New memory need not be filled for that: nothing here reads what it did not write."""
    filler: Any = torch.utils.deterministic
    before, filling = torch.are_deterministic_algorithms_enabled(), filler.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    filler.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        filler.fill_uninitialized_memory = filling
