"""Weights that are computed each time from others (weight norm, spectral norm, parametrizations, masks) made tensors."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from netxform.capture.symbolic import computes_weights
from netxform.graph.copies import own, structure

M = TypeVar("M", bound=nn.Module)
REPAIR = "bake them in: `model NAME = … bake=true`, or `bake=True` in Python; a layer then holds the weight that it computes"


def computed(model: nn.Module) -> list[str]:
    """The layers that compute a weight each time from other tensors."""
    return [
        path
        for path, part in model.named_modules()
        if computes_weights(part) and not isinstance(part, parametrize.ParametrizationList)
    ]


def names_of(paths: list[str]) -> str:
    """The layers, for a sentence: `weights of … are`."""
    named = ", ".join(f"`{p or 'the model'}`" for p in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    return f"weights of {named} are"


def bake(model: M) -> M:
    """A copy of the model in which every layer holds the weights that it computes in eval mode, as parameters of its own.

    In eval mode it gives what the model gives. In training nothing is computed any more: norms no longer hold. The model is
    not changed; a model that computes no weights is given back itself.
    """
    if not computed(model):
        return model
    made = structure(model, own)
    modes = {part: part.training for part in made.modules()}
    made.eval()
    for part in list(made.modules()):
        names = [*_bake_hooks(part), *(_bake_parametrizations(part) if parametrize.is_parametrized(part) else ())]
        held = part._parameters  # pyright: ignore[reportPrivateUsage]
        for name in [*names, *(n for n in list(held) if n not in names)]:  # as a layer without them has its tensors
            if name in held:
                held[name] = cast(Any, held.pop(name))
    for part in made.modules():
        part.training = modes.get(part, False)
    return made


@torch.no_grad()
def _bake_hooks(part: nn.Module) -> list[str]:
    names: list[str] = []
    for hook in list(part._forward_pre_hooks.values()):  # pyright: ignore[reportPrivateUsage]
        one: Any = hook
        if isinstance(one, WeightNorm):
            names.append(one.name)
            remove_weight_norm(part, one.name)
        elif isinstance(one, SpectralNorm):
            names.append(one.name)
            remove_spectral_norm(part, one.name)
        elif isinstance(one, prune.BasePruningMethod):
            names.append(str(one._tensor_name))  # pyright: ignore[reportPrivateUsage]
            prune.remove(part, names[-1])
    return names


@torch.no_grad()
def _bake_parametrizations(part: nn.Module) -> list[str]:
    """Its class is shared with the model's own layer, and is left as it is: `remove_parametrizations` changes it."""
    held: Any = part.parametrizations
    found = {n: (getattr(part, n).detach().clone(), [p.requires_grad for p in held[n].parameters()]) for n in held}
    part.__class__ = type(part).__bases__[0]
    del part.parametrizations
    for name, (tensor, asking) in found.items():
        if asking:
            part.register_parameter(name, nn.Parameter(tensor, requires_grad=any(asking)))
        else:
            part.register_buffer(name, tensor)
    return list(found)
