"""Small texts that would become huge: each is refused, or done, within ten seconds of the processor and one GiB of memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

import netxform as nx
from netxform.cli import main
from netxform.compiler.budget import MOST_STATEMENTS

N = 40
NET = "model net = zoo.smallcnn()\n"
BROAD = 5_000  # statements, lines, brackets of a text that is large itself


def chain(line: str) -> str:
    """A line for each of N numbers, with the next one."""
    return "\n".join(line.replace("@", str(i)).replace("&", str(i + 1)) for i in range(N)) + "\n"


# what the text is, and the code that it ends with (None: it is carried out)
BOMBS: dict[str, tuple[str, str | None]] = {
    "macros": (chain("def f@() { f&(); f&() }") + f"def f{N}() {{ freeze conv1 }}\n{NET}f0()\n", "X0107"),
    "arguments of macros": (chain("def f@(x) { f&([x, x]) }") + f"def f{N}(x) {{ freeze x }}\n{NET}f0(conv1)\n", "X0107"),
    "a chain of macros": ("\n".join(f"def f{i}() {{ f{i + 1}() }}" for i in range(900)) + "\ndef f900() { }\nf0()\n", "X0102"),
    "parameters": ("param p0 = 1\n" + chain("param p& = [$p@, $p@]") + NET + "freeze conv1\n", "X0107"),
    "long parameters": (f'param a = "{"a" * 15_000}"\nparam b = [{", ".join(["$a"] * 500)}]\n{NET}freeze conv1\n', "X0107"),
    "selections": (NET + "let l0 = conv1\n" + chain("let l& = l@ | l@") + f"freeze l{N}\n", None),
    "files": (NET + 'use "u.xform"\n', "X0107"),
    "files by other names": (NET + 'use "u.xform" as a\n', "X0107"),
    "a long text": (NET + f'freeze "{"a" * 900_000}"\n', "X0107"),
    "a huge file": (NET + "#" * 5_000_000, "X0107"),
    "a long word": (NET + f"freeze {'a' * 900_000}\n", "X0107"),
    "a long expression": (f"{NET}freeze /{'a b' * 300_000}/\n", "X0107"),
    "statements": ("freeze a\n" * 60_000, "X0107"),
    "numbers in a name": (NET + "freeze layer{1..1000000000}\n", "X0406"),
    "many numbers in a name": (NET + "freeze " + "{1..99}" * 200 + "\n", "X0406"),
    "digits in a name": (NET + "freeze layer{1.." + "9" * 5000 + "}\n", "X0406"),
    "stars": (NET + "freeze " + "*a" * 30 + "\n", "X0406"),
    "an expression that tries all": (NET + "freeze /(a+)+b/\n", "X0206"),
    "a choice that tries all": (NET + "freeze /(a|a)*b/\n", "X0206"),
    "braces that try all": (NET + "freeze {" + "a.." * 3000 + "a\n", "X0103"),
    "not": (NET + "assert (" + "not \n" * BROAD + "params < 3)\n", "X0102"),
    "minus": (NET + "freeze (" + " - \n".join(["conv1"] * BROAD) + ")\n", "X0102"),
    "conditions": (NET + "freeze (**" + "[index == 1]" * 1000 + ")\n", "X0102"),
    "brackets": (NET + "freeze " + "(\n" * BROAD + "conv1" + ")\n" * BROAD, "X0102"),
    "blocks": ("stage a {\n" * BROAD + "}\n" * BROAD, "X0102"),
    "union": (NET + "freeze (" + " |\n".join(["**"] * BROAD) + ")\n", None),
    "wider": (NET + "widen conv3 x1000000\n", "X0406"),
    "wider still": (NET + "widen conv3 to 100000000000\n", "X0406"),
    "classes": (NET + "cut at layer4; attach head classes=100000000000000000000\n", "X0406"),
    "a layer": (NET + "cut at layer4; attach head { p = Flatten(); a = Linear(auto, 100000000000000) }\n", "X0005"),
    "a model": ("model net = zoo.smallcnn(width=10000000)\nfreeze **\n", "X0005"),
    "a larger model": ("model net = zoo.smallcnn(width=" + "9" * 300 + ")\nfreeze **\n", "X0411"),
    "an input": ('model net = zoo.smallcnn() input="1000000000x1x28x28"\nfreeze **\n', "X0005"),
    "a number": (NET + "factorize fc1 using svd rank=1e99999\n", "X0115"),
    "images": (NET + "data d = sklearn.digits(size=1000000)\ntrain fc for 1epochs on d\n", "X0406"),
    "lines that change nothing": (NET + "freeze conv1\nunfreeze conv1\n" * 100, None),
}
CHILD = """
import faulthandler, resource, sys, time
from pathlib import Path
from netxform.cli import main
main(["plan", "whole.xform"])
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**30, held + 2**30))
for name in sys.argv[1:]:
    begun = time.process_time()
    faulthandler.dump_traceback_later(100, exit=True)
    code = main(["plan", name])
    print("END", name, code, int(time.process_time() - begun), file=sys.stderr, flush=True)
"""


def write(folder: Path, name: str, text: str) -> Path:
    for i in range(20):
        (folder / ("u.xform" if i == 0 else f"u{i}.xform")).write_text(f'use "u{i + 1}.xform"\n' * 2)
    (folder / "u20.xform").write_text("freeze conv1\n")
    (folder / "whole.xform").write_text(NET + "freeze conv1\n")
    path = folder / f"{name}.xform"
    path.write_text(text)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_every_bomb_ends_within_its_limits(tmp_path: Path) -> None:
    files = [write(tmp_path, name, text).name for name, (text, _) in BOMBS.items()]
    ran = subprocess.run([sys.executable, "-c", CHILD, *files], capture_output=True, text=True, cwd=tmp_path, check=False)
    said = ran.stderr
    for name, (_, code) in BOMBS.items():
        page, _, said = said.partition(f"END {name}.xform ")
        assert said, f"{name}: {page[-3000:]}"
        number, seconds = said.split("\n", 1)[0].split()
        assert int(number) == (0 if code is None else 1), f"{name}: {number}\n{page[-1500:]}"
        assert int(seconds) <= 10, f"{name}: {seconds} s"
        if code is not None:
            assert f"error[{code}]" in page, f"{name}: {page[-1500:]}"
            assert "help: " in page
        said = said.split("\n", 1)[1]


def test_the_statement_that_crosses_is_shown(tmp_path: Path) -> None:
    with pytest.raises(nx.NetxformError) as error:
        nx.check(BOMBS["macros"][0])
    (found,) = error.value.diagnostics
    assert found.span.line == N + 1 or "f" in found.message or found.span.line
    assert found.secondary[0].text == "put in from here"
    assert found.secondary[0].span.line == N + 3


def test_what_is_within_the_bounds_is_let_through() -> None:
    spec = nx.check("freeze a\n" * MOST_STATEMENTS)
    assert len(spec.items) == MOST_STATEMENTS
    with pytest.raises(nx.NetxformError, match="X0107"):
        nx.check("freeze a\n" * (MOST_STATEMENTS + 1))


def test_the_limit_of_memory_is_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.xform"
    path.write_text("model net = zoo.mlp()\nfreeze **\n")
    assert main(["plan", str(path), "--max-memory", "100MiB"]) == 0
    assert main(["plan", str(path), "--max-memory", "10kB"]) == 1
    said = capsys.readouterr().err
    assert "X0005" in said and "9.8 KiB may be used" in said and "--max-memory" in said
    assert resource.getrlimit(resource.RLIMIT_AS)  # nothing was set for this process
