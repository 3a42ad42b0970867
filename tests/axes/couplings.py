"""Small networks of hard coupling, by category: what a change of one axis drags along. Inputs are (3, 6, 8, 8) or as stated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {}
Images = (3, 6, 8, 8)


def case(*shape: int, words: bool = False) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Register a network class under its name, with the shape of its input."""

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
            given = shape or Images
            x = torch.randint(0, 11, given) if words else torch.randn(given, dtype=torch.float64)
            return cls().double(), (x,)

        CASES[cls.__name__] = make
        return cls

    return register


class Net(nn.Module):
    """conv a (6 → 8), conv b (6 → 8), head (8 → 5) over means."""

    def __init__(self, a: int = 8, b: int = 8, head: int = 8) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, a, 3, padding=1)
        self.b = nn.Conv2d(6, b, 3, padding=1)
        self.head = nn.Linear(head, 5)

    def body(self, a: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.a(x), self.b(x)).relu().mean((2, 3)))


def net(a: int = 8, b: int = 8, head: int = 8) -> Callable[[Callable[[Tensor, Tensor], Tensor]], None]:
    """Register a function of two maps as a network."""

    def register(function: Callable[[Tensor, Tensor], Tensor]) -> None:
        class Made(Net):
            def __init__(self) -> None:
                super().__init__(a, b, head)

            def body(self, x: Tensor, y: Tensor) -> Tensor:
                return function(x, y)

        Made.__name__ = function.__name__.strip("_")
        case()(Made)

    return register


# --- adds, concatenations, slices ------------------------------------------------------------------------------------


@net()
def _add(a: Tensor, b: Tensor) -> Tensor:
    return a + b


@net()
def _inplace_add(a: Tensor, b: Tensor) -> Tensor:
    a += b
    return a


@net(head=16)
def _cat(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b], 1)


@net(head=16)
def _cat_same_twice(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a + b, a + b], 1)


@net(head=24)
def _cat_then_add(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b, a], 1) + torch.cat([b, a, b], 1)


@net(head=12, a=6, b=6)
def _cat_uneven_add(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a[:, :4], b, a[:, 4:]], 1) + torch.cat([a, b], 1)


@net()
def _cat_batch(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b], 0)


@net()
def _cat_height(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b], 2)


@net(head=8)
def _chunk_equal(a: Tensor, b: Tensor) -> Tensor:
    left, right = a.chunk(2, 1)
    return torch.cat([right, left], 1) * b


@net(a=9, head=3)
def _chunk_three(a: Tensor, b: Tensor) -> Tensor:
    p, q, r = a.chunk(3, 1)
    return p * q.sigmoid() + r


@net(head=8)
def _split_unequal(a: Tensor, b: Tensor) -> Tensor:
    p, q = torch.split(a, [3, 5], dim=1)
    return torch.cat([q, p], 1) + b


@net(head=8)
def _split_int(a: Tensor, b: Tensor) -> Tensor:
    p, q, r = torch.split(a, 3, dim=1)
    return torch.cat([r, q, p], 1)


@net(head=5)
def _slice(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 3:]


@net(head=5)
def _slice_negative(a: Tensor, b: Tensor) -> Tensor:
    return a[:, -5:] + b[:, :-3]


@net(head=4)
def _slice_strided(a: Tensor, b: Tensor) -> Tensor:
    return a[:, ::2] + b[:, 1::2]


@net(head=6)
def _narrow(a: Tensor, b: Tensor) -> Tensor:
    return a.narrow(1, 1, 6) + torch.narrow(b, 1, 2, 6)


@net()
def _slice_assigned(a: Tensor, b: Tensor) -> Tensor:
    a = a.clone()
    a[:, 2:5] = b[:, 1:4]
    return a


@net()
def _slice_added(a: Tensor, b: Tensor) -> Tensor:
    a = a.clone()
    a[:, :3] += b[:, 5:]
    return a


