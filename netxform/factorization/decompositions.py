r"""The forms in which a layer can be written as a chain of smaller ones.

Geometry, ranks ─links→ chain        Geometry, kernel, ranks ─decompose→ the kernels of the chain, and the error

| form | chain | matricisation | paper |
|---|---|---|---|
| svd | k×k to R, then 1×1 | O × I·k | Zhang et al. 2015; Denil et al. 2013 |
| svd_in | 1×1 to R, then k×k | O·k × I | Denton et al. 2014 |
| spatial | k×1 to R, then 1×k | O·w × I·h | Jaderberg et al. 2014 |
| tucker2 | 1×1, k×k, 1×1 | both | Kim et al. 2016 |
| cp | 1×1, depthwise k×k, 1×1 | none | Lebedev et al. 2015 |
| tt | 1×1, k×1, 1×k, 1×1; or a TT matrix | I \| k \| … \| O | Oseledets 2011; Novikov et al. 2015 |

Padding stays right in every form: a link without bias maps zero to zero, and reflecting, replicating and wrapping act on each
channel and each axis alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from netxform.factorization.geometry import Geometry, layer, macs, moves, part, weight
from netxform.graph.layer_spec import Invocation
from netxform.linalg.svd import LowRank, truncate
from netxform.linalg.tensor import cp, hosvd_bounds, tt_svd, tucker2

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Factors:
    """The kernels of a chain, one a link, as (groups, outputs, inputs, *kernel); and ‖K − K̂‖_F and ‖K‖_F in float64.

    `bound` is what the spectrum says of the error beforehand (infinite where nothing does). `gain` bounds the largest singular
    value of the error of the matricisation, where the decomposition tells.
    """

    kernels: tuple[Tensor, ...]
    error: float
    norm: float
    bound: float
    method: str
    gain: float | None = None


class Decomposition(Protocol):
    """One way to write a layer as a chain."""

    name: str

    def obstacle(self, g: Geometry) -> str | None:
        """Why the form does not fit the layer, or None."""
        ...

    def full(self, g: Geometry) -> Ranks:
        """The ranks at which the chain is the layer (for CP: those beyond which it is not looked for)."""
        ...

    def links(self, g: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """The chain."""
        ...

    def decompose(self, g: Geometry, K_GOIk: Tensor, ranks: Ranks, *, seed: int, exact: bool) -> Factors:
        """The kernels of the chain."""
        ...


def _pool(errors: Sequence[float]) -> float:
    return math.sqrt(sum(e * e for e in errors))


def _thin(g: Geometry, x: Tensor) -> Tensor:
    """A matrix for every group as the kernel of a 1×1 link."""
    return x.reshape(*x.shape, *(1,) * g.dims)


class Matrix:
    """svd, svd_in, spatial: a truncated singular value decomposition of one matricisation."""

    def __init__(self, name: str) -> None:
        self.name = name

    def obstacle(self, g: Geometry) -> str | None:
        """Spatial needs two axes to separate; the other matricisation is another one only where there is a kernel."""
        if self.name == "spatial" and (g.dims != 2 or min(g.kernel) == 1):
            return "it has no two spatial axes to separate"
        if self.name == "svd_in" and g.taps == 1:
            return "a kernel of width 1 has one matricisation: svd"
        return None

    def shape(self, g: Geometry) -> tuple[int, int]:
        """Rows and columns of the matrix of one group."""
        match self.name:
            case "svd":
                return g.rows, g.columns * g.taps
            case "svd_in":
                return g.rows * g.taps, g.columns
            case _:
                return g.rows * g.kernel[1], g.columns * g.kernel[0]

    def full(self, g: Geometry) -> Ranks:
        """The shorter side."""
        return (min(self.shape(g)),)

    def links(self, g: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """Two links."""
        middle = g.groups * ranks[0]
        if g.kind == "Embedding":
            first = Geometry("Embedding", ranks[0], g.inputs, padding_idx=g.padding_idx)
            return first, Geometry("Linear", g.outputs, ranks[0])
        every = tuple(range(g.dims))
        first, second = {"svd": (every, ()), "svd_in": ((), every), "spatial": ((0,), (1,))}[self.name]
        return part(g, g.inputs, middle, first), part(g, middle, g.outputs, second, bias=g.bias)

    def matrix(self, g: Geometry, K_OIk: Tensor) -> Tensor:
        """The matricisation of one group."""
        rows, columns = self.shape(g)
        match self.name:
            case "svd":
                return K_OIk.reshape(rows, columns)
            case "svd_in":
                return K_OIk.movedim(1, -1).reshape(rows, columns)
            case _:
                return K_OIk.permute(0, 3, 1, 2).reshape(rows, columns)

    def decompose(self, g: Geometry, K_GOIk: Tensor, ranks: Ranks, *, seed: int, exact: bool) -> Factors:
        """Eckart–Young–Mirsky, for each group."""
        return self.joined(g, [truncate(self.matrix(g, K), ranks[0], exact=exact, seed=seed) for K in K_GOIk])

    def joined(self, g: Geometry, found: Sequence[LowRank]) -> Factors:
        """The truncations of all groups as kernels."""
        U_GMR, V_GRN = torch.stack([f.U_OR for f in found]), torch.stack([f.V_RI for f in found])
        gains = [f.gain for f in found]
        made = self.assemble(g, U_GMR, V_GRN, [f.error for f in found], [f.norm for f in found], found[0].method)
        return replace(made, gain=None if None in gains else max(x for x in gains if x is not None))

    def assemble(
        self, g: Geometry, U_GMR: Tensor, V_GRN: Tensor, errors: list[float], norms: list[float], method: str
    ) -> Factors:
        """The kernels of the links from the two factors of each group."""
        G, _, R = U_GMR.shape
        O, I, k = g.rows, g.columns, g.kernel  # noqa: E741
        match self.name:
            case "svd":
                kernels = V_GRN.reshape(G, R, I, *k), _thin(g, U_GMR)
            case "svd_in":
                kernels = _thin(g, V_GRN), U_GMR.reshape(G, O, *k, R).movedim(-1, 2)
            case _:
                second = U_GMR.reshape(G, O, k[1], R).permute(0, 1, 3, 2).unsqueeze(3)
                kernels = V_GRN.reshape(G, R, I, k[0], 1), second
        error = _pool(errors)
        return Factors(kernels, error, _pool(norms), error, method)


class Tucker:
    """tucker2: a basis for the inputs, a basis for the outputs, and a small kernel between them."""

    name = "tucker2"

    def obstacle(self, g: Geometry) -> str | None:
        """It needs a kernel."""
        return "it has no kernel: use svd" if g.taps == 1 else None

    def full(self, g: Geometry) -> Ranks:
        """Output and input rank; each is at most what the other and the kernel span."""
        return min(g.rows, g.columns * g.taps), min(g.columns, g.rows * g.taps)

    def links(self, g: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """1×1, k×k, 1×1."""
        out, into = g.groups * ranks[0], g.groups * ranks[1]
        return part(g, g.inputs, into, ()), part(g, into, out, tuple(range(g.dims))), part(g, out, g.outputs, (), bias=g.bias)

    def decompose(self, g: Geometry, K_GOIk: Tensor, ranks: Ranks, *, seed: int, exact: bool) -> Factors:
        """HOSVD and a sweep of HOOI, for each group."""
        found = [tucker2(K, (ranks[0], ranks[1])) for K in K_GOIk]
        kernels = (
            _thin(g, torch.stack([f.V_RI for f in found])),
            torch.stack([f.core_QRHW for f in found]),
            _thin(g, torch.stack([f.U_OQ for f in found])),
        )
        above: list[float] = []
        for K in K_GOIk:
            out, into = hosvd_bounds(K)
            above.append(math.hypot(float(out[min(ranks[0], len(out) - 1)]), float(into[min(ranks[1], len(into) - 1)])))
        return Factors(kernels, _pool([f.error for f in found]), _pool([f.norm for f in found]), _pool(above), "hosvd")


class Canonical:
    """cp: a sum of R separable kernels; the spatial axes are one mode."""

    name = "cp"

    def obstacle(self, g: Geometry) -> str | None:
        """It needs a kernel."""
        return "it has no kernel: use svd" if g.taps == 1 else None

    def full(self, g: Geometry) -> Ranks:
        """As many components as the second largest side times the smallest, which always suffice (Kruskal 1989)."""
        sides = sorted((g.rows, g.columns, g.taps))
        return (sides[0] * sides[1],)

    def links(self, g: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """1×1, depthwise, 1×1."""
        middle = g.groups * ranks[0]
        depthwise = part(g, middle, middle, tuple(range(g.dims)), groups=middle)
        return part(g, g.inputs, middle, ()), depthwise, part(g, middle, g.outputs, (), bias=g.bias)

    def decompose(self, g: Geometry, K_GOIk: Tensor, ranks: Ranks, *, seed: int, exact: bool) -> Factors:
        """Alternating least squares, for each group. No bound beforehand: a best approximation need not exist."""
        found = [cp(K.reshape(g.rows, g.columns, g.taps), ranks[0], seed=seed) for K in K_GOIk]
        kernels = (
            _thin(g, torch.stack([f.factors[1].T for f in found])),
            torch.cat([f.factors[2].T for f in found]).reshape(-1, 1, 1, *g.kernel),
            _thin(g, torch.stack([f.factors[0] for f in found])),
        )
        error, norm = _pool([f.error for f in found]), _pool([f.norm for f in found])
        worst = max(f.degeneracy for f in found)
        return Factors(kernels, error, norm, math.inf, f"als, degeneracy {worst:.3g}")


class Train:
    """tt of a convolution: the train I | k₁ | … | O, whose cores are plain convolutions along one axis each."""

    name = "tt"

    def obstacle(self, g: Geometry) -> str | None:
        """It needs a kernel; a table of rows has none."""
        if g.kind == "Embedding":
            return "a table is looked up by row: use svd"
        return "it has no kernel: use svd, or a TT matrix on a Linear" if g.kind == "Conv" and g.taps == 1 else None

    def full(self, g: Geometry) -> Ranks:
        """The ranks of the unfoldings."""
        sides = (g.columns, *g.kernel, g.rows)
        return tuple(min(math.prod(sides[:i]), math.prod(sides[i:])) for i in range(1, len(sides)))

    def links(self, g: Geometry, ranks: Ranks) -> tuple[Geometry, ...]:
        """1×1, one link an axis, 1×1."""
        wide = [g.groups * r for r in ranks]
        middle = [part(g, wide[i], wide[i + 1], (i,)) for i in range(g.dims)]
        return part(g, g.inputs, wide[0], ()), *middle, part(g, wide[-1], g.outputs, (), bias=g.bias)

    def decompose(self, g: Geometry, K_GOIk: Tensor, ranks: Ranks, *, seed: int, exact: bool) -> Factors:
        """TT-SVD, for each group."""
        found = [tt_svd(K.movedim(1, 0).movedim(1, -1), list(ranks)) for K in K_GOIk]
        cores = [torch.stack([f.cores[i] for f in found]) for i in range(g.dims + 2)]
        links = [_thin(g, cores[0][:, 0].transpose(1, 2))]
        for axis in range(g.dims):
            shape = [1] * g.dims
            shape[axis] = g.kernel[axis]
            core = cores[axis + 1].permute(0, 3, 1, 2)
            links.append(core.reshape(*core.shape[:3], *shape))
        links.append(_thin(g, cores[-1][..., 0].transpose(1, 2)))
        error, norm = _pool([f.error for f in found]), _pool([f.norm for f in found])
        return Factors(tuple(links), error, norm, error, "tt-svd")


DECOMPOSITIONS: dict[str, Decomposition] = {
    "svd": Matrix("svd"),
    "svd_in": Matrix("svd_in"),
    "spatial": Matrix("spatial"),
    "tucker2": Tucker(),
    "cp": Canonical(),
    "tt": Train(),
}


def clip(form: Decomposition, g: Geometry, ranks: Sequence[int]) -> Ranks:
    """The ranks, each at least 1 and at most the full one; one number is meant for all. Raises ValueError for a wrong count."""
    full = form.full(g)
    given = tuple(ranks) if len(ranks) != 1 else tuple(ranks) * len(full)
    if len(given) != len(full):
        raise ValueError(f"{form.name} takes {len(full)} ranks here, not {len(given)}")
    wanted = [max(1, min(r, f)) for r, f in zip(given, full, strict=True)]
    # more than the other side carries gives zeros only
    if form.name == "tucker2":
        out, into = wanted
        wanted = [min(out, into * g.taps), min(into, out * g.taps)]
    # the rank behind a core is at most the rank before it times the core's own width, and the other way round
    if form.name == "tt" and g.kind == "Conv":
        sides = (g.columns, *g.kernel, g.rows)
        for i in range(len(wanted)):
            wanted[i] = min(wanted[i], (wanted[i - 1] if i else 1) * sides[i])
        for i in reversed(range(len(wanted))):
            wanted[i] = min(wanted[i], (wanted[i + 1] if i + 1 < len(wanted) else 1) * sides[i + 1])
    return tuple(wanted)


def cost(links: Sequence[Geometry], size: tuple[int, ...], positions: int = 1) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a chain, for an input of spatial `size`."""
    params = sum(link.params for link in links)
    total = 0
    for link in links:
        total += macs(link, size, positions)
        size = moves(link, size)
    return params, total


