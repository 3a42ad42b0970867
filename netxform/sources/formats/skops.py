"""`.skops`: a fitted classifier of scikit-learn; it teaches."""

from __future__ import annotations

from netxform.sources.formats import FORMATS, Asked, Format
from netxform.sources.loaded import Loaded


def _read(asked: Asked) -> Loaded:
    path = asked.path()
    from netxform.sources.foreign import stored_classifier

    return stored_classifier(path, asked.span, asked.trust.room), None, {"source": asked.text}


FORMATS.register("skops")(Format(_read))