# --- order -----------------------------------------------------------------------------------------------------------


@net()
def _flip(a: Tensor, b: Tensor) -> Tensor:
    return a.flip(1) + b


@net()
def _flip_itself(a: Tensor, b: Tensor) -> Tensor:
    return a.flip(1) + a


@net(head=7, a=7)
def _flip_itself_odd(a: Tensor, b: Tensor) -> Tensor:
    return a.flip(1) * a


@net()
def _flip_height(a: Tensor, b: Tensor) -> Tensor:
    return a.flip(2) + b


@net()
def _roll(a: Tensor, b: Tensor) -> Tensor:
    return a.roll(3, 1) + b


@net()
def _roll_itself(a: Tensor, b: Tensor) -> Tensor:
    return a.roll(2, 1) + a


@net()
def _roll_back(a: Tensor, b: Tensor) -> Tensor:
    return torch.roll(a, -3, 1) + b


@net(head=12)
def _pad(a: Tensor, b: Tensor) -> Tensor:
    return F.pad(a, (0, 0, 0, 0, 1, 3)) + F.pad(b, (0, 0, 0, 0, 2, 2))


@net(head=16)
def _repeat(a: Tensor, b: Tensor) -> Tensor:
    return a.repeat(1, 2, 1, 1)


@net(head=16)
def _repeat_interleave(a: Tensor, b: Tensor) -> Tensor:
    return a.repeat_interleave(2, 1)


@net(a=2, head=8)
def _unbind(a: Tensor, b: Tensor) -> Tensor:
    p, q = a.unbind(1)
    return p[:, None] * b + q[:, None]


@net()
def _permuted_by_index(a: Tensor, b: Tensor) -> Tensor:
    return a[:, [3, 1, 0, 2, 7, 6, 5, 4]] + b


@net()
def _index_select(a: Tensor, b: Tensor) -> Tensor:
    return a.index_select(1, torch.tensor([7, 6, 5, 4, 3, 2, 1, 0])) + b


@net()
def _cumulated(a: Tensor, b: Tensor) -> Tensor:
    return a.cumsum(1) + b


@net()
def _sorted(a: Tensor, b: Tensor) -> Tensor:
    return a.sort(1).values + b


@net()
def _channel_max(a: Tensor, b: Tensor) -> Tensor:
    return a * b.max(1, keepdim=True)[0]


@net()
def _channel_argmax(a: Tensor, b: Tensor) -> Tensor:
    return a * b.max(1, keepdim=True)[1]


@net()
def _channel_max_by_axis(a: Tensor, b: Tensor) -> Tensor:
    return a * torch.max(b, axis=1, keepdim=True)[1]


@net()
def _mask_of_another(a: Tensor, b: Tensor) -> Tensor:
    a = a.clone()
    a[b > 0] = 0.0
    return a


@net()
def _axes_exchanged_by_name(a: Tensor, b: Tensor) -> Tensor:
    return torch.swapaxes(torch.swapaxes(a, axis0=1, axis1=3).relu(), axis0=1, axis1=3) + b


@net()
def _moved_in_a_matrix(a: Tensor, b: Tensor) -> Tensor:
    return a * (a.mean((2, 3)).movedim(0, 1).softmax(0).movedim(1, 0))[:, :, None, None] + b


@net()
def _several_moved(a: Tensor, b: Tensor) -> Tensor:
    return a.movedim((1, 2), (3, 1)).relu().movedim((3, 1), (1, 2)) + b


@net()
def _shuffle_by_view(a: Tensor, b: Tensor) -> Tensor:
    n, c, h, w = a.shape
    return a.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w) + b


@net()
def _shuffle_op(a: Tensor, b: Tensor) -> Tensor:
    return F.channel_shuffle(a, 4) * b


@net(head=2)
def _pixel_shuffle(a: Tensor, b: Tensor) -> Tensor:
    return F.pixel_shuffle(a + b, 2)


