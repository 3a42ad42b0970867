"""A fitted classifier as a `.skops` file: the same bytes for the same classifier.

skops names members and objects by their place in memory, and a zip notes when it was written. Here both are numbered in the
order in which they stand, dates are fixed, and bytes of an array that no field uses are zero.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np

_DATE = (1980, 1, 1, 0, 0, 0)
_SCHEMA = "schema.json"


def dump(estimator: Any, path: Path) -> None:
    """Write a fitted classifier. Raises OSError."""
    import skops.io

    path.write_bytes(canonical(skops.io.dumps(estimator)))


def canonical(data: bytes) -> bytes:
    """A `.skops` file with its accidents taken out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(held.pop(_SCHEMA))
    names: dict[str, str] = {}
    numbered = _Numbers(names).of(schema)
    members = {new: _plain(old, held[old]) for old, new in names.items() if old in held}
    return _zipped({**members, _SCHEMA: json.dumps(numbered, indent=2).encode()})


class _Numbers:
    """Ids and names of files, in the order in which they stand in the schema."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.ids: dict[int, int] = {}
        self.count = 0

    def of(self, value: Any) -> Any:
        """The value with its numbers; sets in a fixed order. What is plain text gets a number of its own: whether Python kept
        two equal texts in one place is no part of the classifier.
        """
        if isinstance(value, list):
            return [self.of(v) for v in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        given = cast("dict[str, Any]", value)
        if given.get("__loader__") == "SetNode" and isinstance(given.get("content"), list):
            given = given | {"content": sorted(given["content"], key=_without_ids)}
        out: dict[str, Any] = {}
        for key, held in given.items():
            if key == "__id__" and isinstance(held, int):
                out[key] = self._id(held, given.get("__loader__") == "JsonNode")
            elif key == "file" and isinstance(held, str):
                suffix = held.rpartition(".")[2]
                out[key] = self.names.setdefault(held, f"{len(self.names)}.{suffix}")
            else:
                out[key] = self.of(held)
        return out

    def _id(self, old: int, alone: bool) -> int:
        self.count += 1
        return self.count if alone else self.ids.setdefault(old, self.count)


def _without_ids(value: Any) -> str:
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return str(sorted((k, _without_ids(v)) for k, v in pairs if k not in ("__id__", "file")))
    return str([_without_ids(v) for v in cast("list[Any]", value)]) if isinstance(value, list) else repr(value)


def _plain(name: str, data: bytes) -> bytes:
    """A member of the archive: arrays with fields and archives of arrays written anew."""
    if name.endswith(".npz"):
        with zipfile.ZipFile(io.BytesIO(data)) as inner:
            return _zipped({n: inner.read(n) for n in sorted(inner.namelist())})
    if not name.endswith(".npy"):
        return data
    array: Any = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.names is None:
        return data
    whole: Any = np.zeros(array.shape, array.dtype)
    for field in array.dtype.names:
        whole[field] = array[field]
    if {"left_child", "missing_go_to_left"} <= set(array.dtype.names):  # a leaf goes nowhere: scikit-learn leaves it unset
        whole["missing_go_to_left"][whole["left_child"] == -1] = 0
    out = io.BytesIO()
    np.save(out, whole, allow_pickle=False)
    return out.getvalue()


def _zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)
    return out.getvalue()
