"""The ways to factorize one layer: a chain of plain layers, a tensor train matrix, or factor pairs inside a layer.

layer, form ─→ FactorizedLayer        FactorizedLayer, ranks ─make→ tensors, errors, bounds
"""

# Long: three kinds of factorized layer with the same methods, to be read beside each other.
from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn

from netxform.factorization.decompositions import DECOMPOSITIONS, Factors, Matrix, Ranks, calls, clip, compose, cost, tensors
from netxform.factorization.geometry import Geometry, kernel
from netxform.factorization.output_covariance import Seen
from netxform.factorization.rank_curves import Table, squared_tails
from netxform.graph.layer_spec import Invocation, Layer
from netxform.language.claims import LayerBound
from netxform.linalg.gram import descending, distance, gram, one_thread, signed
from netxform.linalg.krylov import difference_norm
from netxform.linalg.operator_norms import Pair, conv_norm, im2col_bound, spectral_norm
from netxform.linalg.svd import Spectral, rank_by_vbmf, spectral, spectrum, truncate
from netxform.linalg.tensor import cp, mode_products, modes_of, tt_matrix

# EVBMF finds a rank near 0 on real networks: at least this share of the full rank is kept
VBMF_FLOOR = 1 / 16
# sweeps of alternating least squares while ranks of CP are compared
_TRIAL = 12
# multiply-accumulates that an exact operator norm may cost, and the side of a matrix; above, a looser bound is stated
_EFFORT = 3e9
_SIDE = 1024


@dataclass(frozen=True)
class Made:
    """Factors of one layer: new tensors by their name below the layer's path, the error, and the bounds that are stated."""

    tensors: dict[str, Tensor]
    error: float
    norm: float
    bounds: tuple[LayerBound, ...]
    method: str


@dataclass(frozen=True)
class Place:
    """Where a layer is: its path, the shape of one sample at its input (channels first), and rows a sample (for a Linear)."""

    path: str
    size: tuple[int, ...]
    positions: int = 1


