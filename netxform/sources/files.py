"""Files that are read as text: regular ones, of a bounded size, in UTF-8."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from netxform.errors import NOWHERE, NetxformError, Span, fail

MOST_TEXT = 1_000_000
"""The largest spec, in bytes."""


def regular(path: Path, span: Span = NOWHERE, shown: str | None = None) -> int:
    """The size in bytes of a plain file. Raises NetxformError X0807 (nothing there, a folder), X0905 (a pipe, a device)."""
    name = shown or str(path)
    try:
        found = os.stat(path)
    except OSError as error:
        helps = ("look at its name, and at the folder that it is named from",)
        raise fail("X0807", f"`{name}` cannot be read: {error.strerror}", span, "not readable", helps=helps) from error
    except ValueError as error:
        raise fail("X0807", "not the name of a file: it holds a NUL", span, "not a name", helps=("write its name",)) from error
    if stat.S_ISDIR(found.st_mode):
        raise fail("X0807", f"`{name}` is a folder", span, "a file is needed", helps=("name a file in it",))
    if not stat.S_ISREG(found.st_mode):
        raise not_plain(name, found.st_mode, span)
    return found.st_size


def not_plain(name: str, mode: int, span: Span = NOWHERE) -> NetxformError:
    """X0905: what is named is no plain file, by its mode."""
    kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
    helps = ("copy what it gives into a file first; a spec is read from standard input by the name `-`",)
    notes = ("netxform reads plain files alone",)
    return fail("X0905", f"`{name}` is {kind}, not a plain file", span, "a plain file is needed", notes=notes, helps=helps)


def read_text(path: Path, span: Span = NOWHERE, shown: str | None = None, most: int = MOST_TEXT) -> str:
    """The text of a file. Raises NetxformError X0807 (cannot be read, no file, no UTF-8), X0107 (more than `most` bytes)."""
    name = shown or str(path)
    size = regular(path, span, name)
    if size > most:
        raise too_long(f"`{name}`", size, span, most)
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        helps = ("look at its owner and mode (`ls -l`)",)
        raise fail("X0807", f"`{name}` cannot be read: {error.strerror}", span, "not readable", helps=helps) from error
    if len(raw) > most:
        raise too_long(f"`{name}`", len(raw), span, most)
    return decoded(raw, f"`{name}`", span)


def decoded(raw: bytes, what: str, span: Span = NOWHERE) -> str:
    """Bytes as text. Raises NetxformError X0807, with the line, where they are no UTF-8."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        helps = ("save it as UTF-8",)
        raise fail("X0807", f"{what} is no UTF-8 text: it begins like UTF-16", span, "no text", helps=helps)
    try:
        return raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        helps = ("save it as UTF-8",)
        message = f"{what} is no UTF-8 text: byte 0x{raw[error.start]:02x} in line {line}"
        raise fail("X0807", message, span, "no text", helps=helps) from error


def too_long(what: str, size: int, span: Span = NOWHERE, most: int = MOST_TEXT) -> NetxformError:
    """The error for a text that is larger than it may be."""
    helps = ("a spec says what is done; data and weights are files beside it",)
    return fail("X0107", f"{what} has {size:,} bytes; a spec has at most {most:,}", span, "too long", helps=helps)


def writable(path: Path, new: bool = False) -> Path:
    """The path of a file that can be written, asked for before the work is done. `new`: it must not be there.

    Raises NetxformError X0818 (it is there), X0819 (a folder of that name, no folder to write it to, or not allowed).
    """
    if new and os.path.lexists(path):
        raise fail("X0818", f"`{path}` already exists", helps=("nothing is overwritten: remove it, or name another file",))
    if os.path.isdir(path):
        raise fail("X0819", f"`{path}` is a folder", helps=("name a file in it",))
    if not os.path.isdir(path.parent):
        raise fail("X0819", f"there is no folder `{path.parent}` to write `{path.name}` to", helps=("make the folder first",))
    if not os.access(path if os.path.exists(path) else path.parent, os.W_OK):
        raise fail("X0819", f"`{path}` may not be written", helps=("look at its owner and mode (`ls -l`), or write elsewhere",))
    return path
