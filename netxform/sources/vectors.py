"""Word vectors from files: word2vec (text and binary), GloVe, a matrix with a vocabulary. Only the words asked for are kept.

Path, words ─read_vectors→ Vectors
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.errors import NOWHERE, NetxformError, Span, did_you_mean, fail
from netxform.sources.files import regular
from netxform.sources.text import read_vocabulary

if TYPE_CHECKING:
    import numpy as np

KINDS = ("word2vec", "glove", "npy", "safetensors")
_MOST = 1_000_000
_WIDEST = 65_536
_AGAIN = ("fetch or save the file again; `netxform explain init` names the formats",)


@dataclass(frozen=True)
class Vectors:
    """`words`: those of the words asked for that the file has → their vector (D) float32. `size`: how many the file holds."""

    words: dict[str, np.ndarray]
    width: int
    size: int


def width_of(path: Path, kind: str, tensor: str | None = None, span: Span = NOWHERE) -> int:
    """The length of the vectors, from the beginning of the file alone. Raises NetxformError X0826."""
    regular(path, span, path.name)
    match kind:
        case "word2vec":
            with path.open("rb") as file:
                return _header(file.readline(200), path, span)[1]
        case "glove":
            with path.open("rb") as file:
                found = len(file.readline(_MOST).split()) - 1
            if found < 1:
                raise fail(
                    "X0826", f"`{path.name}`, line 1: not a word and its numbers", span, "not GloVe's format", helps=_AGAIN
                )
            return found
        case _:
            return int(_matrix(path, kind, tensor, span).shape[1])


def read_vectors(
    path: Path,
    kind: str,
    words: Iterable[str],
    *,
    words_file: Path | None = None,
    tensor: str | None = None,
    span: Span = NOWHERE,
) -> Vectors:
    """The vectors of those words that the file has; of a word that is there twice, the first.

    `words_file` and `tensor` belong to a matrix (`npy`, `safetensors`): its words, one a line, and its name in the file.
    Raises NetxformError X0826, with the place in the file, for what is not of that kind, is cut short, or is not finite.
    """
    import numpy as np

    wanted = set(words)
    regular(path, span, path.name)
    if kind in ("npy", "safetensors"):
        matrix = _matrix(path, kind, tensor, span)
        if words_file is None:
            helps = ('name its words: `vocabulary="words.txt"`',)
            raise fail("X0826", f"`{path.name}` holds a matrix alone", span, "of which words?", helps=helps)
        names = read_vocabulary(words_file, span)
        if len(names) != len(matrix):
            message = f"{len(matrix)} vectors in `{path.name}`, {len(names)} words in `{words_file.name}`"
            raise fail("X0826", message, span, "not as many", helps=("name the file of words that belongs to it",))
        found = {w: np.array(matrix[i], dtype=np.float32) for i, w in enumerate(names) if w in wanted}
        return _finite(Vectors(found, int(matrix.shape[1]), len(names)), path, span)
    found = {}
    count, width = 0, 0
    for word, vector in _text(path, kind, span) if kind == "glove" or not _is_binary(path, span) else _binary(path, span):
        count, width = count + 1, len(vector)
        if word in wanted and word not in found:
            found[word] = vector
    return _finite(Vectors(found, width, count), path, span)


def _finite(vectors: Vectors, path: Path, span: Span) -> Vectors:
    import numpy as np

    for word, vector in vectors.words.items():
        if not np.isfinite(vector).all():
            raise fail("X0826", f"`{path.name}`: the vector of `{word}` is not finite", span, "NaN or infinity", helps=_AGAIN)
    return vectors


def _header(line: bytes, path: Path, span: Span) -> tuple[int, int]:
    parts = line.split()
    if len(parts) != 2 or not all(p.isdigit() for p in parts) or not line.endswith(b"\n"):
        helps = ("a file without that line is read by `glove(…)`",)
        raise fail("X0826", f"`{path.name}` does not begin with two numbers", span, "not word2vec's format", helps=helps)
    if not 1 <= int(parts[1]) <= _WIDEST or len(parts[0]) > 15:
        helps = ("it begins with how many words it has, and how long the vectors are",)
        message = f"`{path.name}` says that its vectors have {parts[1].decode()[:20]} numbers; from 1 to {_WIDEST:,} are read"
        raise fail("X0826", message, span, "damaged?", helps=helps)
    return int(parts[0]), int(parts[1])


def _is_binary(path: Path, span: Span) -> bool:
    """Whether the line behind the first is no word with as many numbers as the first says."""
    with path.open("rb") as file:
        _, width = _header(file.readline(200), path, span)
        parts = file.readline(_MOST).rstrip(b"\n").rsplit(None, width)
    try:
        return len(parts) != width + 1 or not [float(p) for p in parts[1:]]
    except ValueError:
        return True


def _text(path: Path, kind: str, span: Span) -> Iterator[tuple[str, np.ndarray]]:
    import numpy as np

    with path.open("rb") as file:
        count, width = _header(file.readline(200), path, span) if kind == "word2vec" else (None, 0)
        seen = 0
        for seen, line in enumerate(iter(lambda: file.readline(_MOST), b""), 1):
            parts = line.rstrip().split(b" ") if not width else line.rstrip().rsplit(b" ", width)
            width = width or len(parts) - 1
            try:
                word = parts[0].decode("utf-8", errors="replace").strip()
                vector = np.array([float(p) for p in parts[1:]], dtype=np.float32)
            except ValueError:
                vector, word = np.zeros(0, dtype=np.float32), ""
            if len(vector) != width or width == 0:
                at = seen + (kind == "word2vec")
                wanted = f"{width} numbers" if width else "its numbers"
                message = f"`{path.name}`, line {at}: not a word and {wanted}"
                raise fail("X0826", message, span, "damaged, or another format", helps=_AGAIN)
            yield word, vector
        if count is not None and seen != count:
            raise fail("X0826", f"`{path.name}` says {count} words and holds {seen}", span, "cut short?", helps=_AGAIN)


def _binary(path: Path, span: Span) -> Iterator[tuple[str, np.ndarray]]:
    import numpy as np

    with path.open("rb") as file:
        count, width = _header(file.readline(200), path, span)
        for i in range(count):
            name = bytearray()
            while (sign := file.read(1)) != b" ":
                if not sign or len(name) > _MOST:
                    raise fail("X0826", f"`{path.name}` ends in word {i + 1} of {count}", span, "cut short?", helps=_AGAIN)
                if sign != b"\n" or name:
                    name += sign
            raw = file.read(4 * width)
            if len(raw) < 4 * width:
                raise fail("X0826", f"`{path.name}` ends in word {i + 1} of {count}", span, "cut short?", helps=_AGAIN)
            yield name.decode("utf-8", errors="replace"), np.frombuffer(raw, dtype="<f4").astype(np.float32)


def _matrix(path: Path, kind: str, tensor: str | None, span: Span) -> Any:
    """A matrix (V, D): of an `.npy` file without reading it all, of the named or only tensor of a `.safetensors` file."""
    import numpy as np

    try:
        if kind == "npy":
            found: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                names = list(file.keys())
                if tensor is None and len(names) != 1:
                    helps = (f"say which: `tensor=` {', '.join(names[:6])}",) if names else _AGAIN
                    raise fail("X0826", f"`{path.name}` holds {len(names)} tensors", span, "which?", helps=helps)
                if tensor is not None and tensor not in names:
                    helps = did_you_mean(tensor, names) or (f"it holds {', '.join(names[:6])}",)
                    raise fail("X0826", f"`{path.name}` holds no tensor `{tensor}`", span, "which?", helps=helps)
                found = file.get_tensor(tensor or names[0]).float().numpy()
    except NetxformError:
        raise
    except Exception as error:  # numpy reads the header of a file as Python: what is damaged raises whatever it likes
        text = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise fail("X0826", f"`{path.name}` cannot be read as {kind}: {text}", span, "damaged?", helps=_AGAIN) from error
    if not isinstance(found, np.ndarray):
        found.close()
        helps = ("store one matrix, by `numpy.save`",)
        raise fail("X0826", f"`{path.name}` is an archive of arrays (npz), not one", span, "which?", helps=helps)
    if found.ndim != 2 or found.dtype.kind != "f" or not found.shape[1]:
        helps = ("a row is a vector, a number of it a column",)
        message = f"`{path.name}` is no matrix of floating-point numbers: {found.ndim} dimensions, {found.dtype}"
        raise fail("X0826", message, span, "not a matrix", helps=helps)
    return found