@net(head=32)
def _pixel_unshuffle(a: Tensor, b: Tensor) -> Tensor:
    return F.pixel_unshuffle(a + b, 2)


@net(head=4)
def _glu(a: Tensor, b: Tensor) -> Tensor:
    return F.glu(a, 1)


@net(head=8)
def _radix_split(a: Tensor, b: Tensor) -> Tensor:
    parts = torch.stack([a, b], 1)
    weights = parts.mean((3, 4), keepdim=True).softmax(1)
    return (parts * weights).sum(1)


@net(head=4)
def _maxout(a: Tensor, b: Tensor) -> Tensor:
    return a.view(a.shape[0], 4, 2, *a.shape[2:]).amax(2)


# --- convolutions ----------------------------------------------------------------------------------------------------


def _sequence(*layers: nn.Module, head: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head or nn.LazyLinear(5))


def sequential(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...] = Images, words: bool = False) -> None:
    """Register a network made by a function."""

    def made() -> tuple[nn.Module, tuple[Tensor, ...]]:
        x = torch.randint(0, 11, shape) if words else torch.randn(shape, dtype=torch.float64)
        model = make().double()
        with torch.no_grad():
            model.eval()(x)
        return model, (x,)

    CASES[name] = made


sequential("depthwise", lambda: _sequence(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU()))
sequential("depthwise_multiplier", lambda: _sequence(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 24, 3, groups=8), nn.BatchNorm2d(24)))
sequential(
    "grouped", lambda: _sequence(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 12, 3, groups=4), nn.BatchNorm2d(12), nn.Conv2d(12, 7, 1))
)
sequential(
    "grouped_twice", lambda: _sequence(nn.Conv2d(6, 12, 3), nn.Conv2d(12, 24, 1, groups=4), nn.Conv2d(24, 12, 1, groups=6))
)
sequential(
    "grouped_incommensurable",
    lambda: _sequence(nn.Conv2d(6, 12, 3), nn.Conv2d(12, 12, 1, groups=4), nn.Conv2d(12, 12, 1, groups=3)),
)
sequential("transposed", lambda: _sequence(nn.Conv2d(6, 8, 3), nn.ConvTranspose2d(8, 10, 2, stride=2), nn.BatchNorm2d(10)))
sequential(
    "transposed_grouped", lambda: _sequence(nn.Conv2d(6, 8, 3), nn.ConvTranspose2d(8, 12, 2, groups=4), nn.BatchNorm2d(12))
)
sequential(
    "conv1d",
    lambda: nn.Sequential(nn.Conv1d(6, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 4, 3), nn.Flatten(), nn.Linear(20, 5)),
    (3, 6, 9),
)
sequential(
    "conv3d",
    lambda: nn.Sequential(nn.Conv3d(2, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 4, 2), nn.Flatten(), nn.Linear(32, 5)),
    (3, 2, 5, 5, 5),
)
sequential(
    "flatten_nchw",
    lambda: nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10), nn.ReLU(), nn.Linear(10, 3)),
)
sequential(
    "linear_to_map",
    lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(384, 48),
        nn.ReLU(),
        nn.Unflatten(1, (12, 2, 2)),
        nn.Conv2d(12, 5, 1),
        nn.Flatten(),
        nn.Linear(20, 3),
    ),
)
sequential("prelu", lambda: _sequence(nn.Conv2d(6, 8, 3), nn.PReLU(8), nn.Conv2d(8, 7, 1), nn.PReLU()))
sequential("group_norm", lambda: _sequence(nn.Conv2d(6, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 7, 1)))
sequential(
    "instance_norm", lambda: _sequence(nn.Conv2d(6, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Conv2d(8, 7, 1))
)
sequential("local_response_norm", lambda: _sequence(nn.Conv2d(6, 8, 3), nn.LocalResponseNorm(3), nn.ReLU(), nn.Conv2d(8, 7, 1)))
sequential("layer_norm_map", lambda: _sequence(nn.Conv2d(6, 8, 3), nn.LayerNorm([8, 6, 6]), nn.ReLU(), nn.Conv2d(8, 7, 1)))
sequential("rms_norm", lambda: nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 4)), (3, 5, 6))
sequential(
    "weight_norm",
    lambda: _sequence(torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 8, 3)), nn.ReLU(), nn.Conv2d(8, 7, 1)),
)
sequential(
    "spectral_norm",
    lambda: _sequence(nn.Conv2d(6, 8, 3), torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 7, 1)), nn.ReLU()),
)
sequential(
    "unfold_fold",
    lambda: nn.Sequential(
        nn.Conv2d(6, 8, 1),
        nn.Unfold(2, stride=2),
        nn.Fold((8, 8), 2, stride=2),
        nn.Conv2d(8, 4, 1),
        nn.Flatten(),
        nn.Linear(256, 3),
    ),
)
sequential(
    "unfold_linear",
    lambda: nn.Sequential(nn.Conv2d(6, 4, 1), nn.Unfold(4, stride=4), nn.Conv1d(64, 8, 1), nn.Flatten(), nn.Linear(32, 3)),
)


