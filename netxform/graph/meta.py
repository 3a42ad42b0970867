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
    """Eval mode inside; every part is in its own mode again afterwards, and every buffer is what it was."""
    modes = {m: m.training for m in module.modules()}
    held = [(b, b._version, b.detach().clone()) for b in module.buffers() if not b.is_meta]  # pyright: ignore[reportPrivateUsage]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        with torch.no_grad():
            for buffer, version, value in held:
                if buffer._version != version:  # pyright: ignore[reportPrivateUsage]
                    buffer.copy_(value)


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


def _nothing(value: Any) -> Any:
    """A number in place of a tensor of one, of the kind that its dtype gives."""
    return torch.zeros((), dtype=value.dtype, device="cpu").item() if isinstance(value, Tensor) else value


def _filled(make: Any) -> Any:
    """`full` with a tensor as the number: it has none on meta, and the shape needs none."""
    return lambda like, fill_value, **kwargs: make(like, _nothing(fill_value), **kwargs)


def _new_full(x: Tensor, size: Any, fill_value: Any, **kwargs: Any) -> Tensor:
    return x.new_full(size, _nothing(fill_value), **kwargs)


def grouped_shape(
    a: Tensor, b: Tensor, offs: Tensor | None = None, bias: Any = None, out_dtype: Any = None, **more: Any
) -> Tensor:
    """Products of groups of rows: torch knows their shape for bfloat16 alone, and multiplies other dtypes as well."""
    groups = (offs.shape[0],) if offs is not None and a.dim() == b.dim() == 2 else (b.shape[0],) if a.dim() == b.dim() else ()
    return a.new_empty((*groups, a.shape[-2], b.shape[-1]), dtype=out_dtype or a.dtype)


# what torch cannot run on meta, though the shape of the result is known
_BY_SHAPE: dict[Any, Any] = {
    torch.full: _filled(torch.full),
    torch.full_like: _filled(torch.full_like),
    "new_full": _new_full,
    torch._grouped_mm: grouped_shape,  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    nn.functional.grouped_mm: grouped_shape,
}


class MetaRun(fx.Interpreter):
    """A graph run on meta tensors, wherever its code says that things are."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The function, or what stands for it where there are no numbers."""
        return super().call_function(_on_meta(target, args, kwargs), args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The method, or what stands for it where there are no numbers."""
        found = _on_meta(target, args, kwargs)
        return super().call_method(target, args, kwargs) if found is target else found(*args, **kwargs)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The module. Whether a mask is causal, or pads at the end alone, is no matter of shapes: a stack of layers that would
        look at it is told.
        """
        part = self.fetch_attr(target)
        if isinstance(part, nn.TransformerEncoder) and _without_numbers(args, kwargs):
            with _without_nesting(part):
                return super().call_module(target, args, {"is_causal": False} | kwargs)
        if isinstance(part, nn.TransformerDecoder) and _without_numbers(args, kwargs):
            kwargs = {"tgt_is_causal": False} | kwargs
        return super().call_module(target, args, kwargs)

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


@contextlib.contextmanager
def _without_nesting(part: nn.TransformerEncoder) -> Generator[None]:
    """A stack of layers that packs no padded samples inside: the padded ones have the same shapes."""
    nested: Any = vars(part).get("use_nested_tensor")
    part.use_nested_tensor = False
    try:
        yield
    finally:
        part.use_nested_tensor = nested


def _without_numbers(args: Any, kwargs: Any) -> bool:
    return any(isinstance(t, Tensor) and t.is_meta for t in pytree.tree_leaves((args, kwargs)))


def _on_meta(target: Any, args: Any, kwargs: Any) -> Any:
    return _BY_SHAPE.get(target, target) if _without_numbers(args, kwargs) else target


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
