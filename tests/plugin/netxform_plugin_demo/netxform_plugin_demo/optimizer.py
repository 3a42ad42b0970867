"""`using demo_sign(lr=1e-2)`: steps along the sign of the gradient."""

from __future__ import annotations

from typing import Any

from netxform.language.methods import OPTIMIZERS, Optimizer


def _make(groups: list[dict[str, Any]], lr: float) -> Any:
    import torch

    class Sign(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.sub_(group["lr"] * parameter.grad.sign())

    return Sign(groups, {"lr": lr})


OPTIMIZERS.register("demo_sign")(Optimizer(_make, 1e-2))
