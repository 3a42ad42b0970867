"""Word vectors from files: word2vec (text and binary), GloVe, a matrix with a vocabulary. Only the words asked for are kept.

Path, words ─read_vectors→ Vectors
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.errors import NOWHERE, Span, fail
from netxform.sources.text import read_vocabulary

if TYPE_CHECKING:
    import numpy as np

KINDS = ("word2vec", "glove", "npy", "safetensors")
_MOST = 100_000


@dataclass(frozen=True)
class Vectors:
    """`words`: those of the words asked for that the file has → their vector (D) float32. `size`: how many the file holds."""

    words: dict[str, np.ndarray]
    width: int
    size: int


def width_of(path: Path, kind: str, tensor: str | None = None, span: Span = NOWHERE) -> int:
    """The length of the vectors, from the beginning of the file alone. Raises NetxformError X0826."""
    match kind:
        case "word2vec":
            with path.open("rb") as file:
                return _header(file.readline(200), path, span)[1]
        case "glove":
            with path.open("rb") as file:
                return len(file.readline(_MOST).split()) - 1
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
    if kind in ("npy", "safetensors"):
        matrix = _matrix(path, kind, tensor, span)
        if words_file is None:
            raise fail("X0826", f"`{path.name}` holds a matrix alone", span, 'its words: `vocabulary="words.txt"`')
        names = read_vocabulary(words_file, span)
        if len(names) != len(matrix):
            raise fail("X0826", f"{len(matrix)} vectors in `{path.name}`, {len(names)} words in `{words_file.name}`", span)
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
            raise fail("X0826", f"`{path.name}`: the vector of `{word}` is not finite", span, "NaN or infinity")
    return vectors


def _header(line: bytes, path: Path, span: Span) -> tuple[int, int]:
    parts = line.split()
    if len(parts) != 2 or not all(p.isdigit() for p in parts) or not line.endswith(b"\n"):
        helps = ("a file without that line is read by `glove(…)`",)
        raise fail("X0826", f"`{path.name}` does not begin with two numbers", span, "not word2vec's format", helps=helps)
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
        for seen, line in enumerate(file, 1):
            parts = line.rstrip().split(b" ") if not width else line.rstrip().rsplit(b" ", width)
            width = width or len(parts) - 1
            try:
                word = parts[0].decode("utf-8", errors="replace").strip()
                vector = np.array([float(p) for p in parts[1:]], dtype=np.float32)
            except ValueError:
                vector, word = np.zeros(0, dtype=np.float32), ""
            if len(vector) != width or width == 0:
                at = seen + (kind == "word2vec")
                raise fail(
                    "X0826", f"`{path.name}`, line {at}: not a word and {width} numbers", span, "damaged, or another format"
                )
            yield word, vector
        if count is not None and seen != count:
            raise fail("X0826", f"`{path.name}` says {count} words and holds {seen}", span, "cut short?")


def _binary(path: Path, span: Span) -> Iterator[tuple[str, np.ndarray]]:
    import numpy as np

    with path.open("rb") as file:
        count, width = _header(file.readline(200), path, span)
        for i in range(count):
            name = bytearray()
            while (sign := file.read(1)) != b" ":
                if not sign or len(name) > _MOST:
                    raise fail("X0826", f"`{path.name}` ends in word {i + 1} of {count}", span, "cut short?")
                if sign != b"\n" or name:
                    name += sign
            raw = file.read(4 * width)
            if len(raw) < 4 * width:
                raise fail("X0826", f"`{path.name}` ends in word {i + 1} of {count}", span, "cut short?")
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
                    raise fail(
                        "X0826", f"`{path.name}` holds {len(names)} tensors", span, f"which? `tensor=` {', '.join(names[:6])}"
                    )
                found = file.get_tensor(tensor or names[0]).float().numpy()
    except (OSError, ValueError, EOFError) as error:
        raise fail(
            "X0826", f"`{path.name}` cannot be read as {kind}: {str(error).splitlines()[0]}", span, "damaged?"
        ) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise fail("X0826", f"`{path.name}` cannot be read as {kind}: {error}", span, "damaged, or no such tensor") from error
    if found.ndim != 2 or found.dtype.kind != "f":
        raise fail(
            "X0826", f"`{path.name}` is no matrix of floating-point numbers", span, f"{found.ndim} dimensions, {found.dtype}"
        )
    return found
