"""What a spec may touch: files below its own folder, and no code unless the user says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from netxform.errors import NOWHERE, Span, closest, fail


@dataclass(frozen=True, slots=True)
class Trust:
    """`root` is the folder of the spec. `code`: Python named by the spec may run. `pickle`: pickled models may be loaded.
    `outside`: files outside `root` may be read.
    """

    root: Path = field(default_factory=Path.cwd)
    code: bool = False
    pickle: bool = False
    outside: bool = False


def read_path(text: str, trust: Trust, span: Span = NOWHERE) -> Path:
    """The existing file or folder that a spec names. Raises NetxformError X0901 (outside), X0807 (missing)."""
    path = _inside(text, trust, span, "read")
    if not path.exists():
        near: list[str] = []
        if path.parent.is_dir():
            near = closest(path.name, [p.name for p in path.parent.iterdir()])
        raise fail(
            "X0807",
            f"no file `{text}`",
            span,
            "missing",
            notes=("files are named from the folder of the spec",),
            helps=tuple(f"did you mean `{n}`?" for n in near) or (f"put the file there: {trust.root}",),
        )
    return path


def write_path(text: str, folder: Path, span: Span = NOWHERE) -> Path:
    """A path below the output folder. Raises NetxformError X0901 for any other."""
    return _inside(text, Trust(folder), span, "write")


def _inside(text: str, trust: Trust, span: Span, what: str) -> Path:
    if "\x00" in text or not text:
        raise fail("X0807", "not the name of a file", span, "empty or with a NUL", helps=("write its name",))
    root = trust.root.resolve()
    path = (root / text).resolve()
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or bool(PureWindowsPath(text).drive)
    if (absolute or not path.is_relative_to(root)) and not (trust.outside and what == "read"):
        why = "an absolute path" if absolute else "outside the folder of the spec"
        raise fail(
            "X0901",
            f"the spec wants to {what} `{text}`: {why}",
            span,
            "not allowed",
            notes=("a spec reads below its own folder and writes below the output folder",),
            helps=("move the file beside the spec, or allow it: `--allow-outside`",) if what == "read" else (),
        )
    return path


def need_code(text: str, trust: Trust, span: Span) -> None:
    """Raises NetxformError X0902, saying what would have run, where the user did not allow code."""
    if not trust.code:
        raise fail(
            "X0902",
            f"the spec names Python code: `{text}`",
            span,
            "would be run",
            helps=("read that file; if you trust it, add `--trust-code`",),
        )


def need_pickle(text: str, trust: Trust, span: Span) -> None:
    """Raises NetxformError X0903 where a pickled file is named and the user did not allow pickles."""
    if not trust.pickle:
        raise fail(
            "X0903",
            f"`{text}` holds pickled objects, which can run code when they are loaded",
            span,
            "would be unpickled",
            helps=("store the weights as safetensors; or, if you trust the file, add `--trust-pickle`",),
        )
