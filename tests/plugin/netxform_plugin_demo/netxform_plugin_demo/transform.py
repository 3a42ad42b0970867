"""`augment=[demo_dim(0.5)]`: each sample times a number between 1 − amount and 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netxform.language.methods import TRANSFORMS, Augmentation

if TYPE_CHECKING:
    from torch import Tensor

    from netxform.training.augment import Draw


def _dim(x: Tensor, amount: float, draw: Draw) -> Tensor:
    return x * (1 - amount * draw()).view(-1, *[1] * (x.dim() - 1))


TRANSFORMS.register("demo_dim")(Augmentation(_dim, 0.5, most=1.0))
