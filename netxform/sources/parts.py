"""What is being written: hidden folders of this tool's own beside their target, and how files come to the disk whole.

A part is called `.NAME.NONCE.part`. The random number is noted in the user's own state folder *before* the folder is made, so
that the next run on that target knows what a killed one left, and never takes anything else for it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_state_path

from netxform.errors import NetxformError, fail

OLD, GONE = "old", "gone"
"""Where a part holds what was at the target before: still to be put back if nothing new came, or to be removed."""


def fresh(target: Path) -> Path:
    """A new hidden folder beside the target, known as ours. Raises OSError."""
    nonce = secrets.token_hex(16)
    with contextlib.suppress(OSError):  # without a state folder everything works but the sweeping
        records = _records(target)
        records.mkdir(parents=True, exist_ok=True, mode=0o700)
        (records / nonce).touch(mode=0o600)
    part = _part(target, nonce)
    try:
        part.mkdir(mode=0o700)
    except OSError:
        _forget(target, nonce)
        raise
    return part


def drop(target: Path, part: Path) -> None:
    """Remove a part and the note of it, as far as that can be done: the rest is swept by the next run. An old target in it
    that nothing took the place of is put back, and never removed.
    """
    if os.path.lexists(part / OLD) and not os.path.lexists(target):
        with contextlib.suppress(OSError):
            os.rename(part / OLD, target)
        if not os.path.lexists(target):
            return
    shutil.rmtree(part, ignore_errors=True)
    if not os.path.lexists(part):
        _forget(target, part.name.split(".")[-2])


def sweep(target: Path) -> None:
    """Remove what killed runs on this target left. An old target that lies in a part, with nothing in its place, is put back.

    Only while nobody else writes to the target.
    """
    try:
        nonces = sorted(p.name for p in _records(target).iterdir())
    except OSError:
        return
    for nonce in nonces:
        part = _part(target, nonce)
        if not mine(part):
            if not os.path.lexists(part):
                _forget(target, nonce)
            continue
        drop(target, part)


def mine(folder: Path) -> bool:
    """Whether it is a folder, no link, of this user."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def settle(folder: Path) -> None:
    """Bring every file of a folder to the disk, with the modes that the umask gave to the folder. Raises OSError."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            settle(Path(entry.path))
            continue
        if stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) != mode:
            _chmod(entry.path, mode)
        sync(Path(entry.path))
    sync(folder)


def _chmod(path: str, mode: int) -> None:
    try:
        os.chmod(path, mode)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):  # a file system without modes
            raise


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Raises OSError; a file system that cannot sync folders is let be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def parents(folder: Path) -> list[Path]:
    """Make a folder and those above it; which were made, the deepest first. Raises OSError."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        if folder.parent == folder or os.path.lexists(folder):
            break
        folder = folder.parent
    made: list[Path] = []
    try:
        for one in reversed(missing):
            one.mkdir()
            made.insert(0, one)
    except OSError:
        unmake(made)
        raise
    return made


def unmake(made: list[Path]) -> None:
    """Remove the folders again that `parents` made, where nothing is in them."""
    for one in made:
        with contextlib.suppress(OSError):
            one.rmdir()


def cannot_write(what: str, error: BaseException, *helps: str) -> NetxformError:
    """X0819: what could not be written, why, and what helps."""
    return fail("X0819", f"{what} could not be written: {reason(error)}", helps=helps or (_help(error),))


def reason(error: BaseException) -> str:
    """Why the operating system refused, in its words."""
    return getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]


def of_the_disk(error: BaseException | None) -> bool:
    """Whether an error of a library that writes means that the disk refused."""
    while error is not None:
        text = str(error)
        if isinstance(error, OSError) or "PytorchStreamWriter failed" in text or any(os.strerror(n) in text for n in _REFUSED):
            return True
        error = error.__cause__ or error.__context__
    return False


_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM)


def _help(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "nothing was left behind; look at the owner and the mode of the folder (`ls -ld`), or write elsewhere"
    return "nothing was left behind; free some space, or write elsewhere"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from sorted(entries, key=lambda e: e.name)


def _part(target: Path, nonce: str) -> Path:
    return target.parent / f".{target.name}.{nonce}.part"


def _forget(target: Path, nonce: str) -> None:
    records = _records(target)
    with contextlib.suppress(OSError):
        (records / nonce).unlink()
        records.rmdir()


def _records(target: Path) -> Path:
    name = hashlib.sha256(os.fsencode(target.parent.resolve() / target.name)).hexdigest()
    return user_state_path("netxform") / "parts" / name
