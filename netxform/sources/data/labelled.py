"""`text("reviews.tsv")`: labelled sentences, a line each (see `sources.text`)."""

from __future__ import annotations

from netxform.errors import fail
from netxform.sources.data.parts import few, share, split
from netxform.sources.data.source import DATA, SENTENCES, DataSet, DataSource, Options
from netxform.sources.data.worded import file_of, made, rows, words_of
from netxform.sources.text import encode, read_labelled
from netxform.sources.trust import Trust
from netxform.syntax import ast


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    import numpy as np

    sentences, given = read_labelled(file_of(data, "text", options, trust), data.span)
    labels = tuple(sorted(set(given)))
    if len(set(given)) < 2:
        helps = ("a line is a label, a tab and a sentence",)
        raise fail(
            "X0817", f"`{options.path}` has one label alone: `{given[0]}`", data.span, "nothing to tell apart", helps=helps
        )
    y = np.array([labels.index(g) for g in given], dtype=np.int64)
    train, val, test = split(y, share(options.val), share(options.test), options.seed or 0)
    words = words_of(data, options, trust, [sentences[i] for i in train])
    known = {w: i for i, w in enumerate(words)}
    x = np.array([encode(s, known, options.length) for s in sentences], dtype=np.int64)
    if options.per_class is not None:
        rng = np.random.default_rng([seed, 17])
        train = few(train, y, list(range(len(labels))), options.per_class, rng, data.name, data.span)
    return made(data, options, seed, x, y, (train, val, test), labels, words)


DATA.register("text")(DataSource(_load, rows(1), takes=(*SENTENCES, "per_class")))
