"""Augmentation and mixup on tensors: random numbers are drawn for the global batch, and each process takes those of its rows.

So the views do not depend on the number of processes, and student and teacher see the same ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from netxform.errors import Span, fail
from netxform.graph.layer_spec import Invocation
from netxform.language.methods import IGNORED, TRANSFORMS, Vision
from netxform.registry import called
from netxform.training.data import Batch

Normal: TypeAlias = "tuple[tuple[float, ...], tuple[float, ...]] | None"


class Draw:
    """Random numbers for the rows of this share, drawn for the whole global batch: uniform, or normal ones."""

    def __init__(self, batch: Batch, generator: torch.Generator, device: torch.device) -> None:
        self._batch, self._generator, self._device = batch, generator, device

    def __call__(self, *shape: int) -> Tensor:
        """Uniform in [0, 1): (n, *shape)."""
        return torch.rand((self._batch.total, *shape), generator=self._generator)[self._batch.rows].to(self._device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal: (n, *shape)."""
        return torch.randn((self._batch.total, *shape), generator=self._generator)[self._batch.rows].to(self._device)

    def seeds(self) -> list[int]:
        """A seed for each row (n)."""
        return torch.randint(2**62, (self._batch.total,), generator=self._generator)[self._batch.rows].tolist()


def augment(x: Tensor, calls: tuple[Invocation, ...], batch: Batch, generator: torch.Generator) -> Tensor:
    """X (n, …) seen anew; `shift(2)` pixels at most, `flip(0.5)` left to right, `noise(0.1)`, `erase(0.25)` of the side,
    `scale(0.1)` in brightness; transforms of torchvision by their names.
    """
    return augmented(x, (), calls, batch, generator)[0]


def augmented(
    x: Tensor,
    targets: Sequence[Tensor],
    calls: tuple[Invocation, ...],
    batch: Batch,
    generator: torch.Generator,
    normal: Normal = None,
) -> tuple[Tensor, list[Tensor]]:
    """As `augment`; targets that are maps of the images' size are moved with the pixels, others are as they were. `normal`: the
    mean and the spread of each channel that the images are normalised by; transforms of colours see them as they were before.
    """
    draw = Draw(batch, generator, x.device)
    maps = [is_map(x, t) for t in targets]
    held = list(targets)
    for call in calls:
        known = TRANSFORMS.find(call.name, call.span)
        moved = [raised(t) for t, m in zip(held, maps, strict=True) if m]
        if isinstance(known, Vision):
            plain = known.colours and normal is not None and x.dim() == 4
            x, moved = vision(_shown(x, normal) if plain else x, moved, call, known, draw)
            x = _hidden(x, normal) if plain else x
        else:
            amount = float(call.arguments[0]) if call.arguments else known.amount
            if known.moves and moved:
                state = generator.get_state()
                layers = [_planes(t) for t in moved]
                shown = []
                for planes in layers:  # under the same draws: they move as the pixels do
                    generator.set_state(state)
                    shown.append(called(known.apply)(planes, amount, draw))
                generator.set_state(state)
                moved = [s.reshape(t.shape) for s, t in zip(shown, moved, strict=True)]
            x = called(known.apply)(x, amount, draw)
        found = iter(moved)
        held = [lowered(next(found), t) if m else t for t, m in zip(held, maps, strict=True)]
    return x, held


def _shown(x: Tensor, normal: Normal) -> Tensor:
    """Normalised images in [0, 1] again."""
    assert normal is not None
    mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(-1, 1, 1) for v in normal)
    return (x * std + mean).clamp(0, 1)


def _hidden(x: Tensor, normal: Normal) -> Tensor:
    """Images in [0, 1] normalised."""
    assert normal is not None
    mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(-1, 1, 1) for v in normal)
    return (x - mean) / std


def is_map(x: Tensor, target: Tensor) -> bool:
    """Whether targets are maps over the pixels of x (n, C, H, W): (n, H, W) or (n, K, H, W)."""
    return x.dim() == 4 and target.dim() in (3, 4) and target.shape[-2:] == x.shape[-2:]


_LIFT = 1 - IGNORED


def raised(target: Tensor) -> Tensor:
    """Maps as float32 in which 0, what comes in from outside, stands for no class."""
    return target.float() if target.dtype.is_floating_point else (target.long() + _LIFT).float()


def lowered(moved: Tensor, like: Tensor) -> Tensor:
    """The maps again as they were given; what came in from outside is left out (−100)."""
    if like.dtype.is_floating_point:
        return moved.to(like.dtype)
    whole = moved.round().long()
    return torch.where(whole == 0, torch.full_like(whole, IGNORED), whole - _LIFT)


def _planes(target: Tensor) -> Tensor:
    return target[:, None] if target.dim() == 3 else target


