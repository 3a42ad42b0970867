"""`loss=demo_logcosh`: the logarithm of the hyperbolic cosine of the residual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netxform.language.methods import LOSSES, LossKind

if TYPE_CHECKING:
    from torch import Tensor


def _logcosh(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    from netxform.training.losses import like

    return (output - like(output, target)).cosh().log().mean()


LOSSES.register("demo_logcosh")(LossKind(_logcosh))
