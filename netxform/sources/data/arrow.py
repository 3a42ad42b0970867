"""Tables in Arrow's format: columns as values or numbers, and columns of encoded images that stay on disk.

What is read of a file is counted as it comes: a small file that unfolds into more than may be used is refused.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.errors import Span, fail
from netxform.limits import allowed
from netxform.limits import words as sized
from netxform.sources.data.names import printable
from netxform.sources.models.source import need

if TYPE_CHECKING:
    import numpy as np

EXTRA = "tables"
ROWS = 1024
"""So many rows are unfolded at once."""


def arrow(span: Span, package: str = "pyarrow") -> Any:
    """The package. Raises NetxformError X0814 where it is not installed."""
    return need(package, EXTRA, span)


class Grown:
    """Bytes that were read so far, at most as many as may be used. Raises NetxformError X0906."""

    def __init__(self, what: str, span: Span) -> None:
        self.what, self.span, self.size = what, span, 0

    def add(self, count: int) -> None:
        """So many bytes more."""
        self.size += count
        if self.size > allowed():
            helps = ("take fewer columns, or allow more: `--max-memory 64GiB`",)
            text = f"{self.what} unfolds into more than {sized(allowed())}"
            raise fail("X0906", text, self.span, "too large", helps=helps)


class ColumnsRead:
    """Columns of a table, each read when it is first asked for, and held. `batches` gives one as Arrow's arrays."""

    def __init__(self, what: str, span: Span) -> None:
        self.what, self.span = what, span
        self._held: dict[str, Any] = {}
        self._grown = Grown(what, span)

    def batches(self, name: str) -> Iterator[Any]:
        """A column, some rows at a time."""
        raise NotImplementedError

    def kind_of(self, name: str) -> Any:
        """The type of a column, where it is known without a row."""
        return None

    def _column(self, name: str) -> Any:
        import pyarrow as pa

        if name not in self._held:
            chunks: list[Any] = []
            for chunk in self.batches(name):
                self._grown.add(chunk.nbytes)
                chunks.append(chunk)
            self._held[name] = pa.chunked_array(chunks, None if chunks else self.kind_of(name))
        return self._held[name]

    def values(self, name: str) -> Sequence[Any]:
        """As Python values. Raises NetxformError X0861 for images and the like."""
        return values_of(self._column(name), name, self.what, self.span)

    def array(self, name: str) -> np.ndarray | None:
        """Numbers without gaps."""
        return array_of(self._column(name))


def values_of(chunks: Any, name: str, what: str, span: Span) -> list[Any]:
    """A column as Python values. Raises NetxformError X0861 for nested ones other than lists."""
    import pyarrow.types as types

    kind = chunks.type
    if types.is_dictionary(kind):
        chunks, kind = chunks.cast(kind.value_type), kind.value_type
    inner = kind
    while types.is_list(inner) or types.is_large_list(inner) or types.is_fixed_size_list(inner):
        inner = inner.value_type
    plain = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string, types.is_null)
    if types.is_decimal(inner):
        return [None if v is None else float(v) for v in chunks.to_pylist()]
    if not any(f(inner) for f in plain):
        helps = ("name columns of numbers, texts or lists of them; encoded images: `image=`",)
        text = f"column `{printable(name)}` of {what} holds {printable(str(kind))}, which is neither numbers nor texts"
        raise fail("X0861", text, span, "another kind", helps=helps)
    return chunks.to_pylist()


def array_of(chunks: Any) -> np.ndarray | None:
    """A column of numbers without gaps as (N,); else None."""
    import pyarrow.types as types

    kind = chunks.type
    if chunks.null_count or not (types.is_integer(kind) or types.is_floating(kind)):
        return None
    return chunks.to_numpy()


def holds_images(kind: Any) -> bool:
    """Whether a column holds encoded images: bytes, or bytes with a path (as `datasets` stores them)."""
    import pyarrow.types as types

    binary = types.is_binary(kind) or types.is_large_binary(kind)
    return binary or (types.is_struct(kind) and "bytes" in [kind.field(i).name for i in range(kind.num_fields)])


class Stored:
    """Encoded images by number, in a file of Arrow's own that is mapped into memory: what is not asked for is not read."""

    def __init__(self, batches: Iterable[Any], name: str, what: str, span: Span) -> None:
        import pyarrow as pa

        self.name_, self.what, self.span = name, what, span
        self._folder = tempfile.mkdtemp(prefix="netxform-")
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        self._path = Path(self._folder) / "images.arrow"
        self._edges: list[int] = [0]
        kind = pa.schema([("image", pa.large_binary())])
        with pa.OSFile(str(self._path), "wb") as file, pa.ipc.new_file(file, kind) as writer:
            for batch in batches:
                writer.write_batch(pa.record_batch([_bytes(batch).cast(pa.large_binary())], schema=kind))
                self._edges.append(self._edges[-1] + len(batch))
        self._open()

    def _open(self) -> None:
        import pyarrow as pa

        self._mapped = pa.ipc.open_file(pa.memory_map(str(self._path)))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_mapped"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return self._edges[-1]

    def file(self, index: int) -> bytes:
        """The bytes. Raises NetxformError X0861 where there are none."""
        import bisect

        chunk = bisect.bisect_right(self._edges, index) - 1
        found = self._mapped.get_batch(chunk).column(0)[index - self._edges[chunk]].as_py()
        if found is None:
            helps = ("leave such rows out", "or store the bytes of the images, not their paths")
            raise fail("X0861", f"column `{printable(self.name_)}` of {self.what}, {self.name(index)}: no bytes", self.span,
                       "no image", helps=helps)  # fmt: skip
        return found

    def name(self, index: int) -> str:
        """The row."""
        return f"row {index + 1}"


def _bytes(column: Any) -> Any:
    import pyarrow.types as types

    return column.field("bytes") if types.is_struct(column.type) else column


def row(index: int) -> str:
    """How rows are called in messages."""
    return f"row {index + 1:,}"
