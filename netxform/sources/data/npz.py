"""`npz("digits.npz", image="x", label="y")`: arrays of numpy, by name; `train_x`, `x_train` and the like are parts of `x`."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.errors import NetxformError, Span, fail
from netxform.limits import need
from netxform.sources.data.columns import column, inputs, wanted
from netxform.sources.data.found import Found, parted, seen_of
from netxform.sources.data.names import printable
from netxform.sources.data.options import at
from netxform.sources.data.pictures import Pictures, Survey, masks_of, ready, view_of
from netxform.sources.data.source import DATA, DataSet, DataSource, Options, Seen
from netxform.sources.data.tables import TAKES, digest_of, known
from netxform.sources.trust import Trust, read_path
from netxform.syntax import ast

if TYPE_CHECKING:
    import numpy as np

_PARTS = (("train", "train"), ("val", "val"), ("valid", "val"), ("validation", "val"), ("test", "test"))
_NUMBERS = "biuf"


class Arrays:
    """The arrays of a file by name, all with a row a sample. Sizes are asked for before an array is read."""

    def __init__(self, path: Path, span: Span) -> None:
        self.what, self.span, self._path = f"`{printable(path.name)}`", span, path
        self.parts: dict[str, np.ndarray] = {}
        self._held: dict[str, np.ndarray] = {}
        self._pickled: set[str] = set()
        try:
            with zipfile.ZipFile(path) as file:
                self._shapes = {i.filename.removesuffix(".npy"): self._header(file, i) for i in file.infolist()}
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError, NotImplementedError) as error:
            raise self._damaged(error) from error
        self._count: int | None = None

    def _damaged(self, error: Exception) -> NetxformError:
        helps = ("write it with `numpy.savez(FILE, x=…, y=…)`",)
        return fail("X0862", f"{self.what} is no .npz file, or a damaged one: {error}", self.span, "damaged?", helps=helps)

    def _header(self, file: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[int, ...]:
        """The shape of an array, from its first bytes. Raises ValueError where they lie."""
        import numpy as np

        with file.open(member) as opened:
            version = np.lib.format.read_magic(opened)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(opened)
        name = printable(member.filename.removesuffix(".npy"))
        if dtype.hasobject:
            self._pickled.add(name)
        elif math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"`{name}` says {shape}, and holds fewer")
        return tuple(shape)

    def names(self) -> Sequence[str]:
        """The arrays, and what they are parts of."""
        whole = [base for n in self._shapes for base, _ in [_base(n)] if base]
        return list(dict.fromkeys((*self._shapes, *whole)))

    def __len__(self) -> int:
        assert self._count is not None
        return self._count

    def get(self, name: str) -> np.ndarray:
        """An array; of one in parts all parts, train first.

        Raises NetxformError X0861 (rows that do not fit), X0005 (too large), X0903 (pickled objects).
        """
        import numpy as np

        if name not in self._held:
            if name in self._shapes:
                found = self._read(name)
            else:
                pieces = {p: self._read(n) for want, p in _PARTS for n in self._shapes if _base(n) == (name, want)}
                kinds = {a.shape[1:] for a in pieces.values()}
                if len(kinds) > 1:
                    raise fail("X0861", f"the parts of `{name}` have several shapes", self.span, "not one array",
                               helps=("give all samples one shape",))  # fmt: skip
                edges = np.cumsum([0, *(len(a) for a in pieces.values())])
                parts = {p: np.arange(edges[i], edges[i + 1]) for i, p in enumerate(pieces)}
                if self.parts and {k: len(v) for k, v in self.parts.items()} != {k: len(v) for k, v in parts.items()}:
                    raise fail("X0861", f"the parts of `{name}` have other rows than those of the others", self.span,
                               "not one a sample", helps=("give one target for each input",))  # fmt: skip
                self.parts = parts
                found = np.concatenate(list(pieces.values()))
            if found.ndim == 0 or (self._count is not None and len(found) != self._count):
                rows = f"{len(found):,} rows, others {self._count:,}" if found.ndim else "no rows"
                text = f"the array `{printable(name)}` of {self.what} has {rows}"
                raise fail("X0861", text, self.span, "not one a sample", helps=("give one target for each input",))
            self._count = len(found)
            self._held[name] = found
        return self._held[name]

    def _read(self, name: str) -> np.ndarray:
        import numpy as np

        if name in self._pickled:
            helps = ("store it as numbers or texts: `numpy.array(…, dtype='float32')`",)
            text = (
                f"the array `{printable(name)}` of {self.what} holds pickled objects, which can run code when they are loaded"
            )
            raise fail("X0903", text, self.span, "not unpickled", helps=helps)
        with zipfile.ZipFile(self._path) as file:
            member = next(i for i in file.infolist() if i.filename.removesuffix(".npy") == name)
            need(member.file_size, f"the array `{printable(name)}` of {self.what}", self.span)
            try:
                with file.open(member) as opened:
                    return np.lib.format.read_array(opened, allow_pickle=False)
            except Exception as error:
                raise self._damaged(error) from error

    def values(self, name: str) -> Sequence[Any]:
        """As Python values; rows of several numbers as lists."""
        found = self.get(name)
        if found.ndim == 2 and found.shape[1] == 1:
            found = found[:, 0]
        if found.dtype.kind not in _NUMBERS + "US":
            text = f"the array `{printable(name)}` of {self.what} holds {found.dtype}, neither numbers nor texts"
            raise fail("X0861", text, self.span, "another kind", helps=("store numbers",))
        return found.tolist()

    def array(self, name: str) -> np.ndarray | None:
        """Numbers."""
        found = self.get(name)
        return found if found.dtype.kind in _NUMBERS else None

    def row(self, index: int) -> str:
        """As numpy counts."""
        return f"row [{index}]"

    def classes(self, name: str) -> None:
        """The file says none."""
        return None


def _base(name: str) -> tuple[str, str]:
    """`x_train`, `train_x` → x, train."""
    for part, _ in _PARTS:
        if name.endswith(f"_{part}"):
            return name.removesuffix(f"_{part}"), part
        if name.startswith(f"{part}_"):
            return name.removeprefix(f"{part}_"), part
    return "", ""


class Planes:
    """Images of an array (N, h, w), (N, h, w, C) of bytes, by number."""

    def __init__(self, array: np.ndarray, what: str) -> None:
        self.array, self.what = array, what

    def __len__(self) -> int:
        return len(self.array)

    def file(self, index: int) -> Any:
        """The image, as PIL has it."""
        from PIL import Image

        return Image.fromarray(self.array[index])

    def name(self, index: int) -> str:
        """The row."""
        return f"{self.what}[{index}]"


def _planes(table: Arrays, name: str, span: Span, channels: tuple[int, ...]) -> Planes:
    """An array as images. Raises NetxformError X0861 for one of another shape, or of other numbers than bytes."""
    import numpy as np

    column(table, name, span)
    found = table.get(name)
    shape = f"{printable(name)} {found.shape} {found.dtype}"
    if found.dtype != np.uint8:
        helps = (f'numbers as they are: `columns=["{printable(name)}"]`',)
        raise fail("X0861", f"images are arrays of uint8, not {shape}", span, "no images", helps=helps)
    if found.ndim == 4 and found.shape[-1] not in channels and found.shape[1] in channels:
        found = np.moveaxis(found, 1, -1)
    if found.ndim == 4 and found.shape[-1] == 1:
        found = found[..., 0]
    if not (found.ndim == 3 or (found.ndim == 4 and found.shape[-1] in channels)):
        helps = (f'numbers as they are: `columns=["{printable(name)}"]`',)
        text = f"images are (N, height, width) or (N, height, width, channels), not {shape}"
        raise fail("X0861", text, span, "no images", helps=helps)
    return Planes(found, name)


def _find(data: ast.Data, options: Options, trust: Trust, every: bool) -> Found:
    if options.path is None:
        raise fail("X0408", "`npz` needs the name of a file", data.span, "which?", helps=('write `npz("FILE.npz", …)`',))
    path = read_path(options.path, trust, at(data, "path"))
    table = Arrays(path, at(data, "path"))
    for key in (options.image, options.label, *options.labels, *options.target, *options.columns, options.mask):
        if key is not None:
            column(table, key, data.span)
            table.get(key)
    digest = hashlib.sha256((digest_of(path) + repr(options)).encode()).hexdigest() if every else ""
    if options.image is None:
        target = wanted(table, options, data)
        if not options.columns:
            helps = (f"arrays: {', '.join(f'`{printable(n)}`' for n in list(table.names())[:20])}",)
            raise fail("X0408", f"which array of {table.what} is the input?", data.span, 'image="…" or columns=["…"]',
                       helps=helps)  # fmt: skip
        assert target.y is not None
        x, _ = inputs(table, options, data)
        return Found(x, target.y, tuple(x.shape[1:]), digest, target.classes, target.labels, table.parts,
                     (f"{len(table):,} rows", target.said))  # fmt: skip
    if every:
        ready(data.span)
    planes = _planes(table, options.image, at(data, "image"), (1, 3, 4))
    masks = _planes(table, options.mask, at(data, "mask"), ()) if options.mask is not None else None
    target = wanted(table, options, data)
    own = planes.array.shape[1:3]
    view = view_of(_channels(options, planes.array), Survey(1, own, own), data.span)
    if masks is not None:
        values, ignored = masks_of(options, masks, data.span)
        made = Pictures(planes, view, data.span, None, masks, values, ignored)
    else:
        values, made = (), Pictures(planes, view, data.span, target.y)
    said = (f"{len(table):,} images of {own[0]} x {own[1]} pixels", *((target.said,) if target.said else ()))
    classes = len(values) if masks is not None else target.classes
    return Found(made, target.y, view.shape, digest, classes, target.labels, table.parts, said)


def _channels(options: Options, array: np.ndarray) -> Options:
    """With as many channels as the array has, where none are asked for."""
    own = array.shape[3] if array.ndim == 4 else 1
    return options if options.channels is not None else replace(options, channels=own)


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    return parted(data, options, _find(data, options, trust, True), seed)


def _look(data: ast.Data, options: Options, trust: Trust, seed: int) -> Seen:
    return seen_of(data, options, _find(data, options, trust, False), seed)


_TAKES = tuple(t for t in TAKES if t not in ("folder", "split", "bad"))
DATA.register("npz")(DataSource(_load, known, takes=_TAKES, look=_look))
