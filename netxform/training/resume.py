"""The folder where an interrupted run leaves its state: made by this tool, for this user, and known as such.

The folder holds a random number, and so does a file of the user's own (`platformdirs`): a folder that came with a repository
is not taken for ours, neither read nor removed. It is made beside its place and moved there with that number in it, and moved
away before it is removed: whenever a run is killed, what is there is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from netxform.errors import fail
from netxform.sources.parts import GONE, cannot_write, drop, fresh, mine, sweep, sync

_STAMP = "made_by_netxform.json"


def claim(keep: Path, key: str, resume: bool) -> None:
    """Make the folder, or take it again if it is ours; with `resume` what is in it stays, if it is of this very plan (`key`).

    Raises NetxformError X0842 (a folder that is not ours; the state of another plan), X0819 (no state folder), OSError.
    """
    sweep(keep)
    if keep.is_symlink() or keep.exists():
        held = _ours(keep)
        if held is None:
            raise fail(
                "X0842",
                f"`{keep.name}` was not made by netxform for you: it is neither read nor removed",
                notes=("the state of an interrupted run is taken from a folder that netxform made itself, on this machine",),
                helps=(f"look where it comes from; then remove it: `rm -r {keep}`",),
            )
        if resume and held["plan"] != key:
            raise fail(
                "X0842",
                f"`{keep.name}` holds the state of another plan",
                notes=("the spec, the data or this version is another one than that of the interrupted run",),
                helps=("leave `--resume` out to start anew",),
            )
        if resume:
            return
        release(keep)
    nonce = secrets.token_hex(16)
    record = _record(keep)
    try:
        record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        record.write_text(nonce)
    except OSError as error:
        with contextlib.suppress(OSError):
            record.unlink()
        help_ = "it notes which folders netxform made; another place for it: the environment variable `XDG_STATE_HOME`"
        raise cannot_write(f"your state folder `{record.parent}`", error, help_) from error
    keep.parent.mkdir(parents=True, exist_ok=True)
    part = fresh(keep)
    try:
        made = part / "new"
        made.mkdir(mode=0o700)
        (made / _STAMP).write_text(json.dumps({"uid": os.getuid(), "nonce": nonce, "plan": key}))
        sync(made / _STAMP)
        sync(made)
        os.rename(made, keep)
    except OSError:
        with contextlib.suppress(OSError):
            record.unlink()
        raise
    finally:
        drop(keep, part)


def release(keep: Path) -> None:
    """Remove the folder, and the record of it. Only what `claim` took or made is given to it. What cannot be removed now is
    swept by the next run.
    """
    with contextlib.suppress(OSError):
        part = fresh(keep)
        with contextlib.suppress(OSError):
            os.rename(keep, part / GONE)
        drop(keep, part)
    if os.path.lexists(keep):  # on a full disk nothing can be made: what says whose it is goes last
        for path in [p for p in keep.iterdir() if p.name != _STAMP]:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(keep, ignore_errors=True)
    with contextlib.suppress(OSError):
        _record(keep).unlink(missing_ok=True)


def give_up(keep: Path) -> None:
    """Remove the folder of a run that failed before it had a state to leave, or that is of no use any more, if it is ours."""
    if mine(keep) and _ours(keep) is not None and {p.name for p in keep.iterdir()} <= {_STAMP}:
        release(keep)


def outdated(keep: Path) -> None:
    """Remove the folder that an earlier run left, if it is ours: what it was kept for is done."""
    if mine(keep) and _ours(keep) is not None:
        release(keep)


def _ours(keep: Path) -> dict[str, Any] | None:
    """What is written in the folder, if this user made it with this tool; an empty folder of the user's is ours too."""
    found = keep.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return None
    if not any(keep.iterdir()):
        return {"plan": ""}
    try:
        stamp = keep / _STAMP
        if not stat.S_ISREG(stamp.lstat().st_mode) or stamp.lstat().st_size > 4096:
            return None
        held: Any = json.loads(stamp.read_text())
        same = held["nonce"] == _record(keep).read_text() and held["uid"] == os.getuid()
        return held if same and isinstance(held["plan"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record(keep: Path) -> Path:
    name = hashlib.sha256(os.fsencode(keep.parent.resolve() / keep.name)).hexdigest()
    return user_state_path("netxform") / "resume" / name
