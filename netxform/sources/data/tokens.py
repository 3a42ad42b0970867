"""`tokens("pairs.tsv", tokenizer="FOLDER")`: sentences, pairs of them, or running text, as a model's own tokenizer cuts them.

A line of a file is a label, a tab and a sentence (or two, with a tab between), or a row of a table whose columns are named; for
`kind=next` the file is running text, and the target at every place is the next token.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from netxform.errors import Span, did_you_mean, fail
from netxform.sources.data.parts import share
from netxform.sources.data.source import DATA, DataSet, DataSource, Options
from netxform.sources.files import regular
from netxform.sources.tokenized import encoded, next_tokens, tokenizer_of
from netxform.sources.trust import TEXT, Trust, read_path
from netxform.syntax import ast

KINDS = ("classes", "values", "next")


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    import numpy as np

    from netxform.sources.data.given.python import Wanted, table

    span, more = data.span, options.more
    kind = str(more.get("kind", "classes"))
    if kind not in KINDS:
        helps = did_you_mean(kind, KINDS) or (f"kinds: {', '.join(KINDS)}",)
        raise fail("X0401", f"`kind={kind}` is unknown", span, "of which kind?", helps=helps)
    if options.path is None:
        raise fail(
            "X0408", "`tokens` needs the name of a file", span, "which?", helps=('write `tokens("FILE", tokenizer="FOLDER")`',)
        )
    if "tokenizer" not in more:
        helps = ('name the folder of the model: `tokenizer="FOLDER"`', "words of your own: the source `text(…)`")
        raise fail("X0408", "`tokens` needs a tokenizer", span, "which?", helps=helps)
    path = read_path(options.path, trust, span, TEXT)
    regular(path, span, path.name)
    tokenizer = tokenizer_of(more["tokenizer"], trust, span)
    wanted = Wanted(val=share(options.val), test=share(options.test), seed=options.seed or 0)
    what = f"data `{data.name}`"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"`{path.name}` is no UTF-8 text: {error.reason} at byte {error.start}"
        raise fail("X0826", message, span, "no text", helps=("save it as UTF-8",)) from error
    if kind == "next":
        return _few(_running(data, tokenizer, text, options), options, seed)
    texts, pairs, labels = _rows(text, path, more, kind != "classes", span)
    columns, said = encoded(tokenizer, texts, pairs, options.length, what, span)
    if kind == "values":
        targets: Any = np.array([_number(v, i, path, span) for i, v in enumerate(labels)], dtype=np.float32)
    else:
        numbers = all(re.fullmatch(r"\d+", v) for v in labels)
        names = tuple(sorted(set(labels), key=int if numbers else str))
        if len(names) < 2:
            helps = ("a line is a label, a tab and a sentence", "labels that are measured: `kind=values`")
            raise fail("X0817", f"`{path.name}` has one label alone: `{labels[0]}`", span, "nothing to tell apart", helps=helps)
        targets = np.array([names.index(v) for v in labels], dtype=np.int64)
        wanted = Wanted(classes=names, val=wanted.val, test=wanted.test, seed=wanted.seed)
    made = table(data.name, columns, targets, wanted)
    return _few(replace(made, said=(*made.said, *said)), options, seed)


def _words(tokenizer: Any) -> list[str]:
    held: Mapping[str, int] = tokenizer.get_vocab()
    return sorted(held, key=lambda w: held[w])


def _running(data: ast.Data, tokenizer: Any, text: str, options: Options) -> DataSet:
    """Blocks of running text. It is cut at two places: what is learnt stands before what is measured."""
    import torch

    from netxform.sources.data.given.samples import Table

    x, y = next_tokens(tokenizer, text, options.length, f"data `{data.name}`", data.span)
    tests, vals = (round(len(x) * share(v)) for v in (options.test, options.val))
    ends = [0, len(x) - vals - tests, len(x) - tests, len(x)]
    if ends[1] < 1:
        message = f"data `{data.name}` leaves nothing to train on: {len(x)} blocks of {options.length} tokens"
        raise fail(
            "X0817", message, data.span, "too little text", helps=("take a smaller `length`, or fewer for `val` and `test`",)
        )
    columns = torch.from_numpy(x), torch.from_numpy(y)
    parts = [Table(*columns, torch.arange(a, b)) for a, b in pairwise(ends)]
    digest = hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
    return DataSet(data.name, parts[0], parts[1], parts[2], None, (options.length,), digest, (), tuple(_words(tokenizer)))


def _few(data: DataSet, options: Options, seed: int) -> DataSet:
    """The data with its parts cut to the numbers of samples that are asked for. Raises NetxformError X0817."""
    import numpy as np
    import torch

    from netxform.sources.data.given.samples import source_of

    train, val, test = (source_of(p) for p in (data.train, data.val, data.test))
    if options.train is not None:
        if options.train > len(train):
            message = f"data `{data.name}`: {options.train} training samples asked for, {len(train)} there"
            raise fail("X0817", message, label="too many", helps=(f"ask for at most {len(train)}",))
        train = train.part(torch.from_numpy(np.random.default_rng([seed, 18]).permutation(len(train))[: options.train]))
    if isinstance(options.val, int) and options.val > 1:
        val = val.part(torch.arange(min(len(val), options.val)))
    if isinstance(options.test, int) and options.test > 1:
        test = test.part(torch.arange(min(len(test), options.test)))
    digest = hashlib.sha256(f"{data.digest} {options}".encode()).hexdigest()
    return replace(data, train=train, val=val, test=test, digest=digest)


def _rows(
    text: str, path: Path, more: Mapping[str, object], numbers: bool, span: Span
) -> tuple[list[str], list[str] | None, list[str]]:
    """Texts, second texts where there are some, and labels as they are written. Raises NetxformError X0826."""
    named = {k: str(more[k]) for k in ("text", "pair", "label") if k in more}
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise fail("X0817", f"`{path.name}` is empty", span, "no samples", helps=("a line is a label, a tab and a sentence",))
    tab = "\t" in lines[0]
    rows = list(
        csv.reader(lines, delimiter="\t" if tab else ",", quoting=csv.QUOTE_NONE if tab and not named else csv.QUOTE_MINIMAL)
    )
    if not named:
        wrong = next((i for i, r in enumerate(rows, 1) if len(r) not in (2, 3) or len(r) != len(rows[0])), None)
        if wrong is not None:
            helps = (
                "a line is a label, a tab and a sentence, or two with a tab between",
                'a table with a header: name its columns, `text="sentence" label="class"`',
            )
            raise fail("X0826", f"`{path.name}`, line {wrong}: {len(rows[wrong - 1])} columns", span, "not 2 or 3", helps=helps)
        return [r[1] for r in rows], [r[2] for r in rows] if len(rows[0]) == 3 else None, [r[0].strip() for r in rows]
    header = rows[0]
    for key in ("text", "label"):
        if key not in named:
            raise fail("X0408", f"`{key}` is not named", span, "which column?", helps=(f"columns: {', '.join(header)}",))
    for column in named.values():
        if column not in header:
            helps = did_you_mean(column, header) or (f"columns: {', '.join(header)}",)
            raise fail("X0826", f"`{path.name}` has no column `{column}`", span, "no such column", helps=helps)
    short = next((i for i, r in enumerate(rows[1:], 2) if len(r) != len(header)), None)
    if short is not None:
        raise fail("X0826", f"`{path.name}`, line {short}: {len(rows[short - 1])} of {len(header)} columns", span, "damaged?")
    at = {k: header.index(v) for k, v in named.items()}
    body = rows[1:]
    if not body:
        raise fail("X0817", f"`{path.name}` has a header alone", span, "no samples", helps=("it has a row a sample",))
    pairs = [r[at["pair"]] for r in body] if "pair" in at else None
    return [r[at["text"]] for r in body], pairs, [r[at["label"]].strip() for r in body]


def _number(value: str, place: int, path: Path, span: Span) -> float:
    try:
        return float(value)
    except ValueError:
        message = f"`{path.name}`, row {place + 1}: `{value[:40]}` is no number"
        raise fail("X0826", message, span, "not measured", helps=("names of classes: leave `kind` out",)) from None


DATA.register("tokens")(
    DataSource(
        _load,
        lambda options: (None, None),
        more=("tokenizer", "kind", "text", "pair", "label"),
        takes=("path", "length", "train", "val", "test", "seed"),
    )
)