@case()
class FlattenNhwc(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 4, 3)
        self.fc = nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.a(x).permute(0, 2, 3, 1).flatten(1))


@case(3, 2, 6)
class FlattenSequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(6, 2), nn.Linear(2, 5), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.a(x).flatten(0, 1)).unflatten(0, (-1, 2))
        return self.fc(h.flatten(1, 2))


@case()
class FlattenDifferentMaps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 4, 3)
        self.b = nn.Conv2d(6, 3, 3, stride=2)
        self.fc = nn.Linear(4 * 36 + 3 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([self.a(x).flatten(1), self.b(x).flatten(1)], 1))


@case()
class InputConcatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 3, padding=1)
        self.b = nn.Conv2d(14, 5, 1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(torch.cat([x, self.a(x).relu()], 1)).mean((2, 3)))


@case()
class InputAdded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(x + self.a(x)).mean((2, 3)))


@case()
class DynamicWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 1)
        self.make = nn.Linear(8, 8 * 4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).mean((2, 3))
        w = self.make(h).view(-1, 4, 8)
        return self.fc((w @ h[:, :, None]).squeeze(-1).relu())


@case()
class FunctionalWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 6, 3, 3))
        self.v = nn.Parameter(torch.randn(5, 8))
        self.shift = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = F.conv2d(x, self.w * 2, padding=1) + self.shift
        return F.linear(F.relu(h).mean((2, 3)), self.v)


@case()
class BakedSizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 3)
        self.fc = nn.Linear(8 * 36, 5)
        self.channels = 8

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).view(x.size(0), self.channels, 36)
        return self.fc(h.reshape(-1, self.channels * 36))


@case()
class Gram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 4, 3)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).flatten(2)
        return self.fc((h @ h.transpose(1, 2) / h.shape[-1]).flatten(1))


@case(3, 6)
class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 4)
        self.b = nn.Linear(6, 3)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.a(x)[:, :, None] * self.b(x)[:, None, :]).flatten(1))


@case()
class ContractedAway(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 3)
        self.b = nn.Conv2d(6, 8, 3)
        self.fc = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.a(x) * self.b(x)).sum(1).flatten(1))


@case()
class MeanOverChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 3)
        self.fc = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.fc((h.sum(1) / h.shape[1]).flatten(1))


@case()
class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 3)
        self.down, self.up = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        s = self.up(self.down(F.adaptive_avg_pool2d(h, 1)).relu()).sigmoid()
        return self.fc((h * s).mean((2, 3)))


@case()
class Eca(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 3)
        self.slide = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        s = self.slide(h.mean((2, 3))[:, None, :]).squeeze(1).sigmoid()
        return self.fc((h * s[:, :, None, None]).mean((2, 3)))


