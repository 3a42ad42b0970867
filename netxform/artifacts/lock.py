"""One writer a target: a lock file beside it, held by the operating system, that says who holds it.

`flock` is let go by the system when its holder dies, however it dies: a lock file that is left is stale, and taken over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import Any

from netxform.errors import NetxformError, fail
from netxform.sources.parts import cannot_write, parents, sweep, unmake

_NOT_HERE = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)
_MOST = 4096


@contextlib.contextmanager
def locked(target: Path, above: bool = False) -> Generator[None]:
    """While this process alone may write to the target; what killed runs left of it is swept first.

    With `above` the folders above the target are made; those that are still empty at the end go again.
    Raises NetxformError X0843 (somebody else writes to it; a file in the way), X0819 (no lock can be made there).
    """
    path = target.parent / f".{target.name}.lock"
    try:
        made = parents(target.parent) if above else []
    except OSError as error:
        raise cannot_write(f"`{target}`", error) from error
    descriptor = -1
    try:
        try:
            descriptor = _take(path, target)
            sweep(target)
        except OSError as error:
            raise cannot_write(f"`{target}`", error) from error
        yield
    finally:
        if descriptor >= 0:
            _let_go(path, descriptor)
        unmake(made)


def _take(path: Path, target: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise _in_the_way(path) from error
            raise
        ours = False
        try:
            if not _ours(descriptor):
                raise _in_the_way(path)
            if _flock(descriptor, path):
                raise _busy(target, descriptor)
            ours = _same(path, descriptor)  # else its holder removed it between our opening it and our locking it
            if ours:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(_me()).encode(), 0)
                return descriptor
        except BaseException:
            if ours:
                _let_go(path, descriptor)
            else:
                os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int, path: Path) -> bool:
    """Lock it; whether somebody else holds it: where the file system has no locks, whoever lives or is on another machine."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return True
        if error.errno not in _NOT_HERE:
            raise
    who = _read(descriptor)
    return bool(who) and (who.get("host") != socket.gethostname() or _lives(who.get("pid")))


def _let_go(path: Path, descriptor: int) -> None:
    """Remove the file while it is locked, so that nobody locks one that has no name."""
    try:
        if _same(path, descriptor):
            path.unlink()
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _ours(descriptor: int) -> bool:
    """Whether a lock file is one: empty, or with who holds it."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_size > _MOST:
        return False
    return found.st_size == 0 or bool(_read(descriptor))


def _read(descriptor: int) -> dict[str, Any]:
    try:
        who: Any = json.loads(os.pread(descriptor, _MOST, 0))
        return who if isinstance(who, dict) and {"netxform", "pid", "host", "since"} <= set(who) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _me() -> dict[str, Any]:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"netxform": "writes", "pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _lives(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _busy(target: Path, descriptor: int) -> NetxformError:
    who = _read(descriptor)
    by = f"process {who['pid']} on {who['host']}, since {who['since']}" if who else "another process"
    return fail(
        "X0843",
        f"`{target.name}` is being written by {by}",
        notes=("two runs on one output would remove each other's state",),
        helps=(
            "wait until it has ended, or choose another name; once it has ended, however it did, nothing needs to be removed",
        ),
    )


def _in_the_way(path: Path) -> NetxformError:
    return fail(
        "X0843",
        f"`{path.name}` is not a lock of netxform: it is neither read nor changed",
        helps=(f"look where it comes from; then remove it: `rm {path}`",),
    )
