"""Small networks without convolutions in their middle: dense, attention, recurrent."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Two hidden layers. x (N, C, H, W) → logits (N, classes)."""

    def __init__(self, classes: int = 10, inputs: int = 784, width: int = 128) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, C, H, W) → logits (N, classes)."""
        return self.fc(F.relu(self.fc2(F.relu(self.fc1(self.flat(x))))))


class Block(nn.Module):
    """A pre-norm transformer block with separate q, k, v (Vaswani et al., 2017)."""

    def __init__(self, width: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm1 = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """X (N, T, D) → (N, T, D)."""
        n, t, d = x.shape
        y = self.norm1(x)
        q, k, v = (f(y).view(n, t, self.heads, d // self.heads).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d)
        x = x + F.dropout(self.proj(y), self.dropout, self.training)
        return x + self.mlp(self.norm2(x))


class ViTSmall(nn.Module):
    """A small vision transformer on patches, mean-pooled (Dosovitskiy et al., 2021)."""

    def __init__(self, classes: int = 10, channels: int = 1, size: int = 28, patch: int = 7, width: int = 48) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, width, patch, patch)
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)
        self.blocks = nn.Sequential(Block(width, 4), Block(width, 4))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, C, size, size) → logits (N, classes)."""
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.fc(self.norm(self.blocks(x)).mean(1))


class GRUSmall(nn.Module):
    """Reads an image row by row with a GRU (Cho et al., 2014)."""

    def __init__(self, classes: int = 10, inputs: int = 28, width: int = 64) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, width, batch_first=True)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, 1, T, inputs) → logits (N, classes)."""
        y, _ = self.gru(x.squeeze(1))
        return self.fc(y[:, -1])


mlp = MLP
vit_small = ViTSmall
gru_small = GRUSmall
