"""A stored graph is bounded before anything in it is made: numbers that it computes from sizes, and every tensor's bytes.

A graph from a stranger may ask for `9 ** 9 ** 9` or for a tensor of terabytes. What it computes from sizes is a whole number
of a few hundred bits at most, whatever the sizes are; every tensor is first made on the meta device, where it costs nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from netxform.errors import NetxformError, fail
from netxform.graph.meta import MetaRun, evaluating
from netxform.graph.network import Network, example, weightless_parts
from netxform.graph.shape_cache import Kernels
from netxform.limits import allowed, words

_SIZE = 64  # bits of a size, and of a number read from a tensor
_MOST = 1024  # bits of a whole number, and length of a list of sizes, that a graph may compute
_COUNTS = frozenset("size dim ndimension numel nelement element_size item stride get_device dense_dim sparse_dim".split())
_JOINS = (operator.add, operator.iadd)
_SUMS = (
    *_JOINS,
    operator.sub,
    operator.isub,
    operator.and_,
    operator.or_,
    operator.xor,
    operator.iand,
    operator.ior,
    operator.ixor,
)
_PRODUCTS = (operator.mul, operator.imul)
_POWERS = (operator.pow, operator.ipow)
_SHIFTS = (operator.lshift, operator.ilshift)


@dataclass(frozen=True, slots=True)
class _Number:
    """A Python number of at most so many bits."""

    bits: int


@dataclass(frozen=True, slots=True)
class _Sizes:
    """A Python sequence of at most so many items: the sizes of a tensor, or joined from them."""

    length: int


def check_numbers(graph: fx.Graph) -> None:
    """Raises NetxformError X0906 where numbers or sequences that the graph computes from sizes could grow without bound."""
    kinds: dict[fx.Node, _Number | _Sizes | None] = {}
    for node in graph.nodes:
        kinds[node] = _kind(node, kinds)


def _kind(node: fx.Node, kinds: dict[fx.Node, _Number | _Sizes | None]) -> _Number | _Sizes | None:
    """What a node gives that is no tensor; None for tensors and what holds them."""
    if node.op == "call_method":
        return (
            (_Sizes(64) if node.target in ("size", "stride") and len(node.args) < 2 else _Number(_SIZE))
            if node.target in _COUNTS
            else None
        )
    if node.op != "call_function":
        return None
    target, name = node.target, getattr(node.target, "__name__", "")
    if target is getattr:
        asked = node.args[1]
        return _Sizes(64) if asked == "shape" else _Number(_SIZE) if asked in ("ndim", "itemsize", "nbytes", "index") else None
    if name in ("len", "number", "numel", "sqrt") or name.startswith("sym_"):
        return _Number(_SIZE)
    if name in ("only", "pick"):
        found = [_of(a, kinds) for a in node.args[1:]]
        return next((k for k in found if k is not None), None) if name == "pick" else None
    if getattr(target, "__module__", "") != "_operator":
        return None
    found = [_of(a, kinds) for a in node.args]
    if target is operator.getitem:
        return _Number(_SIZE) if isinstance(found[0], _Sizes) and not isinstance(node.args[1], slice) else found[0]
    if target in (*_PRODUCTS, *_POWERS, *_SHIFTS, *_JOINS) and any(isinstance(a, str | bytes) for a in node.args):
        raise _refused(node, "a text is no number")
    if any(isinstance(a, fx.Node) and kinds[a] is None for a in node.args):
        return None  # arithmetic with a tensor gives one
    sizes = [k.length for k in found if isinstance(k, _Sizes)]
    if sizes:
        if target in _JOINS:
            return _within(node, _Sizes(sum(sizes)))
        if target in (*_PRODUCTS, *_POWERS, *_SHIFTS):
            raise _refused(node, "a list of sizes is no number")
        return _Number(1)
    bits = [k.bits for k in found if isinstance(k, _Number)] or [_SIZE]
    if target in _PRODUCTS:
        return _within(node, _Number(sum(bits)))
    if target in (*_POWERS, *_SHIFTS):
        return _within(node, _grown(node, target, bits))
    return _within(node, _Number(max(bits) + 1))


def _grown(node: fx.Node, target: Any, bits: list[int]) -> _Number:
    by = node.args[1]
    if isinstance(by, bool) or not isinstance(by, int | float):
        raise _refused(node, "the exponent is no literal number")
    if isinstance(by, float) or by < 0:
        return _Number(_SIZE)
    return _Number(bits[0] * max(1, by) if target in _POWERS else bits[0] + by)


def _of(value: Any, kinds: dict[fx.Node, _Number | _Sizes | None]) -> _Number | _Sizes | None:
    match value:
        case fx.Node():
            return kinds[value]
        case bool() | float():
            return _Number(_SIZE)
        case int():
            return _Number(max(1, value.bit_length()))
        case list() | tuple():
            return _Sizes(len(value))  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return None


def _within(node: fx.Node, kind: Any) -> Any:
    if (kind.bits if isinstance(kind, _Number) else kind.length) > _MOST:
        raise _refused(node, f"it may have more than {_MOST} {'bits' if isinstance(kind, _Number) else 'items'}")
    return kind


def _refused(node: fx.Node, why: str) -> Exception:
    return fail(
        "X0906",
        f"`{node.name}` of the stored graph computes a number without a bound: {why}",
        notes=("numbers that a graph computes come from the sizes of its inputs, and stay small",),
    )


class _Weighed(MetaRun):
    """A run on meta tensors that stops at the first value that would take more than `most` bytes."""

    most = 0

    def run_node(self, n: fx.Node) -> Any:
        self._few_pieces(n)
        value = super().run_node(n)
        count = max((_bytes(t) for t in pytree.tree_leaves(value) if isinstance(t, Tensor)), default=0)
        if count > self.most:
            raise fail(
                "X0906",
                f"`{n.name}` of the stored graph makes a tensor of {words(count)}, {words(self.most)} are allowed",
                notes=(f"node: {n.format_node()}", "nothing of that size was made"),
                helps=("allow more: `--max-memory 16GB`, in Python `max_memory=`",),
            )
        return value

    def _few_pieces(self, n: fx.Node) -> None:
        """Raises NetxformError X0906 before a tensor is cut into more pieces than any network has use for."""
        name = str(getattr(n.target, "__name__", n.target)).partition(".")[0]
        if name not in _CUTS or n.op == "call_module":
            return
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        longest = max((max(t.shape, default=1) for t in args if isinstance(t, Tensor)), default=1)
        each = next(
            (v for v in (*args[1:2], *(kwargs.get(k) for k in _EACH)) if isinstance(v, int) and not isinstance(v, bool)), 1
        )
        pieces = longest if name == "unbind" else each if name not in ("split", "unsafe_split") else longest // max(1, each)
        if pieces > _PIECES:
            raise fail("X0906", f"`{n.name}` of the stored graph cuts a tensor into {pieces} pieces, {_PIECES} are allowed")


_PIECES = 65_536
_EACH = ("split_size", "split_size_or_sections", "chunks", "sections", "indices_or_sections")
_CUTS = frozenset("unbind split chunk tensor_split hsplit vsplit dsplit unsafe_split unsafe_chunk".split())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def check_runs(network: Network, inputs: tuple[Tensor, ...], most: int | None = None) -> None:
    """Run the graph on the inputs that were kept with it, once on meta tensors and once as it is.

    Raises NetxformError X0906 (a value over `most` bytes), X0822 (it does not run: its tensors are not those of its layers).
    """
    try:
        check_bytes(network, inputs, most)
        with torch.no_grad(), evaluating(network.module):
            network.module.forward(*(t.clone() for t in inputs))  # a graph that fails when called prints
    except NetxformError:
        raise
    except Exception as error:  # the graph and its tensors are a stranger's
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise fail("X0822", f"the network of the bundle does not run on the inputs that are kept with it: {text}") from error


def check_bytes(network: Network, inputs: Iterable[Tensor] | None = None, most: int | None = None) -> None:
    """Run the graph on meta tensors of the inputs' shapes (None: of the traced ones): no value may take over `most` bytes.

    `most`: None for the memory of the machine. Raises NetxformError X0906, and whatever a graph raises that does not run.
    """
    given = example(network) if inputs is None else tuple(torch.empty_like(t, device="meta") for t in inputs)
    bare = weightless_parts(network)
    with Kernels(), torch.no_grad(), torch.device("meta"), evaluating(bare):
        run = _Weighed(bare, garbage_collect_values=True, graph=network.module.graph)
        run.most = allowed() if most is None else most
        run.extra_traceback = False
        run.run(*given)
