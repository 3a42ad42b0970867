"""`folder("photos")`: images in a folder a class (torchvision's ImageFolder); or images and, in another folder, their masks."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from netxform.errors import Span, fail
from netxform.sources.data.found import Found, alone, parted, seen_of, workers_of
from netxform.sources.data.names import Names, printable
from netxform.sources.data.pictures import (
    Below,
    Chosen,
    Files,
    Pictures,
    is_image,
    left_out,
    masks_of,
    others,
    ready,
    survey,
    view_of,
    whole,
)
from netxform.sources.data.source import DATA, DataSet, DataSource, Options, Seen, images
from netxform.sources.models.source import need
from netxform.sources.trust import Trust, no_links, read_path
from netxform.syntax import ast

_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_REPAIR = "it holds a folder for each class, with the images of that class; or `train`, `val` and `test` with such folders"


def _find(data: ast.Data, options: Options, trust: Trust, every: bool) -> Found:
    """Names and headers: those of all images with `every`, else of some."""
    import numpy as np
    import torch

    root = _root(options.path, "folder", data, trust)
    if options.masks is not None:
        return _masked(root, data, options, trust, every)
    given, classes = _classes(root, data.span)
    number = {c: i for i, c in enumerate(classes)}
    names: list[str] = []
    labels: list[int] = []
    strange: list[str] = []
    sizes: list[int] = []
    parts: dict[str, list[int]] = {}
    for part, folder in given:
        for name in _folders(folder):
            before = len(names)
            for file, size in _files(folder / name, data.span):
                where = str(file.relative_to(root))
                if is_image(where):
                    names.append(where)
                    sizes.append(size)
                else:
                    strange.append(where)
            if len(names) == before:
                raise _empty(folder / name, root, data.span)
            labels += [number[name]] * (len(names) - before)
            parts.setdefault(part, []).extend(range(before, len(names)))
    alone(len(classes), f"`{options.path}`", data.span)
    files: Files = Below(root, Names(names), data.span)
    y = torch.tensor(labels, dtype=torch.int64)
    pictures, kept, said = shown(files, data, options, every, y)
    position = np.full(len(names), -1, dtype=np.int64)
    position[kept] = np.arange(len(kept))
    own = {n: position[p][position[p] >= 0] for n, p in parts.items() if n}
    listed = ", ".join(f"`{printable(c)}`" for c in classes[:10]) + (", …" if len(classes) > 10 else "")
    said = (f"{len(kept):,} images of {len(classes):,} classes ({listed})", *said, *others(strange))
    digest = hashlib.sha256(repr((list(zip(names, labels, sizes, strict=True)), options)).encode("utf-8", "surrogateescape"))
    return Found(pictures, y[kept], pictures.view.shape, digest.hexdigest(), len(classes), classes, own, said)


def shown(
    files: Files, data: ast.Data, options: Options, every: bool, y: Any, masks: Files | None = None
) -> tuple[Pictures, Any, tuple[str, ...]]:
    """The images in the view that is asked for, the numbers of those that are kept, and what is said of them.

    With `bad=skip` what is damaged is left out: with `every`, each image is decoded once to know. Raises NetxformError X0862,
    X0814 (a package is missing).
    """
    import numpy as np

    need("PIL.Image", "vision", data.span)
    if every:
        ready(data.span)
    skip = options.bad == "skip"
    found = survey(files, data.span, every, skip)
    view = view_of(options, found, data.span)
    values, ignored = masks_of(options, masks, data.span) if masks is not None else ((), None)

    def make(some: Files, targets: Any = None, of: Files | None = masks) -> Pictures:
        return Pictures(some, view, data.span, targets, of, values, ignored)

    if masks is not None:
        survey(masks, data.span, every, False)
    kept = np.arange(len(files))
    said = found.words(len(files), view.channels)
    if skip:
        bad = whole(files, make, workers_of(options, len(files))) if every else found.bad
        if bad:
            kept = np.setdiff1d(kept, list(bad))
            said += (left_out(bad, files),)
        if not len(kept):
            raise fail("X0817", f"data `{data.name}`: no image is whole", data.span, "all damaged", helps=("look at one",))
    if len(kept) == len(files):
        return make(files, y), kept, said
    return make(Chosen(files, kept), y[kept] if y is not None else None, Chosen(masks, kept) if masks else None), kept, said


def _root(text: str | None, what: str, data: ast.Data, trust: Trust) -> Path:
    if text is None:
        raise fail("X0408", f"`{what}` needs the name of a folder", data.span, "which?", helps=('write `folder("FOLDER")`',))
    path = read_path(text, trust, data.span)
    if not path.is_dir():
        raise fail("X0817", f"`{text}` is no folder", data.span, "no images", helps=(_REPAIR,))
    if not trust.outside:
        no_links(path, data.span)
    return path


def _classes(root: Path, span: Span) -> tuple[list[tuple[str, Path]], tuple[str, ...]]:
    """The folders of classes, each under its part ("" where the data has none), and the names of the classes in order."""
    inner = _folders(root)
    parts = {_PARTS.get(n.lower(), "") for n in inner}
    split = "train" in parts and "" not in parts and all(_folders(root / n) for n in inner)
    if not split:
        if not inner:
            raise fail("X0817", f"`{root.name}` holds no folder of a class", span, "no classes", helps=(_REPAIR,))
        return [("", root)], tuple(inner)
    if len(parts) != len(inner):
        raise fail("X0861", f"`{root.name}` has two folders for one part: {', '.join(inner)}", span, "which one?",
                   helps=("leave one of them",))  # fmt: skip
    given = sorted(((_PARTS[n.lower()], root / n) for n in inner), key=lambda g: ("train", "val", "test").index(g[0]))
    classes = tuple(_folders(given[0][1]))
    for _, folder in given[1:]:
        new = sorted(set(_folders(folder)) - set(classes))
        if new:
            text = f"the class `{printable(new[0])}` is in `{folder.name}` and not in `{given[0][1].name}`"
            raise fail("X0817", text, span, "never shown", helps=(f"put some of its images into `{given[0][1].name}`",))
    return given, classes


def _folders(folder: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(folder) if e.is_dir())


def _files(folder: Path, span: Span, above: tuple[tuple[int, int], ...] = ()) -> list[tuple[Path, int]]:
    """The files below a folder with their sizes in bytes, in order. Raises NetxformError X0861 for a link to a folder above,
    X0807 for what may not be listed.
    """
    try:
        here = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as error:
        helps = ("look at its owner and mode (`ls -ld`)",)
        text = f"the folder `{printable(folder.name)}` cannot be read: {error.strerror}"
        raise fail("X0807", text, span, "not readable", helps=helps) from error
    place = (here.st_dev, here.st_ino)
    if place in above:
        helps = ("take the link out",)
        raise fail("X0861", f"`{printable(folder.name)}` is a link to a folder that it lies in", span, "endless", helps=helps)
    out: list[tuple[Path, int]] = []
    for entry in entries:
        path = folder / entry.name
        if entry.is_dir():
            out += _files(path, span, (*above, place))
        else:
            try:
                out.append((path, entry.stat().st_size))
            except OSError:  # a link to nothing
                out.append((path, -1))
    return out


def _empty(folder: Path, root: Path, span: Span) -> Exception:
    name = printable(str(folder.relative_to(root)))
    helps = (f"take the folder out, or put images there: {', '.join(('.jpg', '.png', '.webp', '…'))}",)
    return fail("X0817", f"the folder `{name}` holds no image, and each folder is a class", span, "an empty class", helps=helps)


def _masked(root: Path, data: ast.Data, options: Options, trust: Trust, every: bool) -> Found:
    """Images, and masks of the same names in another folder."""
    other = _root(options.masks, "masks", data, trust)
    pictures = {str(p.relative_to(root).with_suffix("")): p for p, _ in _files(root, data.span) if is_image(p.name)}
    masks = {str(p.relative_to(other).with_suffix("")): p for p, _ in _files(other, data.span) if is_image(p.name)}
    if not pictures:
        raise fail(
            "X0817", f"`{options.path}` holds no image", data.span, "no images", helps=("name the folder of the images",)
        )
    lone = sorted(set(pictures) ^ set(masks))
    if lone:
        side = "mask" if lone[0] in pictures else "image"
        helps = ("a mask is called as its image is, up to the ending",)
        raise fail("X0861", f"`{printable(lone[0])}` has no {side}", data.span, f"{len(lone)} alone", helps=helps)
    keys = sorted(pictures)
    files = Below(root, Names(str(pictures[k].relative_to(root)) for k in keys), data.span)
    of = Below(other, Names(str(masks[k].relative_to(other)) for k in keys), data.span)
    made, kept, said = shown(files, data, options, every, None, of)
    said = (f"{len(kept):,} images with masks of {len(made.values)} classes", *said)
    sizes = [(k, pictures[k].stat().st_size, masks[k].stat().st_size) for k in keys]
    digest = hashlib.sha256(repr((sizes, options)).encode("utf-8", "surrogateescape")).hexdigest()
    return Found(made, None, made.view.shape, digest, len(made.values), (), {}, said)


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    return parted(data, options, _find(data, options, trust, True), seed)


def _look(data: ast.Data, options: Options, trust: Trust, seed: int) -> Seen:
    return seen_of(data, options, _find(data, options, trust, False), seed)


SHOWN = ("size", "channels", "normalize", "fit", "interpolation", "workers", "bad")
"""Options of what is decoded from files."""
TAKES = ("path", "masks", "values", "ignore", "per_class", "train", "val", "test", "seed", *SHOWN)
DATA.register("folder")(DataSource(_load, images(None, None), takes=TAKES, look=_look))
