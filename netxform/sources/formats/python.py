"""`file.py:function`: what the function gives. It runs code, and needs trust."""

from __future__ import annotations

import importlib.util
from typing import Any

from netxform.errors import fail
from netxform.sources.formats import FORMATS, Asked, Format
from netxform.sources.loaded import Loaded
from netxform.sources.trust import need_code, read_path


def _read(asked: Asked) -> Loaded:
    file, _, function = asked.text.rpartition(":")
    need_code(asked.text, asked.trust, asked.span)
    path = read_path(file, asked.trust, asked.span)
    spec = importlib.util.spec_from_file_location(f"netxform_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(code)
        made: Any = getattr(code, function)()
    except Exception as error:
        raise fail(
            "X0816", f"`{path.name}:{function}` failed: {type(error).__name__}: {error}", asked.span, "raised"
        ) from error
    from netxform.sources.foreign import as_model

    return as_model(made, asked.span), None, {"source": asked.text}


FORMATS.register("py")(Format(_read))
