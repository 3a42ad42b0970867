"""Data sets by name, a file each: three disjoint parts (train, val, test), reproducible by seed.

ast.Data ─load_data→ DataSet
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import PurePath
from typing import Any

from netxform.errors import Diagnostic, Label, NetxformError, Span, did_you_mean, fail
from netxform.sources.data.code import FORM
from netxform.sources.data.options import CODE, at, options_of
from netxform.sources.data.parts import from_tensors as from_tensors
from netxform.sources.data.source import DATA, Options, Seen, Stated
from netxform.sources.data.source import DataSet as DataSet
from netxform.sources.trust import Trust
from netxform.syntax import ast
from netxform.syntax.format import format_node

ARGUMENTS = tuple(f.name for f in fields(Options) if f.name != "more")


def check_data_source(data: ast.Data) -> list[Diagnostic]:
    """What the text alone shows to be wrong with a data declaration. Imports nothing."""
    source = data.source
    found: list[Diagnostic] = []
    if isinstance(source, ast.String) and not FORM.fullmatch(source.value):
        return [_no_code(source)]
    if not isinstance(source, ast.Call | ast.Path | ast.String):
        return [Diagnostic("X0212", f"`{format_node(source)}` is no source of data", source.span, "not a source")]
    name = source.name if isinstance(source, ast.Call) else source.text if isinstance(source, ast.Path) else CODE
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
            options_of(data)
        except NetxformError as error:
            found += error.diagnostics
    return found


_BY_ENDING = {
    ".csv": 'csv("{}", …)', ".tsv": 'csv("{}", …)', ".parquet": 'parquet("{}", …)', ".npz": 'npz("{}", …)',
    ".tar": 'webdataset("{}", …)', ".txt": 'text("{}")', "": 'folder("{}")',
}  # fmt: skip


def _no_code(source: ast.String) -> Diagnostic:
    """X0212: a text that names no function; what stands for a file or folder of that name."""
    form = _BY_ENDING.get(PurePath(source.value).suffix.lower())
    helps = (f"write `{form.format(source.value)}`",) if form is not None else ('a function: `"file.py:function"`',)
    return Diagnostic("X0212", f'`"{source.value}"` is no source of data', source.span, "a text alone", helps=helps)


def look(data: ast.Data, trust: Trust, seed: int) -> Seen:
    """What is known before anything is decoded: from the text, or from the names and headers of the files that it names.

    Raises NetxformError as `load_data`.
    """
    name, options = options_of(data)
    source = DATA.find(name, data.span)
    if options.normalize == "model":  # a number for each channel changes neither sizes nor classes
        options = replace(options, normalize=None)
    if source.look is None:
        return Seen(*source.describe(options))
    return source.look(data, options, trust, seed)


def asks_model(data: ast.Data) -> bool:
    """Whether the declaration wants the normalisation that is stated of the model's weights."""
    return options_of(data)[1].normalize == "model"


def load_data(data: ast.Data, trust: Trust, seed: int, stated: Stated | None = None) -> DataSet:
    """The declared data. The split is a function of the source's own seed; which few samples are drawn, of `seed`. `stated`:
    what is stated of the model's weights, for `normalize=model`.

    Raises NetxformError X0814 (package missing), X0807 (file missing), X0817 (not enough samples), X0861 (a value that is not
    as declared), X0862 (a damaged file), X0406 (nothing is stated of the model).
    """
    name, options = options_of(data)
    said: tuple[str, ...] = ()
    if options.normalize == "model":
        if stated is None:
            raise nothing_stated(data)
        options, said = replace(options, normalize=stated.normal), (stated.words(options.interpolation),)
    found = DATA.find(name, data.span).load(data, options, trust, seed)
    return replace(found, said=(*found.said, *said))


def nothing_stated(data: ast.Data) -> NetxformError:
    """X0406: nothing is known of the images that the model's weights were learnt from."""
    notes = ("timm states it of its models, torchvision of weights that are named, transformers beside an image processor",)
    helps = ("write `normalize=imagenet`, or the numbers: `normalize=[[…], […]]`",)
    text = "`normalize=model`: nothing is stated of the weights of this model"
    return fail("X0406", text, at(data, "normalize"), "not known", notes=notes, helps=helps)


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
    """Data as netxform takes it: `nx.dataset` says what each of these is, and what is raised."""
    from netxform.sources.data.given.python import Wanted, read_python

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
