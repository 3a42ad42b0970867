"""Where the Gauss–Newton form of `curvature.py` is the second derivative itself, read off the graph.

It is where everything between the gates of a class and the loss is piecewise linear in them: no other nonlinearity, no product
of two values that both depend on a gate, no gate of the class behind another one (a residual stream is read again and again).
Elsewhere it leaves out Σ_c (p_c − y_c) ∂²z_c/∂m², which is zero on average where labels follow the network's own p (the Fisher
identity).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from netxform.axes.algebra import Atom
from netxform.axes.names import op_name
from netxform.axes.rules.registry import VIEWS
from netxform.graph.activations import Activation, activation_of
from netxform.graph.layers import BatchNormAct2d
from netxform.graph.network import Network
from netxform.pruning.gates import Gate, Gates

_LAYERS = tuple(
    getattr(nn, name)
    for name in (
        "Linear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d BatchNorm1d BatchNorm2d BatchNorm3d "
        "Identity Dropout Dropout2d Flatten Unflatten AvgPool1d AvgPool2d AvgPool3d "
        "MaxPool1d MaxPool2d MaxPool3d AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveMaxPool2d PixelShuffle ZeroPad2d"
    ).split()
)
_LINEAR = set(
    "add sub rsub neg cat concat stack getitem chunk split unbind clamp clip abs mean sum amax "
    "amin max min max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d to "
    "float adaptive_max_pool2d dropout pad roll flip interpolate double contiguous clone".split()
)
_PRODUCTS = set("mul div truediv matmul bmm einsum linear conv1d conv2d conv3d addmm baddbmm".split())
_SIZES = ("size", "getattr", "shape", "dim", "numel", "len")


def curved(network: Network, found: Gates) -> dict[Atom, str]:
    """Of every class with gates why Gauss–Newton is not its second derivative: what lies behind it (`GELU`, `softmax`), or that
    it is read in some other way; empty where it is.
    """
    out: dict[Atom, str] = {}
    for atom in dict.fromkeys(a for g in found.gates for a in g.atoms):
        gates = found.of(atom)
        inside = any(g.layer is not None and not g.layer.endswith("out_proj") for g in gates)
        out[atom] = "it is read inside a layer" if inside else _along(network, gates)
    return out


def _along(network: Network, gates: Sequence[Gate]) -> str:
    read = {(r, g.operand) for g in gates for r in g.readers if g.layer is None}
    last = {r for g in gates for r in g.readers if g.layer is not None}  # from `out_proj` on an attention is linear
    touched: set[fx.Node] = set()
    for node in network.module.graph.nodes:
        hit = [a for a in node.all_input_nodes if a in touched or (node.name, a.name) in read]
        if (not hit and node.name not in last) or (node.op != "call_module" and op_name(node) in _SIZES):
            continue
        if any(a in touched for a in hit if (node.name, a.name) in read) or (node.name in last and hit):
            return "it is read again behind itself"
        if node.name in last:
            touched.add(node)
            continue
        if node.op != "output" and not _linear(network, node, hit):
            what = type(network.module.get_submodule(str(node.target))).__name__ if node.op == "call_module" else op_name(node)
            return what
        touched.add(node)
    return ""


def _linear(network: Network, node: fx.Node, hit: Sequence[fx.Node]) -> bool:
    if node.op == "call_module":
        module: Any = network.module.get_submodule(str(node.target))
        if isinstance(module, BatchNormAct2d):
            module = module.act
        return isinstance(module, _LAYERS) or _straight(activation_of(module))
    name = op_name(node)
    if name in ("div", "truediv") and node.args[0] not in hit:
        return False  # something over the value
    return (
        name in _LINEAR
        or name in VIEWS
        or _straight(activation_of(name))
        or (name in _PRODUCTS and len(hit) == 1 and node.args.count(hit[0]) < 2)
    )


def _straight(known: Activation | None) -> bool:
    return known is not None and known.piecewise


def described(network: Network, found: Gates) -> str:
    """For how many classes it is exact, and why not for the others, in one sentence."""
    reasons = curved(network, found)
    others = Counter(r for r in reasons.values() if r)
    exact = sum(not r for r in reasons.values())
    if not others:
        return f"exact for all {exact} axes"
    words = ", ".join(f"{n}: {reason}" for reason, n in others.most_common(4))
    return f"exact for {exact} of {len(reasons)} axes; elsewhere `obd(method=exact)` is ({words})"
