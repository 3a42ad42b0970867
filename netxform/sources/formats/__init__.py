"""Files that hold models: each format by the suffix of its files, a file each. No torch before a file is read.

"net.onnx" ─kind_of→ suffix ─Format.read→ module, shapes, provenance
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netxform.errors import Span, fail
from netxform.registry import Registry
from netxform.sources.loaded import Loaded
from netxform.sources.trust import Trust, read_path

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Asked:
    """A file or folder that a spec names as a model. `bundle` reads the model of a bundle. `weightless`: without weights, where
    the format can: every tensor on the meta device.
    """

    text: str
    span: Span
    trust: Trust
    bundle: Callable[[Path, bool], nn.Module] | None = None
    weightless: bool = False

    def path(self) -> Path:
        """Where it is. Raises NetxformError X0901 (outside), X0807 (missing)."""
        return read_path(self.text, self.trust, self.span)


@dataclass(frozen=True, slots=True)
class Format:
    """`read` gives the module, the shape and dtype name of each input (None: not known), and where it came from.

    It asks for trust before it runs anything (`sources.trust`), and raises NetxformError X0808 (damaged), X0815 (no model);
    WeightsNeeded where it was asked for a model without weights and cannot make it.
    """

    read: Callable[[Asked], Loaded]


FORMATS: Registry[Format] = Registry("netxform.formats", "kind of file that holds a model", "X0815", __name__)


def suffix_of(text: str) -> str:
    """The suffix that names the format, without its dot: `py` for `file.py:function`; empty where there is none."""
    file, colon, _ = text.rpartition(":")
    return "py" if colon and file.endswith(".py") else Path(text).suffix.removeprefix(".")


def from_file(asked: Asked) -> Loaded:
    """The model in the file, or the bundle, that the spec names."""
    kind, code = suffix_of(asked.text), ":" in asked.text
    if not (kind == "py" and code) and asked.path().is_dir():
        kind = "bundle"
    if kind not in FORMATS or (kind == "py" and not code):
        raise fail("X0815", f"`{asked.text}` is no kind of file that holds a model", asked.span, "unknown kind of file")
    return FORMATS.find(kind, asked.span).read(asked)
