"""Data sets by name, a file each: three disjoint parts (train, val, test), reproducible by seed.

ast.Data ─load_data→ DataSet
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, cast

from netxform.errors import Diagnostic, Label, NetxformError, Span, did_you_mean, fail
from netxform.language.values import number, plain
from netxform.sources.data.parts import from_tensors as from_tensors
from netxform.sources.data.source import DATA, Known, Options
from netxform.sources.data.source import DataSet as DataSet
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.syntax.format import format_node

ARGUMENTS = tuple(f.name for f in fields(Options) if f.name != "more")


def check_data_source(data: ast.Data) -> list[Diagnostic]:
    """What the text alone shows to be wrong with a data declaration. Imports nothing."""
    source = data.source
    found: list[Diagnostic] = []
    if not isinstance(source, ast.Call | ast.Path):
        return [Diagnostic("X0212", f"`{format_node(source)}` is no source of data", source.span, "not a source")]
    name = source.name if isinstance(source, ast.Call) else source.text
    if name not in DATA:
        found.append(
            Diagnostic(
                "X0212",
                f"`{name}` is no source of data",
                source.span,
                "unknown source",
                helps=did_you_mean(name, DATA) or (f"sources: {', '.join(DATA)}",),
            )
        )
    if found:
        return found
    try:
        held = DATA.find(name, source.span)
    except NetxformError as error:
        return list(error.diagnostics)
    known = (*(ARGUMENTS if held.takes is None else held.takes), *held.more)
    arguments = source.arguments if isinstance(source, ast.Call) else ()
    if "path" not in known and any(a.key is None for a in arguments):
        span = next(a.span for a in arguments if a.key is None)
        message = f"`{name}` takes no value without a name"
        found.append(Diagnostic("X0411", message, span, "what is it?", helps=(f"options: {', '.join(known)}",)))
    elif sum(a.key is None for a in arguments) > 1:
        span = [a.span for a in arguments if a.key is None][1]
        found.append(Diagnostic("X0411", f"`{name}` takes one file or folder", span, "more than one", helps=("name one",)))
    places: dict[str, Span] = {}
    for key, span in [(a.key or "path", a.span) for a in arguments] + [(o.key, o.span) for o in data.options]:
        if key in places and not found:
            labels = (Label(places[key], "first"),)
            message = f"`{key}` is given twice"
            found.append(Diagnostic("X0407", message, span, "second time", labels, helps=("leave one of them",)))
        places[key] = span
        if key not in known and not (key == "path" and found):
            found.append(
                Diagnostic(
                    "X0404",
                    f"`{name}` has no option `{key}`",
                    span,
                    "unknown",
                    helps=did_you_mean(key, known) or (f"options: {', '.join(known)}",),
                )
            )
    if not found:
        try:
            _options(data)
        except NetxformError as error:
            found += error.diagnostics
    return found


def describe(data: ast.Data) -> Known:
    """The number of classes and the shape of one sample, where the text tells. Imports no library."""
    name, options = _options(data)
    return DATA.find(name, data.span).describe(options)


def _options(data: ast.Data) -> tuple[str, Options]:
    source = cast("ast.Call | ast.Path", data.source)
    given: dict[str, ast.Expr] = {o.key: o.value for o in data.options}
    if isinstance(source, ast.Call):
        given |= {a.key or "path": a.value for a in source.arguments}
    name = source.name if isinstance(source, ast.Call) else source.text
    more = {k: plain(given.pop(k)) for k in DATA.find(name, source.span).more if k in given}
    values = {k: _KINDS[k](v, k) for k, v in given.items()}
    options = Options(**values, more=more)
    classes = given.get("classes")
    if options.classes is not None and classes is not None and len(set(options.classes)) != len(options.classes):
        raise fail("X0406", "`classes` names a class twice", classes.span, "twice", helps=("name each class once",))
    if options.classes is not None and classes is not None and len(options.classes) < 2:
        helps = ("name two at least: `classes=[0, 1]`",)
        raise fail("X0406", "a classification needs two different classes", classes.span, "one class", helps=helps)
    taken = sum(s for s in (options.val, options.test) if s < 1)
    if taken >= 1:
        span = given["val" if "val" in given else "test"].span
        helps = ("leave a share for training: `val=15% test=20%`",)
        raise fail("X0406", f"`val` and `test` take {taken:.0%} of the samples", span, "nothing is left", helps=helps)
    return name, options


def _count(low: int, high: int) -> Callable[[ast.Expr, str], int]:
    def read(expression: ast.Expr, key: str) -> int:
        found = number(expression)
        if not isinstance(found, int) or not low <= found <= high:
            helps = (f"write a whole number from {low} to {high:,}",)
            text = format_node(expression)
            raise fail(
                "X0406", f"`{key}` is a whole number from {low}, not {text}", expression.span, "out of range", helps=helps
            )
        return found

    return read


def _part(expression: ast.Expr, key: str) -> float:
    found = number(expression)
    if not (0 <= found < 1 or (isinstance(found, int) and found > 1)):
        helps = (f"write a share, `{key}=15%`, or how many: `{key}=500`",)
        text = format_node(expression)
        message = f"`{key}` is a share in [0, 1) or a number of samples, not {text}"
        raise fail("X0406", message, expression.span, "out of range", helps=helps)
    return found


def _numbers(expression: ast.Expr, key: str) -> tuple[int, ...]:
    items = expression.items if isinstance(expression, ast.List) else (expression,)
    return tuple(_count(0, 1_000_000)(i, key) for i in items)


def _normal(expression: ast.Expr, key: str) -> tuple[float, ...]:
    items = expression.items if isinstance(expression, ast.List) else (expression,)
    found = tuple(float(number(i)) for i in items)
    if len(found) != 2 or found[1] <= 0:
        helps = ("write the two: `normalize=[0.5, 0.25]`",)
        message = f"`{key}` is a mean and a spread above 0, not {format_node(expression)}"
        raise fail("X0406", message, expression.span, "not a mean and a spread", helps=helps)
    return found


def _text(expression: ast.Expr, key: str) -> str:
    if not isinstance(expression, ast.String) or not expression.value:
        helps = (f'write it in double quotes: `{key}="…"`',)
        raise fail("X0401", f"`{key}` is the name of a file or folder", expression.span, "no text", helps=helps)
    return expression.value


_KINDS: dict[str, Callable[[ast.Expr, str], Any]] = {
    "classes": _numbers,
    "omit": _numbers,
    "per_class": _count(1, 1_000_000_000),
    "train": _count(1, 1_000_000_000_000),
    "val": _part,
    "test": _part,
    "size": _count(1, 8192),
    "channels": _count(1, 4096),
    "normalize": _normal,
    "seed": _count(0, 2**63 - 1),
    "root": _text,
    "path": _text,
    "length": _count(3, 100_000),
    "words": _count(5, 100_000_000),
    "vocabulary": _text,
    "corpus": _text,
}


def load_data(data: ast.Data, trust: Trust, seed: int) -> DataSet:
    """The declared data. The split is a function of the source's own seed; which few samples are drawn, of `seed`.

    Raises NetxformError X0814 (package missing), X0807 (file missing), X0817 (not enough samples).
    """
    name, options = _options(data)
    return DATA.find(name, data.span).load(data, options, trust, seed)


def check_python_data(name: str, value: Any) -> DataSet:
    """Data handed in from Python: a DataSet as it is, anything else as `dataset` reads it."""
    return dataset(value, name=name)


def dataset(
    value: Any,
    *,
    name: str = "data",
    target: str | int | None = None,
    inputs: Sequence[str | int] | None = None,
    classes: int | Sequence[str] | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    workers: int = 0,
    val: float = 0.15,
    test: float = 0.2,
    seed: int = 0,
    text: str | None = None,
    pair: str | None = None,
    tokenizer: Any = None,
    length: int = 128,
) -> DataSet:
    """Data as netxform takes it (`nx.dataset`): what `value` is, and what it does not say by itself.

    `value`: (x, y) of arrays, tensors, lists, memory maps or frames, x alone for data without labels; a data set of torch or
    torchvision, a list of samples, a Hugging Face `Dataset`; a `DataLoader`, whose collate function, workers and batch size are
    kept; a frame of pandas; a dict of columns; an `IterableDataset`; or `{"train": …, "val": …, "test": …}` of any of these.
    `target`, `inputs`: the fields (or parts) of a sample that are the label and that go into the model, by the names of its
    arguments. `classes`: how many there are, or their names in order. `collate`: a list of samples → a batch. `workers`:
    processes that load samples. `val`, `test`: the shares that are cut off, `seed`: of the cut. `text`, `pair`: the fields
    that hold texts, `tokenizer`: what makes numbers of them (a tokenizer, or the folder of a model), padded and cut to
    `length` tokens.

    Raises NetxformError X0401 (no data, or of a form that says nothing), X0805 (a sample that cannot be read), X0817 (no
    samples, or not as many targets), X0838 (NaN or infinity), X0406 (a setting out of range).
    """
    from netxform.sources.data.python import Wanted, read_python

    shares: tuple[tuple[str, Any], ...] = (("val", val), ("test", test))
    for key, share in shares:
        if type(share) not in (int, float) or not 0 <= share < 1:
            raise fail("X0406", f"`{key}` is a share in [0, 1), not {share!r}", helps=(f"write `{key}=0.15`",))
    if val + test >= 1:
        raise fail("X0406", f"`val` and `test` take {val + test:.0%} of the samples", helps=("leave a share for training",))
    if tokenizer is None and (text is not None or pair is not None):
        raise fail("X0408", "texts need a tokenizer", helps=("name the folder of a model, or hand one in: `tokenizer=…`",))
    wholes: tuple[tuple[str, Any], ...] = (("workers", workers), ("seed", seed), ("length", length))
    for key, whole in wholes:
        if type(whole) is not int or whole < 0:
            raise fail("X0406", f"`{key}` is a whole number from 0, not {whole!r}", helps=(f"write `{key}=0`",))
    if isinstance(classes, str) or (isinstance(classes, int) and (isinstance(classes, bool) or classes < 1)):
        raise fail("X0406", f"`classes` is a number from 1, or a list of names, not {classes!r}")
    if collate is not None and not callable(collate):
        raise fail("X0401", f"`collate` is a function of a list of samples, not a `{type(collate).__name__}`")
    named = classes if classes is None or isinstance(classes, int) else tuple(str(c) for c in classes)
    if isinstance(inputs, str):
        inputs = (inputs,)
    several = None if inputs is None else tuple(inputs)
    words: dict[str, Any] = {"tokenizer": tokenizer, "text": text, "pair": pair, "length": length}
    return read_python(name, value, Wanted(target, several, named, collate, workers, val, test, seed, **words))
