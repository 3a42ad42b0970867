"""`.safetensors`: weights, and no model: the file is refused with the way to use it."""

from __future__ import annotations

from netxform.errors import fail
from netxform.sources.formats import FORMATS, Asked, Format
from netxform.sources.loaded import Loaded


def _read(asked: Asked) -> Loaded:
    asked.path()
    raise fail(
        "X0815",
        f"`{asked.text}` holds weights, not a model",
        asked.span,
        "weights alone",
        helps=(f'name the model, and the file as its weights: `model net = zoo.smallcnn() weights="{asked.text}"`',),
    )


FORMATS.register("safetensors")(Format(_read))
