"""A bundle is written whole or not at all, whichever system call is the last one, fails, or finds the disk full."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import netxform as nx
from netxform import api
from netxform.artifacts import bundle, exchange
from netxform.artifacts.lock import locked
from netxform.artifacts.plan_file import save_plan
from tests.faults.faulty import Killed, beside, faults, held, notes

OLD = 'model net = zoo.mlp(width=2) input="1x1x28x28"\nfreeze **'
NEW = 'model net = zoo.mlp(width=2) input="1x1x28x28"\nfreeze fc1'


@dataclass
class Case:
    old: dict[str, bytes]
    new: dict[str, bytes]
    write: Callable[[Path], None]
    copy: Callable[[Path], None]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    place = tmp_path_factory.mktemp("whole")
    caught: list[tuple[Any, ...]] = []
    real = bundle.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "write", lambda *given: caught.append(given) or real(*given))
        nx.apply(OLD, out=place / "old" / "b")
        nx.apply(NEW, out=place / "new" / "b")

    def write(out: Path) -> None:
        with locked(out, above=True):
            real(out, *caught[1][1:6], True)

    def copy(out: Path) -> None:
        with locked(out, above=True):
            real(out, *caught[0][1:6], True)

    old, new = held(place / "old" / "b"), held(place / "new" / "b")
    assert old is not None and new is not None and old != new
    return Case(old, new, write, copy)


def test_files_and_folders_are_on_the_disk_before_they_take_their_place(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.copy(tmp_path / "b")
    done: list[str] = []
    exchanged = exchange.exchange
    monkeypatch.setattr(os, "fsync", lambda d: done.append(Path(os.readlink(f"/proc/self/fd/{d}")).name))
    monkeypatch.setattr(exchange, "exchange", lambda *names: done.append("exchange") or exchanged(*names))
    case.write(tmp_path / "b")
    before, after = done[: done.index("exchange")], done[done.index("exchange") + 1 :]
    assert {*case.new, "b", "new"} <= set(before)
    assert before.index("b") > max(before.index(n) for n in case.new)
    assert after == [tmp_path.name]


def without_exchange(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(exchange, "_renameat2", lambda: None)


@pytest.mark.parametrize("way", ["exchange", "two renames"])
@pytest.mark.parametrize("there", [False, True])
def test_killed_between_any_two_calls(
    case: Case, way: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "two renames":
        without_exchange(monkeypatch)
    with faults() as counted:
        case.copy(tmp_path / "count" / "b")
        counted.count = 0
        case.write(tmp_path / "count" / "b")
    assert counted.count > 40
    seen: dict[str, int] = {}
    for k in range(counted.count + 3):
        place = tmp_path / str(k)
        place.mkdir()
        out = place / "b"
        if there:
            case.copy(out)
        try:
            with faults("dead", k):
                case.write(out)
            killed = False
        except Killed:
            killed = True
        found = held(out)
        name = "none" if found is None else "old" if found == case.old else "new" if found == case.new else "MIXED"
        seen[name] = seen.get(name, 0) + 1
        assert name != "MIXED", k
        assert killed or name == "new"
        if there and way == "exchange":
            assert name in ("old", "new")  # at every moment one of them is there
        with locked(out):  # the next run puts the old one back, and sweeps
            now = held(out)
            assert now in ((case.old, case.new) if there else (None, case.new)), k
            assert found is None or now == found
        assert beside(place) <= {"b"}
        case.write(out)
        assert held(out) == case.new
        assert beside(place) == {"b"}
    assert seen.get("new", 0) >= 3
    assert seen.get("old" if there else "none", 0) > 20
    assert not notes()


@pytest.mark.parametrize("mode", ["once", "full"])
@pytest.mark.parametrize("way", ["exchange", "two renames"])
@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_at_any_moment(
    case: Case, mode: str, way: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "two renames":
        without_exchange(monkeypatch)
    out = tmp_path / "b"
    codes: dict[str, int] = {}
    k = 0
    while True:
        if there:
            case.copy(out)
        try:
            with faults(mode, k) as made:
                case.write(out)
            code = "done"
        except nx.NetxformError as error:
            (found,) = error.diagnostics
            code = found.code
            assert "No space left" in found.message and found.helps
        codes[code] = codes.get(code, 0) + 1
        with locked(out):
            now = held(out)
        assert now == (case.new if code == "done" else case.old if there else None), k
        assert beside(tmp_path) <= {"b"}, k
        if now is not None and not there:
            shutil.rmtree(out)
        if made.count <= k:
            break
        k += 1
    assert codes["X0819"] > 25
    assert set(codes) == {"X0819", "done"}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_other_refusals_of_the_system_are_said_in_its_words(case: Case, number: int, tmp_path: Path) -> None:
    for k in (0, 3, 12, 30):
        with pytest.raises(nx.NetxformError) as caught, faults("full", k, number):
            case.write(tmp_path / "b")
        assert caught.value.diagnostics[0].code == "X0819"
        assert os.strerror(number) in str(caught.value)
        assert beside(tmp_path) == set()


def test_the_checker_notices_a_mixture(case: Case, tmp_path: Path) -> None:
    case.copy(tmp_path / "b")
    (tmp_path / "b" / "model.py").write_bytes(case.new["graph.json"])
    assert held(tmp_path / "b") not in (case.old, case.new)


def test_what_is_put_into_a_bundle_while_it_is_replaced_is_not_lost(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exchange.settle
    for way in ("exchange", "two renames"):
        out = tmp_path / way / "b"
        case.copy(out)

        def meanwhile(folder: Path, out: Path = out) -> None:
            (out / "thesis.txt").write_text("mine")
            real(folder)

        with monkeypatch.context() as patch:
            patch.setattr(exchange, "settle", meanwhile)
            if way == "two renames":
                without_exchange(patch)
            with pytest.raises(nx.NetxformError, match="X0818"):
                case.write(out)
        assert (out / "thesis.txt").read_text() == "mine"
        assert beside(out.parent) == {"b"}


def test_links_and_files_in_the_way(case: Case, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").write_text("")
    (tmp_path / "file").write_text("mine")
    for name, to in (("dangling", "nowhere"), ("linked", "precious"), ("loop", "loop")):
        (tmp_path / name).symlink_to(tmp_path / to)
        with pytest.raises(nx.NetxformError, match="X0818"):
            case.write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
    with pytest.raises(nx.NetxformError, match="X0818"):
        case.write(tmp_path / "file")
    for parent in ("dangling", "file", "loop"):
        with pytest.raises(nx.NetxformError, match="X0819"):
            case.write(tmp_path / parent / "b")
    assert beside(tmp_path) == {"precious", "file", "dangling", "linked", "loop"}
    assert (tmp_path / "precious" / "thesis").exists() and (tmp_path / "file").read_text() == "mine"


def test_folders_above_are_not_left_behind(case: Case, tmp_path: Path) -> None:
    with pytest.raises(nx.NetxformError, match="X0819"), faults("full", 12):
        case.write(tmp_path / "some" / "where" / "b")
    assert beside(tmp_path) == set()


def test_only_what_this_tool_made_is_swept(case: Case, tmp_path: Path) -> None:
    strange = [f".b.{'0' * 32}.part", ".b.old.x", ".b.part", ".c.part"]
    for name in strange:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis").write_text("")
    case.write(tmp_path / "b")
    assert beside(tmp_path) == {"b", *strange}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(case: Case, umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        case.write(tmp_path / "b")
        case.write(tmp_path / "b")
    finally:
        os.umask(before)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o777 & ~umask
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "b").iterdir()} == {0o666 & ~umask}


def room(size: int) -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


limited = contextlib.contextmanager(room)


@pytest.mark.parametrize("size", [0, 100, 2000, 4500, 7000])
def test_writers_below_python_meet_a_real_limit(case: Case, size: int, tmp_path: Path) -> None:
    case.copy(tmp_path / "b")
    with pytest.raises(nx.NetxformError) as caught, limited(size):
        case.write(tmp_path / "b")
    assert caught.value.diagnostics[0].code == "X0819" and "File too large" in str(caught.value)
    assert held(tmp_path / "b") == case.old and beside(tmp_path) == {"b"}


@pytest.mark.parametrize("name", ["net.pt2", "net.py", "net.onnx"])
def test_exporters_meet_a_real_limit(case: Case, name: str, tmp_path: Path) -> None:
    if name.endswith("onnx"):
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    case.copy(tmp_path / "b")
    (tmp_path / "to").mkdir()
    for size in (0, 3000):
        with pytest.raises(nx.NetxformError, match="X0819"), limited(size):
            nx.export(tmp_path / "b", tmp_path / "to" / name)
        assert beside(tmp_path / "to") == set()


@pytest.mark.parametrize("what", ["plan", "picture", "export"])
@pytest.mark.parametrize("mode", ["full", "dead"])
def test_single_files_are_written_whole_or_not_at_all(what: str, mode: str, case: Case, tmp_path: Path) -> None:
    case.copy(tmp_path / "given" / "b")
    plan = api.plan_spec(OLD)
    place = tmp_path / "to"
    place.mkdir()
    target = place / {"plan": "p.json", "picture": "p.svg", "export": "net.py"}[what]

    def write() -> None:
        if what == "plan":
            save_plan(plan, target)
        elif what == "picture":
            from matplotlib.figure import Figure

            from netxform.artifacts import picture

            picture.save(Figure(), target)
        else:
            nx.export(tmp_path / "given" / "b", target)

    write()
    new = held(place)
    assert new is not None
    k = 0
    while True:
        for path in place.iterdir():
            path.unlink()
        if what != "export":
            target.write_text("old")
        before = held(place)
        try:
            with faults(mode, k) as made:
                write()
            failed = False
        except nx.NetxformError as error:
            assert error.diagnostics[0].code == "X0819" and mode == "full"
            failed = True
        except Killed:
            failed = mode == "dead"
        if mode == "full":
            assert held(place) == (before if failed else new), k
        else:
            assert not target.exists() or target.read_bytes() in ((before or {}).get(target.name), new[target.name])
            with locked(target):
                pass
            assert {p.name for p in place.iterdir()} <= {target.name, *new}
        if made.count <= k:
            assert not failed
            break
        k += 1
    assert k > 10
