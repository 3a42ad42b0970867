"""Small networks for text: words as numbers come in, (N, L) int64; 0 is padding, in front."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TextGRU(nn.Module):
    """A sentence read word by word with a GRU (Cho et al., 2014)."""

    def __init__(self, words: int = 1000, classes: int = 2, embed: int = 50, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, embed, padding_idx=0)
        self.gru = nn.GRU(embed, width, batch_first=True)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, L) word numbers → logits (N, classes)."""
        y, _ = self.gru(self.embed(x))
        return self.fc(y[:, -1])


class TextLSTM(nn.Module):
    """The same with an LSTM of two layers that read both ways, and the mean over the words."""

    def __init__(self, words: int = 1000, classes: int = 2, embed: int = 50, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, embed, padding_idx=0)
        self.lstm = nn.LSTM(embed, width, num_layers=2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, L) word numbers → logits (N, classes)."""
        y, _ = self.lstm(self.embed(x))
        return self.fc(y.mean(1))


class TextMean(nn.Module):
    """The mean of the words' vectors, and a hidden layer (Iyyer et al., "Deep unordered composition", 2015)."""

    def __init__(self, words: int = 1000, classes: int = 2, embed: int = 50, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, embed, padding_idx=0)
        self.fc1 = nn.Linear(embed, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, L) word numbers → logits (N, classes)."""
        count = (x != 0).sum(1, keepdim=True).clamp(min=1)
        return self.fc(torch.relu(self.fc1(self.embed(x).sum(1) / count)))


class Encoder(nn.Module):
    """The last state of a GRU over a sentence's word vectors."""

    def __init__(self, embed: int, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(embed, width, batch_first=True)

    def forward(self, e: Tensor) -> Tensor:
        """E (N, L, embed) → (N, width)."""
        y, _ = self.gru(e)
        return y[:, -1]


class Decoder(nn.Module):
    """A GRU that says a sentence, word by word, with the code of another sentence before its eyes at every word."""

    def __init__(self, embed: int, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(embed + width, width, batch_first=True)

    def forward(self, e: Tensor, code: Tensor) -> Tensor:
        """E (N, T, embed), code (N, width) → states (N, T, width)."""
        y, _ = self.gru(torch.cat([e, code.unsqueeze(1).expand(-1, e.shape[1], -1)], -1))
        return y


class SkipThought(nn.Module):
    """A sentence is encoded, the sentences before and behind it are decoded (Kiros et al., "Skip-thought vectors", NIPS 2015).

    The input is a row: the sentence (L), the one before (L), the one behind (L). Behind a cut at `encoder` the sentence alone
    is read, so that rows of L words fit too.
    """

    def __init__(self, words: int = 1000, length: int = 16, embed: int = 50, width: int = 64) -> None:
        super().__init__()
        self.length = length
        self.embed = nn.Embedding(words, embed, padding_idx=0)
        self.encoder = Encoder(embed, width)
        self.before = Decoder(embed, width)
        self.behind = Decoder(embed, width)
        self.out = nn.Linear(width, words)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, 3 L) word numbers → logits (N, words, 2, L − 1), of the words that follow each word of the two neighbours."""
        n = self.length
        code = self.encoder(self.embed(x[:, :n]))
        before = self.before(self.embed(x[:, n : 2 * n - 1]), code)
        behind = self.behind(self.embed(x[:, 2 * n : 3 * n - 1]), code)
        return self.out(torch.stack([before, behind], 1)).permute(0, 3, 1, 2)


text_gru = TextGRU
text_lstm = TextLSTM
text_mean = TextMean
skipthought = SkipThought


class Block(nn.Module):
    """Attention to what came before, and a hidden layer, each behind a norm and beside the residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, L, width) → the same shape."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class TextLM(nn.Module):
    """A language model: at every place what the next word is, from the words up to there (Radford et al., 2019, small)."""

    def __init__(self, words: int = 1000, width: int = 32, heads: int = 2, layers: int = 2, length: int = 64) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, words)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, L) word numbers → logits (N, L, words)."""
        y = self.embed(x) + self.place(torch.arange(x.shape[1], device=x.device))
        return self.fc(self.norm(self.blocks(y)))


text_lm = TextLM
