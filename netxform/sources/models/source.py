"""What a source of models is: `SPACE.NAME(…)` in a spec is asked of the source that is registered as SPACE. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from netxform.errors import Span, fail
from netxform.graph.layer_spec import Invocation
from netxform.registry import Registry
from netxform.sources.loaded import Loaded


@dataclass(frozen=True, slots=True)
class ModelSource:
    """`load`: the name behind the dot and the call → the module, its inputs, and where it came from.

    `known`: the names that are known without importing anything, where they are; `title`: what the source is called.
    `weightless`: it makes the same model without weights under `torch.device("meta")`, which tells its size beforehand.
    """

    load: Callable[[str, Invocation], Loaded]
    known: Iterable[str] | None = None
    title: str = ""
    weightless: bool = False


MODELS: Registry[ModelSource] = Registry("netxform.models", "source of models", "X0211", "netxform.sources.models")


def need(package: str, extra: str, span: Span) -> Any:
    """The imported package. Raises NetxformError X0814 where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise fail(
            "X0814",
            f"`{package}` is not installed",
            span,
            "needed here",
            helps=(f"pip install 'netxform[{extra}]'",),
        ) from error
