"""`.onnx`: a network of another framework, asked as a whole; it teaches."""

from __future__ import annotations

from netxform.sources.formats import FORMATS, Asked, Format
from netxform.sources.loaded import Loaded


def _read(asked: Asked) -> Loaded:
    path = asked.path()
    from netxform.sources.foreign import OnnxModel

    teacher = OnnxModel(path, asked.span)
    return teacher, teacher.shapes, {"source": asked.text}


FORMATS.register("onnx")(Format(_read))
