"""Single weights set to zero: a share of all of them, or two of every four neighbours along the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from netxform.core.edit import Choice
from netxform.core.network import Network
from netxform.core.values import Invocation
from netxform.core.verb import Material
from netxform.errors import fail
from netxform.numerics.scores import Request, fisher


def weights_in(network: Network, modules: Sequence[str] | None) -> tuple[str, ...]:
    """The weights of the Linear and Conv layers among the modules."""
    out: list[str] = []
    for path, part in network.module.named_modules():
        inside = modules is None or path in set(modules)
        if inside and isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            out.append(network.types.names[f"{path}.weight"])
    return tuple(dict.fromkeys(out))


def zero_weights(
    network: Network, choice: Choice, material: Material, by: Invocation, granularity: str, amount: float, samples: int,
    loss: Literal["cross_entropy", "mse"],
) -> Choice:  # fmt: skip
    """The lowest weights set to zero: a share of all of them, or two of every four neighbours along the inputs."""
    data = choice.values["data"]
    held = dict(network.module.named_parameters(remove_duplicate=False))
    each: dict[str, Tensor] = {n: held[n].detach().double().abs() for n in choice.values["weights"]}
    predicted: float | None = None
    if by.name == "obd-weights":
        request = Request(lambda: material.batches(data, samples), loss)
        diagonal, _ = fisher(network, request)
        each = {n: 0.5 * diagonal[n] * w.square() for n, w in each.items()}
        predicted = 0.0
    elif by.name != "magnitude":
        raise fail("X0412", f"single weights are scored by `magnitude` or `obd-weights`, not by `{by.name}`", by.span)
    tensors: dict[str, Tensor] = {}
    zeros, count = 0, 0
    flat = torch.cat([v.flatten() for v in each.values()])
    take = torch.zeros(len(flat), dtype=torch.bool)
    take[torch.argsort(flat, stable=True)[: round(amount * len(flat))]] = True
    parts = take.split([v.numel() for v in each.values()])
    for (name, values), part in zip(each.items(), parts, strict=True):
        mask = part.reshape(values.shape)
        if granularity == "2:4":
            mask = _two_of_four(values)
        if predicted is not None:
            predicted += float(values[mask].sum())
        tensors[name] = held[name].detach().masked_fill(mask, 0.0)
        zeros, count = zeros + int(mask.sum()), count + mask.numel()
    values_: dict[str, Any] = choice.values | {
        "zeros": f"{zeros} of {count}", "assigned": list(tensors), "samples": samples, "predicted": predicted, "error": None,
    }  # fmt: skip
    values_.pop("weights")
    return replace(choice, values=values_ | {"weights": tuple(tensors)}, provisional="", tensors=tensors)


def _two_of_four(values: Tensor) -> Tensor:
    """The two lowest of every four neighbours along the inputs (dimension 1); a rest of fewer than four stays."""
    moved = values.movedim(1, -1)
    whole = moved.shape[-1] // 4 * 4
    mask = torch.zeros(moved.shape, dtype=torch.bool)
    four = moved[..., :whole].unflatten(-1, (-1, 4))
    low = four.argsort(dim=-1, stable=True)[..., :2]
    mask[..., :whole] = torch.zeros(four.shape, dtype=torch.bool).scatter(-1, low, True).flatten(-2)
    return mask.movedim(-1, 1)
