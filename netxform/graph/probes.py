"""Probes: the inputs that claims are measured on. What is at hand comes first, and nothing is invented beside it.

    Network, samples of data ─probed→ Network that knows its Probes

The user's example inputs, samples of data that fit the network's input, and variations of both that the network takes: samples
whose numbers are scaled, whose words are shuffled. Where a network was declared by the shapes of its inputs alone, and no data
fits, inputs are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from netxform.graph.copies import tensors_of
from netxform.graph.inputs import Given as Inputs
from netxform.graph.meta import evaluating
from netxform.graph.network import SAMPLES, Network, Probes, drawn_for, knowing

Given = tuple[Tensor, ...]


def probed(network: Network, seed: int, data: Iterable[Inputs] = ()) -> Network:
    """The network with the probes that every claim about it is measured on, the same for the same seed.

    `data`: batches of samples (N, …), one tensor or one for each input; those are taken that fit the network's inputs. A
    network that holds no numbers, or that does not run on what it was captured with, keeps that.
    """
    return knowing(network, replace(network, probes=_probes(network, seed, data)))


def samples(network: Network, seed: int) -> Given:
    """Inputs to measure on: the network's probes; those that it would have, where nothing was probed yet."""
    return (network.probes or _probes(network, seed, ())).inputs


def _probes(network: Network, seed: int, data: Iterable[Inputs]) -> Probes:
    given = tuple(t.detach().clone() for t in network.given)
    rows = _fitting(network, data)
    if network.drawn or not given:
        return _of_data(network, rows) or _drawn(network, seed)
    if any(t.is_meta for t in (*given, *tensors_of(network.module))):
        return Probes(given, (("given", _count(given)),))
    return _extended(network, given, rows, seed) or Probes(given, (("given", _count(given)),))


def _count(inputs: Given) -> int:
    return inputs[0].shape[0] if inputs and inputs[0].dim() else 1


def _fitting(network: Network, data: Iterable[Inputs]) -> Given | None:
    """Up to `SAMPLES` samples that are of the shapes and kinds of the network's inputs."""
    wanted = network.inputs
    if not wanted or any(len(w.shape) < 1 for w in wanted):
        return None
    for x in data:
        several = (x,) if isinstance(x, Tensor) else x
        fits = len(several) == len(wanted) and all(
            tuple(t.shape[1:]) == tuple(w.shape[1:]) and t.dtype == w.dtype and len(t)
            for t, w in zip(several, wanted, strict=True)
        )
        if fits:
            return tuple(t[:SAMPLES].detach().clone() for t in several)
    return None


def _of_data(network: Network, rows: Given | None) -> Probes | None:
    if rows is None or _outputs(network, rows) is None:
        return None
    return Probes(rows, (("of the data", _count(rows)),))


def _drawn(network: Network, seed: int) -> Probes:
    """Inputs of the declared shapes; where the network does not take them, those that it was captured with."""
    inputs = drawn_for(network, seed)
    if network.given and _outputs(network, inputs) is None:
        inputs = network.given
    return Probes(inputs, (("drawn", _count(inputs)),))


# --- variations ------------------------------------------------------------------------------------------------------


def _extended(network: Network, given: Given, data: Given | None, seed: int) -> Probes | None:
    """The given samples with others behind them, if the network computes every sample by itself."""
    count = _count(given)
    if not given or any(t.dim() == 0 or t.shape[0] != count for t in given):
        return None
    old = _outputs(network, given)
    if old is None:
        return None
    base, kinds = given, [("given", count)]
    if data is not None:
        base = tuple(torch.cat([g, d.to(g.dtype)]) for g, d in zip(given, data, strict=True))
        kinds = [*kinds, ("of the data", _count(data))]
    generator = torch.Generator().manual_seed(seed)
    missing = max(SAMPLES - _count(base), 0)
    found: list[Probes] = []
    for factors in (_NARROW, _WIDE):
        inputs = _varied(base, missing, generator, factors)
        new = None if inputs is None else _outputs(network, inputs)
        if inputs is None or new is None or not _same_rows(old, new, count, _count(inputs)):
            continue
        found.append(Probes(inputs, (*kinds, ("varied", missing))))
        if not all(_alike(t) for t in new):  # else they are far from where the network answers: wider, if it takes that
            break
    if found or data is None:
        return found[-1] if found else None
    new = _outputs(network, base)
    return Probes(base, tuple(kinds)) if new is not None and _same_rows(old, new, count, _count(base)) else None


