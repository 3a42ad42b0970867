"""What a Linear, a convolution or an embedding is, as numbers; and its weight as one kernel a group.

nn.Module ─geometry→ Geometry        Geometry, weight ─kernel→ K_GOIk
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from netxform.graph.layer_spec import Invocation


@dataclass(frozen=True, slots=True)
class Geometry:
    """A layer that is linear in its weight. `kernel` is () for Linear and Embedding.

    `outputs` and `inputs` count all channels (features, or rows of the table), over all `groups`.
    """

    kind: str
    outputs: int
    inputs: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    padding_mode: str = "zeros"
    bias: bool = False
    padding_idx: int | None = None

    @property
    def dims(self) -> int:
        """The number of spatial dimensions."""
        return len(self.kernel)

    @property
    def rows(self) -> int:
        """Outputs of one group."""
        return self.outputs // self.groups

    @property
    def columns(self) -> int:
        """Inputs of one group."""
        return self.inputs // self.groups

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return math.prod(self.kernel)

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.groups * self.rows * self.columns * self.taps + (self.outputs if self.bias else 0)


def geometry(module: nn.Module) -> Geometry | str:
    """The numbers of a layer, or why it cannot be written as factors."""
    if type(module) in (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear):
        assert isinstance(module, nn.Linear)
        return Geometry("Linear", module.out_features, module.in_features, bias=getattr(module, "bias", None) is not None)
    if type(module) is nn.Embedding:
        if module.max_norm is not None:
            return "its rows are renormalised when they are read (max_norm)"
        return Geometry("Embedding", module.embedding_dim, module.num_embeddings, padding_idx=module.padding_idx)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    if type(module) in conv:
        assert isinstance(module, conv)
        return Geometry(
            "Conv",
            module.out_channels,
            module.in_channels,
            tuple(module.kernel_size),
            tuple(module.stride),
            module.padding if isinstance(module.padding, str) else tuple(module.padding),
            tuple(module.dilation),
            tuple(module.output_padding),
            module.groups,
            module.transposed,
            module.padding_mode,
            module.bias is not None,
        )
    return f"{type(module).__name__} has no single weight matrix or kernel"


def kernel(g: Geometry, weight: Tensor) -> Tensor:
    """The weight as (groups, outputs, inputs, *kernel) of each group: a view where that is possible."""
    if g.kind == "Linear":
        return weight.detach()[None]
    if g.kind == "Embedding":
        return weight.detach().T[None]
    if g.transposed:
        return weight.detach().reshape(g.groups, g.columns, g.rows, *g.kernel).transpose(1, 2)
    return weight.detach().reshape(g.groups, g.rows, g.columns, *g.kernel)


def weight(g: Geometry, K_GOIk: Tensor) -> Tensor:
    """The other way: from one kernel a group to the tensor that the layer holds."""
    if g.kind == "Linear":
        return K_GOIk[0].contiguous()
    if g.kind == "Embedding":
        return K_GOIk[0].T.contiguous()
    if g.transposed:
        return K_GOIk.transpose(1, 2).reshape(g.inputs, g.rows, *g.kernel).contiguous()
    return K_GOIk.reshape(g.outputs, g.columns, *g.kernel).contiguous()


def layer(g: Geometry) -> Invocation:
    """The call of torch.nn that makes a layer of these numbers."""
    if g.kind == "Linear":
        return Invocation("Linear", (g.inputs, g.outputs), {} if g.bias else {"bias": False})
    if g.kind == "Embedding":
        more = {} if g.padding_idx is None else {"padding_idx": g.padding_idx}
        return Invocation("Embedding", (g.inputs, g.outputs), more)
    ones, zeros = (1,) * g.dims, (0,) * g.dims
    keywords: dict[str, object] = {"kernel_size": g.kernel}
    plain: dict[str, tuple[Any, Any]] = {
        "stride": (g.stride, ones),
        "padding": (g.padding, zeros),
        "dilation": (g.dilation, ones),
        "output_padding": (g.output_padding, zeros),
        "groups": (g.groups, 1),
        "padding_mode": (g.padding_mode, "zeros"),
        "bias": (g.bias, True),
    }
    keywords |= {name: value for name, (value, default) in plain.items() if value != default}
    if not g.transposed:
        keywords.pop("output_padding", None)
    return Invocation(f"Conv{'Transpose' if g.transposed else ''}{g.dims}d", (g.inputs, g.outputs), keywords)


def part(
    g: Geometry, inputs: int, outputs: int, axes: tuple[int, ...], *, groups: int | None = None, bias: bool = False
) -> Geometry:
    """A layer with the kernel of `g` along `axes` and width 1 along the others: a link of a chain."""
    if g.kind != "Conv":
        return Geometry("Linear", outputs, inputs, bias=bias)

    def kept(values: tuple[int, ...], default: int) -> tuple[int, ...]:
        return tuple(v if i in axes else default for i, v in enumerate(values))

    padding = g.padding if isinstance(g.padding, str) and axes else () if isinstance(g.padding, str) else kept(g.padding, 0)
    return Geometry(
        "Conv",
        outputs,
        inputs,
        kept(g.kernel, 1),
        kept(g.stride, 1),
        padding or (0,) * g.dims,
        kept(g.dilation, 1),
        kept(g.output_padding, 0),
        g.groups if groups is None else groups,
        # a step of width 1 is the same either way
        g.transposed and bool(axes),
        g.padding_mode if axes else "zeros",
        bias,
    )


def moves(g: Geometry, size: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial size behind the layer, for an input of spatial `size`."""
    if not g.kernel:
        return size
    out: list[int] = []
    for i, n in enumerate(size):
        k, s, d = g.kernel[i], g.stride[i], g.dilation[i]
        pad = (d * (k - 1)) if isinstance(g.padding, str) and g.padding == "same" else 0
        pad += 0 if isinstance(g.padding, str) else 2 * g.padding[i]
        if g.transposed:
            out.append((n - 1) * s - pad + d * (k - 1) + g.output_padding[i] + 1)
        else:
            out.append((n + pad - d * (k - 1) - 1) // s + 1)
    return tuple(out)


def macs(g: Geometry, size: tuple[int, ...], positions: int = 1) -> int:
    """Multiply-accumulates for one sample; `positions` counts the rows that a Linear is applied to."""
    if g.kind == "Embedding":
        return 0
    where = size if g.transposed else moves(g, size)
    return positions * math.prod(where) * g.groups * g.rows * g.columns * g.taps
