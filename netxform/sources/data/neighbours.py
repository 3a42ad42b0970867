"""`neighbours("story.txt")`: sentences, each with the one before and the one behind (see `sources.text`)."""

from __future__ import annotations

from netxform.errors import fail
from netxform.sources.data.parts import share, split
from netxform.sources.data.source import DATA, SENTENCES, DataSet, DataSource, Options
from netxform.sources.data.worded import file_of, made, rows, words_of
from netxform.sources.text import neighbours, read_documents
from netxform.sources.trust import Trust
from netxform.syntax import ast


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    import numpy as np

    path = file_of(data, "neighbours", options, trust)
    documents = [d for d in read_documents(path, data.span) if len(d) > 1]
    if not documents:
        raise fail(
            "X0817",
            f"`{options.path}` has no document of two sentences",
            data.span,
            "no neighbours",
            helps=("a line is a sentence; an empty line ends a document",),
        )
    zeros = np.zeros(len(documents), dtype=np.int64)
    parts = split(zeros, share(options.val), share(options.test), options.seed or 0)
    words = words_of(data, options, trust, [s for i in parts[0] for s in documents[i]])
    x, y, of = neighbours(documents, {w: i for i, w in enumerate(words)}, options.length)
    return made(data, options, seed, x, y, [np.flatnonzero(np.isin(of, p)) for p in parts], None, words)


DATA.register("neighbours")(DataSource(_load, rows(3), takes=SENTENCES))
