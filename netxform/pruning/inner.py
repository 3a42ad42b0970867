"""Layers that are one node of the graph, opened where they sum over axes of their own: attention and recurrent layers.

    nn.MultiheadAttention | Attention | nn.RNNBase ─opened→ the same function, in which `acts[name]` sees what is read

The names of an attention: `product` (queries (N, heads, L, width), before their product with the keys) and `out_proj` (its
input (N, L, heads · width)). Those of a recurrent layer are its weights that read a state: `weight_hh_…` and `weight_hr_…`
(N, H), once a step, `weight_ih_l1…` (N, L, H).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netxform.graph.layers import Attention

See = Callable[[Tensor], Tensor]
PRODUCT = "product"


class OpenAttention(Attention):
    """An attention whose queries and whose input of `out_proj` are seen."""

    acts: dict[str, See]

    def product(self, q: Tensor, k: Tensor) -> Tensor:
        """The scores (N, heads, L, S)."""
        act = self.acts.get(PRODUCT)
        return super().product(q if act is None else act(q), k)


class Unrolled(nn.Module):
    """An nn.RNN, nn.GRU or nn.LSTM in eval mode, step by step."""

    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.cell = cell
        self.acts: dict[str, See] = {}

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        """As the layer's own: the outputs, and the last state (for LSTM a pair)."""
        cell = self.cell
        batched = x.dim() == 3
        x_LNF = x.unsqueeze(1) if not batched else x.transpose(0, 1) if cell.batch_first else x
        starts = [s if batched else s.unsqueeze(1) for s in (hx if isinstance(hx, tuple) else (hx,)) if s is not None]
        ends: list[tuple[Tensor, Tensor | None]] = []
        for k in range(cell.num_layers):
            outs: list[Tensor] = []
            for suffix in ("", "_reverse")[: 2 if cell.bidirectional else 1]:
                first = [s[len(ends)] for s in starts]
                out, end = self._direction(x_LNF, f"l{k}{suffix}", k > 0, suffix != "", first)
                outs.append(out)
                ends.append(end)
            x_LNF = torch.cat(outs, -1)
        out = x_LNF.squeeze(1) if not batched else x_LNF.transpose(0, 1) if cell.batch_first else x_LNF
        last = [torch.stack([cast(Tensor, e[i]) for e in ends]) for i in range(2 if cell.mode == "LSTM" else 1)]
        last = last if batched else [s.squeeze(1) for s in last]
        return out, (last[0], last[1]) if cell.mode == "LSTM" else last[0]

    def _seen(self, name: str, value: Tensor) -> Tensor:
        act = self.acts.get(name)
        return value if act is None else act(value)

    def _direction(
        self, x_LNF: Tensor, name: str, behind: bool, backwards: bool, first: list[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
        cell: Any = self.cell
        w_ih, w_hh = getattr(cell, f"weight_ih_{name}"), getattr(cell, f"weight_hh_{name}")
        w_hr = getattr(cell, f"weight_hr_{name}", None)
        b_ih, b_hh = getattr(cell, f"bias_ih_{name}", None), getattr(cell, f"bias_hh_{name}", None)
        if behind:
            x_LNF = self._seen(f"weight_ih_{name}", x_LNF.transpose(0, 1)).transpose(0, 1)
        given = F.linear(x_LNF, w_ih, b_ih)
        zeros = given.new_zeros(given.shape[1], cell.hidden_size)
        h = first[0] if first else zeros if w_hr is None else given.new_zeros(given.shape[1], w_hr.shape[0])
        c = first[1] if len(first) > 1 else zeros
        outs: list[Tensor] = []
        for x in reversed(given) if backwards else given:
            own = F.linear(self._seen(f"weight_hh_{name}", h), w_hh, b_hh)
            match cell.mode:
                case "LSTM":
                    i, f, g, o = (x + own).chunk(4, 1)
                    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                    h = o.sigmoid() * c.tanh()
                    h = h if w_hr is None else F.linear(self._seen(f"weight_hr_{name}", h), w_hr)
                case "GRU":
                    (r, z, n), (own_r, own_z, own_n) = x.chunk(3, 1), own.chunk(3, 1)
                    z = (z + own_z).sigmoid()
                    h = (1 - z) * (n + (r + own_r).sigmoid() * own_n).tanh() + z * h
                case mode:
                    h = torch.relu(x + own) if mode == "RNN_RELU" else torch.tanh(x + own)
            outs.append(h)
        out = torch.stack(outs[::-1] if backwards else outs)
        return out, (h, c if cell.mode == "LSTM" else None)


def opened(module: nn.Module, path: str) -> OpenAttention | Unrolled:
    """Put the open form of the layer `path` in its place, wherever the module holds it; as it is where that was done."""
    part = module.get_submodule(path)
    if isinstance(part, OpenAttention | Unrolled):
        return part
    made: OpenAttention | Unrolled
    if isinstance(part, nn.RNNBase):
        made = Unrolled(part)
    else:
        plain = cast(Any, part if isinstance(part, Attention) else Attention.of(cast(nn.MultiheadAttention, part)))
        plain.__class__ = OpenAttention
        plain.acts = {}
        made = plain
    for owner in list(module.modules()):
        held: Any = owner._modules  # pyright: ignore[reportPrivateUsage]
        if owner is not made:
            held.update({n: made for n, m in held.items() if m is part})
    return made.eval()


def axis_of(name: str) -> int:
    """Along which axis of what `acts[name]` sees the axis lies."""
    return 3 if name == PRODUCT else 2 if name == "out_proj" or name.startswith("weight_ih") else 1