def calls(links: Sequence[Geometry]) -> tuple[Invocation, ...]:
    """The layers of torch.nn that make the chain."""
    return tuple(layer(link) for link in links)


def tensors(links: Sequence[Geometry], factors: Factors, like: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """The tensors of the chain by their name in it (`0.weight`, `1.bias`), in the precision of `like`."""
    out: dict[str, Tensor] = {}
    for i, (link, K_GOIk) in enumerate(zip(links, factors.kernels, strict=True)):
        out[f"{i}.weight"] = weight(link, K_GOIk).to(like.dtype)
    if bias is not None:
        out[f"{len(links) - 1}.bias"] = bias.detach().clone()
    return out


def compose(g: Geometry, links: Sequence[Geometry], kernels: Sequence[Tensor]) -> Tensor:
    """The kernel (groups, outputs, inputs, *kernel) that a chain amounts to.

    Links have disjoint axes, so that kernels multiply: one of two widths is 1 along every axis.
    """
    whole = kernels[0]
    for link, K_GOMk in zip(links[1:], kernels[1:], strict=True):
        if link.groups != g.groups:  # depthwise: a kernel for every channel
            whole = whole * K_GOMk.reshape(g.groups, -1, 1, *link.kernel)
            continue
        letters = "abcdefgh"
        first, second = letters[: g.dims], letters[g.dims : 2 * g.dims]
        both = "".join(a + b for a, b in zip(first, second, strict=True))
        whole = torch.einsum(f"zxy{first},zyw{second}->zxw{both}", K_GOMk, whole)
        sizes = [whole.shape[3 + 2 * i] * whole.shape[4 + 2 * i] for i in range(g.dims)]
        whole = whole.reshape(*whole.shape[:3], *sizes)
    return whole
