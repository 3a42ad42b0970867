"""widen: more channels, features, heads, the same function (Net2WiderNet)."""

# Long: the conditions of exactness, one by one.
from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from netxform.errors import Diagnostic, NetxformError, Span, fail
from netxform.graph.edits import Edit
from netxform.language.choice import HIDDEN, Choice, Values
from netxform.language.claims import Claim, SameFunction
from netxform.language.laws import Contract
from netxform.language.values import Selection
from netxform.language.verb import Scope, factor, key, operand, prep, verb

if TYPE_CHECKING:
    from netxform.axes.algebra import Atom, Dim
    from netxform.axes.index_maps import Fill, Scale
    from netxform.axes.reindex import Axis
    from netxform.graph.network import Network

Mode: TypeAlias = Literal["zero", "copy"]


@dataclass(frozen=True)
class Wider(Values):
    """The maps from new indices to old ones by axis, in words too; the factors of the consumers, and the rows that are new."""

    maps: Mapping[str, tuple[int, ...]] = field(metadata=HIDDEN)
    widths: tuple[str, ...]
    mode: Mode
    scales: tuple[Scale, ...] = field(metadata=HIDDEN)
    fills: tuple[Fill, ...] = field(metadata=HIDDEN)
    noise: float


@verb("widen")
@dataclass(frozen=True)
class Widen:
    """Widen the output of layers: more of what they produce, and the network computes the same function.

    Whatever is coupled with it is widened too: residual sums, concatenations, norms, grouped and depthwise convolutions,
    attention heads. `mode=zero` adds random rows whose consumers read zeros; `mode=copy` repeats rows and shares the
    consumers' weights among the copies, unequally (`share=equal` for the paper's halves, which stay equal for ever under
    training). Without `mode`: zero, or copy where a norm runs over the axis. Where an axis is a product (heads · width),
    `along=outer` or `along=inner` says which factor; without it, the one that can be widened exactly. `along=heads`, `within`,
    `mlp` or `residual` says it by what the axis is for, and leaves out selected layers that make no such axis.

    An attention layer is widened by heads, with `along=inner` within its heads.

    Example: model net = zoo.smallcnn(); widen conv3 x2

    Contract: exact, measured in float64 (with `noise=`, bounded by what the noise does).
    Refused: locked axes, and what has no outputs of its own (X0320); a factor below 1 (X0406); and what would not be exact
    (X0322): axes under LayerNorm or a mean at a factor that is not whole; softmax, sums and other functions across the axis;
    tensors that are both produced and summed over the axis (tied), each with the reason.
    Paper: Chen, Goodfellow, Shlens, "Net2Net: accelerating learning via knowledge transfer", ICLR 2016; unequal shares:
    Wang et al., "LEMON: lossless model expansion", 2023.
    """

    selection: Selection = operand()
    times: float | None = factor()
    to: int | None = prep("to")
    mode: Mode | None = key(None)
    share: Literal["unequal", "equal"] = key("unequal")
    along: Literal["outer", "inner", "heads", "within", "mlp", "residual"] | None = key(None)
    noise: float = key(0.0)
    seed: int | None = key(None)
    contract: ClassVar[Contract] = Contract.EXACT

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """One size, above the present one."""
        if (self.times is None) == (self.to is None):
            yield Diagnostic("X0408", "`widen` needs one size", span, "how wide?", helps=("write `x2`, or `to 512`",))
        if (self.times is not None and self.times < 1) or (self.to is not None and self.to < 1):
            yield Diagnostic("X0406", "`widen` makes wider", span, "smaller than it is", helps=("to remove, use `prune`",))
        elif self.times == 1:
            helps = ("write a factor above 1: `x2`", "or leave the statement out")
            yield Diagnostic("X0406", "`widen` makes wider: x1 changes nothing", span, "as it is", helps=helps)

    def resolve(self, network: Network, scope: Scope) -> Choice[Wider]:
        """Choose the axes, their new sizes and their maps; check every condition of exactness."""
        from netxform.axes.reindex import axes_of

        chosen: dict[Atom, int] = {}
        kind = None if self.along in ("outer", "inner") else self.along
        for path in scope.modules(self.selection) if kind is None else scope.modules_of(self.selection):
            self._choose(network, path, chosen) if kind is None else self._choose_kind(network, path, kind, chosen)
        if not chosen and kind is not None:
            raise fail(
                "X0320",
                f"nothing in `{self.selection}` makes a free axis of the kind `{kind}`",
                self.selection.span,
                "no such axis",
                helps=("`netxform ls SPEC --axes` shows what is free, and of which kind",),
            )
        if not chosen:
            raise fail(
                "X0320",
                f"nothing in `{self.selection}` has an output of its own that could be wider",
                self.selection.span,
                "no weights here",
                helps=("select the layer whose outputs shall be more",),
            )
        _one_size(network, chosen)
        chosen = {a: n for a, n in chosen.items() if n != a.size}
        if not chosen:
            helps = ("write a larger size", "or leave the statement out")
            message = f"`{self.selection}` has {self.to or 'as many'} outputs already: nothing would be wider"
            raise fail("X0406", message, self.selection.span, "as it is", helps=helps)
        _bounded(chosen, self.selection.span)
        rng = random.Random(scope.seed if self.seed is None else self.seed)
        axes = {a.atom: a for a in axes_of(network)}
        mode = self._mode(network, chosen, axes)
        maps = {a: _map(a.size, n, rng) for a, n in chosen.items()}
        weights = {a: _shares(m, a.size, mode, self.share, rng) for a, m in maps.items()}
        self._exact(network, maps, axes, mode)
        scales, fills = _edits(network, maps, weights, mode, rng, self.noise)
        return Choice(
            Wider(
                {axes[a].name: tuple(m) for a, m in maps.items()},
                tuple(f"{axes[a].name}: {a.size} → {len(m)}" for a, m in maps.items()),
                mode,
                scales,
                fills,
                self.noise,
            ),
            targets=(str(self.selection),),
            origins={"mode": "the axes allow it" if mode == "zero" else "a norm runs over the axis"}
            if self.mode is None
            else {},
        )

    def _choose(self, network: Network, path: str, chosen: dict[Atom, int]) -> None:
        """The new sizes of the atoms of the module's output."""
        from netxform.axes.algebra import size

        dims = _output(network, path)
        if not dims:
            return
        free = [d for d in dims if not _locked(d)]
        if len(free) != 1:
            raise _no_axis(network, path, dims, free)
        dim = free[0]
        whole = size(dim)
        ratio = Fraction(self.to, whole) if self.to is not None else Fraction(str(self.times))
        if ratio < 1:
            raise fail(
                "X0406",
                f"`{path}` has {whole} outputs already",
                self.selection.span,
                f"wider than {self.to}",
                helps=("to remove, use `prune`",),
            )
        self._grow(network, dim, ratio, chosen, path)

    def _grow(self, network: Network, dim: Dim, ratio: Fraction, chosen: dict[Atom, int], path: str) -> None:
        from netxform.axes.algebra import Atom, Mirror, Sum, normal

        factors = normal(dim)
        options = [f for f in factors if not _locked((f,))]
        if not options:
            raise _no_axis(network, path, [dim], [])
        pick = options[0]
        if len(options) > 1:
            if self.along is not None:
                pick = options[0] if self.along == "outer" else options[-1]
            else:
                easy = [f for f in options if isinstance(f, Atom) and not f.mixed and not _inner(network, f)]
                pick = max(easy or options, key=lambda f: f.size if isinstance(f, Atom) else 0)
        match pick:
            case Sum():
                for part in pick.parts:
                    if _locked(part):
                        raise _no_axis(network, path, [part], [])
                    self._grow(network, part, ratio, chosen, path)
            case Atom() | Mirror():
                atom = pick if isinstance(pick, Atom) else pick.atom
                self._set(atom, ratio, chosen, path)

    def _choose_kind(self, network: Network, path: str, kind: str, chosen: dict[Atom, int]) -> None:
        """The new sizes of the axes of that kind which the layer makes."""
        from netxform.axes.algebra import atoms
        from netxform.axes.kinds import kind_of

        for atom in dict.fromkeys(a for d in _output(network, path) for a in atoms(d)):
            if kind_of(network, atom) == kind:
                ratio = Fraction(self.to, atom.size) if self.to is not None else Fraction(str(self.times))
                if ratio < 1:
                    helps = ("to remove, use `prune`",)
                    raise fail("X0406", f"`{path}` has {atom.size} already", self.selection.span, "widen", helps=helps)
                self._set(atom, ratio, chosen, path)

    def _set(self, atom: Atom, ratio: Fraction, chosen: dict[Atom, int], path: str) -> None:
        """The atom's new size. Raises NetxformError X0322 where it is none, or another than was asked for before."""
        new = atom.size * ratio
        if new.denominator != 1:
            low = int(new)
            raise fail(
                "X0322",
                f"{atom.size} × {float(ratio):g} is no whole number of indices",
                self.selection.span,
                f"at `{path}`",
                helps=(f"the nearest: `x{low / atom.size:.6g}` gives {low}, `x{(low + 1) / atom.size:.6g}` gives {low + 1}",),
            )
        if chosen.get(atom, int(new)) != int(new):
            raise fail(
                "X0322",
                f"`{path}` is coupled with another selected layer, and would need another size",
                self.selection.span,
                f"{chosen[atom]} and {int(new)} outputs of one axis",
                helps=("widen them in one statement by a factor, or one of them alone",),
            )
        chosen[atom] = int(new)

    def _mode(self, network: Network, chosen: Mapping[Atom, int], axes: Mapping[Atom, Axis]) -> Mode:
        if self.mode is not None:
            return self.mode
        return "copy" if any(a.mixed for a in chosen) else "zero"

    def _exact(self, network: Network, maps: Mapping[Atom, list[int]], axes: Mapping[Atom, Axis], mode: str) -> None:
        """Every condition under which the function stays the same. Raises NetxformError X0322."""
        from netxform.axes.algebra import MIXES, atoms, positions
        from netxform.axes.infer import types_of
        from netxform.axes.roles import carriers, copies, roles

        for why, dim in types_of(network).mixes:
            if not any(a in maps for a in atoms(dim)):
                continue
            text, allowed = MIXES[why.kind]
            if not allowed:
                raise self._refused(f"the axis is {text}", why.at, (_OTHERS,))
            whole = min(a.size for a in atoms(dim) if a in maps)
            if mode == "zero":
                raise self._refused(f"the axis is {text}: random rows would change it", why.at, ("write `mode=copy`",))
            if len(copies(dim, maps, positions)) != 1:
                raise self._refused(
                    f"the axis is {text}: every index must be repeated equally often",
                    why.at,
                    (f"the nearest exact factor is `x2`, which gives {2 * whole}",),
                )
        for atom in maps:
            found = roles(types_of(network), atom)
            if found.tied:
                name = found.tied[0][0]
                raise self._refused(
                    f"`{name}` is looked up or produced in one place and summed over in another (tied)",
                    axes[atom].name,
                    ("untie it first: give the two layers tensors of their own",),
                )
            for contraction in found.inner:
                if carriers(network, contraction) is None:
                    raise self._refused("two activations are multiplied and summed over the axis", contraction.node, (_OTHERS,))

    def _refused(self, why: str, at: str, helps: tuple[str, ...]) -> NetxformError:
        return fail(
            "X0322", f"`{self.selection}` cannot be widened exactly: {why}", self.selection.span, f"seen at `{at}`", helps=helps
        )

    def rewrite(self, network: Network, choice: Choice[Wider]) -> Edit:
        """One reindexing, with the factors and the new rows."""
        from netxform.axes.index_maps import Reindex

        v = choice.values
        return Edit((Reindex(tuple(v.maps.items()), v.scales, v.fills),)) if v.maps else Edit()

    def law(self, choice: Choice[Wider]) -> tuple[Claim, ...]:
        """The same function."""
        return (SameFunction(choice.values.noise),)