@case()
class Cbam(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 3)
        self.mlp = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))
        self.place = nn.Conv2d(2, 1, 3, padding=1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        c = self.mlp(h.mean((2, 3))) + self.mlp(h.amax((2, 3)))
        h = h * c.sigmoid()[:, :, None, None]
        s = torch.cat([h.mean(1, keepdim=True), torch.max(h, 1, keepdim=True)[0]], 1)
        return self.fc((h * self.place(s).sigmoid()).mean((2, 3)))


@case()
class LayerScaleBuffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 3)
        self.gamma = nn.Parameter(torch.rand(8, 1, 1))
        self.register_buffer("mean", torch.rand(1, 8, 1, 1))
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(((self.a(x) - self.mean) * self.gamma).mean((2, 3)))


# --- windows, patches, positions -------------------------------------------------------------------------------------


@case()
class Windows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 1)
        self.mix = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).permute(0, 2, 3, 1)
        n, y, w, c = h.shape
        h = h.view(n, y // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        h = self.mix(h) + h
        h = h.view(n, y // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, y, w, c)
        return self.fc(h.mean((1, 2)))


@case()
class PatchMerging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 1)
        self.norm = nn.LayerNorm(32)
        self.reduce = nn.Linear(32, 10, bias=False)
        self.fc = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).permute(0, 2, 3, 1)
        parts = [h[:, 0::2, 0::2], h[:, 1::2, 0::2], h[:, 0::2, 1::2], h[:, 1::2, 1::2]]
        return self.fc(self.reduce(self.norm(torch.cat(parts, -1))).mean((1, 2)))


@case(3, 7, words=True)
class WordsAndPositions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 8), nn.Parameter(torch.randn(1, 16, 8))
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x) + self.places[:, : x.shape[1]]
        return self.fc(self.norm(h).mean(1))


@case(3, 7, words=True)
class TiedWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.inner = nn.Linear(8, 8)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(self.words(x)).relu())


@case(3, 6)
class TiedLinears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 8)
        self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8)
        self.c.weight = self.b.weight
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.c(self.b(self.a(x)).relu()))


@case(3, 6)
class TiedTransposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 4)
        self.mid = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.encode(self.mid(x)).relu(), self.encode.weight.t())


@case()
class SharedModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        for _ in range(3):
            h = self.norm(self.shared(h)).relu()
        return self.fc(h.mean((2, 3)))


@case(3, 6)
class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.randn(8, 6), torch.randn(5, 8)])
        self.more = nn.ParameterDict({"shift": nn.Parameter(torch.randn(8))})
        self.last = nn.ModuleDict({"fc": nn.Linear(5, 3)})

    def forward(self, x: Tensor) -> Tensor:
        h = F.linear(x, self.weights[0], self.more["shift"]).relu()
        return self.last["fc"](h @ self.weights[1].t())


@case(3, 5, 6)
class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.randn(4, 6, 3))
        self.k = nn.Parameter(torch.randn(4, 6, 3))
        self.o = nn.Parameter(torch.randn(4, 3, 5))

    def forward(self, x: Tensor) -> Tensor:
        q, k = torch.einsum("bte,hed->bhtd", x, self.q), torch.einsum("bte,hed->bhtd", x, self.k)
        w = torch.einsum("bhtd,bhsd->bhts", q, k).softmax(-1)
        return torch.einsum("bhts,bhsd,hdo->bto", w, q, self.o)


@case(3, 6)
class BilinearNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 5)
        self.both = nn.Bilinear(4, 5, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.both(self.a(x), self.b(x)).relu())


