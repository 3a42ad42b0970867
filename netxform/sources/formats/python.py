"""`file.py:function`: what the function gives. It runs code, and needs trust."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from typing import Any

from netxform.errors import fail
from netxform.sources.formats import FORMATS, Asked, Format
from netxform.sources.loaded import Loaded, WeightsNeeded
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
        made: Any = _without_weights(getattr(code, function)) if asked.weightless else getattr(code, function)()
    except WeightsNeeded:
        raise
    except Exception as error:
        raise fail(
            "X0816", f"`{path.name}:{function}` failed: {type(error).__name__}: {error}", asked.span, "raised"
        ) from error
    from netxform.sources.foreign import as_model

    return as_model(made, asked.span), None, {"source": asked.text}


def _without_weights(function: Any) -> Any:
    """What the function gives where tensors are made without values. Raises WeightsNeeded where it needs some."""
    import torch

    before = set(sys.modules)
    try:
        with torch.device("meta"):
            made = function()
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsNeeded(f"its code does not run without: {text}") from None
    finally:
        _forget_empty(before)
    return made


def _forget_empty(before: set[str]) -> None:
    """Modules that were imported just now, and hold tensors without values since, are imported anew by the next."""
    import torch

    for name in set(sys.modules) - before:
        with contextlib.suppress(Exception):  # some modules do things when they are looked at
            if any(isinstance(v, torch.Tensor) and v.is_meta for v in vars(sys.modules[name]).values()):
                del sys.modules[name]


FORMATS.register("py")(Format(_read))
