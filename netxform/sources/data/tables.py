"""A table as a data set: what the columns are by the declaration, images among them. The sources of tables share this.

Columns ─found_in→ Found
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from netxform.errors import Span, fail
from netxform.sources.data.columns import Columns, inputs, parts_of, texts, wanted
from netxform.sources.data.folder import SHOWN, shown
from netxform.sources.data.found import Found
from netxform.sources.data.names import Names, printable
from netxform.sources.data.options import at
from netxform.sources.data.pictures import Below, Files
from netxform.sources.data.source import Known, Options
from netxform.sources.trust import Trust, read_path
from netxform.syntax import ast

TARGETS = ("label", "labels", "target", "mask", "separator", "values", "ignore")
TAKES = ("path", "image", "columns", "folder", "split", *TARGETS, "per_class", "train", "val", "test", "seed", *SHOWN)

Opened = Callable[[str], "Files | None"]
"""A column of images that lie in the table itself, by its name; None where it holds names of files."""


def known(options: Options) -> Known:
    """What the text tells: the shape of images of a stated size."""
    if options.image is None or options.size is None:
        return None, None
    return None, (options.channels or 3, *options.size)


def found_in(
    table: Columns, data: ast.Data, options: Options, trust: Trust, every: bool, home: Path, digest: str,
    inside: Opened = lambda name: None, given: dict[str, Any] | None = None,
) -> Found:  # fmt: skip
    """Inputs and targets of the table. Files are named from `home`, or from the folder that the declaration names.

    Raises NetxformError X0861 (a column, a value), X0408 (nothing is said of the target), X0862 (damaged images), X0901.
    """
    import numpy as np

    span = data.span
    if not len(table):
        raise fail("X0817", f"{table.what} has no row", span, "no samples", helps=("it has a line of names, then rows",))
    said: tuple[str, ...] = (f"{len(table):,} rows",)
    if options.image is None and options.mask is None:
        _numbers_only(options, span)
    parts = given or (parts_of(table, options.split, at(data, "split")) if options.split is not None else {})
    target = wanted(table, options, data)
    said += (target.said,) if target.said else ()
    mark = hashlib.sha256(f"{digest}{options!r}".encode("utf-8", "surrogateescape")).hexdigest()
    if options.image is None:
        if target.y is None:
            raise fail("X0408", "masks are of images, and no images are named", span, "of what?", helps=('`image="COLUMN"`',))
        x, names = inputs(table, options, data)
        said += (f"inputs: {', '.join(f'`{printable(n)}`' for n in names[:10])}{', …' if len(names) > 10 else ''}",)
        return Found(x, target.y, tuple(x.shape[1:]), mark, target.classes, target.labels, parts, said)
    folder = _folder(options, trust, home, span)
    files = inside(options.image) or below(table, options.image, folder, trust, at(data, "image"))
    masks = None
    if options.mask is not None:
        masks = inside(options.mask) or below(table, options.mask, folder, trust, at(data, "mask"))
    pictures, kept, more = shown(files, data, options, every, target.y, masks)
    if len(kept) < len(table):
        position = np.full(len(table), -1, dtype=np.int64)
        position[kept] = np.arange(len(kept))
        parts = {n: position[p][position[p] >= 0] for n, p in parts.items()}
    y = target.y[kept] if target.y is not None else None
    classes = target.classes if masks is None else len(pictures.values)
    return Found(pictures, y, pictures.view.shape, mark, classes, target.labels, parts, (*said, *more))


def _numbers_only(options: Options, span: Span) -> None:
    """Nothing where nothing is said that is of images alone."""
    normal = options.normalize
    said = [n for n, v in (("size", options.size), ("channels", options.channels)) if v is not None]
    said += ["bad"] * (options.bad != "refuse") + ["normalize"] * (normal is not None and normal != "own")
    if said:
        helps = ('name the column of the images: `image="COLUMN"`', "numbers: `normalize=own` takes the training part's own")
        raise fail("X0404", f"`{said[0]}` is of images, and no images are named", span, "of what?", helps=helps)


def _folder(options: Options, trust: Trust, home: Path, span: Span) -> Path:
    if options.folder is None:
        return home
    folder = read_path(options.folder, trust, span)
    if not folder.is_dir():
        raise fail("X0807", f"`{options.folder}` is no folder", span, "files are named from it", helps=("name a folder",))
    return folder


def below(table: Columns, name: str, folder: Path, trust: Trust, span: Span) -> Below:
    """The files that a column names, each below the folder and there. Raises NetxformError X0901, X0807, with the row."""
    names = texts(table, name, span)
    root = os.path.realpath(folder)
    resolved: dict[str, str] = {}
    for i, text in enumerate(names):
        where = f"column `{printable(name)}`, {table.row(i)}: `{printable(text)}`"
        if "\0" in text:
            raise fail("X0807", f"{where} is no name of a file", span, "not a name", helps=("write its name",))
        path = os.path.join(root, text)
        if not trust.outside and (os.path.isabs(text) or os.path.commonpath([root, os.path.normpath(path)]) != root):
            raise _outside(where, span)
        above = os.path.dirname(path)
        if above not in resolved:
            resolved[above] = os.path.realpath(above)
        real = os.path.join(resolved[above], os.path.basename(path))
        try:
            mode = os.lstat(real).st_mode
            if stat.S_ISLNK(mode):
                real = os.path.realpath(real)
        except OSError as error:
            helps = (f'names are taken from `{folder.name}`; others: `folder="FOLDER"`',)
            raise fail("X0807", f"{where}: {error.strerror}", span, "missing", helps=helps) from error
        if not trust.outside and os.path.commonpath([root, real]) != root:
            raise _outside(where, span)
    return Below(Path(root), Names(names), span)


def _outside(where: str, span: Span) -> Exception:
    notes = ("a spec reads below its own folder; a table, below its own or the one that `folder=` names",)
    helps = ("move the file there, or allow it: `--allow-outside`",)
    return fail("X0901", f"{where} is outside the folder of the table", span, "not allowed", notes=notes, helps=helps)


def digest_of(path: Path) -> str:
    """The hash of a file's bytes."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def listed(values: Sequence[str]) -> str:
    """Names, up to twenty."""
    return ", ".join(f"`{printable(v)}`" for v in values[:20]) + (", …" if len(values) > 20 else "")