_MOST = 1_000_000
_OTHERS = "widen a layer whose outputs are read one by one: `netxform ls SPEC --axes` shows the axes"


def _bounded(chosen: Mapping[Atom, int], span: Span) -> None:
    """Raises NetxformError X0406 for an axis of more than a million indices, which no layer has."""
    for atom, size in chosen.items():
        if size > _MOST:
            message = f"an axis of {atom.size:,} would have {size:,} indices; at most {_MOST:,} are made"
            raise fail("X0406", message, span, "too wide", helps=("choose a smaller factor",))


def _one_size(network: Network, chosen: dict[Atom, int]) -> None:
    """A layer that has one attribute for the sizes of several axes (a recurrent one) gets them all widened."""
    from netxform.axes.algebra import Atom, normal
    from netxform.axes.infer import types_of

    shared: dict[tuple[str, Any], list[Atom]] = {}
    for stated in types_of(network).stated:
        if stated.layer is not None and stated.path is not None and len(stated.dims) == 1:
            only = normal(stated.dims[0])
            if len(only) == 1 and isinstance(only[0], Atom):
                shared.setdefault((stated.layer, stated.path), []).append(only[0])
    for group in shared.values():
        sizes = {chosen[a] for a in group if a in chosen}
        if len(sizes) == 1:
            for atom in group:
                if atom.locked is None:
                    chosen.setdefault(atom, min(sizes))