# The factors of varied samples, in turns; of the narrow ones another share each time.
_NARROW = (1.0,)
_WIDE = (-1.0, 4.0, -4.0, 32.0, -32.0)


def _alike(t: Tensor) -> bool:
    return torch.equal(t.nan_to_num(), t[:1].nan_to_num().expand_as(t))


def _varied(base: Given, more: int, generator: torch.Generator, factors: tuple[float, ...]) -> Given | None:
    """The samples and `more` variations of them: floating-point numbers scaled, by one factor a sample; of words and
    masks at each position those of another sample, the same one in all inputs, or of another position of the only one.
    """
    count = _count(base)
    scaled = [_scalable(t) for t in base]
    lengths = {t.shape[1] for t, s in zip(base, scaled, strict=True) if not s and t.dim() > 1}
    alone = all(torch.equal(t, t[:1].expand_as(t)) for t in base)
    if not more or (not any(scaled) and not lengths):
        return None
    made: list[list[Tensor]] = [[] for _ in base]
    for i in range(more):
        row = i % count
        factor = (0.5 + 0.5 * float(torch.rand((), generator=generator))) * factors[i % len(factors)]
        orders = {n: torch.randint(n, (n,), generator=generator) for n in sorted(lengths)}
        others = {n: torch.randint(count, (n,), generator=generator) for n in sorted(lengths)}
        for place, (t, s) in enumerate(zip(base, scaled, strict=True)):
            if s:
                made[place].append(t[row] * factor)
            elif any(scaled) or t.dim() < 2:
                made[place].append(t[row])
            elif alone:
                made[place].append(t[row][orders[t.shape[1]]])
            else:
                made[place].append(t[others[t.shape[1]], torch.arange(t.shape[1])])
    return tuple(torch.cat([t, torch.stack(m)]) for t, m in zip(base, made, strict=True))


def _scalable(t: Tensor) -> bool:
    """Whether these are measured numbers. Those of a mask are zeros and ones, or infinite."""
    if not t.is_floating_point() or not bool(t.isfinite().all()):
        return False
    return bool(((t != 0) & (t != 1)).any())


def _same_rows(old: list[Tensor], new: list[Tensor], count: int, now: int) -> bool:
    """Whether the first samples come out as they did without the others, and the others as finite as they."""
    if len(old) != len(new):
        return False
    for a, b in zip(old, new, strict=True):
        if b.dim() == 0 or a.shape[0] != count or b.shape[0] != now or a.shape[1:] != b.shape[1:]:
            return False
        if not a.is_floating_point():
            continue
        finite = a.isfinite()
        if not torch.equal(b[:count].isfinite(), finite) or (bool(finite.all()) and not bool(b.isfinite().all())):
            return False
        x, y = a[finite].double(), b[:count][finite].double()
        # a batch of another size may be summed in another order: a thousand roundings
        if x.numel() and float((x - y).abs().max()) > 1000 * torch.finfo(a.dtype).eps * max(float(x.abs().max()), 1e-30):
            return False
    return True


def _outputs(network: Network, inputs: Given) -> list[Tensor] | None:
    """What the network computes, in eval mode; None where it refuses the inputs or cannot run on them."""
    if any(t.is_meta for t in tensors_of(network.module)):
        return []
    try:
        with torch.no_grad(), evaluating(network.module):
            found = network.module.forward(*(t.clone() for t in inputs))
    except (RuntimeError, IndexError, ValueError):
        return None
    return [t for t in pytree.tree_leaves(found) if isinstance(t, Tensor)]
