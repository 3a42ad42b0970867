"""Tensors with a number for every position of an image, and how they follow another size.

Tensor, Table ─followed→ Tensor        of `1 × [1 | (14 · 14)] × c` the class token is kept, and the grid of 14 x 14 is resized

Tables of positions are interpolated (cubic, antialiased; Keys, 1981). Masks of shifted windows and indices of relative
positions follow formulas: they are made again where the old ones are what the formula gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from netxform.errors import fail
from netxform.graph.building import times

AGAIN = 'make the model at the new size: `model net = … input="1x3x384x384"`, with the option that its library has for that'


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a dimension: what is not changed has no `old`; else the sizes of its factors, before and after."""

    length: int
    old: tuple[int, ...] = ()
    new: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A tensor with positions along dimensions: for each dimension its segments. `kind`: how its numbers follow."""

    tensor: str
    axes: tuple[tuple[Segment, ...], ...]
    kind: str = "table"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape after the change."""
        return tuple(sum(math.prod(s.new) if s.old else s.length for s in axis) for axis in self.axes)

    def __str__(self) -> str:
        """In words."""
        grids = [s for axis in self.axes for s in axis if s.old]
        text = ", ".join(f"{times(s.old)} → {times(s.new)}" for s in dict.fromkeys(grids))
        return f"{self.tensor} ({text})" if self.kind == "table" else f"{self.tensor} (made again)"


def stretched(x: Tensor, axis: int, new: int) -> Tensor:
    """The values along one axis at `new` places: cubic (a = -0.5), antialiased where they become fewer.

    The same numbers for as many. The axis is the last of the image that torch is given: with a width of one it reads others.
    """
    if x.shape[axis] == new:
        return x
    rows = x.movedim(axis, -1)
    flat = rows.reshape(1, 1, -1, rows.shape[-1])
    made = F.interpolate(flat, size=(flat.shape[2], new), mode="bicubic", align_corners=False, antialias=True)
    return made.reshape(*rows.shape[:-1], new).movedim(-1, axis)


def interpolated(x: Tensor, table: Table) -> Tensor:
    """The tensor with every grid of positions resized, in float64, rounded once."""
    out = x.detach().double()
    for axis, segments in enumerate(table.axes):
        if not any(s.old for s in segments):
            continue
        pieces: list[Tensor] = []
        for piece, segment in zip(out.split([s.length for s in segments], axis), segments, strict=True):
            if segment.old:
                piece = piece.unflatten(axis, segment.old)
                for i, n in enumerate(segment.new):
                    piece = stretched(piece, axis + i, n)
                piece = piece.flatten(axis, axis + len(segment.new) - 1)
            pieces.append(piece)
        out = torch.cat(pieces, axis)
    return out.contiguous().to(x.dtype)


def window_mask(grid: tuple[int, ...], window: tuple[int, ...], low: float) -> Tensor:
    """Which positions of a window may not see each other when windows are shifted by half (Liu et al., Swin, 2021): zeros and
    `low`, of shape (windows, positions, positions).
    """
    height, width = (g * w for g, w in zip(grid, window, strict=True))
    regions = torch.zeros(height, width)
    for axis, (n, w) in enumerate(zip((height, width), window, strict=True)):
        row = torch.zeros(n)
        row[n - w :] = 1
        row[n - w // 2 :] = 2
        regions = regions + (row[:, None] * 3 if axis == 0 else row[None, :])
    parts = regions.reshape(grid[0], window[0], grid[1], window[1]).transpose(1, 2).reshape(grid[0] * grid[1], -1)
    return torch.where(parts[:, None, :] != parts[:, :, None], low, 0.0)


def _masked_again(x: Tensor, table: Table) -> Tensor:
    """The mask for the new number of windows. Raises NetxformError X0850 where the old one is not what the formula gives."""
    grid, side = table.axes[0][0], round(x.shape[1] ** 0.5)
    if x.is_meta:
        return x.new_empty(table.shape)
    low = float(x.min())
    if len(grid.old) != 2 or side * side != x.shape[1] or not torch.equal(x, window_mask(grid.old, (side, side), low).to(x)):
        text = f"`{table.tensor}` is no mask of windows that are shifted by half"
        raise fail("X0850", text, helps=(AGAIN,))
    return window_mask(grid.new, (side, side), low).to(x)


def relative_index(grid: tuple[int, ...], token: bool) -> Tensor:
    """For every two positions of a grid the number of their offset; with a class token, of the three ways to or from it."""
    height, width = grid
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    offset = (rows[:, None] - rows[None, :] + height - 1) * (2 * width - 1) + columns[:, None] - columns[None, :] + width - 1
    if not token:
        return offset
    many = (2 * height - 1) * (2 * width - 1)
    made = torch.full((height * width + 1, height * width + 1), many)
    made[1:, 1:] = offset
    made[1:, 0], made[0, 0] = many + 1, many + 2
    return made


def _indexed_again(x: Tensor, table: Table) -> Tensor:
    """The index for the new grid. Raises NetxformError X0850 where the old one is not what the formula gives."""
    grid = table.axes[0][-1]
    if x.is_meta:
        return x.new_empty(table.shape)
    if not torch.equal(x, relative_index(grid.old, len(table.axes[0]) > 1).to(x)):
        raise fail("X0850", f"`{table.tensor}` is no index of relative positions that is known", helps=(AGAIN,))
    return relative_index(grid.new, len(table.axes[0]) > 1).to(x)


def followed(x: Tensor, table: Table) -> Tensor:
    """The tensor as it is at the new size. Raises NetxformError X0850 where it is not what its kind says."""
    return {"mask": _masked_again, "index": _indexed_again, "table": interpolated}[table.kind](x, table)


def image(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """An example image at another size."""
    for i, n in enumerate(size):
        x = stretched(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, 2 + i, n).to(x.dtype)
    return x.contiguous()