class Chain:
    """A chain of plain layers in one of the forms."""

    def __init__(self, g: Geometry, form: str, place: Place) -> None:
        self.g, self.form, self.place = g, DECOMPOSITIONS[form], place
        self.name, self.dense = form, g.params
        self.whole: list[Spectral] = []

    def full(self) -> Ranks:
        """The largest ranks."""
        return self.form.full(self.g)

    def clip(self, ranks: Sequence[int]) -> Ranks:
        """Ranks that fit together. Raises ValueError for a wrong count."""
        return clip(self.form, self.g, ranks)

    def params(self, ranks: Ranks) -> int:
        """Parameters of the chain."""
        return self.cost(ranks)[0]

    def cost(self, ranks: Ranks) -> tuple[int, int]:
        """Parameters, and multiply-accumulates of one sample."""
        return cost(self.form.links(self.g, ranks), self.place.size[1:] if self.g.kernel else (), self.place.positions)

    def layers(self, ranks: Ranks, bias: bool | None = None) -> tuple[Layer, ...]:
        """The layers of the chain, named 0, 1, … as in a Sequential. `bias` adds one where the layer had none."""
        links = _biased(self.form.links(self.g, ranks), bias)
        return tuple(Layer(str(i), call) for i, call in enumerate(calls(links)))

    def table(self, module: nn.Module, seen: Seen | None = None, precise: bool = True) -> Table:
        """The relative error by ranks. With what was seen of the outputs, that of svd is about the output on data.

        What is decomposed for it is kept for `make`.
        """
        g, K_GOIk = self.g, kernel(self.g, cast(Tensor, module.weight))
        full = self.full()
        if isinstance(self.form, Matrix):
            if seen is not None and self._output_basis():
                values = [torch.linalg.eigvalsh(c).clamp_min(0).flip(0).numpy() for c in _blocks(g, seen.covariance_OO)]
                return Table(self, (_relative(squared_tails(values, full[0])),), on_data=True)
            rows, columns = self.form.shape(g)
            most = min(full[0], rows * columns // (rows + columns) + 1)
            self.whole = [spectral(self.form.matrix(g, K), precise=precise, most=most) for K in K_GOIk]
            return Table(self, (_relative(squared_tails([w.squares.numpy() for w in self.whole], full[0])),))
        if self.name == "tucker2":
            return Table(self, kept=_tucker_energy(g, K_GOIk)[: full[0] + 1, : full[1] + 1])
        if self.name == "tt":
            sides = (g.columns, *g.kernel)
            unfolded = [
                [K.movedim(1, 0).movedim(1, -1).reshape(math.prod(sides[: i + 1]), -1) for K in K_GOIk]
                for i in range(len(full))
            ]
            tails = [
                squared_tails([spectrum(m).square().numpy() for m in several], f)
                for several, f in zip(unfolded, full, strict=True)
            ]
            return Table(self, tuple(_relative(t) for t in tails))

        def attempt(rank: int) -> float:
            found = [cp(K.reshape(g.rows, g.columns, g.taps), rank, iterations=_TRIAL) for K in K_GOIk]
            return math.sqrt(sum(f.error**2 for f in found) / (sum(f.norm**2 for f in found) or 1.0))

        return Table(self, attempt=attempt)

    def _output_basis(self) -> bool:
        return self.name == "svd" and self.g.kind != "Embedding"

    def by_vbmf(self, module: nn.Module) -> Ranks:
        """Ranks by analytic variational Bayes of each matricisation (Nakajima et al. 2013; Kim et al. 2016), with a floor.

        Raises ValueError for forms that are no matricisations.
        """
        g, K = self.g, kernel(self.g, cast(Tensor, module.weight))[0]
        if isinstance(self.form, Matrix):
            found: tuple[int, ...] = (rank_by_vbmf(self.form.matrix(g, K)),)
        elif self.name == "tucker2":
            found = (rank_by_vbmf(K.reshape(g.rows, -1)), rank_by_vbmf(K.transpose(0, 1).reshape(g.columns, -1)))
        else:
            raise ValueError(f"vbmf gives no ranks for {self.name}: use svd, svd_in, spatial or tucker2")
        return self.clip([max(r, math.ceil(VBMF_FLOOR * f)) for r, f in zip(found, self.full(), strict=True)])

    def make(self, module: nn.Module, ranks: Ranks, *, seed: int, exact: bool = False, seen: Seen | None = None) -> Made:
        """The tensors of the chain. With what was seen of the outputs, the basis of the outputs is the best one on data."""
        g, held = self.g, cast(Tensor, module.weight)
        K_GOIk = kernel(g, held)
        bias = cast("Tensor | None", getattr(module, "bias", None))
        links = self.form.links(g, ranks)
        if seen is not None and self._output_basis():
            factors = _on_outputs(g, cast(Matrix, self.form), K_GOIk, ranks[0], seen)
        elif self.whole and ranks[0] <= self.whole[0].X.shape[1]:
            form = cast(Matrix, self.form)
            factors = form.joined(g, [w.cut(form.matrix(g, K), ranks[0]) for w, K in zip(self.whole, K_GOIk, strict=True)])
        else:
            factors = self.form.decompose(g, K_GOIk, ranks, seed=seed, exact=exact)
        made = tensors(links, factors, held, bias)
        stored = _stored_error(g, links, factors, K_GOIk, made) if g.taps > 1 else factors.error
        rounding = _rounding(held.dtype, factors.norm, max(ranks), len(links), max(g.rows, g.columns) * g.taps)
        gain, how = self._gain(g, K_GOIk, links, made, factors)
        # what a spectrum says beforehand is as good as its rounding
        above = max(factors.bound, stored) if math.isfinite(factors.bound) else stored
        bound = LayerBound(self.place.path, above + rounding, gain + rounding, how, self.place.size)
        return Made(made, stored, factors.norm, (bound,), factors.method)

    def _gain(
        self, g: Geometry, K: Tensor, links: tuple[Geometry, ...], made: dict[str, Tensor], factors: Factors
    ) -> tuple[float, str]:
        """A bound on ‖(layer − chain)(x)‖ / ‖x‖, and how it was had."""
        if g.taps == 1 and g.kind != "Conv":
            if factors.gain is not None:
                return factors.gain, "first singular value left out"
            if min(g.outputs, g.inputs) > _SIDE:
                if not self.whole:
                    return factors.error, "Frobenius norm of the error"
                first, second = (k[0] for k in _kernels(links, made))
                return min(factors.error, difference_norm(K[0], second, first)), "largest singular value of the error"
            rebuilt = compose(g, links, _kernels(links, made))[0]
            return spectral_norm(K[0].double() - rebuilt.double()), "largest singular value of the error"
        E = K.double() - compose(g, links, [k.double() for k in _kernels(links, made)])
        size = self.place.size[1:]
        if g.transposed or g.padding_mode != "zeros" or g.dims > 2:
            return taps_bound(E, g, size), "sum over the taps of the error's singular values"
        flat, padding, steps = _plane(g, E.flatten(0, 1))
        frequencies = math.prod(n + k for n, k in zip(size, g.kernel, strict=True)) / 2
        if frequencies * g.groups * g.rows * g.columns * min(g.rows, g.columns) <= _EFFORT:
            whole = (1,) * (2 - g.dims) + size
            return conv_norm(flat, size=(whole[0], whole[1]), padding=padding, **steps), "Fourier symbol of the error"
        if factors.gain is not None and self.name == "svd":
            unit = im2col_bound(torch.ones(g.groups, 1, *flat.shape[2:]) / math.sqrt(g.taps), **steps)
            return unit * factors.gain, "first singular value left out, im2col"
        return im2col_bound(flat, **steps), "im2col matrix of the error"


def _kernels(links: Sequence[Geometry], made: dict[str, Tensor]) -> list[Tensor]:
    return [kernel(link, made[f"{i}.weight"]) for i, link in enumerate(links)]


def _stored_error(g: Geometry, links: Sequence[Geometry], factors: Factors, K_GOIk: Tensor, made: dict[str, Tensor]) -> float:
    """‖K − K̂‖_F of what is stored, in float64."""
    return float((K_GOIk.double() - compose(g, links, [k.double() for k in _kernels(links, made)])).norm())


def _rounding(dtype: torch.dtype, norm: float, rank: int, links: int, side: int) -> float:
    """What rounding may add to ‖K − K̂‖_F: factors stored in `dtype` are each off by half a unit in the last place, and
    ‖U‖_F·‖V‖_F ≤ √rank·‖K‖; bases computed in float64 are orthogonal to a small multiple of the side times its precision.
    """
    return norm * (links * torch.finfo(dtype).eps * math.sqrt(rank) + 4 * side * torch.finfo(torch.float64).eps)


def taps_bound(E_GOIk: Tensor, g: Geometry, size: tuple[int, ...]) -> float:
    """For any padding, and for transposed convolutions: the sum over the taps of ‖E_tap‖₂ · √(how often it reads one pixel)."""
    if not g.kernel:
        return max(spectral_norm(e) for e in E_GOIk)
    often = [_readings(g, axis, n) for axis, n in enumerate(size)]
    taps = list(itertools.product(*(range(k) for k in g.kernel)))
    times = [math.sqrt(math.prod(often[a][t] for a, t in enumerate(tap))) for tap in taps]
    return max(sum(w * float(torch.linalg.matrix_norm(e.flatten(2)[..., t], 2)) for t, w in enumerate(times)) for e in E_GOIk)


def _readings(g: Geometry, axis: int, size: int) -> list[int]:
    """How often each tap along an axis reads the pixel that it reads most: once, unless the padding copies."""
    k, d, s = g.kernel[axis], g.dilation[axis], g.stride[axis]
    if g.transposed or g.padding_mode == "zeros":
        return [1] * k
    around = (d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) if isinstance(g.padding, str) else (g.padding[axis],) * 2
    if g.padding == "valid":
        around = (0, 0)
    numbers = torch.arange(size, dtype=torch.float64)[None, None]
    row = nn.functional.pad(numbers, around, mode=g.padding_mode)[0, 0].long()
    outputs = (len(row) - d * (k - 1) - 1) // s + 1
    return [int(row[t * d :: s][:outputs].bincount().max()) for t in range(k)]


class _Steps(TypedDict):
    """How a convolution walks, in both directions."""

    stride: Pair
    dilation: Pair
    groups: int


def _plane(g: Geometry, E: Tensor) -> tuple[Tensor, Pair, _Steps]:
    """The error kernel (outputs, inputs of a group, height, width), its padding and steps; a 1-D convolution has height 1."""
    ones = (1,) * (2 - g.dims)
    # with 'same' the stride is 1, and the bound holds for every padding
    padding = (0, 0) if isinstance(g.padding, str) else ((0,) * (2 - g.dims) + g.padding)
    shape = (*E.shape[:2], *ones, *E.shape[2:])
    steps = _Steps(stride=cast(Pair, ones + g.stride), dilation=cast(Pair, ones + g.dilation), groups=g.groups)
    return E.reshape(shape), cast(Pair, padding), steps


def _biased(links: tuple[Geometry, ...], bias: bool | None) -> tuple[Geometry, ...]:
    return links if not bias else (*links[:-1], replace(links[-1], bias=True))


def _relative(squares: Any) -> Any:
    return squares / (squares[0] or 1.0)


def _blocks(g: Geometry, covariance_OO: Tensor) -> list[Tensor]:
    """The covariance of the outputs of each group."""
    return [covariance_OO[i * g.rows : (i + 1) * g.rows, i * g.rows : (i + 1) * g.rows] for i in range(g.groups)]


def _on_outputs(g: Geometry, form: Matrix, K_GOIk: Tensor, rank: int, seen: Seen) -> Factors:
    """Ŵ = U Uᵀ W with the leading eigenvectors U of the outputs' covariance: the least expected squared error of the output."""
    U: list[Tensor] = []
    V: list[Tensor] = []
    errors: list[float] = []
    norms: list[float] = []
    for K, C in zip(K_GOIk, _blocks(g, seen.covariance_OO), strict=True):
        W = form.matrix(g, K).double()
        with one_thread():
            basis = signed(descending(C)[1][:, :rank])
        U.append(basis.to(K.dtype))
        V.append((basis.T @ W).to(K.dtype))
        errors.append(distance(W, U[-1], V[-1]))
        norms.append(float(W.norm()))
    return form.assemble(g, torch.stack(U), torch.stack(V), errors, norms, "output covariance")


def _tucker_energy(g: Geometry, K_GOIk: Tensor) -> Any:
    """The share of the energy that the truncated HOSVD keeps, for all pairs of ranks at once."""
    energy = torch.zeros(g.rows + 1, g.columns + 1, dtype=torch.float64)
    for K in K_GOIk:
        k = K.double().reshape(g.rows, g.columns, -1)
        sides = (k.reshape(g.rows, -1), k.transpose(0, 1).reshape(g.columns, -1))
        with one_thread():
            left, right = (descending(gram(m))[1] for m in sides)
        core = mode_products(k, [left.mT, right.mT]).square().sum(-1)
        energy[1:, 1:] += core.cumsum(0).cumsum(1)
    return (energy / float(energy[-1, -1] or 1.0)).numpy()


class TrainMatrix:
    """A Linear as a tensor train matrix (Novikov et al. 2015)."""

    name = "tt"

    def __init__(self, g: Geometry, place: Place, out_modes: tuple[int, ...], in_modes: tuple[int, ...]) -> None:
        if math.prod(out_modes) != g.outputs or math.prod(in_modes) != g.inputs or len(out_modes) != len(in_modes):
            raise ValueError(f"modes {out_modes} and {in_modes} do not make {g.outputs} outputs and {g.inputs} inputs")
        self.g, self.place, self.out_modes, self.in_modes = g, place, out_modes, in_modes
        self.dense = g.params

    @classmethod
    def plain(cls, g: Geometry, place: Place, count: int = 4) -> TrainMatrix:
        """Modes as equal as the sizes allow."""
        return cls(g, place, modes_of(g.outputs, count), modes_of(g.inputs, count))

    def full(self) -> Ranks:
        """The ranks of the unfoldings."""
        sides = [o * i for o, i in zip(self.out_modes, self.in_modes, strict=True)]
        return tuple(min(math.prod(sides[:k]), math.prod(sides[k:])) for k in range(1, len(sides)))

    def clip(self, ranks: Sequence[int]) -> Ranks:
        """Ranks that fit together."""
        full = self.full()
        given = tuple(ranks) if len(ranks) != 1 else tuple(ranks) * len(full)
        if len(given) != len(full):
            raise ValueError(f"a tensor train of {len(full) + 1} cores takes {len(full)} ranks, not {len(given)}")
        sides = [o * i for o, i in zip(self.out_modes, self.in_modes, strict=True)]
        wanted = [max(1, min(r, f)) for r, f in zip(given, full, strict=True)]
        for k in range(len(wanted)):
            wanted[k] = min(wanted[k], (wanted[k - 1] if k else 1) * sides[k])
        for k in reversed(range(len(wanted))):
            wanted[k] = min(wanted[k], (wanted[k + 1] if k + 1 < len(wanted) else 1) * sides[k + 1])
        return tuple(wanted)

    def params(self, ranks: Ranks) -> int:
        """Parameters of the cores, and the bias."""
        return self.cost(ranks)[0]

    def cost(self, ranks: Ranks) -> tuple[int, int]:
        """Parameters, and multiply-accumulates of one sample, core after core."""
        sides = (1, *ranks, 1)
        params, total, outputs, inputs = 0, 0, 1, self.g.inputs
        for k, (o, i) in enumerate(zip(self.out_modes, self.in_modes, strict=True)):
            size = sides[k] * o * i * sides[k + 1]
            inputs //= i
            params += size
            total += size * outputs * inputs
            outputs *= o
        return params + (self.g.outputs if self.g.bias else 0), total * self.place.positions

    def layers(self, ranks: Ranks, bias: bool | None = None) -> tuple[Layer, ...]:
        """One layer in the place of the old one."""
        make = Invocation("TTLinear", (self.in_modes, self.out_modes, ranks), {"bias": self.g.bias or bool(bias)})
        return (Layer("", make),)

    def table(self, module: nn.Module, seen: Seen | None = None, precise: bool = True) -> Table:
        """The tails of the unfoldings."""
        T = self._tensor(cast(Tensor, module.weight))
        full = self.full()
        tails = [
            squared_tails([spectrum(T.reshape(math.prod(T.shape[:k]), -1)).square().numpy()], f) for k, f in enumerate(full, 1)
        ]
        return Table(self, tuple(_relative(t) for t in tails))

    def _tensor(self, W_OI: Tensor) -> Tensor:
        d = len(self.out_modes)
        order = [x for k in range(d) for x in (k, d + k)]
        T = W_OI.detach().reshape(*self.out_modes, *self.in_modes).permute(order)
        return T.reshape([o * i for o, i in zip(self.out_modes, self.in_modes, strict=True)])

    def by_vbmf(self, module: nn.Module) -> Ranks:
        """Refused. Raises ValueError."""
        raise ValueError("vbmf gives no ranks for tt: give `rank=`")

    def make(self, module: nn.Module, ranks: Ranks, *, seed: int, exact: bool = False, seen: Seen | None = None) -> Made:
        """TT-SVD (Oseledets 2011)."""
        W = cast(Tensor, module.weight)
        found = tt_matrix(W, self.out_modes, self.in_modes, list(ranks))
        made = {f"cores.{k}": core.to(W.dtype).contiguous() for k, core in enumerate(found.cores)}
        if self.g.bias:
            made["bias"] = cast(Tensor, module.bias).detach().clone()
        rounding = _rounding(W.dtype, found.norm, max(ranks), len(found.cores), max(W.shape))
        bound = LayerBound(
            self.place.path, found.error + rounding, found.error + rounding, "Frobenius norm of the error", self.place.size
        )
        return Made(made, found.error, found.norm, (bound,), "tt-svd")


@dataclass
class Pairs:
    """A layer with several matrices (GRU, LSTM, RNN, MultiheadAttention), each as a pair of factors inside it."""

    kind: str
    arguments: tuple[tuple[str, Any], ...]
    shapes: tuple[tuple[str, tuple[int, int]], ...]
    others: int
    place: Place
    name: str = "svd"
    dense: int = field(init=False)

    def __post_init__(self) -> None:
        """All parameters of the layer."""
        self.dense = self.others + sum(o * i for _, (o, i) in self.shapes)

    def full(self) -> Ranks:
        """The shorter side of each matrix."""
        return tuple(min(s) for _, s in self.shapes)

    def clip(self, ranks: Sequence[int]) -> Ranks:
        """One rank for each matrix. Raises ValueError for a wrong count."""
        full = self.full()
        given = tuple(ranks) if len(ranks) != 1 else tuple(ranks) * len(full)
        if len(given) != len(full):
            raise ValueError(f"{self.kind} has {len(full)} matrices, not {len(given)}")
        return tuple(max(1, min(r, f)) for r, f in zip(given, full, strict=True))

    def params(self, ranks: Ranks) -> int:
        """Factors and everything else in the layer."""
        return self.others + sum(r * (o + i) for r, (_, (o, i)) in zip(ranks, self.shapes, strict=True))

    def cost(self, ranks: Ranks) -> tuple[int, int]:
        """Parameters; multiply-accumulates are those of the whole products, which are made first."""
        products = sum(r * o * i for r, (_, (o, i)) in zip(ranks, self.shapes, strict=True))
        return self.params(ranks), products + self.place.positions * sum(o * i for _, (o, i) in self.shapes)

    def layers(self, ranks: Ranks, bias: bool | None = None) -> tuple[Layer, ...]:
        """The same layer with factors inside."""
        pairs = tuple((n, r) for (n, _), r in zip(self.shapes, ranks, strict=True))
        return (Layer("", Invocation("Factored", (self.kind, pairs, self.arguments))),)

    def table(self, module: nn.Module, seen: Seen | None = None, precise: bool = True) -> Table:
        """The matrices' tails, relative to all of their energy."""
        full = self.full()
        parts = [
            squared_tails([spectrum(module.get_parameter(n).detach()).square().numpy()], f)
            for (n, _), f in zip(self.shapes, full, strict=True)
        ]
        total = sum(float(t[0]) for t in parts) or 1.0
        return Table(self, tuple(t / total for t in parts), tuple(float(t[0]) / total for t in parts))

    def by_vbmf(self, module: nn.Module) -> Ranks:
        """Each matrix by itself, with the floor."""
        found = [rank_by_vbmf(module.get_parameter(n).detach()) for n, _ in self.shapes]
        return self.clip([max(r, math.ceil(VBMF_FLOOR * f)) for r, f in zip(found, self.full(), strict=True)])

    def make(self, module: nn.Module, ranks: Ranks, *, seed: int, exact: bool = False, seen: Seen | None = None) -> Made:
        """Each matrix truncated; all other tensors as they are."""
        made: dict[str, Tensor] = {}
        bounds: list[LayerBound] = []
        error = norm = 0.0
        for (name, _), rank in zip(self.shapes, ranks, strict=True):
            whole = module.get_parameter(name).detach()
            found = truncate(whole, rank, exact=exact, seed=seed)
            short = name.replace(".", "_")
            made[f"{short}_u"], made[f"{short}_v"] = found.U_OR, found.V_RI
            rounding = _rounding(whole.dtype, found.norm, rank, 2, max(whole.shape))
            gain = spectral_norm(whole.double() - found.U_OR.double() @ found.V_RI.double())
            name_of, how = f"{self.place.path}::{name}", "largest singular value of the error"
            bounds.append(LayerBound(name_of, found.error + rounding, gain + rounding, how, self.place.size))
            error, norm = math.hypot(error, found.error), math.hypot(norm, found.norm)
        known = {n for n, _ in self.shapes}
        made |= {f"inner.{n}": p.detach() for n, p in module.named_parameters() if n not in known}
        return Made(made, error, norm, tuple(bounds), "svd")


FactorizedLayer = Chain | TrainMatrix | Pairs


def pairs(module: nn.Module, place: Place) -> Pairs | None:
    """A layer with several matrices, as factor pairs; None for any other layer."""
    if type(module) in (nn.GRU, nn.LSTM, nn.RNN):
        assert isinstance(module, nn.RNNBase)
        given: dict[str, object] = {
            k: getattr(module, k)
            for k in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
        }
        if isinstance(module, nn.LSTM) and module.proj_size:
            given["proj_size"] = module.proj_size
        if isinstance(module, nn.RNN):
            given["nonlinearity"] = module.nonlinearity
        names = [n for n, p in module.named_parameters() if p.dim() == 2]
    elif type(module) is nn.MultiheadAttention:
        given = {
            k: getattr(module, k) for k in ("embed_dim", "num_heads", "dropout", "add_zero_attn", "kdim", "vdim", "batch_first")
        }
        given |= {"bias": getattr(module, "in_proj_bias", None) is not None, "add_bias_kv": module.bias_k is not None}
        names = [n for n, _ in module.named_parameters() if n.endswith("proj_weight") or n == "out_proj.weight"]
    else:
        return None
    shapes = tuple((n, (int(module.get_parameter(n).shape[0]), int(module.get_parameter(n).shape[1]))) for n in names)
    others = sum(p.numel() for n, p in module.named_parameters() if n not in names)
    return Pairs(type(module).__name__, tuple(given.items()), shapes, others, place)
