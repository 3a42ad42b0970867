"""`webdataset("shards-{000..012}.tar", image="jpg", label="cls")`: samples in tar files, their fields beside each other.

The files are read once for where each member lies; a sample is then read from its place. So the order is drawn as for every
data set, it is the same in every run, and no shard is held in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tarfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from netxform.errors import NetxformError, Span, fail
from netxform.limits import need
from netxform.sources.data.found import Found, parted, seen_of
from netxform.sources.data.names import Names, printable
from netxform.sources.data.options import at
from netxform.sources.data.pictures import is_image
from netxform.sources.data.source import DATA, DataSet, DataSource, Options, Seen
from netxform.sources.data.tables import TAKES, found_in, known
from netxform.sources.trust import Trust, read_path
from netxform.syntax import ast

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MOST_SHARDS = 100_000
_MOST_TEXT = 1 << 20
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd")


def shards(text: str, span: Span) -> list[str]:
    """`a-{000..012}.tar` → the thirteen names. Raises NetxformError X0406 (no range), X0901 (an address, a pipe)."""
    if re.match(r"[a-z][a-z0-9+]*:", text):
        helps = ("fetch the shards first, and name the files",)
        raise fail("X0901", f"`{printable(text)}` is no file: shards are files beside the spec", span, "not read", helps=helps)
    out = [""]
    at_ = 0
    for found in _RANGE.finditer(text):
        low, high = int(found[1]), int(found[2])
        if high < low or (high - low + 1) * len(out) > _MOST_SHARDS:
            helps = ("write the first and the last: `{000..012}`",)
            raise fail("X0406", f"`{found[0]}` is no range of shards", span, "out of range", helps=helps)
        middle = text[at_ : found.start()]
        out = [f"{o}{middle}{i:0{len(found[1])}d}" for o in out for i in range(low, high + 1)]
        at_ = found.end()
    return [o + text[at_:] for o in out]


class Shards:
    """Where every member lies: its file, its place and its size, by sample and field."""

    def __init__(self, files: Sequence[Path], what: str, span: Span) -> None:
        import numpy as np

        self.files, self.what, self.span = files, what, span
        keys: list[str] = []
        rows: dict[str, list[tuple[int, int, int]]] = {}
        for number, file in enumerate(files):
            for name, (offset, size) in self._members(file):
                key, dot, field = _split(name)
                if not dot:
                    continue
                whole = f"{number}/{key}"
                if not keys or keys[-1] != whole:
                    keys.append(whole)
                column = rows.setdefault(field, [])
                if len(column) == len(keys):
                    text = f"`{printable(file.name)}` holds `{printable(name)}` twice"
                    raise fail("X0861", text, span, "which one?", helps=("leave one of them",))
                column += [(-1, 0, 0)] * (len(keys) - 1 - len(column))
                column.append((number, offset, size))
        if len(set(keys)) != len(keys):
            twice = next(k for i, k in enumerate(keys) if k in keys[:i])
            text = f"`{printable(twice.partition('/')[2])}` comes in two places: fields of one sample stand beside each other"
            raise fail("X0861", text, span, "not one sample", helps=("write the shards in the order of the samples",))
        need(24 * len(keys) * max(1, len(rows)), f"the places in {what}", span)
        self._keys = Names(k.partition("/")[2] for k in keys)
        self._rows = {
            f: np.array([*r, *[(-1, 0, 0)] * (len(keys) - len(r))], dtype=np.int64).reshape(-1, 3) for f, r in rows.items()
        }

    def _members(self, file: Path) -> list[tuple[str, tuple[int, int]]]:
        """Plain members, in order. Raises NetxformError X0862 (no tar, or a damaged one)."""
        size = file.stat().st_size
        name = printable(file.name)
        with file.open("rb") as opened:
            if opened.read(6).startswith(_COMPRESSED):
                helps = (f"unpack it once: `gunzip {name}`; images are compressed anyway",)
                raise fail(
                    "X0862", f"`{name}` is compressed: a sample cannot be read from its place", self.span, "", helps=helps
                )
        out: list[tuple[str, tuple[int, int]]] = []
        end = 0
        try:
            with tarfile.open(file, "r:") as tar:
                for member in tar:
                    if not member.isreg() or member.issparse():
                        continue
                    if member.offset_data + member.size > size:
                        raise tarfile.ReadError(f"it ends inside `{printable(member.name)}`")
                    out.append((member.name, (member.offset_data, member.size)))
                    end = member.offset_data + -(-member.size // 512) * 512
                    tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
            with file.open("rb") as opened:
                opened.seek(end)
                if opened.read(512) != bytes(512):
                    raise tarfile.ReadError("it does not end as a tar file ends")
        except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
            helps = ("look whether it is whole: `tar tf FILE`",)
            raise fail(
                "X0862", f"`{name}` is no tar file, or a damaged one: {error}", self.span, "damaged?", helps=helps
            ) from error
        return out

    def __len__(self) -> int:
        return len(self._keys)

    def names(self) -> Sequence[str]:
        """The endings of the members, and `json.KEY` for what the first object in `.json` holds."""
        inner: list[str] = []
        if "json" in self._rows and len(self) and int(self._rows["json"][0][2]) <= _MOST_TEXT:
            with contextlib.suppress(ValueError, RecursionError, AttributeError):
                inner = [f"json.{k}" for k in json.loads(self.get("json", 0)).keys()]
        return [*self._rows, *inner]

    def row(self, index: int) -> str:
        """What the sample is called."""
        return f"sample `{printable(self._keys[index])}`"

    def get(self, field: str, index: int) -> bytes:
        """The bytes of a member. Raises NetxformError X0861 where the sample lacks it."""
        number, offset, size = (int(v) for v in self._rows[field][index])
        if number < 0:
            helps = ("every sample has the same fields",)
            text = f"{self.row(index)} of {self.what} has no `.{printable(field)}`"
            raise fail("X0861", text, self.span, "a field is missing", helps=helps)
        with self.files[number].open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def values(self, name: str) -> Sequence[Any]:
        """Members as texts; `json.key` is a value of the object in `.json`. Raises NetxformError X0861."""
        field, _, key = (name, "", "") if name in self._rows else name.partition(".")
        out: list[Any] = []
        for i in range(len(self)):
            raw = self.get(field, i)
            if len(raw) > _MOST_TEXT:
                raise self._no_text(name, i, f"{len(raw):,} bytes")
            try:
                text = raw.decode("utf-8").strip()
                out.append(json.loads(text).get(key) if key else text)
            except (UnicodeDecodeError, ValueError, AttributeError, RecursionError) as error:
                raise self._no_text(
                    name, i, "no UTF-8 text" if isinstance(error, UnicodeDecodeError) else "no object"
                ) from error
        return out

    def _no_text(self, name: str, index: int, why: str) -> NetxformError:
        helps = ("a label is a short text in UTF-8: a class, a number",)
        return fail("X0861", f"`.{printable(name)}` of {self.row(index)}: {why}", self.span, "no label", helps=helps)

    def array(self, name: str) -> None:
        """Members are texts."""
        return None

    def classes(self, name: str) -> None:
        """Nothing says them."""
        return None

    def images(self, name: str) -> Members:
        """The members of that ending."""
        return Members(self, name)


class Members:
    """The images of one ending, by number."""

    def __init__(self, held: Shards, field: str) -> None:
        self.held, self.field = held, field

    def __len__(self) -> int:
        return len(self.held)

    def file(self, index: int) -> bytes:
        """The bytes."""
        return self.held.get(self.field, index)

    def name(self, index: int) -> str:
        """The sample and its field."""
        return f"{self.held.row(index).removeprefix('sample ').strip('`')}.{printable(self.field)}"


def _split(name: str) -> tuple[str, str, str]:
    """`a/b.seg.png` → `a/b`, `seg.png`."""
    folder, slash, base = name.rpartition("/")
    stem, dot, field = base.partition(".")
    return f"{folder}{slash}{stem}", dot if stem else "", field.lower()


@lru_cache(maxsize=4)
def _opened(files: tuple[Path, ...], stamp: tuple[Any, ...], what: str, span: Span) -> Shards:
    return Shards(files, what, span)


def _find(data: ast.Data, options: Options, trust: Trust, every: bool) -> Found:
    if options.path is None:
        helps = ('write `webdataset("shards-{000..012}.tar", …)`',)
        raise fail("X0408", "`webdataset` needs the name of a file", data.span, "which?", helps=helps)
    span = at(data, "path")
    files = tuple(read_path(t, trust, span, whole=False) for t in shards(options.path, span))
    for file in files:
        if file.is_dir():
            raise fail("X0807", f"`{file.name}` is a folder", span, "a file is needed", helps=("name the .tar files",))
    stamp = tuple((f.stat().st_mtime_ns, f.stat().st_size) for f in files)
    table = _opened(files, stamp, f"`{options.path}`", span)
    field = options.image
    if field is None and not options.columns:
        helps = tuple(f'write `image="{printable(n)}"`' for n in table.names() if is_image(f".{n}"))[:2]
        text = f"which field of {table.what} is the image? Fields: {', '.join(f'`{printable(n)}`' for n in table.names())}"
        raise fail("X0408", text, data.span, "no input", helps=helps or ('numbers: `columns=["…"]`',))
    digest = hashlib.sha256(repr([(f.name, s[1]) for f, s in zip(files, stamp, strict=True)]).encode()).hexdigest()
    for key in ("image", "mask"):
        name = getattr(options, key)
        if name is not None and name not in table.names():
            listed = ", ".join(f"`{printable(n)}`" for n in table.names())
            text = f"no sample of {table.what} has a field `{printable(name)}`"
            raise fail("X0861", text, at(data, key), "no such field", helps=(f"fields: {listed or 'none'}",))
    return found_in(table, data, options, trust, every, files[0].parent, digest, table.images)


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    return parted(data, options, _find(data, options, trust, True), seed)


def _look(data: ast.Data, options: Options, trust: Trust, seed: int) -> Seen:
    return seen_of(data, options, _find(data, options, trust, False), seed)


_TAKES = tuple(t for t in TAKES if t != "folder")
DATA.register("webdataset")(DataSource(_load, known, takes=_TAKES, look=_look))
