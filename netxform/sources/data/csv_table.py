"""`csv("labels.csv", image="file", label="class")`: a table of names or numbers, a line a sample; `.tsv` with tabs.

Every field is a text until the declaration says what it is: no type is guessed, and `NA` is a label like others.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from netxform.errors import NetxformError, Span, fail
from netxform.limits import need
from netxform.sources.data.found import Found, parted, seen_of
from netxform.sources.data.names import printable
from netxform.sources.data.source import DATA, DataSet, DataSource, Options, Seen
from netxform.sources.data.tables import TAKES, found_in, known
from netxform.sources.files import decoded, regular
from netxform.sources.trust import TEXT, Trust, read_path
from netxform.syntax import ast

_SPREAD = 12  # bytes that a byte of a table takes as fields
_MOST_COLUMNS = 100_000


class Lines:
    """The columns of a file with a line of names. A quoted field may go over several lines; `row` says where one begins."""

    def __init__(self, path: Path, delimiter: str | None, span: Span) -> None:
        size = regular(path, span, path.name)
        need(size * _SPREAD, f"`{path.name}`, read as a table,", span)
        raw = path.read_bytes()
        self.digest = hashlib.sha256(raw).hexdigest()
        self.what = f"`{printable(path.name)}`"
        self._span = span
        text = decoded(raw.removeprefix(b"\xef\xbb\xbf"), self.what, span)
        self._delimiter = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
        self._columns: dict[str, list[str]] = {}
        self._lines: list[int] = []
        try:
            self._read(text)
        except csv.Error as error:
            raise self._bad(len(self._lines) + 2, str(error)) from error

    def _read(self, text: str) -> None:
        old = csv.field_size_limit(1 << 24)
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True)
            names = next(reader, None)
            while names is not None and not names:
                names = next(reader, None)
            self._named(names or [])
            fields = list(self._columns.values())
            begin = reader.line_num + 1
            for row in reader:
                if row:
                    if len(row) != len(fields):
                        raise self._bad(begin, f"{len(row)} fields, the first line has {len(fields)}")
                    for held, value in zip(fields, row, strict=True):
                        held.append(value)
                    self._lines.append(begin)
                begin = reader.line_num + 1
        finally:
            csv.field_size_limit(old)

    def _named(self, names: list[str]) -> None:
        names = [n.strip() for n in names]
        if not any(names):
            raise self._bad(1, "it has no line of names")
        twice = next((n for n in names if names.count(n) > 1), None) if len(names) <= _MOST_COLUMNS else names[0]
        if twice is not None:
            raise self._bad(1, f"two columns are called `{printable(twice)}`")
        if len(names) == 1 and (other := next((s for s in (";", "\t", ",", "|") if s in names[0]), None)):
            shown = {"\t": "\\t"}.get(other, other)
            helps = (f'write `delimiter="{shown}"`',)
            text = f"{self.what} has one column, `{printable(names[0])}`"
            raise fail("X0861", text, self._span, "another delimiter?", helps=helps)
        self._columns = {n: [] for n in names}

    def _bad(self, line: int, why: str) -> NetxformError:
        helps = ("a line has a field for each name of the first; a field with a delimiter or a quote in it is quoted",)
        return fail("X0861", f"{self.what}, line {line}: {why}", self._span, "no table", helps=helps)

    def __len__(self) -> int:
        return len(self._lines)

    def names(self) -> Sequence[str]:
        """Those of the first line."""
        return list(self._columns)

    def values(self, name: str) -> Sequence[str]:
        """The fields, as texts."""
        return self._columns[name]

    def row(self, index: int) -> str:
        """The line where it begins."""
        return f"line {self._lines[index]}"

    def array(self, name: str) -> None:
        """Fields are texts."""
        return None

    def classes(self, name: str) -> None:
        """A text file says none."""
        return None


def _find(data: ast.Data, options: Options, trust: Trust, every: bool) -> Found:
    if options.path is None:
        raise fail("X0408", "`csv` needs the name of a file", data.span, "which?", helps=('write `csv("FILE.csv", …)`',))
    path = read_path(options.path, trust, data.span, TEXT)
    table = Lines(path, options.delimiter, data.span)
    return found_in(table, data, options, trust, every, path.parent, table.digest)


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    return parted(data, options, _find(data, options, trust, True), seed)


def _look(data: ast.Data, options: Options, trust: Trust, seed: int) -> Seen:
    return seen_of(data, options, _find(data, options, trust, False), seed)


DATA.register("csv")(DataSource(_load, known, takes=(*TAKES, "delimiter"), look=_look))
