"""Whole runs: one writer a target, a failed assert loses nothing, faults while state is kept, folders of killed runs."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import netxform as nx
from netxform.artifacts import lock
from netxform.artifacts.lock import locked
from netxform.cli import main
from netxform.pipeline import executor
from netxform.training import checkpoint, resume
from tests.faults.faulty import Killed, beside, faults, held, notes

TRAIN = """
model net = zoo.smallcnn() input="1x1x8x8"
data d = sklearn.digits(train=60)
train ** for 2epochs on d
"""
HOLD = """
    import os, sys, time
    from pathlib import Path
    from netxform.artifacts.lock import locked
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
"""


def holder(target: Path) -> subprocess.Popen[str]:
    made = subprocess.Popen([sys.executable, "-c", textwrap.dedent(HOLD), str(target)], stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None and made.stdout.readline() == "held\n"
    return made


def test_one_writer_a_target_and_a_killed_one_is_taken_over(tmp_path: Path) -> None:
    held_by = holder(tmp_path / "b")
    try:
        with pytest.raises(nx.NetxformError, match="X0843") as caught:
            nx.apply(TRAIN, out=tmp_path / "b")
        said = str(caught.value)
        assert f"process {held_by.pid} on " in said and "since 2" in said and "wait until" in said
        assert beside(tmp_path) == {".b.lock"}
        with locked(tmp_path / "c"):  # another target is another lock
            pass
    finally:
        held_by.kill()
        held_by.communicate()
    assert (tmp_path / ".b.lock").exists()  # what a killed one leaves
    with locked(tmp_path / "b"):
        assert json.loads((tmp_path / ".b.lock").read_text())["pid"] == os.getpid()
    assert beside(tmp_path) == set()


def test_two_threads_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(2)
    found: list[str] = []

    def work() -> None:
        together.wait()
        try:
            with locked(tmp_path / "b"):
                found.append("in")
                threading.Event().wait(0.3)
        except nx.NetxformError as error:
            found.append(error.diagnostics[0].code)

    several = [threading.Thread(target=work) for _ in range(2)]
    for one in several:
        one.start()
    for one in several:
        one.join()
    assert sorted(found) == ["X0843", "in"]


def test_a_lock_under_another_name_of_its_folder_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with locked(tmp_path / "real" / "b"), pytest.raises(nx.NetxformError, match="X0843"), locked(tmp_path / "link" / "b"):
        pass


def test_what_is_no_lock_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("mine")
    makers: list[Callable[[Path], object]] = [
        lambda p: p.symlink_to(tmp_path / "thesis"),
        lambda p: p.write_text("my own notes"),
        lambda p: os.link(tmp_path / "thesis", p),
        lambda p: os.mkfifo(p),
        lambda p: p.mkdir(),
    ]
    for make in makers:
        path = tmp_path / ".b.lock"
        make(path)
        before = path.lstat()
        with pytest.raises(nx.NetxformError, match="X0843"), locked(tmp_path / "b"):
            pass
        assert os.path.samestat(before, path.lstat())
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert (tmp_path / "thesis").read_text() == "mine"


def test_where_a_file_system_has_no_locks_a_living_holder_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, what: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / "b"), pytest.raises(nx.NetxformError, match="X0843"), locked(tmp_path / "b"):
        pass
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / ".b.lock").write_text(json.dumps(lock._me() | {"pid": gone.pid}))
    with locked(tmp_path / "b"):
        pass


def test_a_child_does_not_hold_the_lock_of_a_parent_that_was_killed(tmp_path: Path) -> None:
    code = textwrap.dedent(HOLD).replace("time.sleep(60)", "import subprocess; subprocess.run(['sleep', '2'])")
    made = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "b")], stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None and made.stdout.readline() == "held\n"
    made.send_signal(signal.SIGKILL)
    made.communicate()
    with locked(tmp_path / "b"):
        pass


def test_a_failed_assert_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.xform").write_text(TRAIN + 'assert val_accuracy >= 100%, "not good enough"\nfreeze **')
    out = tmp_path / "b"
    assert main(["apply", str(tmp_path / "s.xform"), "-o", str(out), "--quiet"]) == 3
    said = capsys.readouterr().err
    assert "not good enough" in said and "b.failed" in said and "--resume" in said
    failed = tmp_path / "b.failed"
    assert not out.exists() and beside(tmp_path) == {"s.xform", "b.failed", ".b.resume"}
    assert {"certificate.json", "curves.csv", "model.safetensors"} <= beside(failed)
    nx.load(failed)
    verdict = nx.verify(failed)
    broken = [line for line in verdict.lines if not line[1].held]
    assert len(broken) == 1 and "did not hold" in str(verdict)
    assert main(["verify", str(failed)]) == 3

    assert main(["apply", str(tmp_path / "s.xform"), "-o", str(out), "--quiet", "--resume"]) == 3  # kept again, in its place
    (tmp_path / "s.xform").write_text(TRAIN + "assert val_accuracy >= 0%\nfreeze **")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("netxform.training.fit._step", lambda *more: pytest.fail("it trained again"))
        assert main(["apply", str(tmp_path / "s.xform"), "-o", str(out), "--quiet", "--resume"]) == 0
    assert (out / "model.safetensors").read_bytes() == (failed / "model.safetensors").read_bytes()
    assert nx.verify(out).held


def test_a_folder_in_the_way_of_what_a_failed_assert_keeps(tmp_path: Path) -> None:
    (tmp_path / "b.failed").mkdir()
    (tmp_path / "b.failed" / "thesis").write_text("mine")
    with pytest.raises(nx.NetxformError, match="X0601") as caught:
        nx.apply(TRAIN + "assert val_accuracy >= 100%", out=tmp_path / "b")
    assert "could not be kept" in str(caught.value) and caught.value.exit_code == 3
    assert (tmp_path / "b.failed" / "thesis").read_text() == "mine"


@pytest.mark.parametrize("mode", ["full", "dead"])
def test_a_run_stopped_at_any_call_ends_with_the_same_bytes(mode: str, tmp_path: Path) -> None:
    with faults() as counted:
        nx.apply(TRAIN, out=tmp_path / "whole" / "b")
    wanted = held(tmp_path / "whole" / "b")
    seen: set[str] = set()
    for k in range(2, counted.count, 17):
        place = tmp_path / str(k)
        place.mkdir()
        try:
            with faults(mode, k):
                nx.apply(TRAIN, out=place / "b")
            seen.add("done")
        except nx.NetxformError as error:
            assert [d.code for d in error.diagnostics] == ["X0819"], k
            assert "No space left" in str(error)
            assert beside(place) <= {".b.resume"}, k  # the epochs that were finished, and nothing else
            assert ".b.resume" not in beside(place) or len(beside(place / ".b.resume")) == 3
            seen.add("X0819")
        except Killed:
            seen.add("killed")
        assert held(place / "b") in (None, wanted), k
        nx.apply(TRAIN, out=place / "b", resume=True, overwrite=True)
        assert held(place / "b") == wanted, k
        assert beside(place) == {"b"}, k
    assert ("X0819" if mode == "full" else "killed") in seen
    assert not notes()


def test_state_that_nothing_needs_is_swept(tmp_path: Path) -> None:
    with pytest.raises(Killed), faults("dead", 60):
        nx.apply(TRAIN, out=tmp_path / "b")
    assert ".b.resume" in beside(tmp_path)
    nx.apply('model net = zoo.smallcnn() input="1x1x8x8"\nfreeze conv1', out=tmp_path / "b")
    assert beside(tmp_path) == {"b"}


def test_a_bundle_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nx.apply('model net = zoo.smallcnn() input="1x1x8x8"\nfreeze conv1', out=tmp_path / "b")
    real = os.open, Path.open, Path.read_bytes

    def refuses(path: Path) -> None:
        if path.name == shut:
            raise PermissionError(13, "Permission denied", str(path))

    def opened(self: Path, *more: object, **named: object) -> object:
        refuses(self)
        return real[1](self, *more, **named)  # type: ignore[arg-type]

    def read_bytes(self: Path) -> bytes:
        refuses(self)
        return real[2](self)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    for shut in ("model.safetensors", "certificate.json", "evidence.safetensors", "graph.json"):
        with pytest.raises(nx.NetxformError, match="X0844") as caught:
            nx.verify(tmp_path / "b")
        assert shut in str(caught.value) and "damaged" not in caught.value.diagnostics[0].message
        with pytest.raises(nx.NetxformError, match="X0844"):
            nx.load(tmp_path / "b")
    shut = ""
    assert nx.verify(tmp_path / "b").held


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_is_told_what_is_wrong(tmp_path: Path) -> None:
    nx.apply('model net = zoo.smallcnn() input="1x1x8x8"\nfreeze conv1', out=tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/") and "pytest" in str(folder):
            folder.chmod(folder.stat().st_mode | 0o055)
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            os.setuid(65534)
            try:
                nx.verify(tmp_path / "b")
            except nx.NetxformError as error:
                code = 0 if error.diagnostics[0].code == "X0844" else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_differs_between_one_thread_and_two_is_said_with_its_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    nx.apply('model net = zoo.smallcnn() input="1x1x8x8"\nfactorize conv3 using svd rank=4', out=tmp_path / "b")
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        verdict = nx.verify(tmp_path / "b")
    finally:
        torch.set_num_threads(before)
    assert verdict.held
    assert any(f"threads {before + 1} (made with {before})" in note for note in verdict.notes)
    assert any("outputs may differ by" in note for note in verdict.notes)
    assert not any("made with" in note for note in nx.verify(tmp_path / "b").notes)


@pytest.mark.parametrize(
    "statement", ["factorize conv3 using svd rank=4", "factorize conv3 using tucker2 rank=[4, 4]", "widen conv2 x2"]
)
def test_one_thread_and_two_give_the_same_weights(statement: str, tmp_path: Path) -> None:
    import torch

    spec = f'model net = zoo.smallcnn() input="1x1x8x8"\n{statement}'
    before = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            nx.apply(spec, out=tmp_path / str(n) / "b")
    finally:
        torch.set_num_threads(before)
    one, two = (tmp_path / str(n) / "b" / "model.safetensors" for n in (1, 2))
    assert one.read_bytes() == two.read_bytes()


def test_the_state_is_what_a_kill_leaves_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = tmp_path / ".b.resume"
    with faults() as counted:
        resume.claim(keep, "k", False)
    resume.release(keep)
    for k in range(counted.count + 1):
        for action in (lambda: resume.claim(keep, "k", False), lambda: resume.release(keep)):
            with pytest.MonkeyPatch.context(), faults("dead", k):
                try:
                    action()
                except Killed:
                    pass
            resume.claim(keep, "k", True)  # never refused: what is there is known as ours, or is not there
            assert beside(keep) <= {"made_by_netxform.json"}
        resume.release(keep)
        assert beside(tmp_path) == set()
    assert executor.kept_beside(tmp_path / "b") == keep
    assert checkpoint.read(keep / "000", {}, executor.Processes(0, 1)) is None


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(nx.NetxformError, match="X0819") as caught:
        nx.apply(TRAIN, out=tmp_path / "b")
    assert "XDG_STATE_HOME" in str(caught.value) and beside(tmp_path) == {"file"}
    nx.apply('model net = zoo.smallcnn() input="1x1x8x8"\nfreeze conv1', out=tmp_path / "b")  # nothing to resume: not needed
    assert beside(tmp_path) == {"file", "b"}
