"""`tokens("pairs.tsv", tokenizer="FOLDER")`: sentences, pairs of them, or running text, as a model's own tokenizer cuts them.

A line of a file is a label, a tab and a sentence (or two, with a tab between), or a row of a table whose columns are named; for
`kind=next` the file is running text, and the target at every place is the next token.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from netxform.errors import Span, did_you_mean, fail
from netxform.limits import need as memory
from netxform.sources.data.parts import share
from netxform.sources.data.source import DATA, DataSet, DataSource, Options
from netxform.sources.files import regular
from netxform.sources.models.source import need
from netxform.sources.trust import TEXT, Trust, no_links, read_path
from netxform.syntax import ast

if TYPE_CHECKING:
    import numpy as np

KINDS = ("classes", "values", "next")
IGNORED = -100
_HUB = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")


def tokenizer_of(named: Any, trust: Trust | None, span: Span) -> Any:
    """A tokenizer of transformers: itself, of a folder or a `tokenizer.json`, or by its name where there is a hub. Nothing of the
    folder is run.

    Raises NetxformError X0807 (no such folder), X0814 (transformers is missing), X0826 (no tokenizer in it).
    """
    if callable(named):
        return named
    if type(named).__module__.startswith("tokenizers"):
        return cast(Any, need("transformers", "text", span)).PreTrainedTokenizerFast(tokenizer_object=named)
    text = str(named)
    library: Any = need("transformers", "text", span)
    root = Path.cwd() if trust is None else trust.root
    if trust is None:
        path: Path | None = Path(text) if Path(text).exists() else None
    else:
        path = read_path(text, trust, span) if (root / text).exists() or not _HUB.fullmatch(text) else None
        if path is not None and path.is_dir() and not trust.outside:
            no_links(path, span)
    try:
        if path is not None and path.is_file():
            return library.PreTrainedTokenizerFast(tokenizer_file=str(path))
        local = path is not None
        return library.AutoTokenizer.from_pretrained(str(path or text), local_files_only=local, trust_remote_code=False)
    except Exception as error:  # whatever the library raises on files that it does not know
        line = (str(error).strip().splitlines() or [""])[0][:160]
        helps = ('name the folder of the model, with its `tokenizer.json`, or that file: `tokenizer="FOLDER"`',)
        raise fail("X0826", f"no tokenizer is read from `{text}`: {line}", span, "no tokenizer", helps=helps) from error


def encoded(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, length: int, what: str, span: Span
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Columns (N, length) by the names of the model's arguments, padded behind, and what was cut, in words.

    Raises NetxformError X0406 where there is nothing to pad with.
    """
    import numpy as np

    memory(len(texts) * length * 12, f"{what}: {len(texts):,} texts of {length} tokens", span)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            message = f"{what}: the tokenizer has no token to pad with"
            raise fail("X0406", message, span, "no `pad_token`", helps=("set one: `tokenizer.pad_token = …`",))
        tokenizer.pad_token = tokenizer.eos_token
    settings: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": length}
    found: Any = tokenizer(list(texts), None if pairs is None else list(pairs), **settings)
    columns = {k: np.asarray(v, dtype=np.int32) for k, v in found.items() if len(v) == len(texts)}
    whole = tokenizer(list(texts), None if pairs is None else list(pairs), truncation=False, verbose=False)["input_ids"]
    cut = sum(len(ids) > length for ids in whole)
    said = (f"{cut:,} of {len(texts):,} texts are longer than {length} tokens, and cut",) if cut else ()
    return columns, said


def next_tokens(tokenizer: Any, text: str, length: int, what: str, span: Span) -> tuple[np.ndarray, np.ndarray]:
    """Running text in blocks: x (N, length), and y (N, length) with the token that comes next; behind the text −100.

    Raises NetxformError X0817 where there are fewer than two tokens.
    """
    import numpy as np

    ids: Any = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < 2:
        raise fail("X0817", f"{what} holds fewer than two tokens", span, "nothing comes next")
    count = -(-(len(ids) - 1) // length)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    x = np.full((count * length,), padding, dtype=np.int32)
    y = np.full((count * length,), IGNORED, dtype=np.int64)
    x[: len(ids) - 1] = ids[:-1]
    y[: len(ids) - 1] = ids[1:]
    return x.reshape(count, length), y.reshape(count, length)


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    import numpy as np

    from netxform.sources.data.python import Wanted, table

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
        names = tuple(sorted(set(labels), key=(lambda v: (int(v), v)) if numbers else (lambda v: (0, v))))
        if len(names) < 2:
            helps = ("a line is a label, a tab and a sentence", "labels that are measured: `kind=values`")
            raise fail("X0817", f"`{path.name}` has one label alone: `{names[0]}`", span, "nothing to tell apart", helps=helps)
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

    from netxform.sources.data.samples import Table

    x, y = next_tokens(tokenizer, text, options.length, f"data `{data.name}`", data.span)
    tests, vals = (round(len(x) * share(v)) for v in (options.test, options.val))
    ends = [0, len(x) - vals - tests, len(x) - tests, len(x)]
    if ends[1] < 1:
        message = f"data `{data.name}` leaves nothing to train on: {len(x)} blocks of {options.length} tokens"
        raise fail(
            "X0817", message, data.span, "too little text", helps=("take a smaller `length`, or fewer for `val` and `test`",)
        )
    columns = torch.from_numpy(x), torch.from_numpy(y)
    parts = [Table(*columns, torch.arange(a, b)) for a, b in zip(ends, ends[1:], strict=False)]
    digest = hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
    return DataSet(data.name, parts[0], parts[1], parts[2], None, (options.length,), digest, (), tuple(_words(tokenizer)))


def _few(data: DataSet, options: Options, seed: int) -> DataSet:
    """The data with its parts cut to the numbers of samples that are asked for. Raises NetxformError X0817."""
    import numpy as np
    import torch

    from netxform.sources.data.samples import source_of

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
        raise fail("X0817", f"`{path.name}` is empty", span, "no samples")
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
