"""`"mine.py:make"`: what a function of the user's gives, read as data from Python is. It runs code, and needs trust."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

from netxform.errors import NetxformError, fail
from netxform.sources.data.options import CODE, at
from netxform.sources.data.source import DATA, DataSet, DataSource, Known, Options, Seen
from netxform.sources.trust import Trust, need_code, read_path
from netxform.syntax import ast

FORM = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


def _load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
    """Raises NetxformError X0902 (no trust), X0816 (the function raises), and what `nx.dataset` refuses its value for."""
    from netxform.sources.data import dataset

    text, span = options.path or "", at(data, "path")
    found = FORM.fullmatch(text)
    if found is None:
        raise fail("X0212", f"`{text}` is no source of data", span, "not a source", helps=('write `"file.py:function"`',))
    need_code(text, trust, span)
    path = read_path(found[1], trust, span)
    for key in ("val", "test"):
        if getattr(options, key) >= 1:
            helps = (f"write a share, `{key}=15%`, or give parts: `{{'train': …, 'test': …}}`",)
            raise fail("X0406", f"`{key}` is a share here", at(data, key), "a number of samples", helps=helps)
    made = _made(str(path), found[2], f"{path.name}:{found[2]}", data)
    shares: dict[str, Any] = {"val": options.val, "test": options.test, "seed": options.seed or 0}
    return dataset(made, name=data.name, workers=options.workers or 0, **shares)


def _made(path: str, function: str, shown: str, data: ast.Data) -> Any:
    spec = importlib.util.spec_from_file_location(f"netxform_data_{function}", path)
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(code)
        return getattr(code, function)()
    except NetxformError:
        raise
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0][:200]
        helps = ("run it by itself: `python -c 'import FILE; FILE.FUNCTION()'`",)
        said = f"`{shown}` failed: {type(error).__name__}: {text}"
        raise fail("X0816", said, at(data, "path"), "raised", helps=helps) from error


def _look(data: ast.Data, options: Options, trust: Trust, seed: int) -> Seen:
    from netxform.sources.data.given.samples import size, source_of

    found = _load(data, options, trust, seed)
    count = size(found.train)
    labels = source_of(found.train).labels() if not found.streamed and count else None
    return Seen(found.classes, found.shape, count, found.labels, labels if not isinstance(labels, dict | tuple) else None,
                found.said, found.inputs, found.labelled)  # fmt: skip


def _known(options: Options) -> Known:
    return None, None


DATA.register(CODE)(DataSource(_load, _known, takes=("path", "val", "test", "seed", "workers"), look=_look))
