"""Damaged data and vector files, a few of each kind (`python -m tests.faults.damage 1000` for many)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from netxform.errors import NetxformError
from tests.faults.damage import READERS, make, trials


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_read_or_refused(seed: int) -> None:
    seen = trials(9 * len(READERS), seed)
    assert seen["uncaught"] == 0
    assert seen["refused"] > 10  # the damage is damage


@pytest.mark.parametrize("name", READERS)
def test_what_is_whole_is_read_and_what_is_no_file_is_not(name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(folder)
        READERS[name](folder)
        file = folder / name if (folder / name).is_file() else folder / name / "x" / "0.png"
        for there in (lambda: os.mkfifo(file), lambda: file.write_bytes(b""), lambda: file.symlink_to("nowhere")):
            file.unlink()
            there()
            with pytest.raises(NetxformError) as error:
                READERS[name](folder)
            assert error.value.diagnostics[0].helps


def test_a_damaged_image_is_named() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(folder)
        for cut in (3, 60):  # in its head, and behind it
            file = folder / "images" / "x" / "3.png"
            whole = file.read_bytes()
            file.write_bytes(whole[:cut])
            with pytest.raises(NetxformError, match=r"x/3\.png"):
                READERS["images"](folder)
            file.write_bytes(whole)
