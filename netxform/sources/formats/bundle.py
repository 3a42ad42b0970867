"""A bundle of netxform: a folder with a certificate."""

from __future__ import annotations

import json

from netxform.errors import fail
from netxform.sources.formats import FORMATS, Asked, Format
from netxform.sources.loaded import Loaded


def _read(asked: Asked) -> Loaded:
    path = asked.path()
    if asked.bundle is None or not (path / "certificate.json").exists():
        raise fail("X0815", f"`{asked.text}` is no bundle of netxform", asked.span, "no certificate.json in it")
    module = asked.bundle(path, asked.weightless)  # every byte of the folder is accounted for first
    held = json.loads((path / "graph.json").read_text())
    shapes = tuple((tuple(i["shape"]), i["dtype"]) for i in held["inputs"])
    return module, shapes, {"source": asked.text, "bundle": True}


FORMATS.register("bundle")(Format(_read))