def vision(x: Tensor, maps: list[Tensor], call: Invocation, known: Vision, draw: Draw) -> tuple[Tensor, list[Tensor]]:
    """A transform of torchvision on one sample after the other, each under a seed that its place in the global batch draws.

    Raises NetxformError X0411 (its arguments), X0805 (images that it does not take, or that it gives another size).
    """
    from torchvision.tv_tensors import Mask

    if x.dim() != 4:
        raise fail("X0805", f"`{call.name}` takes images (C, H, W), and the samples are {tuple(x.shape[1:])}", call.span)
    least, most = (float(v) for v in x.aminmax())
    if known.colours and (least < -1e-3 or most > 1 + 1e-3):
        raise fail(
            "X0805",
            f"`{call.name}` works on images in [0, 1], and these go from {least:.2g} to {most:.2g}",
            call.span,
            "normalised before",
            helps=("leave `normalize` out of the data, or use transforms that keep colours as they are",),
        )
    transform = made(call.name, call.arguments, tuple(sorted(call.keywords.items())), tuple(x.shape[-2:]), call.span)
    seeds = draw.seeds()
    images: list[Tensor] = []
    moved: list[list[Tensor]] = [[] for _ in maps]
    with torch.random.fork_rng(devices=[x.device.index or 0] if x.is_cuda else []):
        for i, seed in enumerate(seeds):
            torch.manual_seed(seed)
            try:
                given = (x[i], *(Mask(t[i]) for t in maps))
                found = transform(*given) if len(given) > 1 else (transform(given[0]),)
            except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
                text = str(error).strip().splitlines()[0]
                raise fail("X0805", f"`{call}` cannot be used on {tuple(x.shape[1:])}: {text}", call.span) from error
            images.append(found[0])
            for kept, one in zip(moved, found[1:], strict=True):
                kept.append(one.as_subclass(Tensor))
    shown = torch.stack(images)
    if shown.shape != x.shape:
        raise fail("X0805", f"`{call}` makes {tuple(shown.shape[1:])} of {tuple(x.shape[1:])}", call.span, "another size",
                   helps=("leave its size out: it is that of the samples",))  # fmt: skip
    return shown, [torch.stack(m) for m in moved]


@lru_cache(maxsize=64)
def made(
    name: str, arguments: tuple[Any, ...], keywords: tuple[tuple[str, Any], ...], size: tuple[int, int], span: Span
) -> Any:
    """The transform; one that cuts out a part gives the size of the samples. Raises NetxformError X0411."""
    from torchvision.transforms import v2

    kind = getattr(v2, name)
    settings = dict(keywords)
    if "size" in inspect.signature(kind).parameters and not arguments:
        settings.setdefault("size", size)
    try:
        return kind(*arguments, **settings)
    except (TypeError, ValueError, KeyError) as error:
        raise fail("X0411", f"`{name}` cannot be made: {error}", span, "bad arguments") from None


def flip(x: Tensor, share: float, draw: Draw) -> Tensor:
    """That share of the images left to right."""
    return torch.where(_column(draw() < share, x), x.flip(-1), x)


def noise(x: Tensor, amount: float, draw: Draw) -> Tensor:
    """Normal noise of that standard deviation on every value."""
    return x + amount * draw.normal(*x.shape[1:]).to(x)


def scale(x: Tensor, amount: float, draw: Draw) -> Tensor:
    """Each sample times a number in 1 ± amount."""
    return x * _column(1 + amount * (2 * draw() - 1), x)


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.dim() - 1)).to(torch.bool if values.dtype == torch.bool else x.dtype)


def shift(x: Tensor, amount: float, draw: Draw) -> Tensor:
    """Each image moved by whole pixels, zeros coming in."""
    most = int(amount)
    n, c, h, w = x.shape
    padded = F.pad(x, (most, most, most, most))
    at = (draw(2) * (2 * most + 1)).long()
    rows = (at[:, :1] + torch.arange(h, device=x.device)).view(n, 1, h, 1)
    columns = (at[:, 1:] + torch.arange(w, device=x.device)).view(n, 1, 1, w)
    places = torch.arange(n, device=x.device).view(n, 1, 1, 1)
    return padded[places, torch.arange(c, device=x.device).view(1, c, 1, 1), rows, columns]


def erase(x: Tensor, share: float, draw: Draw) -> Tensor:
    """A square of that share of the side set to zero (DeVries, Taylor, "Cutout", 2017)."""
    n, _, h, w = x.shape
    at = draw(2)
    rows = (torch.arange(h, device=x.device) - at[:, :1] * h).abs() < share * h / 2
    columns = (torch.arange(w, device=x.device) - at[:, 1:] * w).abs() < share * w / 2
    return x.masked_fill((rows[:, :, None] & columns[:, None, :]).view(n, 1, h, w), 0.0)


def partners(batch: Batch, alpha: float, generator: torch.Generator) -> tuple[float, Tensor]:
    """λ ~ Beta(α, α), and for each row of this share the number of the sample that it is mixed with.

    Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization", 2018.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    return share, batch.chunk[torch.randperm(batch.total, generator=generator)[batch.rows]]


def cut(x: Tensor, more: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, float, tuple[slice, slice]]:
    """Images with a box of their partners in them: the same box in the whole batch, of the share 1 − λ, λ ~ Beta(α, α).

    Gives the images, the share of the pixels that stayed, and the box (rows, columns).
    Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", 2019.
    """
    if x.dim() != 4:
        raise fail("X0805", f"`cutmix` takes images (C, H, W), and the samples are {tuple(x.shape[1:])}")
    height, width = x.shape[-2:]
    seed = int(torch.randint(2**31, (), generator=generator))
    draws = np.random.default_rng(seed)
    side = float(np.sqrt(1 - draws.beta(alpha, alpha)))
    row, column = float(draws.random()) * height, float(draws.random()) * width
    box = tuple(
        slice(round(max(0.0, at - side * of / 2)), round(min(float(of), at + side * of / 2)))
        for at, of in ((row, height), (column, width))
    )
    rows, columns = box
    mixed = x.clone()
    mixed[:, :, rows, columns] = more[:, :, rows, columns]
    return mixed, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width), (rows, columns)
