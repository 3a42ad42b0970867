"""What graph.json may say, field by field: names are names, sizes are sizes, and nothing else is read.

Text of a file ─read→ plain data that `artifacts.graph` makes a network of
"""

from __future__ import annotations

import re
from keyword import iskeyword
from typing import Annotated, Any, Literal, cast

import msgspec

from netxform.errors import fail
from netxform.graph.tensors import DTYPES

FORMAT = 1
_DEPTH = 24  # of values in values, among the arguments of a node
_TEXT = 4096  # letters of a text among them
_PART = re.compile(r"[\w\-]+")  # of a path of modules: add_module takes any text without a dot

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Input(_Part):
    name: str
    shape: list[_Size]
    dtype: str
    adapted: bool = False


class _Module(_Part):
    path: str
    cls: str | None = msgspec.field(name="class")
    arguments: Any = None
    own: bool = False


class _Tensor(_Part):
    path: str
    kind: Literal["parameter", "buffer"]
    shape: list[_Size]
    dtype: str
    persistent: bool = True


class _Node(_Part):
    name: str
    op: Literal["placeholder", "output", "get_attr", "call_module", "call_method", "call_function"]
    target: str
    args: Any
    kwargs: Any
    scope: str = ""
    exits: list[str] = []
    entries: list[str] = []


class _Output(_Part):
    loose: str | None
    sole: Any = None
    signature: Any = None
    result: Any = None


class _Lost(_Part):
    path: str
    name: str
    where: str
    what: str


class _Capture(_Part):
    front_end: str
    notes: list[str]
    eval_only: list[_Lost] = []


class _Graph(_Part):
    format: int
    name: str
    inputs: list[_Input]
    modules: list[_Module]
    tensors: list[_Tensor]
    ties: dict[str, str]
    frozen: list[str]
    nodes: list[_Node]
    output: _Output
    capture: _Capture


def check(held: Any) -> None:
    """Raises NetxformError X0821 (not of this format), X0904 (a name that is no name)."""
    if isinstance(held, dict) and cast("dict[str, object]", held).get("format") != FORMAT:
        raise fail("X0821", f"the graph has format {held.get('format')!r}, this version reads {FORMAT}")
    try:
        graph = msgspec.convert(held, _Graph)
    except (msgspec.ValidationError, RecursionError) as error:
        raise fail("X0821", f"the stored graph is damaged: {error}") from error
    _plain(graph.name, "the name of the network")
    unknown = [e.dtype for e in (*graph.inputs, *graph.tensors) if e.dtype not in DTYPES]
    if unknown:
        raise fail("X0821", f"the stored graph is damaged: no type `{unknown[0]}`")
    for entry in graph.inputs:
        _identifier(entry.name, "an input")
    for entry in (*graph.modules, *graph.tensors):
        path(entry.path)
    for name in (*graph.ties, *graph.ties.values(), *graph.frozen):
        path(name)
    names = [n.name for n in graph.nodes]
    if len(set(names)) != len(names):
        raise fail("X0821", "the stored graph is damaged: two nodes of one name")
    for node in graph.nodes:
        _identifier(node.name, "a node")
        if node.op == "placeholder":
            _identifier(node.target, "an input")
        elif node.op in ("get_attr", "call_module"):
            path(node.target)
        for text in (node.scope, *node.exits, *node.entries):
            _plain(text, "a place")
    for text in (graph.output.loose or "", graph.capture.front_end):
        _plain(text, "a note")
    for text in graph.capture.notes:
        literal(text)
    for one in graph.capture.eval_only:
        for text in (one.path, one.name, one.where, one.what):
            literal(text)


def path(text: str) -> None:
    """Raises NetxformError X0904 where this is no path of modules: names of letters, digits, `_` and `-`, between dots."""
    for part in text.split("."):
        if not _PART.fullmatch(part) or part.startswith("__") or len(text) > _TEXT:
            raise fail("X0904", f"`{text[:80]}` is no name of a module or tensor", notes=(_NAMES,))


def is_path(text: str) -> bool:
    """Whether a bundle may hold a module or tensor of this name."""
    return all(_PART.fullmatch(p) and not p.startswith("__") for p in text.split("."))


def keyword(text: Any) -> str:
    """The keyword of a call. Raises NetxformError X0904 where it is none."""
    return _identifier(text, "a keyword")


def depth(level: int) -> int:
    """One level deeper. Raises NetxformError X0821 beyond what a graph of this program has."""
    if level > _DEPTH:
        raise fail("X0821", f"the stored graph is damaged: values nested more than {_DEPTH} deep")
    return level + 1


def literal(value: Any) -> Any:
    """A text, number or truth value among the arguments of a node. Raises NetxformError X0821 for one out of all measure."""
    if isinstance(value, str) and (len(value) > _TEXT or not value.replace("\n", "").replace("\t", "").isprintable()):
        raise fail("X0904", f"a text of the stored graph is {len(value)} letters long, or holds control signs")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise fail("X0821", "the stored graph is damaged: a number of more than 64 bits")
    return value


_TAKEN = ("torch", "operator", "math", "netxform")  # what the code of the model calls by these names
_NAMES = "names in a stored graph are identifiers: they become code of the model"


def _identifier(text: Any, what: str) -> str:
    if (
        not isinstance(text, str)
        or not text.isidentifier()
        or iskeyword(text)
        or text.startswith("__")
        or text in _TAKEN
        or len(text) > _TEXT
    ):
        raise fail("X0904", f"`{str(text)[:80]}` cannot be the name of {what}", notes=(_NAMES,))
    return text


def _plain(text: str, what: str) -> str:
    if len(text) > _TEXT or not text.isprintable():
        raise fail("X0904", f"{what} of the stored graph is {len(text)} letters long, or holds signs that cannot be printed")
    return text
