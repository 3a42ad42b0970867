"""The folder where an interrupted run leaves its state: made by this tool, for this user, and known as such.

The folder holds a random number, and so does a file of the user's own (`platformdirs`): a folder that came with a repository
is not taken for ours, neither read nor removed.
"""

from __future__ import annotations

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

_STAMP = "made_by_netxform.json"


def claim(keep: Path, key: str, resume: bool) -> None:
    """Make the folder, or take it again if it is ours; with `resume` what is in it stays, if it is of this very plan (`key`).

    Raises NetxformError X0842 (a folder that is not ours; the state of another plan), OSError.
    """
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
    keep.mkdir(parents=True, mode=0o700)
    nonce = secrets.token_hex(16)
    record = _record(keep)
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    record.write_text(nonce)
    (keep / _STAMP).write_text(json.dumps({"uid": os.getuid(), "nonce": nonce, "plan": key}))


def release(keep: Path) -> None:
    """Remove the folder, and the record of it. Only what `claim` took or made is given to it."""
    shutil.rmtree(keep, ignore_errors=True)
    _record(keep).unlink(missing_ok=True)


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
