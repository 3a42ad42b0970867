"""How many stated bounds of factorizations lie below the truth: none may.

python -m benchmarks.bounds [--cases 2000] [--seed 0]

Each case is a Linear or a convolution with a known spectrum, written in one form at some rank, with or without the table from
which a budget chooses. Held against the bounds: ‖K − K̂‖_F of the stored tensors, multiplied out here in float64, and the norm
of the difference as an operator (the largest singular value; for convolutions power iteration through torch's own layers).
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import save
from netxform.factorization.factorized_layer import Chain, Made, Place, TrainMatrix
from netxform.factorization.geometry import geometry
from netxform.language.claims import LayerBound
from netxform.linalg.svd import LARGE

SPECTRA = ("1/k", "1/k2", "flat", "steps", "clusters", "low rank", "noise", "steep")
LINEAR, CONV = ("svd", "tt"), ("svd", "svd_in", "spatial", "tucker2", "tt")
# what a bound may be below the truth by: rounding of this file's own sums
ALLOWED = 1e-9
STEPS = 40


@dataclass(frozen=True)
class Case:
    """One factorization."""

    name: str
    layer: nn.Module
    form: str
    ranks: tuple[int, ...]
    size: tuple[int, ...]
    table: str
    seed: int

    def made(self) -> tuple[Made, Any]:
        """The factors, and the way that made them."""
        g = geometry(self.layer)
        assert not isinstance(g, str)
        place = Place("layer", self.size)
        way: Any = TrainMatrix.plain(g, place, 3) if self.form == "tt" and not g.kernel else Chain(g, self.form, place)
        if self.table != "none":
            way.table(self.layer, precise=self.table == "precise")
        return way.make(self.layer, way.clip(self.ranks), seed=self.seed), way


def spectrum(kind: str, n: int, rng: random.Random) -> Tensor:
    i = torch.arange(1, n + 1, dtype=torch.float64)
    match kind:
        case "1/k":
            return 1 / i
        case "1/k2":
            return 1 / i**2
        case "flat":
            return 1 + 0.01 * torch.rand(n, dtype=torch.float64)
        case "steps":
            return 10.0 ** -torch.floor(4 * (i - 1) / n)
        case "clusters":
            return torch.where(i <= max(1, n // 3), 1.0, 0.1) * (1 + 1e-4 * torch.rand(n, dtype=torch.float64))
        case "low rank":
            return (i <= max(1, rng.randint(1, max(1, n // 2)))).double()
        case "steep":
            return 2.0 ** (-1.5 * (i - 1))
        case _:
            return i.new_full((n,), math.nan)


def weight(kind: str, rows: int, columns: int, rng: random.Random) -> Tensor:
    if kind == "noise":
        return torch.randn(rows, columns, dtype=torch.float64)
    n = min(rows, columns)
    U, V = (torch.linalg.qr(torch.randn(m, n, dtype=torch.float64))[0] for m in (rows, columns))
    return (U * spectrum(kind, n, rng)) @ V.T * 10 ** rng.uniform(-3, 3)


def case(seed: int, *, large: bool = True) -> Case:
    """The case of a seed; with `large`, one in twenty is a Linear beyond the side from which Krylov spaces are used."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kind, dtype = rng.choice(SPECTRA), rng.choice([torch.float32, torch.float32, torch.float64])
    table = rng.choice(["none", "precise", "coarse"])
    if rng.random() < 0.5:
        big = large and rng.random() < 0.1
        sides = [rng.randint(LARGE, LARGE + 200) if big else rng.choice([8, 24, 60, 96]) for _ in range(2)]
        layer: nn.Module = nn.Linear(sides[0], sides[1], dtype=dtype)
        form, size = rng.choice(LINEAR), (sides[0],)
        W = weight(kind, sides[1], sides[0], rng)
    else:
        groups = rng.choice([1, 1, 1, 2])
        o, i = (groups * rng.choice([3, 8, 12]) for _ in range(2))
        transposed = rng.random() < 0.2
        k = (rng.choice([2, 3]), rng.choice([1, 3]))
        mode = "zeros" if transposed else rng.choice(["zeros", "zeros", "reflect", "circular", "replicate"])
        settings: dict[str, Any] = {"padding": (rng.randint(0, 1),) * 2, "stride": rng.choice([1, 2]), "groups": groups}
        settings |= {"dilation": rng.choice([1, 1, 2]), "padding_mode": mode, "dtype": dtype}
        layer = (nn.ConvTranspose2d if transposed else nn.Conv2d)(i, o, k, **settings)
        form, size = rng.choice([f for f in CONV if f != "spatial" or k[1] > 1]), (i, 7, 8)
        shape = layer.weight.shape
        W = weight(kind, shape[0], math.prod(shape[1:]), rng).reshape(shape)
    with torch.no_grad():
        layer.weight.copy_(W)
    g: Any = geometry(layer)
    way: Any = TrainMatrix.plain(g, Place("", size), 3) if form == "tt" and not g.kernel else Chain(g, form, Place("", size))
    ranks = tuple(max(1, int(f * rng.choice([0.05, 0.25, 0.5, 0.9, 1.0]))) for f in way.full())
    name = f"{seed}: {type(layer).__name__} {tuple(layer.weight.shape)} {kind} {form} {ranks} {dtype} {table}"
    return Case(name, layer, form, ranks, size, table, seed)


