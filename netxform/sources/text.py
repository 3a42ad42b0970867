"""Text as data: labelled sentences, and sentences with their neighbours; words become numbers by a vocabulary.

text("reviews.tsv")        a line: label, tab, sentence       x (N, L), y (N) class numbers
neighbours("story.txt")    a line a sentence, an empty line between documents       x (N, 3 L), y (N, 2, L − 1)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netxform.errors import NOWHERE, Span, fail
from netxform.limits import need
from netxform.sources.files import regular

if TYPE_CHECKING:
    import numpy as np

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
IGNORED = -100
_SPREAD = 20  # bytes that a byte of text takes as words and numbers
_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[^\w\s]")


def tokenize(sentence: str) -> list[str]:
    """Words in lower case, with an inner apostrophe; every other sign by itself."""
    return _TOKEN.findall(sentence.lower())


def vocabulary(sentences: Iterable[Sequence[str]], most: int | None) -> tuple[str, ...]:
    """The four special words, then the words by how often they occur (ties in alphabetical order), `most` in all."""
    counts = Counter(w for s in sentences for w in s)
    ordered = sorted(counts, key=lambda w: (-counts[w], w))
    return (*SPECIAL, *(ordered if most is None else ordered[: max(0, most - len(SPECIAL))]))


def read_vocabulary(path: Path, span: Span = NOWHERE) -> tuple[str, ...]:
    """A word a line, in order. Raises NetxformError X0826 for an empty line, a blank in a word, or one that is there twice."""
    words = _lines(path, span)
    seen: dict[str, int] = {}
    for i, word in enumerate(words, 1):
        if not word or word.split() != [word]:
            raise fail("X0826", f"`{path.name}`, line {i}: not one word", span, helps=("a vocabulary has a word a line",))
        if word in seen:
            raise fail(
                "X0826",
                f"`{path.name}`: `{word}` stands in lines {seen[word]} and {i}",
                span,
                "twice",
                helps=("take one of them out",),
            )
        seen[word] = i
    return tuple(words)


def encode(tokens: Sequence[str], known: dict[str, int], length: int) -> list[int]:
    """Numbers of the words, cut to `length`, with padding in front: a recurrent layer ends at the last word."""
    found = [known.get(t, UNKNOWN) for t in tokens[:length]]
    return [PAD] * (length - len(found)) + found


def encode_target(tokens: Sequence[str], known: dict[str, int], length: int) -> list[int]:
    """Beginning, words, end, with padding behind: what a decoder reads and is to say. No tokens: padding alone."""
    if not tokens:
        return [PAD] * length
    found = [BEGIN, *(known.get(t, UNKNOWN) for t in tokens[: length - 2]), END]
    return found + [PAD] * (length - len(found))


def read_labelled(path: Path, span: Span = NOWHERE) -> tuple[list[list[str]], list[str]]:
    """Sentences as tokens, and their labels. Raises NetxformError X0826 for a line without a tab."""
    sentences: list[list[str]] = []
    labels: list[str] = []
    for i, line in enumerate(_lines(path, span), 1):
        label, tab, sentence = line.partition("\t")
        if not tab:
            raise fail("X0826", f"`{path.name}`, line {i}: no tab", span, helps=("a line is a label, a tab and a sentence",))
        if not label.strip():
            raise fail("X0826", f"`{path.name}`, line {i}: no label", span, helps=("a line is a label, a tab and a sentence",))
        labels.append(label.strip())
        sentences.append(tokenize(sentence))
    return sentences, labels


def read_documents(path: Path, span: Span = NOWHERE) -> list[list[list[str]]]:
    """Documents of sentences as tokens: a line a sentence, an empty line between documents; a label and tab in front go."""
    documents: list[list[list[str]]] = [[]]
    for line in _lines(path, span):
        found = tokenize(line.rpartition("\t")[2])
        if found:
            documents[-1].append(found)
        elif documents[-1]:
            documents.append([])
    return [d for d in documents if d]


def neighbours(
    documents: Sequence[Sequence[Sequence[str]]], known: dict[str, int], length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give x (N, 3 L): a sentence, the one before, the one behind; y (N, 2, L − 1): what to say of the two; document (N).

    At the ends of a document the missing neighbour is padding, and its target is not counted (−100, PyTorch's `ignore_index`).
    """
    import numpy as np

    x: list[list[int]] = []
    y: list[list[list[int]]] = []
    of: list[int] = []
    for number, document in enumerate(documents):
        if len(document) < 2:
            continue
        for i, sentence in enumerate(document):
            around = (document[i - 1] if i else (), document[i + 1] if i + 1 < len(document) else ())
            rows = [encode_target(s, known, length) for s in around]
            x.append(encode(sentence, known, length) + rows[0] + rows[1])
            y.append([[t if t != PAD else IGNORED for t in r[1:]] for r in rows])
            of.append(number)
    return np.array(x, dtype=np.int64), np.array(y, dtype=np.int64), np.array(of, dtype=np.int64)


def _lines(path: Path, span: Span) -> list[str]:
    size = regular(path, span, path.name)
    need(size * _SPREAD, f"`{path.name}`, read as sentences,", span)
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        helps = ("save it as UTF-8",)
        message = f"`{path.name}` is no UTF-8 text: {error.reason} at byte {error.start}"
        raise fail("X0826", message, span, "no text", helps=helps) from error
    except OSError as error:
        helps = ("look at its owner and mode (`ls -l`)",)
        raise fail("X0807", f"`{path.name}` cannot be read: {error.strerror}", span, "not readable", helps=helps) from error