def _locked(dim: Dim) -> bool:
    from netxform.axes.algebra import is_locked

    return is_locked(dim)


def _inner(network: Network, atom: Atom) -> bool:
    from netxform.axes.infer import types_of
    from netxform.axes.roles import roles

    return bool(roles(types_of(network), atom).inner)


def _output(network: Network, path: str) -> list[Dim]:
    """The type of the module's output value, or of the tensor that a module without a call hands out; empty for none."""
    from netxform.axes.infer import types_of
    from netxform.axes.rules.context import Typed
    from netxform.graph.network import exit_nodes

    module = network.module.get_submodule(path)
    if not any(True for _ in module.parameters()):
        return []
    if hasattr(module, "num_heads") and hasattr(
        module, "out_proj"
    ):  # attention: what the heads compute, not what they write to
        names = types_of(network).names
        name = names.get(f"{path}.in_proj_weight") or names.get(f"{path}.q_proj_weight")
        if name is not None:
            return [types_of(network).tensors[name][0]]
    for node in exit_nodes(network, path):
        value = types_of(network).values.get(node.name)
        if isinstance(value, list | tuple) and value and isinstance(value[0], Typed):
            value = value[0]
        if isinstance(value, Typed):
            return list(value.dims)
    names = types_of(network).names
    for name in (f"{path}.weight", f"{path}.in_proj_weight", f"{path}.weight_ih_l0", f"{path}.weight_ih"):
        if name in names:
            return [types_of(network).tensors[names[name]][0]]
    return []


