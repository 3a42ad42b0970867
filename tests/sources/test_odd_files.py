"""Odd folders and files: data, or one clean page each with a place, a rule and a repair. Nothing ends in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

import netxform as nx
from netxform.sources.data import check_data_source, load_data, look
from netxform.sources.data.given.samples import source_of
from netxform.sources.trust import Trust
from tests.sources.odd_files import CASES, WORKS

pytest.importorskip("PIL")


@pytest.mark.parametrize("name", CASES)
def test_data_or_one_clean_page(name: str, tmp_path: Path) -> None:
    make, code = CASES[name]
    text = make(tmp_path)
    declared = nx.parse(f"data d = {text}").statements[0]
    assert not check_data_source(declared)
    trust = Trust(tmp_path)
    try:
        seen = look(declared, trust, 0)
        data = load_data(declared, trust, 0)
        for part in (data.train, data.val, data.test):
            source = source_of(part)
            for i in range(len(source)):
                x, _ = source[i]
                assert tuple(x.shape) == data.shape == seen.shape
        assert seen.train == len(data.train) and seen.classes == data.classes
    except nx.NetxformError as error:
        (found,) = error.diagnostics
        assert found.code == code, error
        assert found.span.line == 1 and found.helps, error
        assert all(c.isprintable() for c in found.message), "what is in a file or its name must not reach the terminal as it is"
    else:
        assert code == WORKS, data.said
