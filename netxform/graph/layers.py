"""Layers that PyTorch lacks and that captured networks need. Each class stands alone: its source is written into the
standalone module of an artifact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): in training, drop the whole branch with probability `p`, a sample or a batch."""

    def __init__(self, p: float, mode: str = "row", scale: bool = True) -> None:
        super().__init__()
        self.p = p
        self.mode = mode
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """X (N, …) → the same shape."""
        if not self.training or self.p == 0.0:
            return x
        shape = [x.shape[0] if self.mode == "row" else 1] + [1] * (x.dim() - 1)
        keep = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.p)
        if self.scale and self.p < 1.0:
            keep = keep / (1.0 - self.p)
        return x * keep

    def extra_repr(self) -> str:
        """The settings."""
        return f"p={self.p}, mode={self.mode!r}"


class BatchNormAct2d(nn.BatchNorm2d):
    """BatchNorm with a dropout and an activation behind it, under one name (timm keeps the three in one module)."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """Input (N, C, H, W) → the same shape."""
        return self.act(self.drop(super().forward(input)))


class FrozenBatchNormAct2d(BatchNormAct2d):
    """`BatchNormAct2d` that is always in eval mode."""

    def train(self, mode: bool = True) -> FrozenBatchNormAct2d:
        """Stay in eval mode, whatever `mode` says."""
        super().train(False)
        return self


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017) whose widths are free of each other: `nn.MultiheadAttention` without the
    rule that heads times width is the embedding. Same tensors under the same names, same call.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        head_dim: int,
        value_dim: int,
        kdim: int,
        vdim: int,
        scale: float,
        dropout: float = 0.0,
        bias: bool = True,
        packed: bool = True,
        batch_first: bool = False,
        qdim: int | None = None,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim, self.value_dim = embed_dim, num_heads, head_dim, value_dim
        self.qdim = embed_dim if qdim is None else qdim
        self.kdim, self.vdim, self.scale, self.dropout = kdim, vdim, scale, dropout
        self.bias, self.packed, self.batch_first = bias, packed, batch_first
        rows = (num_heads * head_dim, num_heads * head_dim, num_heads * value_dim)
        if packed:
            self.in_proj_weight = nn.Parameter(torch.empty(sum(rows), self.qdim))
        else:
            self.q_proj_weight = nn.Parameter(torch.empty(rows[0], self.qdim))
            self.k_proj_weight = nn.Parameter(torch.empty(rows[1], kdim))
            self.v_proj_weight = nn.Parameter(torch.empty(rows[2], vdim))
        if bias:
            self.in_proj_bias = nn.Parameter(torch.empty(sum(rows)))
        self.out_proj = nn.Linear(rows[2], embed_dim, bias=bias)
        self.bias_k = None
        self.add_zero_attn = False

    @classmethod
    def of(cls, other: nn.MultiheadAttention) -> Attention:
        """The same attention with the tensors of `other`, whatever their sizes now are."""
        held = dict(other.named_parameters(recurse=False))
        packed = "in_proj_weight" in held
        with torch.device("meta"):
            made = cls(
                other.embed_dim, other.num_heads, other.head_dim, other.head_dim, other.kdim, other.vdim,
                float(other.head_dim) ** -0.5, other.dropout, "in_proj_bias" in held, packed, other.batch_first,
            )  # fmt: skip
        for name, tensor in other._parameters.items():
            if tensor is not None:
                made._parameters[name] = tensor
        made._parameters = {n: made._parameters[n] for n in other._parameters if n in made._parameters}
        made.out_proj.weight, made.out_proj.bias = other.out_proj.weight, other.out_proj.bias
        made.measure()
        return made.train(other.training)

    def measure(self) -> None:
        """Read the sizes of inputs and output off the tensors."""
        self.embed_dim = self.out_proj.out_features = self.out_proj.weight.shape[0]
        self.out_proj.in_features = self.out_proj.weight.shape[1]
        if self.packed:
            self.qdim = self.kdim = self.vdim = self.in_proj_weight.shape[1]
        else:
            self.qdim, self.kdim, self.vdim = (w.shape[1] for w in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Query (L, N, E) or, with `batch_first`, (N, L, E) → the same shape, and the weights (N, L, S) where asked for."""
        if not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        sizes = [self.num_heads * self.head_dim, self.num_heads * self.head_dim, self.num_heads * self.value_dim]
        if self.packed:
            weights = self.in_proj_weight.split(sizes)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = self.in_proj_bias.split(sizes) if self.bias else (None, None, None)
        q, k, v = (
            nn.functional.linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        scores = self.product(q, k)
        if attn_mask is not None:
            mask = attn_mask if attn_mask.dim() == 2 else attn_mask.unflatten(0, (-1, self.num_heads))
            scores = scores.masked_fill(mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        if key_padding_mask is not None:
            gone = key_padding_mask[:, None, None, :]
            scores = scores.masked_fill(gone, float("-inf")) if gone.dtype == torch.bool else scores + gone
        chances = scores.softmax(-1)
        if self.training and self.dropout:
            chances = nn.functional.dropout(chances, self.dropout)
        out = self.out_proj((chances @ v).transpose(1, 2).flatten(2))
        if not self.batch_first:
            out = out.transpose(0, 1)
        if not need_weights:
            return out, None
        return out, chances.mean(1) if average_attn_weights else chances

    def product(self, q: Tensor, k: Tensor) -> Tensor:
        """Queries (N, H, L, D) and keys (N, H, S, D) → scores (N, H, L, S)."""
        return q @ k.transpose(-2, -1) * self.scale


class Scaled(nn.Module):
    """A factor for every channel, one at first ((IA)³; Liu et al., 2022). `after`: how many dimensions follow the channels."""

    def __init__(self, size: int, after: int = 0) -> None:
        super().__init__()
        self.size, self.after = size, after
        self.weight = nn.Parameter(torch.ones(size, *[1] * after))

    def forward(self, x: Tensor) -> Tensor:
        """X (N, …, size, …), with `after` dimensions behind the channels → the same shape."""
        return x * self.weight

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.size}, after={self.after}"


class Magnitude(nn.Module):
    """The length m of every output's weights, trained apart from their direction (DoRA; Liu et al., 2024).

    What comes out is m/‖V‖ · V x + b, where V is the layer's weight plus `scale` times the product of two factors. ‖V‖ gets no
    gradient (section 4.3).

    `table`: the weight is looked up, and its outputs are its columns.
    """

    def __init__(self, size: int, scale: float, table: bool = False) -> None:
        super().__init__()
        self.size, self.scale, self.table = size, scale, table
        self.weight = nn.Parameter(torch.ones(size))

    def lengths(self, W: Tensor, A: Tensor, B: Tensor) -> Tensor:
        """‖V‖ by output (size,), for the weight and the factors of the layers beside it."""
        product = A @ B.T if self.table else (B.flatten(1) @ A.flatten(1)).reshape(W.shape)
        whole = W + self.scale * product
        return whole.norm(dim=0) if self.table else whole.flatten(1).norm(dim=1)

    def forward(self, base: Tensor, product: Tensor, W: Tensor, A: Tensor, B: Tensor, bias: Tensor | None = None) -> Tensor:
        """Base: what the layer gives, `product` what the factors beside it give → the same shape."""
        factor = self.weight / self.lengths(W, A, B).detach().clamp_min(torch.finfo(W.dtype).tiny)
        if W.dim() > 2:
            factor = factor.reshape(-1, *[1] * (W.dim() - 2))
            bias = None if bias is None else bias.reshape(-1, *[1] * (W.dim() - 2))
        plain = base if bias is None else base - bias
        return base + ((factor - 1) * plain + factor * product * self.scale)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.size}, scale={self.scale}, table={self.table}"