# --- attention -------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Embeds 6 → 8, attends with 4 heads of 2, and reads out."""

    def __init__(self, inner: int = 8) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.out = nn.Linear(inner, 8)
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 3)

    def attend(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        h = h + self.out(self.attend(self.norm(h)))
        return self.fc(h.mean(1))


@case(3, 5, 6)
class Separate(Block):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def attend(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (f(x).view(n, t, 4, 2).transpose(1, 2) for f in (self.q, self.k, self.v))
        w = (q @ k.transpose(-2, -1) / math.sqrt(2)).softmax(-1)
        return (w @ v).transpose(1, 2).reshape(n, t, 8)


@case(3, 5, 6)
class Fused(Block):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def attend(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 4, 2).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1)


@case(3, 5, 6)
class Chunked(Block):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def attend(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (p.view(n, t, 4, 2).transpose(1, 2) for p in self.qkv(x).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


@case(3, 5, 6)
class GroupedQueries(Block):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def attend(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, 4, 2).transpose(1, 2)
        k, v = (f(x).view(n, t, 2, 2).transpose(1, 2).repeat_interleave(2, 1) for f in (self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1)


@case(3, 5, 6)
class GroupedBySdpa(Block):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def attend(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, 4, 2).transpose(1, 2)
        k, v = (f(x).view(n, t, 2, 2).transpose(1, 2) for f in (self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).reshape(n, t, -1)


@case(3, 5, 6)
class Rotary(Block):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def attend(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        angle = torch.arange(t, dtype=x.dtype)[:, None] * torch.tensor([1.0, 1.0], dtype=x.dtype)

        def turn(z: Tensor) -> Tensor:
            a, b = z.chunk(2, -1)
            return z * angle.cos() + torch.cat([-b, a], -1) * angle.sin()

        q, k, v = (f(x).view(n, t, 4, 2).transpose(1, 2) for f in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(turn(q), turn(k), v).transpose(1, 2).flatten(2)


@case(3, 5, 6)
class Packed(Block):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)

    def attend(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@case(5, 3, 6)
class PackedCross(Block):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 4, kdim=6, vdim=6)
        self.other = nn.Linear(8, 6)

    def attend(self, x: Tensor) -> Tensor:
        y = self.other(x)
        out, weights = self.attention(x, y, y)
        return out + weights.mean()


@case(3, 5, 6)
class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.embed(x)).mean(1))


@case(3, 5, 6)
class SwiGlu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both, self.down = nn.Linear(6, 16), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.both(x).chunk(2, -1)
        return self.down(F.silu(a) * b)


# --- recurrent -------------------------------------------------------------------------------------------------------


def _recurrent(name: str, cell: type[nn.RNNBase], **keywords: Any) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 7)
            self.cell = cell(7, 8, batch_first=True, **keywords)
            wide = (keywords.get("proj_size") or 8) * (2 if keywords.get("bidirectional") else 1)
            self.fc = nn.Linear(wide, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.cell(self.inner(x))[0][:, -1])

    Recurrent.__name__ = name
    case(3, 5, 6)(Recurrent)


_recurrent("gru", nn.GRU)
_recurrent("gru_deep_both_ways", nn.GRU, num_layers=2, bidirectional=True)
_recurrent("lstm", nn.LSTM, num_layers=2)
_recurrent("lstm_projected", nn.LSTM, proj_size=5)
_recurrent("rnn", nn.RNN)


@case(3, 5, 6)
class LastState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(6, 8, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.cell(x)[1][-1])


@case(3, 6)
class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.cell(x)
        h, c = self.cell(x, (h, c))
        return self.fc(h)


# --- outputs ---------------------------------------------------------------------------------------------------------


@case()
class FeatureIsOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 7, 1)
        self.fc = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.a(x)
        return self.fc(self.b(h).mean((2, 3))), h


@case()
class SeveralHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(6, 8, 1)
        self.one, self.two = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.a(x).mean((2, 3))
        return {"one": self.one(h), "two": self.two(h)}


class Stubborn(nn.Module):
    """Cannot be traced symbolically, for its control flow depends on values; sizes stand in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        return torch.cat([h[:, :3] * 2, h[:, 3:]], 1)


@case(3, 6)
class HoldsStubborn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.island, self.fc = nn.Linear(6, 8), Stubborn(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.island(self.a(x)).relu())
