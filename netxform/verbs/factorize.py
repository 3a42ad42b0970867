"""factorize: layers as products of smaller ones, within an error or a budget, with bounds that are measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from netxform.errors import Diagnostic, NetxformError, Span, fail
from netxform.graph.edits import Edit, Replace
from netxform.graph.layer_spec import Layer
from netxform.language.choice import HIDDEN, IF_KNOWN, Choice, Values
from netxform.language.claims import Claim, LayerBound, LayerErrors, OutputError
from netxform.language.laws import Contract
from netxform.language.limit import Limit
from netxform.language.rank import Rank
from netxform.language.values import Name, Selection
from netxform.language.verb import Material, Scope, key, operand, prep, verb
from netxform.syntax.quantity import short

if TYPE_CHECKING:
    from netxform.factorization.factorize import Counted, Errors, Unmet, Wanted
    from netxform.factorization.rank_selection import Pick
    from netxform.graph.network import Network

_COUNTED: dict[str, Counted] = {"params": "params", "macs": "macs", "flops": "macs", "bytes": "bytes", "latency": "latency"}
FormName: TypeAlias = Literal["auto", "svd", "svd_in", "spatial", "tucker2", "cp", "tt"]


@dataclass(frozen=True)
class Factors(Values):
    """The layers that are selected and what the network costs; form and ranks of each layer that is factorized, the chain in
    its place, and why others are left. On weights and data: bounds, the allocation, and what the loss feels of each layer.
    """

    selected: tuple[str, ...] = field(metadata=HIDDEN)
    base: Mapping[str, int] = field(metadata=HIDDEN)
    now: Mapping[str, int] = field(metadata=HIDDEN)
    seed: int = field(metadata=HIDDEN)
    left: Mapping[str, str] = field(metadata=HIDDEN)
    data: str | None = field(default=None, metadata=IF_KNOWN)
    allocation: str | None = field(default=None, metadata=IF_KNOWN)
    weighted_error: float | None = field(default=None, metadata=IF_KNOWN)
    sensitivity: Mapping[str, float] | None = field(default=None, metadata=HIDDEN | IF_KNOWN)
    chosen: Mapping[str, tuple[str, tuple[int, ...]]] = field(
        default_factory=dict[str, tuple[str, tuple[int, ...]]], metadata=HIDDEN
    )
    chains: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict[str, tuple[Layer, ...]], metadata=HIDDEN)
    factors: tuple[str, ...] = field(default=(), metadata=HIDDEN)
    bounds: tuple[LayerBound, ...] | None = field(default=None, metadata=HIDDEN | IF_KNOWN)
    worst_case: float | None = field(default=None, metadata=IF_KNOWN)

    def lines(self) -> tuple[str, ...]:
        """Layer by layer, then the rest."""
        return (*self.factors, *super().lines())

    @property
    def recorded(self) -> tuple[str, ...]:
        """Layer by layer."""
        return self.factors


@verb("factorize")
@dataclass(frozen=True)
class Factorize:
    """Write layers as products of smaller ones: plain layers in sequence, under the old name.

    Forms (`using`): `svd` (two layers; for a convolution k×k then 1×1), `svd_in` (1×1 then k×k), `spatial` (k×1 then 1×k),
    `tucker2` (1×1, k×k, 1×1), `cp` (1×1, depthwise, 1×1), `tt` (a tensor train; a Linear becomes a TT matrix whose modes are
    `in_modes`, `out_modes`), `auto` (the cheapest of all but tt that is faster on this machine). Embeddings, grouped and
    transposed convolutions too; GRU, LSTM and attention get factor pairs inside.

    Ranks: `rank=256`, `rank=0.25` (of the full rank; `1` is one, `1.0` and `100%` are all), `rank=[128, 64]`;
    `by rel_error <= 2%`, `by energy >= 95%` (of the kernel, or of the output with `over`), `by vbmf`; or
    `until params <= 40% of base` (`macs`, `flops`, `bytes`, `latency`): one allocation of forms and ranks over all selected
    layers, by integer programming (latency is timed, and its `base` is the network as the statement finds it). A layer that
    would not get cheaper is left as it is, and the plan says so.

    `over DATA` (`samples=512`) truncates so that the expected squared error of the *output* is least, weighs the layers of a
    budget by what the loss feels, corrects the bias by the mean error, and measures on a quarter of the samples held out;
    `sequential=true` lets later layers see the errors of the earlier ones. `round_to=8` rounds chosen ranks; `gate=none`
    lets `auto` choose what is slower here; `batch` is the batch that is timed. `worst_case=RADIUS` states a bound on the
    outputs for every input of that norm, by composing the layers' bounds: true, and far above what happens.

    Example: model net = zoo.smallcnn(); factorize fc1 rank=8; factorize conv2 | conv3 using tucker2 by rel_error <= 60%

    Contract: bounded. The bound on each kernel and on the gain of each layer is stated, and measured on the worst input; a
    measured value above its bound stops the apply. With data, a conformal quantile of the outputs' error and a lower bound of
    the agreement, on held-out samples.
    Refused: layers without a matrix or of another kind than the form takes, tied weights (X0323); ranks that do not fit the
    form (X0411); a budget that nothing meets (X0604).
    Papers: Denton et al., "Exploiting linear structure within convolutional networks", 2014; Jaderberg et al., "Speeding up
    convolutional neural networks with low rank expansions", 2014; Lebedev et al., 2015 (CP); Kim et al., 2016 (Tucker);
    Novikov et al., "Tensorizing neural networks", 2015; Nakajima et al., JMLR 14, 2013 (VBMF).
    """

    selection: Selection = operand()
    by: Limit | Name | None = prep("by")
    until: Limit | None = prep("until")
    using: tuple[FormName, ...] = prep("using", ("auto",))
    over: Name | None = prep("over")
    rank: tuple[Rank, ...] | None = key(None)
    samples: int = key(512)
    sequential: bool = key(False)
    round_to: int = key(8)
    gate: Literal["measured", "none"] = key("measured")
    batch: int = key(1)
    exact: bool = key(False)
    worst_case: float | None = key(None)
    when_smaller: bool = key(True)
    in_modes: tuple[int, ...] | None = key(None)
    out_modes: tuple[int, ...] | None = key(None)
    seed: int | None = key(None)
    contract: ClassVar[Contract] = Contract.BOUNDED

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """One rule for the ranks, with a value that makes sense."""
        rules = [r for r in (self.by, self.until, self.rank) if r is not None]
        if len(rules) != 1:
            say = "`rank=256`, `by rel_error <= 2%`, `by energy >= 95%`, `by vbmf` or `until params <= 40% of base`"
            what = "needs a rule for its ranks" if not rules else "takes one rule for its ranks"
            yield Diagnostic("X0408", f"`factorize` {what}", span, "which ranks?", helps=(f"write one of {say}",))
        if self.rank is not None and any(r <= 0 or (r > 1 and r != int(r)) for r in self.rank):
            yield Diagnostic("X0406", "a rank is a whole number, or a share below 1", span, "rank")
        if isinstance(self.by, Name) and self.by.text != "vbmf":
            yield Diagnostic("X0204", f"`by {self.by}` is no rule", self.by.span, "expected `vbmf` or a comparison")
        if isinstance(self.by, Limit):
            yield from self._by_limit(self.by)
        if self.until is not None:
            yield from self._until_limit(self.until)
        if (self.in_modes is None) != (self.out_modes is None):
            yield Diagnostic("X0408", "`in_modes` and `out_modes` go together", span, "one is missing")
        if len(self.using) > 1 and "auto" in self.using:
            yield Diagnostic("X0407", "`auto` stands alone", span, "beside other forms")
        for name, value in (("samples", self.samples), ("round_to", self.round_to), ("batch", self.batch)):
            if value < 1:
                yield Diagnostic("X0406", f"`{name}` is at least 1, not {value}", span, name)
        if self.sequential and self.over is None:
            yield Diagnostic("X0408", "`sequential` needs data", span, "no data", helps=("write `over DATA`",))

    def _by_limit(self, limit: Limit) -> Iterator[Diagnostic]:
        wanted = {"rel_error": "<=", "energy": ">="}
        if limit.name not in wanted:
            yield Diagnostic("X0204", f"`{limit.name}` is no measure of error", limit.span, "expected `rel_error` or `energy`")
        elif not limit.op.startswith(wanted[limit.name][0]) or limit.of is not None or not 0 < limit.value < 1:
            example = "by rel_error <= 2%" if limit.name == "rel_error" else "by energy >= 95%"
            yield Diagnostic("X0406", f"`{limit.name}` is bounded by a share", limit.span, "", helps=(f"write `{example}`",))

    def _until_limit(self, limit: Limit) -> Iterator[Diagnostic]:
        if limit.name not in _COUNTED:
            yield Diagnostic("X0204", f"`{limit.name}` is no cost", limit.span, f"costs: {', '.join(_COUNTED)}")
            return
        unit = "milliseconds" if limit.name == "latency" else limit.name
        relative = limit.of == "base" and limit.dimension == "share"
        absolute = limit.of is None and limit.dimension in (unit, "number")
        if not limit.op.startswith("<") or not (relative or absolute) or limit.value <= 0:
            text = f"until {limit.name} <= 40% of base"
            yield Diagnostic(
                "X0406", f"a budget is an upper bound on `{limit.name}`", limit.span, "", helps=(f"write `{text}`",)
            )

    def resolve(self, network: Network, scope: Scope) -> Choice[Factors]:
        """Which layers, in which forms; the ranks too, where they are stated."""
        from netxform.factorization.factorize import candidates, share_left, smaller
        from netxform.factorization.rank_selection import estimate, first, given

        data = None if self.over is None else scope.data(self.over.text, self.over.span).name
        seed = scope.seed + scope.index if self.seed is None else self.seed
        wanted = self._wanted(data, seed, scope.base.totals(), scope.current.totals())
        try:
            found, left = candidates(network, scope.modules_of(self.selection), wanted)
        except NetxformError as error:
            raise _placed(error, {"X0411": scope.span}) from None
        if not found:
            raise fail(
                "X0323",
                f"`{self.selection}` holds nothing that could be factorized",
                self.selection.span,
                "nothing to factorize",
                notes=tuple(f"{path}: {why}" for path, why in list(left.items())[:6]),
                helps=("select Linear layers, convolutions, embeddings, GRU, LSTM or attention",),
            )
        values = Factors(tuple(t.path for t in found), wanted.base, wanted.now, seed, left, data)
        origins = {"forms": "auto"} if self.using == ("auto",) else {}
        if self.rank is not None:
            try:
                chosen = smaller([given(t, first(t), self.rank) for t in found], wanted)
            except ValueError as error:
                raise fail("X0411", str(error), self.selection.span, "ranks that do not fit") from None
            return Choice(_filled(values, chosen.picks, left | _larger(chosen.larger)), (str(self.selection),), origins)
        known = wanted.budget is not None and wanted.budget.cost != "latency"
        share = share_left(found, wanted) if known else 0.5
        met = (f"`{self.until}` is met already: no layer need change",) if known and share == 1 else ()
        guesses = [g for g in (estimate(t, share) for t in found) if g is not None]
        need = "weights" if data is None else f"weights and `{data}`"
        what = "ranks are" if self.using != ("auto",) else "forms and ranks are"
        text = f"{what} chosen on the {need}; shown is an estimate"
        return Choice(_filled(values, guesses, left), (str(self.selection),), origins, warnings=met, provisional=text)

    def _wanted(self, data: str | None, seed: int, base: Mapping[str, int], now: Mapping[str, int]) -> Wanted:
        """The statement with every default filled in."""
        from netxform.factorization.factorize import Budget, Wanted

        budget = None
        if self.until is not None:
            relative = self.until.of is not None
            value = float(self.until.value) / (2 if self.until.name == "flops" and not relative else 1)
            budget = Budget(_COUNTED[self.until.name], value, relative)
        error = None
        if isinstance(self.by, Limit):
            share = float(self.by.value)
            error = share if self.by.name == "rel_error" else math.sqrt(1 - share)
        auto = self.using == ("auto",)
        modes = None if self.in_modes is None or self.out_modes is None else (self.out_modes, self.in_modes)
        return Wanted(
            forms=None if auto else self.using,
            modes=modes,
            ranks=self.rank,
            error=error,
            vbmf=isinstance(self.by, Name),
            budget=budget,
            data=data,
            samples=self.samples,
            sequential=self.sequential,
            round_to=self.round_to,
            gate=auto and self.gate == "measured",
            batch=self.batch,
            exact=self.exact,
            when_smaller=self.when_smaller,
            radius=self.worst_case,
            seed=seed,
            base=base,
            now=now,
        )

    def settle(self, network: Network, choice: Choice[Factors], material: Material) -> Choice[Factors]:
        """Choose forms and ranks where they are open, and compute every factor."""
        from netxform.factorization.factorize import Unmet, factorize

        v = choice.values
        wanted = self._wanted(v.data, v.seed, v.base, v.now)
        try:
            found = factorize(network, v.selected, wanted, v.chosen, material)
        except Unmet as error:
            raise self._unmet(error) from None
        except NetxformError as error:
            ranks = self.by.span if isinstance(self.by, Name) else self.selection.span
            data = self.selection.span if self.over is None else self.over.span
            raise _placed(error, {"X0411": ranks, "X0817": data}) from None
        chosen = found.chosen
        picks, allocation = chosen.picks, chosen.allocation
        values = _filled(v, picks, {**v.left, **chosen.left, **_larger(chosen.larger)}, found.errors)
        values = replace(values, chains=found.layers, bounds=found.bounds, worst_case=found.worst)
        if allocation is not None:
            told = f"{allocation.solver}, gap {allocation.gap:.2%}"
            values = replace(values, allocation=told, weighted_error=allocation.loss, sensitivity=chosen.felt)
        return choice.settled(values, found.tensors)

    def _unmet(self, error: Unmet) -> NetxformError:
        assert self.until is not None
        counted = _COUNTED[self.until.name]
        write = short if short(error.least) != short(error.allowed) else "{:,.6g}".format
        numbers = f"{write(error.least)} is the least, {write(error.allowed)} the budget"
        notes, helps = (), ("select more layers, or allow more",)
        if error.slower is not None:
            numbers = f"with forms that are faster here than the layers that they replace, {numbers}"
            notes = (f"slower forms are kept out (`gate=measured`, the default); they go down to {short(error.slower)}",)
            alone = error.slower <= error.allowed
            let = "let slower forms in: `gate=none`" if alone else "`gate=none` lets slower forms in, which is not enough alone"
            helps = (let, *helps) if alone else (*helps, let)
        share = f"the selected layers are {error.share:.0%} of the {counted}" if error.share is not None else ""
        return fail("X0604", f"`{self.until}` cannot be met: {numbers}", self.until.span, share, notes=notes, helps=helps)

    def rewrite(self, network: Network, choice: Choice[Factors]) -> Edit:
        """A chain in the place of each layer."""
        return Edit(tuple(Replace(p, tuple(c)) for p, c in choice.values.chains.items()), choice.tensors)

    def law(self, choice: Choice[Factors]) -> tuple[Claim, ...]:
        """Each layer within its bound; how far the outputs moved."""
        v = choice.values
        wanted = self._wanted(v.data, v.seed, v.base, v.now)
        output = OutputError(v.data, wanted.fitted, self.samples - wanted.fitted) if self.over is not None else OutputError()
        return (LayerErrors(v.bounds or ()), replace(output, worst=v.worst_case, radius=self.worst_case or 0.0))


def _filled(v: Factors, picks: Sequence[Pick], left: Mapping[str, str], errors: Mapping[str, Errors] | None = None) -> Factors:
    """The values with these decompositions, and each layer in words."""
    told = [f"{p.target.path}: {_line(p)}{_error(errors[p.target.path]) if errors else ''}" for p in picks]
    told += [f"{path}: left as it is: {why}" for path, why in left.items()]
    chosen = {p.target.path: (p.form, p.ranks) for p in picks}
    chains = {p.target.path: p.layer.layers(p.ranks) for p in picks}
    return replace(v, left=left, chosen=chosen, chains=chains, factors=tuple(told))


def _placed(error: NetxformError, places: Mapping[str, Span]) -> NetxformError:
    """The same findings, by their code at the clause that they speak of."""
    return NetxformError([replace(d, span=places.get(d.code, d.span)) for d in error.diagnostics])


def _larger(picks: Sequence[Pick]) -> dict[str, str]:
    return {p.target.path: f"{_line(p)} would not be smaller" for p in picks}


def _line(pick: Pick) -> str:
    params, macs = pick.cost
    target = pick.target
    ranks = "×".join(str(r) for r in pick.ranks)
    sizes = f"{short(target.params)} → {short(params)} parameters, {short(target.macs)} → {short(macs)} MACs"
    return f"{pick.form} rank {ranks}, {sizes}"


def _error(found: Errors) -> str:
    output = "" if found.output is None else f", output error {found.output:.3g} on {found.on}"
    return f", rel error {found.kernel:.3g} ({found.method}){output}"
