"""What a spec may touch: files below its own folder, and no code unless the user says so."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from netxform.errors import NOWHERE, NetxformError, Span, closest, fail
from netxform.limits import allowed, words
from netxform.sources.files import not_plain, regular

TEXT = 256 << 20
"""The largest text or table that is read whole, in bytes."""


@dataclass(frozen=True, slots=True)
class Trust:
    """`root` is the folder of the spec. `code`: Python named by the spec may run. `pickle`: pickled models may be loaded.
    `outside`: files outside `root` may be read. `memory`: the most bytes that one file or tensor may take (None: what the
    machine has).
    """

    root: Path = field(default_factory=Path.cwd)
    code: bool = False
    pickle: bool = False
    outside: bool = False
    memory: int | None = None

    @property
    def room(self) -> int:
        """The most bytes that one file or tensor may take."""
        return allowed() if self.memory is None else self.memory


def read_path(text: str, trust: Trust, span: Span = NOWHERE, most: int | None = None, whole: bool = True) -> Path:
    """The existing file or folder that a spec names; a file of at most `most` bytes (None: what the memory holds). A file that
    is never in memory as a whole (`whole=False`) may be larger.

    Raises NetxformError X0901 (outside), X0807 (missing), X0905 (no plain file or folder), X0906 (too large).
    """
    path = _inside(text, trust, span, "read")
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        mode = None
    if mode is None:
        near: list[str] = []
        if path.parent.is_dir():
            near = closest(path.name, [p.name for p in path.parent.iterdir()])
        raise fail(
            "X0807",
            f"no file `{text}`",
            span,
            "missing",
            notes=("files are named from the folder of the spec",),
            helps=tuple(f"did you mean `{n}`?" for n in near) or (f"put the file there: {trust.root}",),
        )
    if not stat.S_ISDIR(mode):
        limit = trust.room if most is None else min(most, trust.room)
        room_for(path, limit if whole else None, span)
    return path


def room_for(path: Path, most: int | None, span: Span = NOWHERE) -> int:
    """The size of a plain file, in bytes. Raises NetxformError X0807 (none), X0905 (no plain one), X0906 (over `most`)."""
    size = regular(path, span, path.name)
    if most is not None and size > most:
        raise too_large(f"`{path.name}`", size, most, span)
    return size


def no_links(folder: Path, span: Span = NOWHERE) -> None:
    """Raises NetxformError X0901 where a link below the folder leads out of it, X0905 for pipes and devices in it."""
    root = folder.resolve()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) and not path.resolve().is_relative_to(root):
                where = path.relative_to(folder)
                text = f"`{folder.name}/{where}` is a link that leads out of the folder"
                helps = ("put the file itself there, or allow it: `--allow-outside`",)
                raise fail("X0901", text, span, "not followed", helps=helps)
            if not (stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise not_plain(f"{folder.name}/{name}", mode, span)


def write_path(text: str, folder: Path, span: Span = NOWHERE) -> Path:
    """A path below the output folder: every file of a bundle has its place from here.

    Raises NetxformError X0901 for any other, and for one that is a link.
    """
    path = _inside(text, Trust(folder), span, "write")
    if (folder / text).is_symlink():
        raise fail("X0901", f"`{text}` in the output folder is a link", span, "not written through")
    return path


def too_large(what: str, size: int, most: int, span: Span = NOWHERE) -> NetxformError:
    """X0906: what it is, how large, and what is allowed, in bytes."""
    helps = ("allow more: `--max-memory 16GB`, in Python `max_memory=`",) if most >= TEXT else ()
    return fail("X0906", f"{what} is {words(size)} large, {words(most)} are allowed", span, "too large", helps=helps)


def _inside(text: str, trust: Trust, span: Span, what: str) -> Path:
    if "\x00" in text or not text:
        raise fail("X0807", "not the name of a file", span, "empty or with a NUL", helps=("write its name",))
    root = trust.root.resolve()
    path = (root / text).resolve()
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or bool(PureWindowsPath(text).drive)
    if (absolute or not path.is_relative_to(root)) and not (trust.outside and what == "read"):
        why = "an absolute path" if absolute else "outside the folder of the spec"
        raise fail(
            "X0901",
            f"the spec wants to {what} `{text}`: {why}",
            span,
            "not allowed",
            notes=("a spec reads below its own folder and writes below the output folder",),
            helps=("move the file beside the spec, or allow it: `--allow-outside`",) if what == "read" else (),
        )
    return path


def need_code(text: str, trust: Trust, span: Span) -> None:
    """Raises NetxformError X0902, saying what would have run, where the user did not allow code."""
    if not trust.code:
        raise fail(
            "X0902",
            f"the spec names Python code: `{text}`",
            span,
            "would be run",
            helps=("read that file; if you trust it, add `--trust-code`",),
        )


def need_pickle(text: str, trust: Trust, span: Span) -> None:
    """Raises NetxformError X0903 where a pickled file is named and the user did not allow pickles."""
    if not trust.pickle:
        raise fail(
            "X0903",
            f"`{text}` holds pickled objects, which can run code when they are loaded",
            span,
            "would be unpickled",
            helps=("store the weights as safetensors; or, if you trust the file, add `--trust-pickle`",),
        )
