"""Graphs run on the meta device: shapes and dtypes of every value, without a number computed."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from netxform.errors import fail


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Generator[None]:
    """Eval mode inside; every part is in its own mode again afterwards."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def on_meta(value: Any) -> Any:
    """Arguments with every device replaced by the meta device: what the code makes there must meet the others."""
    if isinstance(value, torch.device) or (isinstance(value, str) and value in ("cpu", "cuda")):
        return torch.device("meta")
    if isinstance(value, tuple | list):
        items = [on_meta(v) for v in cast("list[Any]", value)]
        return value if all(a is b for a, b in zip(items, cast("list[Any]", value), strict=True)) else type(value)(items)
    if isinstance(value, dict):
        return {k: on_meta(v) for k, v in cast("dict[Any, Any]", value).items()}
    return value


class MetaRun(fx.Interpreter):
    """A graph run on meta tensors, wherever its code says that things are."""

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[Any, Any]:
        """The arguments, on the meta device."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return on_meta(args), on_meta(kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """The value of the node, without the record of where in the source it was made."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.target is torch.full and len(args) > 1 and isinstance(args[1], Tensor) and args[1].is_meta:
            args, kwargs = (args[0], 0), {"dtype": args[1].dtype} | kwargs  # the number is not known here
        return getattr(self, n.op)(n.target, args, kwargs)


class _Shapes(MetaRun):
    meta = False

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[Any, Any]:
        return super().fetch_args_kwargs_from_env(n) if self.meta else fx.Interpreter.fetch_args_kwargs_from_env(self, n)

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:
            text = str(error).strip().split("\n")[0]
            where = n.meta.get("scope") or "the network"
            raise fail(
                "X0801",
                f"the network no longer runs at `{n.name}` in `{where}`: {text}",
                notes=(f"node: {n.format_node()}",),
            ) from error
        return noted(n, value)


def noted(n: fx.Node, value: Any) -> Any:
    """The value, with its shape and dtype noted on the node."""
    if isinstance(value, Tensor):
        n.meta["shape"], n.meta["dtype"] = tuple(value.shape), value.dtype
    else:
        n.meta["shape"] = pytree.tree_map(lambda t: tuple(t.shape) if isinstance(t, Tensor) else None, value)
        n.meta["dtype"] = None
    return value


def annotate(graph: fx.Graph, module: nn.Module, *inputs: Tensor) -> Any:
    """Run the graph node by node on what the module holds, in eval mode, and note the shape and dtype of every value.

    Returns the result. Raises NetxformError X0801 where it does not run.
    """
    # tensors that the code makes on the default device must meet the others where they are
    meta = any(t.is_meta for t in inputs)
    with torch.no_grad(), torch.device("meta") if meta else contextlib.nullcontext(), evaluating(module):
        run = _Shapes(module, garbage_collect_values=True, graph=graph)
        run.meta = meta
        run.extra_traceback = False  # the error says where; fx would add lines of its own to it
        return run.run(*inputs)
