"""`hf_dataset("reviews")`: a folder that `datasets` has saved (`save_to_disk`), or a data set of the hub by its name.

Rows stay in the file; images are decoded by netxform, one at a time. What is an image and what is a class, the features say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from netxform.errors import NetxformError, Span, fail
from netxform.sources.data import arrow
from netxform.sources.data.found import Found, parted, seen_of
from netxform.sources.data.names import printable
from netxform.sources.data.options import TARGETS, at
from netxform.sources.data.source import DATA, DataSet, DataSource, Options, Seen
from netxform.sources.data.tables import TAKES, found_in, known
from netxform.sources.files import read_text
from netxform.sources.trust import Trust, no_links, read_path
from netxform.syntax import ast

if TYPE_CHECKING:
    pass

_HUB = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
_PLAIN = re.compile(r"[\w\-.]+")
_PARTS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}


class Rows(arrow.ColumnsRead):
    """The columns of several splits, one behind the other."""

    def __init__(self, splits: Mapping[str, Any], what: str, home: Path, outside: bool, span: Span) -> None:
        super().__init__(what, span)
        self.splits, self.home, self.outside = splits, home, outside
        self.features: Mapping[str, Any] = next(iter(splits.values())).features

    def __len__(self) -> int:
        return sum(len(s) for s in self.splits.values())

    def names(self) -> Sequence[str]:
        """Of the features."""
        return list(self.features)

    def kind(self, name: str) -> str:
        """The class of the feature: `Value`, `ClassLabel`, `Image`, …"""
        return type(self.features[name]).__name__

    def batches(self, name: str) -> Iterator[Any]:
        """A column of all splits, some rows at a time."""
        for split in self.splits.values():
            for batch in split.select_columns([name]).with_format("arrow").iter(batch_size=arrow.ROWS):
                yield from batch.column(0).chunks

    def row(self, index: int) -> str:
        """The split, and the row in it."""
        split, inner = self._place(index)
        return f"row {inner + 1:,}" if len(self.splits) == 1 else f"row {inner + 1:,} of `{split}`"

    def _place(self, index: int) -> tuple[str, int]:
        for name, split in self.splits.items():
            if index < len(split):
                return name, index
            index -= len(split)
        raise IndexError(index)

    def classes(self, name: str) -> tuple[str, ...] | None:
        """The names that a class label has, one or a list of them."""
        feature = self.features[name]
        inner = getattr(feature, "feature", feature)
        found = getattr(inner, "names", None)
        return tuple(found) if found else None

    def images(self, name: str) -> Encoded | None:
        """A column of images; None for names of files."""
        if self.kind(name) != "Image":
            return None
        return Encoded(self, name)


class Encoded:
    """The images of a column, encoded, by number."""

    def __init__(self, rows: Rows, name: str) -> None:
        from datasets import Image

        self.rows, self.name_ = rows, name
        kind: Any = Image(decode=False)
        self._splits = {n: s.select_columns([name]).cast_column(name, kind) for n, s in rows.splits.items()}

    def __len__(self) -> int:
        return len(self.rows)

    def file(self, index: int) -> Path | bytes:
        """The bytes, or a file below the folder. Raises NetxformError X0861 (neither), X0901 (a file elsewhere)."""
        split, inner = self.rows._place(index)  # pyright: ignore[reportPrivateUsage]
        found = cast("dict[str, Any]", self._splits[split][inner][self.name_] or {})
        if found.get("bytes") is not None:
            return found["bytes"]
        text = found.get("path")
        where = f"column `{printable(self.name_)}`, {self.name(index)}"
        if not text:
            raise fail("X0861", f"{where}: no image", self.rows.span, "nothing", helps=("leave such rows out",))
        path = (self.rows.home / text).resolve()
        if not self.rows.outside and not path.is_relative_to(self.rows.home.resolve()):
            helps = ("save it with the bytes of the images (`embed`), or allow it: `--allow-outside`",)
            shown = f"{where}: `{printable(text)}` is outside the folder of the data set"
            raise fail("X0901", shown, self.rows.span, "not allowed", helps=helps)
        return path

    def name(self, index: int) -> str:
        """The row."""
        return self.rows.row(index)


def _find(data: ast.Data, options: Options, trust: Trust, every: bool) -> Found:
    import numpy as np

    if options.path is None:
        helps = ('write `hf_dataset("FOLDER")`',)
        raise fail("X0408", "`hf_dataset` needs the name of a folder", data.span, "which?", helps=helps)
    span = at(data, "path")
    library = arrow.arrow(span, "datasets")
    found, home = _opened(options, trust, span, library)
    splits: dict[str, Any] = dict(found) if isinstance(found, dict) else {"train": found}
    strange = [n for n in splits if n not in _PARTS]
    if strange and len(splits) > 1:
        helps = ("save the splits that count as train, validation and test",)
        text = f"`{options.path}` has a split `{printable(strange[0])}`: splits are train, validation and test"
        raise fail("X0861", text, span, "which part?", helps=helps)
    kinds = {tuple(s.features) for s in splits.values()}
    if not splits or len(kinds) > 1:
        helps = ("save splits that have the same columns",)
        raise fail("X0861", f"the splits of `{options.path}` have different columns", span, "not one table", helps=helps)
    rows = Rows(splits, f"`{options.path}`", home, trust.outside, span)
    given: dict[str, Any] = {}
    start = 0
    for name, split in splits.items():
        if len(splits) > 1:
            given[_PARTS[name]] = np.arange(start, start + len(split))
        start += len(split)
    if given and "train" not in given:
        raise fail("X0817", f"`{options.path}` has no split `train`", span, "nothing to train on", helps=("save one",))
    options, said = _from_features(rows, options)
    digest = repr([(n, getattr(s, "_fingerprint", "")) for n, s in splits.items()])
    made = found_in(rows, data, options, trust, every, home, digest, rows.images, given or None)
    return replace(made, said=(*made.said, *said))


def _opened(options: Options, trust: Trust, span: Span, library: Any) -> tuple[Any, Path]:
    text = options.path or ""
    if not _HUB.fullmatch(text) or (trust.root / text).exists():
        folder = read_path(text, trust, span)
        _saved(folder, text, span)
        if not trust.outside:
            no_links(folder, span)
        return _called(lambda: library.load_from_disk(str(folder)), text, span), folder
    config = options.more.get("config")
    return _called(lambda: library.load_dataset(text, config), text, span), trust.root


def _called(load: Any, text: str, span: Span) -> Any:
    try:
        return load()
    except NetxformError:
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        if isinstance(error, ConnectionError) or type(error).__name__ in ("DatasetNotFoundError", "OfflineModeIsEnabled"):
            helps = ("save it beside the spec: `datasets.load_dataset(NAME).save_to_disk(FOLDER)`, then name the folder",)
            raise fail(
                "X0813", f"`{text}` could not be fetched: {said}", span, "no such folder, and no hub", helps=helps
            ) from error
        helps = ("save it again: `datasets.Dataset.save_to_disk(FOLDER)`",)
        raise fail(
            "X0862", f"`{text}` cannot be read: {type(error).__name__}: {said}", span, "damaged?", helps=helps
        ) from error


def _saved(folder: Path, text: str, span: Span) -> None:
    """Nothing for a folder of `save_to_disk` that names files of its own alone. Raises NetxformError X0815, X0901."""
    splits: list[Path] = [folder]
    listing = folder / "dataset_dict.json"
    if folder.is_dir() and listing.is_file():
        named = _json(listing, span).get("splits")
        if not isinstance(named, list) or not all(isinstance(n, str) and _PLAIN.fullmatch(n) for n in cast("list[Any]", named)):
            raise _elsewhere(listing, named, span)
        splits = [folder / n for n in cast("list[str]", named)]
    for split in splits:
        state = split / "state.json"
        if not state.is_file():
            helps = (
                "save it: `datasets.Dataset.save_to_disk(FOLDER)`",
                'images in folders: `folder("…")`; tables: `csv("…")`, `parquet("…")`',
            )
            raise fail("X0815", f"`{text}` was not saved by `datasets`: no state.json", span, "no data set", helps=helps)
        held = _json(state, span)
        files = [*(held.get("_data_files") or ()), *(held.get("_indices_data_files") or ())]
        for one in files:
            name = cast("dict[str, Any]", one).get("filename") if isinstance(one, dict) else None
            if not isinstance(name, str) or not _PLAIN.fullmatch(name) or name.startswith(".."):
                raise _elsewhere(state, name, span)


def _elsewhere(file: Path, name: object, span: Span) -> NetxformError:
    text = f"`{file.name}` names {printable(repr(name))}, which is no file of its folder"
    return fail("X0901", text, span, "not allowed", helps=("save the data set again, from where you trust it",))


def _json(file: Path, span: Span) -> dict[str, Any]:
    try:
        found: Any = json.loads(read_text(file, span, file.name))
    except (ValueError, RecursionError) as error:
        raise fail(
            "X0862", f"`{file.name}` is damaged: {error}", span, "no JSON", helps=("save the data set again",)
        ) from error
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _from_features(rows: Rows, options: Options) -> tuple[Options, tuple[str, ...]]:
    """What the features tell where the declaration is silent: the one column of images, the one of classes."""
    said: list[str] = []
    for key, kind, silent in (
        ("image", "Image", options.image is None and not options.columns),
        ("label", "ClassLabel", not any(getattr(options, k) for k in TARGETS)),
    ):
        names = [n for n in rows.names() if rows.kind(n) == kind]
        if silent and len(names) == 1:
            changed: dict[str, Any] = {key: names[0]}
            options = replace(options, **changed)
            said.append(f"`{printable(names[0])}` is the {key}, by its feature")
    return options, tuple(said)


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    return parted(data, options, _find(data, options, trust, True), seed)


def _look(data: ast.Data, options: Options, trust: Trust, seed: int) -> Seen:
    return seen_of(data, options, _find(data, options, trust, False), seed)


DATA.register("hf_dataset")(DataSource(_load, known, more=("config",), takes=TAKES, look=_look))
