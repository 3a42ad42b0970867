"""Claims that nothing was shown for: outputs that would be the same whatever had been done.

Case, Measured ─vacuous→ why nothing is shown, None where something is
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from netxform.compiler.evidence import Case, Measured, relative, results, tensors
from netxform.graph.copies import structure
from netxform.graph.network import Network

NOT_FINITE = "no output is finite on the probes"
CONSTANT = "the outputs are the same for every probe"
APART = "the outputs on the probes do not depend on what was changed"


def vacuous(case: Case, found: Measured) -> str | None:
    """Why the measurement shows nothing: the outputs that were compared are not finite, or the same for probes that differ; or
    what was changed, changed at random once more, leaves them as they are. One forward at most.
    """
    several = (found, *found.beside)
    compared = [t for m in several for t in (*m.values.values(), *m.reference) if t.numel()]
    floating = [t for t in compared if t.is_floating_point()]
    if floating and not any(bool(t.isfinite().any()) for t in floating):
        return NOT_FINITE
    if not found.evidence.held:
        return None  # broken: that was shown
    if compared and _distinct(case) and all(_constant(t, case.count) for t in compared):
        return CONSTANT
    if found.found and _apart(case, found.found):
        return APART
    return None


def _distinct(case: Case) -> bool:
    """Whether the probes are several, and differ."""
    rows = [t for t in case.inputs if t.dim() and t.shape[0] == case.count]
    return case.count > 1 and any(not torch.equal(t, t[:1].expand_as(t)) for t in rows)


def _constant(t: Tensor, count: int) -> bool:
    """Whether every sample has the same numbers, as far as these are told apart in float32 and float64."""
    if t.dim() == 0 or t.shape[0] != count:
        return False
    first = t[:1].expand_as(t)
    if not t.is_floating_point():
        return torch.equal(t, first)
    here, finite = t.isfinite(), first.isfinite()
    if not torch.equal(here, finite):
        return False
    slack = 4 * torch.finfo(t.dtype).eps if t.dtype in (torch.float32, torch.float64) else 0.0
    gap = (t.double() - first.double())[here].abs().max()
    return float(gap) <= slack * float(t[here].double().abs().max())


def _apart(case: Case, found: tuple[Tensor, ...]) -> bool:
    changed = changed_tensors(case.before, case.after)
    if not changed:
        return False
    return relative(results(scrambled(case.after, changed, case.seed), case.inputs), found) == 0.0


def changed_tensors(before: Network, after: Network) -> tuple[Tensor, ...]:
    """The floating-point tensors of `after` that `before` does not hold, under this name or one that is gone."""
    old, new = tensors(before.module), tensors(after.module)
    gone = [t for n, t in old.items() if n not in new]

    def known(name: str, t: Tensor) -> bool:
        others = [old[name]] if name in old else gone
        return any(o.dtype == t.dtype and o.shape == t.shape and torch.equal(o, t) for o in others)

    return tuple(t for n, t in new.items() if t.is_floating_point() and t.numel() and not known(n, t))


def scrambled(network: Network, chosen: tuple[Tensor, ...], seed: int) -> Network:
    """The network with random numbers of the same size in these tensors: positive where all were, infinite where they were."""
    places = {(t.data_ptr(), t.shape, t.dtype) for t in chosen}
    generator = torch.Generator().manual_seed(seed)

    def drawn(t: Tensor) -> Tensor:
        if (t.data_ptr(), t.shape, t.dtype) not in places:
            return t
        held, kind = t.detach(), torch.float64 if t.dtype == torch.float64 else torch.float32
        scale = float(torch.linalg.vector_norm(held, dtype=kind)) / t.numel() ** 0.5
        finite = None if math.isfinite(scale) else held.isfinite()
        if finite is not None:
            some = held[finite].to(kind)
            scale = float(torch.linalg.vector_norm(some)) / max(some.numel(), 1) ** 0.5
        noise = torch.empty(t.shape, dtype=kind).normal_(generator=generator).mul_(scale or 1.0)
        if scale and float(held.min() if finite is None else held[finite].min()) >= 0:
            noise = noise.abs_().add_(0.1 * scale)
        made = noise.to(t.dtype)
        if finite is not None:
            made = torch.where(finite, made, held)
        return torch.nn.Parameter(made, requires_grad=t.requires_grad) if isinstance(t, torch.nn.Parameter) else made

    return replace(network, module=structure(network.module, drawn))
