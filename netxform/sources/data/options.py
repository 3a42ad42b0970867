"""What a `data` declaration says, from its expressions to values, each refused at its place. Imports no library.

ast.Data ─options_of→ the name of the source, Options
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from netxform.errors import Label, Span, did_you_mean, fail
from netxform.language.values import number, plain
from netxform.sources.data.source import DATA, IMAGENET, Normal, Options
from netxform.syntax import ast
from netxform.syntax.format import format_node

CODE = "py"
"""The source that a text names: `"file.py:function"`."""
MOST_SIDE = 8192
TARGETS = ("label", "labels", "target", "mask")
_OF_MASKS = ("values", "ignore")


def options_of(data: ast.Data) -> tuple[str, Options]:
    """The name of the source and what is said of it. Raises NetxformError X04xx, at the value."""
    name, given = given_of(data)
    more = {k: plain(given.pop(k)) for k in DATA.find(name, data.source.span).more if k in given}
    values = {k: _KINDS[k](v, k) for k, v in given.items()}
    options = Options(**values, more=more)
    _agree(options, given)
    return name, options


def given_of(data: ast.Data) -> tuple[str, dict[str, ast.Expr]]:
    """The name of the source, and every expression by its key: arguments and options alike."""
    source = data.source
    given: dict[str, ast.Expr] = {o.key: o.value for o in data.options}
    if isinstance(source, ast.Call):
        given |= {a.key or "path": a.value for a in source.arguments}
    if isinstance(source, ast.String):
        return CODE, given | {"path": source}
    return source.name if isinstance(source, ast.Call) else cast(ast.Path, source).text, given


def at(data: ast.Data, key: str) -> Span:
    """Where a key's value stands; the whole declaration, where it is not given."""
    found = given_of(data)[1].get(key)
    return data.span if found is None else found.span


def _agree(options: Options, given: dict[str, ast.Expr]) -> None:
    """Nothing where the options go together."""
    classes = given.get("classes")
    if options.classes is not None and classes is not None:
        if len(set(options.classes)) != len(options.classes):
            raise fail("X0406", "`classes` names a class twice", classes.span, "twice", helps=("name each class once",))
        if len(options.classes) < 2:
            helps = ("name two at least: `classes=[0, 1]`",)
            raise fail("X0406", "a classification needs two different classes", classes.span, "one class", helps=helps)
    taken = sum(s for s in (options.val, options.test) if s < 1)
    if taken >= 1:
        span = given["val" if "val" in given else "test"].span
        helps = ("leave a share for training: `val=15% test=20%`",)
        raise fail("X0406", f"`val` and `test` take {taken:.0%} of the samples", span, "nothing is left", helps=helps)
    for words, why in ((TARGETS, "one kind of target is learnt"), (("image", "columns"), "one kind of input is read")):
        both = [k for k in words if k in given]
        if len(both) > 1:
            labels = (Label(given[both[0]].span, "first"),)
            message = f"`{both[0]}` and `{both[1]}` are given: {why}"
            raise fail("X0407", message, given[both[1]].span, "second one", secondary=labels, helps=("leave one of them",))
    for key in _OF_MASKS:
        if key in given and "mask" not in given and "masks" not in given:
            helps = ('name them: `mask="column"`, for a folder `masks="FOLDER"`',)
            raise fail("X0404", f"`{key}` is of masks, and no masks are named", given[key].span, "of what?", helps=helps)
    if "separator" in given and len(options.labels) != 1:
        helps = ('write `labels="column"`, whose texts hold several labels each',)
        raise fail("X0404", "`separator` stands between the labels of one column", given["separator"].span, "", helps=helps)
    normal, channels = options.normalize, options.channels
    if isinstance(normal, Normal) and channels is not None and len(normal.mean) not in (1, channels):
        helps = (f"give {channels} means and {channels} standard deviations, or one of each: `normalize=[0.5, 0.25]`",)
        message = f"`normalize` is of {len(normal.mean)} channels, and the images have {channels}"
        raise fail("X0406", message, given["normalize"].span, "another number", helps=helps)


def normal_of(normal: Normal | None, channels: int, span: Span) -> tuple[list[float], list[float]] | None:
    """Means and standard deviations, one a channel. Raises NetxformError X0406 where they are of another number of channels."""
    if normal is None:
        return None
    if len(normal.mean) not in (1, channels):
        helps = (f"write `channels={len(normal.mean)}`, or one number for all channels: `normalize=[0.5, 0.25]`",)
        message = f"`normalize` is of {len(normal.mean)} channels, and the images have {channels}"
        raise fail("X0406", message, span, "another number", helps=helps)
    return normal.of(channels)


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


def _items(expression: ast.Expr) -> tuple[ast.Expr, ...]:
    return expression.items if isinstance(expression, ast.List) else (expression,)


def _numbers(expression: ast.Expr, key: str) -> tuple[int, ...]:
    return tuple(_count(0, 1_000_000)(i, key) for i in _items(expression))