def kernel_of(one: Case, tensors: dict[str, Tensor]) -> Tensor:
    """The stored chain multiplied out: as (outputs, inputs of a group, ...) like a Conv's weight, or a matrix."""
    t = {name: value.double() for name, value in tensors.items() if not name.endswith("bias")}
    if one.form == "tt" and isinstance(one.layer, nn.Linear):
        whole = torch.ones(1, 1, 1, dtype=torch.float64)  # outputs, inputs, rank
        for n in range(len(t)):
            whole = torch.einsum("xyr,roiq->xoyiq", whole, t[f"cores.{n}"])
            whole = whole.reshape(whole.shape[0] * whole.shape[1], -1, whole.shape[-1])
        return whole[..., 0]
    links = [t[f"{n}.weight"] for n in range(len(t))]
    if isinstance(one.layer, nn.Linear):
        return links[1] @ links[0]
    layer: Any = one.layer
    G = layer.groups
    # a step of width 1 is an ordinary convolution also in the chain of a transposed one
    turned = [layer.transposed and link.shape[2:] != (1, 1) for link in links]
    if layer.transposed and one.form in ("tucker2", "svd", "svd_in", "spatial", "tt"):
        turned = [_transposed(one.form, n, len(links)) for n in range(len(links))]
    parts = [_split(link, G, side) for link, side in zip(links, turned, strict=True)]
    whole = parts[0]
    for part in parts[1:]:
        a, b = part.shape, whole.shape
        whole = torch.einsum("goqhw,gqixy->goihxwy", part, whole).reshape(G, a[1], b[2], a[3] * b[3], a[4] * b[4])
    return whole


def _transposed(form: str, n: int, links: int) -> bool:
    return {"svd": n == 0, "svd_in": n == 1, "spatial": True}.get(form, 0 < n < links - 1)


def _split(weight: Tensor, groups: int, transposed: bool) -> Tensor:
    """(groups, outputs, inputs, height, width)."""
    split = weight.reshape(groups, -1, *weight.shape[1:])
    return split.transpose(1, 2) if transposed else split


def truth(one: Case, tensors: dict[str, Tensor], way: Any) -> tuple[float, float]:
    """‖K − K̂‖_F, and the largest ‖(layer − chain)(x)‖ / ‖x‖ that is found."""
    layer: Any = one.layer
    rebuilt = kernel_of(one, tensors)
    if isinstance(layer, nn.Linear):
        E = (layer.weight.detach().double() - rebuilt).numpy()
        return float(np.linalg.norm(E)), float(np.linalg.norm(E, 2))
    E = _split(layer.weight.detach().double(), layer.groups, layer.transposed) - rebuilt
    return float(E.norm()), _operator(one, tensors, way)


def _operator(one: Case, tensors: dict[str, Tensor], way: Any) -> float:
    from netxform.factorization.rank_selection import assembled

    before = _linear(one.layer)
    after = _linear(assembled(way.layers(way.clip(one.ranks)), tensors, one.layer))
    x = torch.randn(1, *one.size, dtype=torch.float64, generator=torch.Generator().manual_seed(one.seed))
    best = 0.0
    for _ in range(STEPS):
        x = (x / x.norm()).requires_grad_()
        gap = before(x) - after(x)
        best = max(best, float(gap.detach().norm()))
        (x,) = torch.autograd.grad(0.5 * gap.square().sum(), x)
        if float(x.norm()) == 0.0:
            break
    return best


def _linear(layer: nn.Module) -> nn.Module:
    import copy

    made = copy.deepcopy(layer).double()
    for part in made.modules():
        if isinstance(getattr(part, "bias", None), Tensor):
            part.register_parameter("bias", None)
    return made.requires_grad_(False)


def below(one: Case) -> list[str]:
    """What the case states that is not true."""
    made, way = one.made()
    kernel, gain = truth(one, made.tensors, way)
    (bound,) = made.bounds
    assert isinstance(bound, LayerBound)
    own = 1e-13 * made.norm  # of the sums here
    out: list[str] = []
    for what, stated, real in (("kernel", bound.kernel, kernel), ("gain", bound.gain, gain)):
        if not stated * (1 + ALLOWED) + own >= real:
            out.append(f"{one.name}: {what} {stated:.6g} < {real:.6g} ({bound.how})")
    return out


def main() -> None:
    """Print the cases that fail, and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start, wrong, forms = time.time(), list[str](), Counter[str]()
    for seed in range(given.seed, given.seed + given.cases):
        one = case(seed)
        forms[f"{type(one.layer).__name__} {one.form}"] += 1
        found = below(one)
        wrong += found
        for line in found:
            print(line, flush=True)
    print(f"{given.cases} factorizations, {len(wrong)} stated bounds below the truth, {time.time() - start:.0f} s")
    save("bounds", {"cases": given.cases, "seed": given.seed, "below": wrong, "forms": dict(sorted(forms.items()))})


if __name__ == "__main__":
    main()
