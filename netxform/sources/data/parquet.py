"""`parquet("houses.parquet", target="price")`: a file of columns, or a folder of such files, by pyarrow.

Columns of images are encoded bytes, or bytes with a path; they are laid out on disk once and read row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.errors import NetxformError, Span, fail
from netxform.sources.data import arrow
from netxform.sources.data.found import Found, parted, seen_of
from netxform.sources.data.names import printable
from netxform.sources.data.options import at
from netxform.sources.data.source import DATA, DataSet, DataSource, Options, Seen
from netxform.sources.data.tables import TAKES, digest_of, found_in, known
from netxform.sources.trust import Trust, no_links, read_path, room_for
from netxform.syntax import ast

if TYPE_CHECKING:
    pass


class Parquet(arrow.ColumnsRead):
    """The columns of one file, or of several with the same columns, each read when it is first asked for."""

    def __init__(self, files: Sequence[Path], what: str, span: Span) -> None:
        super().__init__(what, span)
        self.files = files
        self._pq: Any = arrow.arrow(span, "pyarrow.parquet")
        with self._reading():
            opened = [self._pq.ParquetFile(str(f)) for f in files]
            self.schema = opened[0].schema_arrow
            for file, one in zip(files, opened, strict=True):
                if one.schema_arrow.names != self.schema.names:
                    text = f"`{printable(file.name)}` has other columns than `{printable(files[0].name)}`"
                    raise fail("X0861", text, span, "not one table", helps=("name one file",))
            self._count = sum(int(o.metadata.num_rows) for o in opened)

    def __len__(self) -> int:
        return self._count

    def names(self) -> Sequence[str]:
        """Of the file's schema."""
        return list(self.schema.names)

    def batches(self, name: str) -> Iterator[Any]:
        """A column, some rows at a time."""
        with self._reading():
            for file in self.files:
                with self._pq.ParquetFile(str(file)) as opened:
                    for batch in opened.iter_batches(batch_size=arrow.ROWS, columns=[name]):
                        yield batch.column(0)

    def kind_of(self, name: str) -> Any:
        """As the schema says."""
        return self.schema.field(name).type

    def row(self, index: int) -> str:
        """Counted from 1."""
        return arrow.row(index)

    def classes(self, name: str) -> None:
        """The file says none."""
        return None

    def images(self, name: str) -> arrow.Stored | None:
        """A column of encoded images; None for names of files."""
        if name not in self.names() or not arrow.holds_images(self.schema.field(name).type):
            return None
        return _stored(self, name, tuple((f, f.stat().st_mtime_ns, f.stat().st_size) for f in self.files))

    def _reading(self) -> _Reading:
        return _Reading(self.what, self.span)


@lru_cache(maxsize=4)
def _stored(table: Parquet, name: str, files: tuple[Any, ...]) -> arrow.Stored:
    return arrow.Stored(table.batches(name), name, table.what, table.span)


class _Reading:
    """While pyarrow reads: what it raises is said of the file. X0862."""

    def __init__(self, what: str, span: Span) -> None:
        self.what, self.span = what, span

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NetxformError) or not isinstance(error, Exception):
            return
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        helps = ("look whether it is whole, and of this format",)
        raise fail("X0862", f"{self.what} cannot be read: {text}", self.span, "damaged?", helps=helps) from error


def _find(data: ast.Data, options: Options, trust: Trust, every: bool) -> Found:
    if options.path is None:
        helps = ('write `parquet("FILE.parquet", …)`',)
        raise fail("X0408", "`parquet` needs the name of a file", data.span, "which?", helps=helps)
    span = at(data, "path")
    path = read_path(options.path, trust, span, whole=False)
    files = [path]
    if path.is_dir():
        if not trust.outside:
            no_links(path, span)
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise fail("X0817", f"`{options.path}` holds no .parquet file", span, "no samples", helps=("name one",))
        for file in files:
            room_for(file, None, span)
    table = _opened(tuple(files), tuple((f.stat().st_mtime_ns, f.stat().st_size) for f in files), f"`{options.path}`", span)
    digest = "".join(digest_of(f) for f in files) if every else ""
    home = path if path.is_dir() else path.parent
    return found_in(table, data, options, trust, every, home, digest, table.images)


@lru_cache(maxsize=4)
def _opened(files: tuple[Path, ...], stamp: tuple[Any, ...], what: str, span: Span) -> Parquet:
    return Parquet(files, what, span)


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    return parted(data, options, _find(data, options, trust, True), seed)


def _look(data: ast.Data, options: Options, trust: Trust, seed: int) -> Seen:
    return seen_of(data, options, _find(data, options, trust, False), seed)


DATA.register("parquet")(DataSource(_load, known, takes=TAKES, look=_look))
