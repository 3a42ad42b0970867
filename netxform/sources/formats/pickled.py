"""`.pt`, `.pth`, `.bin`, `.pkl`: a module stored whole by torch.save. Unpickling can run code, and needs trust."""

from __future__ import annotations

from typing import Any

from netxform.errors import fail
from netxform.sources.formats import FORMATS, Asked, Format
from netxform.sources.loaded import Loaded
from netxform.sources.trust import need_pickle


def _read(asked: Asked) -> Loaded:
    path = asked.path()
    need_pickle(asked.text, asked.trust, asked.span)
    import torch
    from torch import nn

    from netxform.sources.state_dicts import no_bomb

    no_bomb(path, asked.span)
    found: Any = torch.load(path, weights_only=False, map_location="meta" if asked.weightless else "cpu")
    if not isinstance(found, nn.Module):
        raise fail("X0815", f"`{asked.text}` holds a {type(found).__name__}, not a model", asked.span, "not a model")
    return found, None, {"source": asked.text}


FORMATS.register("pt", "pth", "bin", "pkl")(Format(_read))
