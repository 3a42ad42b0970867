"""Small models of the mission's kinds, for demos and tests: name → builder and the input shape it expects by default."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Known:
    """A model of the zoo: the file it is in, and the shape and dtype of one batch of its input."""

    file: str
    input: tuple[int, ...]
    dtype: str = "f32"


REGISTRY: dict[str, Known] = {
    "smallcnn": Known("cnn", (1, 1, 28, 28)),
    "sentence": Known("cnn", (1, 1, 28, 28)),
    "vgg_small": Known("cnn", (1, 1, 28, 28)),
    "resnet_small": Known("cnn", (1, 1, 28, 28)),
    "densenet_small": Known("cnn", (1, 1, 28, 28)),
    "inception_small": Known("cnn", (1, 1, 28, 28)),
    "mlp": Known("plain", (1, 1, 28, 28)),
    "vit_small": Known("plain", (1, 1, 28, 28)),
    "gru_small": Known("plain", (1, 1, 28, 28)),
    "text_gru": Known("text", (1, 16), "i64"),
    "text_lstm": Known("text", (1, 16), "i64"),
    "text_mean": Known("text", (1, 16), "i64"),
    "text_lm": Known("text", (1, 16), "i64"),
    "skipthought": Known("text", (1, 48), "i64"),
}


def build(name: str, *args: Any, **kwargs: Any) -> Any:
    """The model of that name. Raises KeyError for an unknown name, TypeError for wrong arguments."""
    return getattr(importlib.import_module(f"{__name__}.{REGISTRY[name].file}"), name)(*args, **kwargs)
