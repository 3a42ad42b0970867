"""What a source of models is: `SPACE.NAME(…)` in a spec is asked of the source that is registered as SPACE. No torch."""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from netxform.errors import Span, did_you_mean, fail
from netxform.graph.layer_spec import Invocation
from netxform.registry import Registry
from netxform.sources.loaded import Loaded
from netxform.sources.trust import Trust, need_code


@dataclass(frozen=True, slots=True)
class ModelSource:
    """`load`: the name behind the dot and the call → the module, its inputs, and where it came from.

    `known`: the names that are known without importing anything, where they are; `title`: what the source is called.
    `keywords`: those that a spec may pass on (None: all, for a source that checks them itself). `settle`: the call as it may
    be carried out, files and folders looked up under the rule of paths; it raises NetxformError X09xx for what needs trust.
    `beside`: what belongs to the model beside its weights, by name (`sources.companions`).
    `bare`: the same model without weights, all on the meta device: plans are made on it, and it tells the size beforehand. It
    raises WeightsNeeded, or whatever the library raises, where it cannot; `sure`: then `load` would raise the same.
    """

    load: Callable[[str, Invocation], Loaded]
    known: Iterable[str] | None = None
    title: str = ""
    keywords: frozenset[str] | None = None
    settle: Callable[[Invocation, Trust], Invocation] | None = None
    beside: Callable[[Invocation], dict[str, bytes]] | None = None
    bare: Callable[[str, Invocation], Loaded] | None = None
    sure: bool = False

    def checked(self, call: Invocation, trust: Trust) -> Invocation:
        """The call as it may be carried out. Raises NetxformError X0411 (a keyword that a spec cannot pass), X09xx (trust)."""
        if self.keywords is not None:
            strange = [k for k in call.keywords if k not in self.keywords and k not in ("trust_remote_code", "checkpoint_path")]
            if strange:
                raise fail(
                    "X0411",
                    f"`{call.name}` takes no `{strange[0]}` in a spec",
                    call.span,
                    "not one of its arguments",
                    notes=("a spec passes numbers and names on to a library, from a list",),
                    helps=did_you_mean(strange[0], self.keywords) or (f"arguments: {', '.join(sorted(self.keywords))}",),
                )
            if call.keywords.get("trust_remote_code"):
                need_code(str(call), trust, call.span)
        return call if self.settle is None else self.settle(call, trust)


def without_weights(load: Callable[[str, Invocation], Loaded], *files: str) -> Callable[[str, Invocation], Loaded]:
    """What `load` makes, made on the meta device. `files`: keywords of the call that name weights, left out."""

    def bare(name: str, call: Invocation) -> Loaded:
        import torch

        named = [k for k in files if call.keywords.get(k)]
        call = replace(call, keywords={k: v for k, v in call.keywords.items() if k not in named})
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load(name, call)

    return bare


MODELS: Registry[ModelSource] = Registry("netxform.models", "source of models", "X0211", "netxform.sources.models")


def need(package: str, extra: str, span: Span) -> Any:
    """The imported package. Raises NetxformError X0814 where it is not installed."""
    torch = sys.modules.get("torch")
    try:  # what a module makes while it is imported has values, also where models are made without
        with contextlib.nullcontext() if torch is None else torch.device("cpu"):
            return importlib.import_module(package)
    except ImportError as error:
        raise fail(
            "X0814",
            f"`{package}` is not installed",
            span,
            "needed here",
            helps=(f"pip install 'netxform[{extra}]'",),
        ) from error