def _no_axis(network: Network, path: str, dims: list[Dim], free: list[Dim]) -> NetxformError:
    from netxform.axes.algebra import reasons, show
    from netxform.axes.infer import types_of
    from netxform.axes.reindex import axes_of, namer

    name = namer(axes_of(network))
    if free:
        return fail(
            "X0322",
            f"the output of `{path}` has several axes that could be widened: {' × '.join(show(d, name) for d in dims)}",
            helps=("select a layer inside it",),
        )
    types = types_of(network)
    held = [d for n, first in types.names.items() if n.startswith(f"{path}.") for d in types.tensors[first]]
    own = [d for d in dims if any(d is h for h in held)] or dims  # the layer's own axis: the batch is no reason
    why = dict.fromkeys(str(why) for d in own for why in reasons(d))
    return fail(
        "X0320",
        f"the output of `{path}` may not be changed",
        notes=tuple(list(why)[:4]),
        helps=("`netxform ls SPEC --axes` shows what is free",),
    )


def _map(old: int, new: int, rng: random.Random) -> list[int]:
    """The old index of every new one: the old ones in order, then copies, each old index as equally often as can be."""
    out = list(range(old))
    while len(out) < new:
        out += rng.sample(range(old), min(old, new - len(out)))
    return out


def _shares(index: list[int], old: int, mode: str, share: str, rng: random.Random) -> list[float]:
    """The factor of every new index in a sum: those of the copies of one index add up to 1."""
    if mode == "zero":
        return [1.0] * old + [0.0] * (len(index) - old)
    raw = [1.0 if share == "equal" else rng.uniform(0.5, 1.5) for _ in index]
    total = [0.0] * old
    for i, weight in zip(index, raw, strict=True):
        total[i] += weight
    return [weight / total[i] for i, weight in zip(index, raw, strict=True)]


def _edits(
    network: Network,
    maps: Mapping[Atom, list[int]],
    weights: Mapping[Atom, list[float]],
    mode: str,
    rng: random.Random,
    noise: float,
) -> tuple[tuple[Scale, ...], tuple[Fill, ...]]:
    """Factors for the consumers, random values for the new rows of producers."""
    from netxform.axes.algebra import positions
    from netxform.axes.index_maps import Fill, Scale
    from netxform.axes.infer import types_of
    from netxform.axes.roles import along, carried, carriers, roles

    types = types_of(network)
    known = dict(network.module.named_parameters(remove_duplicate=False))
    scales: dict[tuple[str, int], list[float]] = {}
    fills: list[Fill] = []

    def scale(tensor: str, axis: int, atom: Atom, rows: frozenset[int] | None) -> None:
        dim = types.tensors[tensor][axis]
        wanted = along(dim, maps, {atom: weights[atom]})
        if rows is not None:
            source = positions(dim, lambda a: maps.get(a) or range(a.size))
            wanted = [w if s in rows else 1.0 for w, s in zip(wanted, source, strict=True)]
        now = scales.get((tensor, axis), [1.0] * len(wanted))
        scales[tensor, axis] = [a * b for a, b in zip(now, wanted, strict=True)]

    for atom in maps:
        found = roles(types, atom)
        for tensor, axis in found.consumers:
            scale(tensor, axis, atom, None)
        for contraction in found.inner:
            for carrier in carriers(network, contraction) or ():
                scale(carrier.tensor, carrier.axis, atom, carrier.rows)
        if mode == "copy" and not noise:
            continue
        for tensor, axis in carried(types, atom, found.consumers):
            parameter = known.get(tensor)
            if parameter is None or parameter.dim() < 2 or parameter.numel() == parameter.shape[axis]:
                continue  # vectors: norms, biases, layer scales keep the values of the index that they copy
            dim = types.tensors[tensor][axis]
            fresh = [0.0] * atom.size + [1.0] * (len(maps[atom]) - atom.size)
            marks = along(dim, maps, {atom: [m + 1.0 for m in fresh]})
            rows = tuple(p for p, m in enumerate(marks) if m > 1.0)
            fills.append(Fill(tensor, axis, rows, rng.randrange(2**31), noise if mode == "copy" else None))
    return tuple(Scale(t, a, tuple(f)) for (t, a), f in scales.items()), tuple(fills)