class TTLinear(nn.Module):
    """A Linear whose matrix is a tensor train (Novikov et al., 2015): core k is (r_k, out_modes[k], in_modes[k], r_{k+1})."""

    def __init__(
        self, in_modes: tuple[int, ...], out_modes: tuple[int, ...], ranks: tuple[int, ...], bias: bool = True
    ) -> None:
        super().__init__()
        self.in_modes, self.out_modes, self.ranks = tuple(in_modes), tuple(out_modes), tuple(ranks)
        sides = (1, *self.ranks, 1)
        shapes = zip(sides, self.out_modes, self.in_modes, sides[1:], strict=False)
        self.cores = nn.ParameterList([nn.Parameter(torch.empty(s)) for s in shapes])
        size = 1
        for n in self.out_modes:
            size *= n
        self.bias = nn.Parameter(torch.empty(size)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """X (…, ∏ in_modes) → (…, ∏ out_modes)."""
        lead = x.shape[:-1]
        t = x.reshape(-1, 1, 1, x.shape[-1])  # samples, outputs so far, rank, inputs to come
        for core in self.cores:
            r, o, i, s = core.shape
            t = t.reshape(t.shape[0], t.shape[1], r, i, -1).permute(0, 1, 4, 2, 3).flatten(3)
            t = t @ core.permute(0, 2, 1, 3).reshape(r * i, o * s)
            t = t.unflatten(3, (o, s)).permute(0, 1, 3, 4, 2).flatten(1, 2)
        y = t.reshape(*lead, -1)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """The settings."""
        return f"in_modes={self.in_modes}, out_modes={self.out_modes}, ranks={self.ranks}"


class Factored(nn.Module):
    """A layer of torch.nn with several matrices (GRU, LSTM, MultiheadAttention), some of them products of two factors:
    `weight_hh_l0` is `weight_hh_l0_u @ weight_hh_l0_v`. Same call as the layer.
    """

    def __init__(self, kind: str, ranks: tuple[tuple[str, int], ...], arguments: tuple[tuple[str, object], ...]) -> None:
        super().__init__()
        self.kind, self.ranks, self.arguments = kind, tuple(ranks), tuple(arguments)
        self.inner = getattr(nn, kind)(**dict(arguments))
        for name, rank in self.ranks:
            owner, _, last = name.rpartition(".")
            whole = self.inner.get_submodule(owner)._parameters.pop(last)
            self.register_parameter(f"{name.replace('.', '_')}_u", nn.Parameter(torch.empty(whole.shape[0], rank)))
            self.register_parameter(f"{name.replace('.', '_')}_v", nn.Parameter(torch.empty(rank, whole.shape[1])))
        self._forget()

    def _forget(self) -> None:
        """Recurrent layers keep a list of their weights; those that are products are not kept."""
        if hasattr(self.inner, "_flat_weights"):
            held = [self.inner._parameters.get(n) for n in self.inner._flat_weights_names]
            self.inner._flat_weights = held

    def forward(self, *args: object, **kwargs: object) -> object:
        """As the layer's own."""
        whole = {n: self.get_parameter(f"{n.replace('.', '_')}_u") @ self.get_parameter(f"{n.replace('.', '_')}_v")
                 for n, _ in self.ranks}  # fmt: skip
        self._forget()
        try:
            return torch.func.functional_call(self.inner, whole, args, kwargs)
        finally:
            self._forget()

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.kind}, ranks={self.ranks}"


class Int8Linear(nn.Module):
    """A Linear whose matrix is stored as int8 with one step a row: W[o, i] = weight[o, i] · scale[o]. Computes in float.

    The two are buffers: nothing trains them. A bias stays a parameter.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("weight", torch.empty(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(out_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """X (…, in_features) → (…, out_features)."""
        return nn.functional.linear(x, self.weight.to(self.scale.dtype) * self.scale[:, None], self.bias)

    def extra_repr(self) -> str:
        """The settings."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int8Embedding(nn.Module):
    """An Embedding whose table is stored as int8 with one step a word. Only the rows that are read become float."""

    weight: Tensor
    scale: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.register_buffer("weight", torch.empty(num_embeddings, embedding_dim, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(num_embeddings))

    def forward(self, x: Tensor) -> Tensor:
        """X (…) numbers of words → (…, embedding_dim)."""
        return self.weight[x].to(self.scale.dtype) * self.scale[x].unsqueeze(-1)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.num_embeddings}, {self.embedding_dim}"
