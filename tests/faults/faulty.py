"""Faults at any moment: every call that changes files is counted, and the k-th one fails, or is the last one that is made.

Counted are audit events of Python (open for writing, mkdir, rename, remove, rmdir, chmod), the exchange of two names, fsync,
and the writing of a text, of bytes, of tensors, which stop half way. `full`: from the k-th call on nothing can be written, and
everything can be removed. `once`: the k-th call that writes fails. `dead`: from the k-th call on nothing happens at all, as
when the process is killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors.torch

_WRITES = ("os.mkdir", "os.rename", "os.chmod", "os.link", "os.symlink", "netxform.exchange")
_REMOVES = ("os.remove", "os.rmdir")
CHANGES = (*_WRITES, *_REMOVES)


class Killed(BaseException):
    """What a killed process would not notice."""


class Faults:
    """`at`: which call fails, from 0; none for -1. `count`: how many were made."""

    def __init__(self, mode: str = "none", at: int = -1, number: int = errno.ENOSPC) -> None:
        self.mode, self.at, self.number = mode, at, number
        self.count = 0

    def call(self, removes: bool = False) -> bool:
        """Note a call; True where it shall fail."""
        if removes and self.mode in ("once", "full"):
            return False
        now, self.count = self.count, self.count + 1
        return self.at >= 0 and (now == self.at if self.mode == "once" else now >= self.at)

    def error(self) -> BaseException:
        """What is raised."""
        return Killed() if self.mode == "dead" else OSError(self.number, os.strerror(self.number))


_now: Faults | None = None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _now is None:
        return
    if event == "open":
        if isinstance(args[0], int) or not isinstance(args[2], int) or not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event not in _WRITES and event not in _REMOVES:
        return
    if str(args[0]).startswith("/dev"):
        return
    if _now.call(event in _REMOVES):
        raise _now.error()


sys.addaudithook(_hook)


@contextlib.contextmanager
def faults(mode: str = "none", at: int = -1, number: int = errno.ENOSPC) -> Generator[Faults]:
    """While the k-th call fails."""
    global _now
    made = Faults(mode, at, number)
    texts, data, tensors = Path.write_text, Path.write_bytes, safetensors.torch.save_file

    def write_text(self: Path, text: str, *more: Any, **named: Any) -> int:
        if made.call():
            _half(self, text.encode())
            raise made.error()
        return texts(self, text, *more, **named)

    def write_bytes(self: Path, value: Any) -> int:
        if made.call():
            _half(self, bytes(value))
            raise made.error()
        return data(self, value)

    def save_file(held: Any, path: Any, *more: Any, **named: Any) -> None:
        failing = made.call()
        tensors(held, path, *more, **named)
        if failing:
            os.truncate(path, os.path.getsize(path) // 2)
            raise made.error()

    def sync(descriptor: int) -> None:
        if made.call():
            raise made.error()

    users = [m for n, m in list(sys.modules.items()) if n.startswith("netxform.") and getattr(m, "save_file", None) is tensors]
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(Path, "write_text", write_text))
        stack.enter_context(patch.object(Path, "write_bytes", write_bytes))
        stack.enter_context(patch.object(os, "fsync", sync))
        for module in users:
            stack.enter_context(patch.object(module, "save_file", save_file))
        _now = made
        try:
            yield made
        finally:
            _now = None


def _half(path: Path, value: bytes) -> None:
    global _now
    held, _now = _now, None
    try:
        with contextlib.suppress(OSError), path.open("wb") as file:
            file.write(value[: len(value) // 2])
    finally:
        _now = held


def held(folder: Path) -> dict[str, bytes] | None:
    """Every file of a folder; None where it is not there."""
    if not folder.is_dir():
        return None
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def beside(folder: Path) -> set[str]:
    """Every name in a folder, hidden ones too."""
    return {p.name for p in folder.iterdir()}


def notes() -> list[Path]:
    """What is noted in the user's state folder of parts that are being written."""
    from platformdirs import user_state_path

    place = user_state_path("netxform") / "parts"
    return sorted(place.rglob("*")) if place.is_dir() else []
