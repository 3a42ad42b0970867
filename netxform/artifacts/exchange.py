"""New takes the place of old in one step, or not at all.

Everything is written into a hidden folder beside the target and brought to the disk. Then one system call puts it in its place:
`rename` where nothing is there, `renameat2(RENAME_EXCHANGE)` where something is. File systems without the latter get two
renames; a run that is killed between them leaves the old one in the hidden folder, and the next run puts it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from netxform.artifacts.lock import locked
from netxform.errors import NetxformError, fail
from netxform.sources.files import writable
from netxform.sources.parts import GONE, OLD, cannot_write, drop, fresh, of_the_disk, settle, sync

_NEW = "new"
_EXCHANGE, _HERE = 2, -100
_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


@contextlib.contextmanager
def staged(target: Path) -> Generator[Path]:
    """A folder to write what shall come to the target: under the target's own name. It is gone afterwards, with what is left
    in it. Raises OSError.
    """
    part = fresh(target)
    try:
        new = part / _NEW
        new.mkdir()
        yield new
    finally:
        drop(target, part)


def put(new: Path, target: Path, unchanged: Callable[[Path], bool] = lambda old: True, mode: int | None = None) -> None:
    """Put the staged folder or file `new` in the place of the target. All of it is on the disk before. Modes follow the umask,
    or the file has `mode`. Where anything is raised, the target is as it was.

    `unchanged`: whether what was in its place, seen where nobody can reach it, is what may be removed. Raises OSError, and
    NetxformError X0818 where it is not: then it is back in its place.
    """
    part = new.parent.parent
    settle(new.parent)
    if mode is not None:
        new.chmod(mode)
    sync(part)
    if not os.path.lexists(target):
        os.rename(new, target)
    elif target.is_dir() and not target.is_symlink():
        exchanged = exchange(new, target)
        old = new if exchanged else _aside(part, new, target)
        if not unchanged(old):
            _back(old, new, target, exchanged)
            raise fail("X0818", f"`{target.name}` was changed while it was being replaced: it is as it was", helps=(_AGAIN,))
        if not exchanged:
            with contextlib.suppress(OSError):
                os.rename(part / OLD, part / GONE)
    else:
        os.replace(new, target)
    with contextlib.suppress(OSError):  # the new one is in its place: what comes back after a power failure is old or new
        sync(target.parent)


_AGAIN = "look at what is in it, then run again, or choose another name"


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot. Raises OSError."""
    call = _renameat2()
    if call is None:
        return False
    sys.audit("netxform.exchange", str(one), str(other))
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _renameat2() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return call


def _aside(part: Path, new: Path, target: Path) -> Path:
    """Two renames: the old one aside, the new one in its place; the old one back if that fails."""
    os.rename(target, part / OLD)
    sync(part)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(part / OLD, target)
        raise
    return part / OLD


def _back(old: Path, new: Path, target: Path, exchanged: bool) -> None:
    if exchanged:
        exchange(old, target)
    else:
        os.rename(target, new)
        os.rename(old, target)


def write_text(target: Path, text: str) -> None:
    """Write a text in UTF-8, as `replacing` does; what is no plain file (`/dev/stdout`) is written to as it is.

    Raises NetxformError X0819 (it cannot be written), X0843 (somebody else writes it).
    """
    writable(target)
    if os.path.exists(target) and not os.path.isfile(target):
        target.write_text(text, encoding="utf-8")
        return
    with replacing(target) as path:
        path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(target: Path) -> Generator[Path]:
    """A path to write one file to: when the block ends it takes the place of the target, whole, on the disk, or nothing does.

    A target that is a link is written where the link leads; the mode of a file that is replaced stays.
    Raises NetxformError X0819 (it cannot be written), X0843 (somebody else writes it).
    """
    place = Path(os.path.realpath(target))
    with locked(place):
        try:
            with staged(place) as folder:
                path = folder / place.name
                yield path
                mode = place.stat().st_mode & 0o7777 if place.exists() else None
                put(path, place, mode=mode)
        except NetxformError:
            raise
        except Exception as error:
            if not of_the_disk(error):
                raise
            raise cannot_write(f"`{target}`", error) from error