def _size(expression: ast.Expr, key: str) -> tuple[int, int]:
    items = _items(expression)
    found = [_count(1, MOST_SIDE)(i, key) for i in items]
    if len(found) not in (1, 2):
        helps = ("write one number, or height and width: `size=[192, 256]`",)
        raise fail("X0406", f"`{key}` has {len(found)} numbers", expression.span, "one or two", helps=helps)
    return found[0], found[-1]


def _normal(expression: ast.Expr, key: str) -> Normal | str | None:
    if isinstance(expression, ast.Path):
        words: dict[str, Normal | str | None] = {"imagenet": IMAGENET, "model": "model", "own": "own", "none": None}
        if expression.text not in words:
            helps = did_you_mean(expression.text, words) or (f"words: {', '.join(words)}",)
            message = f"`{key}` is no `{expression.text}`"
            raise fail("X0401", message, expression.span, "unknown word", helps=helps)
        return words[expression.text]
    items = _items(expression)
    several = any(isinstance(i, ast.List) for i in items)
    groups = [tuple(float(number(n)) for n in _items(i)) for i in items]
    fits = len(groups) == 2 and len(groups[0]) == len(groups[1]) > 0 and min(groups[1], default=0.0) > 0
    if not fits:
        text = format_node(expression)
        if not several and len(items) > 2:
            inner = text.strip("[]")
            helps = (f"write both: `{key}=[[{inner}], [{', '.join(['0.25'] * len(items))}]]`", f"or `{key}=imagenet`")
        else:
            helps = (f"write the two: `{key}=[0.5, 0.25]`, or a list of each: `{key}=[[…], […]]`",)
        message = f"`{key}` is a mean and a spread above 0, or as many of each as there are channels, not {text}"
        raise fail("X0406", message, expression.span, "not means and spreads", helps=helps)
    return Normal(groups[0], groups[1])


def _text(expression: ast.Expr, key: str) -> str:
    if not isinstance(expression, ast.String) or not expression.value:
        helps = (f'write it in double quotes: `{key}="…"`',)
        raise fail("X0401", f"`{key}` is the name of a file or folder", expression.span, "no text", helps=helps)
    return expression.value


def _column(expression: ast.Expr, key: str) -> str:
    if not isinstance(expression, ast.String) or not expression.value:
        helps = (f'write it in double quotes: `{key}="…"`',)
        raise fail("X0401", f"`{key}` is the name of a column", expression.span, "no text", helps=helps)
    return expression.value


def _columns(expression: ast.Expr, key: str) -> tuple[str, ...]:
    found = tuple(_column(i, key) for i in _items(expression))
    if not found or len(set(found)) != len(found):
        helps = (f'name each column once: `{key}=["a", "b"]`',)
        raise fail("X0406", f"`{key}` names {'no column' if not found else 'a column twice'}", expression.span, "", helps=helps)
    return found


def _sign(expression: ast.Expr, key: str) -> str:
    if not isinstance(expression, ast.String) or not expression.value or any(c in '"\n\r' for c in expression.value):
        raise fail("X0401", f"`{key}` is a sign", expression.span, "no sign", helps=(f'write `{key}=";"`',))
    if key == "delimiter" and len(expression.value) != 1:
        raise fail("X0401", f"`{key}` is one sign", expression.span, "several", helps=(f'write `{key}=";"`',))
    return expression.value


def _word(*words: str) -> Callable[[ast.Expr, str], str]:
    def read(expression: ast.Expr, key: str) -> str:
        text = expression.text if isinstance(expression, ast.Path) else None
        if text not in words:
            helps = did_you_mean(text or "", words) or (f"write `{key}={words[0]}`",)
            message = f"`{key}` is {' or '.join(words)}, not {format_node(expression)}"
            raise fail("X0401", message, expression.span, "unknown word", helps=helps)
        return text

    return read


def _workers(expression: ast.Expr, key: str) -> int | None:
    if isinstance(expression, ast.Path) and expression.text == "auto":
        return None
    return _count(0, 1024)(expression, key)


_KINDS: dict[str, Callable[[ast.Expr, str], Any]] = {
    "classes": _numbers,
    "omit": _numbers,
    "per_class": _count(1, 1_000_000_000),
    "train": _count(1, 1_000_000_000_000),
    "val": _part,
    "test": _part,
    "size": _size,
    "channels": _count(1, 4096),
    "normalize": _normal,
    "fit": _word("crop", "stretch"),
    "interpolation": _word("bilinear", "bicubic", "nearest", "lanczos"),
    "workers": _workers,
    "bad": _word("refuse", "skip"),
    "seed": _count(0, 2**63 - 1),
    "root": _text,
    "path": _text,
    "folder": _text,
    "masks": _text,
    "length": _count(3, 100_000),
    "words": _count(5, 100_000_000),
    "vocabulary": _text,
    "corpus": _text,
    "image": _column,
    "mask": _column,
    "label": _column,
    "split": _column,
    "columns": _columns,
    "labels": _columns,
    "target": _columns,
    "values": _numbers,
    "ignore": _count(0, 65_535),
    "separator": _sign,
    "delimiter": _sign,
}
