"""`.pt2`: a program of torch.export. It can run code when it is loaded, and needs trust."""

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

    try:
        program: Any = torch.export.load(path)
    except Exception as error:
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise fail(
            "X0808", f"`{asked.text}` cannot be read: {message}", asked.span, "damaged, or no exported program"
        ) from error
    shapes = tuple(_placeholder(n) for n in program.graph_signature.user_inputs for n in [_find(program.graph, n)])
    module = torch.export.unflatten(program)
    for part in module.modules():  # what export noted on its nodes cannot be copied, and nothing here reads it
        for node in getattr(part, "graph", torch.fx.Graph()).nodes:
            node.meta.clear()
    return module, shapes, {"source": asked.text}


def _find(graph: Any, name: str) -> Any:
    return next(n for n in graph.nodes if n.name == name)


def _placeholder(node: Any) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of an exported program's input; a dynamic size counts as it was traced."""
    from netxform.graph.tensors import NAMES

    held = node.meta["val"]
    return tuple(int(s) if isinstance(s, int) else int(s.node.hint) for s in held.shape), NAMES[held.dtype]


FORMATS.register("pt2")(Format(_read))
