"""factorize: layers as products of smaller ones, within an error or a budget, with bounds that are measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from netxform.errors import Diagnostic, Span, fail
from netxform.graph.edits import Edit, Replace
from netxform.language.choice import Choice
from netxform.language.claims import Claim, LayerBound, LayerErrors, OutputError
from netxform.language.laws import Contract
from netxform.language.values import Limit, Name, Rank, Selection
from netxform.language.verb import Material, Scope, key, operand, prep, verb
from netxform.syntax.quantity import short

if TYPE_CHECKING:
    from netxform.factorization.output_covariance import Seen
    from netxform.factorization.rank_selection import Gap, Pick, Target
    from netxform.graph.network import Network

FormName: TypeAlias = Literal["auto", "svd", "svd_in", "spatial", "tucker2", "cp", "tt"]
_BUDGETS = ("params", "macs", "flops", "bytes", "latency")


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
        if limit.name not in _BUDGETS:
            yield Diagnostic("X0204", f"`{limit.name}` is no cost", limit.span, f"costs: {', '.join(_BUDGETS)}")
            return
        unit = "milliseconds" if limit.name == "latency" else limit.name
        relative = limit.of == "base" and limit.dimension == "share"
        absolute = limit.of is None and limit.dimension in (unit, "number")
        if not limit.op.startswith("<") or not (relative or absolute) or limit.value <= 0:
            text = f"until {limit.name} <= 40% of base"
            yield Diagnostic(
                "X0406", f"a budget is an upper bound on `{limit.name}`", limit.span, "", helps=(f"write `{text}`",)
            )

    def resolve(self, network: Network, scope: Scope) -> Choice:
        """Which layers, in which ways; the ranks too, where they are stated."""
        from netxform.factorization.rank_selection import estimate

        found, left = self._targets(network, scope.modules_of(self.selection), scope.span)
        if not found:
            raise fail(
                "X0323",
                f"`{self.selection}` holds nothing that could be factorized",
                self.selection.span,
                "nothing to factorize",
                notes=tuple(f"{path}: {why}" for path, why in list(left.items())[:6]),
                helps=("select Linear layers, convolutions, embeddings, GRU, LSTM or attention",),
            )
        values: dict[str, Any] = {
            "selected": [t.path for t in found],
            "base": scope.base.totals(),
            "now": scope.current.totals(),
            "seed": scope.seed + scope.index if self.seed is None else self.seed,
            "left": left,
        }
        if self.over is not None:
            values["data"] = scope.data(self.over.text, self.over.span).name
        if self.rank is not None:
            picks, more = self._cheaper(self._given(found, self.rank))
            return self._choice(picks, values | {"left": left | more})
        share = 0.5
        if self.until is not None and self.until.name != "latency":
            share = self._share(found, values)
        guesses = [g for g in (estimate(t, share) for t in found) if g is not None]
        need = "weights" if self.over is None else f"weights and `{values['data']}`"
        what = "ranks are" if self.using != ("auto",) else "forms and ranks are"
        return replace(self._choice(guesses, values), provisional=f"{what} chosen on the {need}; shown is an estimate")

    def _targets(self, network: Network, paths: Sequence[str], span: Span) -> tuple[list[Target], dict[str, str]]:
        from netxform.factorization.rank_selection import AUTO, targets

        forms = AUTO if self.using == ("auto",) else self.using
        modes = None if self.in_modes is None or self.out_modes is None else (self.out_modes, self.in_modes)
        try:
            return targets(network, paths, forms, modes)
        except ValueError as error:
            raise fail("X0411", str(error), span, "does not fit") from None

    def _given(self, found: list[Target], ranks: tuple[float, ...]) -> list[Pick]:
        from netxform.factorization.rank_selection import first, given

        try:
            return [given(t, first(t), ranks) for t in found]
        except ValueError as error:
            raise fail("X0411", str(error), self.selection.span, "ranks that do not fit") from None

    def _cheaper(self, picks: Sequence[Pick]) -> tuple[list[Pick], dict[str, str]]:
        """Those that make a layer smaller; and for the others, why they are left."""
        kept = [p for p in picks if not self.when_smaller or p.cost[0] < p.target.params]
        return kept, {p.target.path: f"{_line(p)} would not be smaller" for p in picks if p not in kept}

    def _share(self, found: Sequence[Target], values: Mapping[str, Any]) -> float:
        """The share of the selected layers that the budget leaves, for an estimate."""
        name = _counted(self.until)
        whole = sum(t.macs if name == "macs" else t.params for t in found) or 1
        now = values["now"][name] / (values["now"]["bytes"] / values["now"]["params"] if name == "bytes" else 1)
        wanted = self._wanted(values) / (values["now"]["bytes"] / values["now"]["params"] if name == "bytes" else 1)
        return min(1.0, max(0.02, 1 - (now - wanted) / whole))

    def _wanted(self, values: Mapping[str, Any]) -> float:
        """How much of the counted cost the whole network may have."""
        assert self.until is not None
        if self.until.of is not None:
            return float(self.until.value * values["base"][_counted(self.until)])
        return self.until.value / (2 if self.until.name == "flops" else 1)

    def _choice(self, picks: Sequence[Pick], values: Mapping[str, Any]) -> Choice:
        shown = [f"{p.target.path}: {_line(p)}" for p in picks]
        shown += [f"{path}: left as it is: {why}" for path, why in values["left"].items()]
        chosen = {p.target.path: (p.form, p.ranks) for p in picks}
        chains = {p.target.path: p.way.layers(p.ranks) for p in picks}
        origins = {"forms": "auto"} if self.using == ("auto",) else {}
        return Choice(
            targets=(str(self.selection),),
            values={**values, "chosen": chosen, "chains": chains, "factors": shown},
            origins=origins,
        )

    # --- on the real network -----------------------------------------------------------------------------------------

    def settle(self, network: Network, choice: Choice, material: Material) -> Choice:
        """Choose forms and ranks where they are open, and compute every factor."""
        from netxform.factorization.output_covariance import observe
        from netxform.factorization.rank_selection import Pick

        v = choice.values
        every = self._targets(network, v["selected"], self.selection.span)[0]
        material.start("factorize", 2 * len(every))
        try:
            seen: Mapping[str, Seen] = {}
            if self.over is not None:
                enough = self._batches(material, v["data"], held=False)
                found = observe(network, [t.path for t in every if t.dense], enough, gradients=self.until is not None)
                seen = {path: one.over_all(material.total) for path, one in found.items()}
                _enough(seen, self.over)
            notes: dict[str, Any] = {}
            left = dict(v["left"])
            if self.rank is not None:
                picks = [Pick(t, *v["chosen"][t.path]) for t in every if t.path in v["chosen"]]
            else:
                picks, more, notes = self._choose(every, network, seen, v, material)
                left |= more
            return self._make(picks, network, seen, {**v, "left": left, **notes}, material)
        finally:
            material.stop()

    def _batches(self, material: Material, data: str, held: bool) -> Iterator[Any]:
        """Three quarters of the samples for choosing, the rest for measuring."""
        fit = self._fit_samples()
        if held:
            return material.fresh(data, self.samples - fit, skip=fit, shared=True)
        return material.batches(data, fit, shared=True)

    def _fit_samples(self) -> int:
        return max(1, self.samples * 3 // 4)

    def _choose(
        self, every: Sequence[Target], network: Network, seen: Mapping[str, Seen], v: Mapping[str, Any], material: Material
    ) -> tuple[list[Pick], dict[str, str], dict[str, Any]]:
        """Forms and ranks by error, by VBMF or under the budget; why layers are left; and what to say of the allocation."""
        from netxform.factorization.rank_curves import rounded
        from netxform.factorization.rank_selection import Pick, first, tables, within

        auto = self.using == ("auto",)
        picks: list[Pick] = []
        left: dict[str, str] = {}
        found: list[dict[str, Any]] = []
        for target in every:
            module = network.module.get_submodule(target.path)
            material.step(target.path)
            if isinstance(self.by, Name):
                form = first(target)
                try:
                    ranks = target.ways[form].by_vbmf(module)
                except ValueError as error:
                    raise fail("X0411", str(error), self.by.span, f"at `{target.path}`") from None
                full = target.ways[form].full()
                ranks = target.ways[form].clip([rounded(r, f, self.round_to) for r, f in zip(ranks, full, strict=True)])
                picks.append(Pick(target, form, ranks))
                continue
            found.append(tables(target, module, seen.get(target.path), auto, self.exact or self.until is None))
            if self.by is not None:
                share = float(self.by.value)
                relative = share if self.by.name == "rel_error" else math.sqrt(1 - share)
                one = within(target, found[-1], relative, self.round_to, self._gate)
                if isinstance(one, str):
                    left[target.path] = one
                else:
                    picks.append(one)
        if self.until is not None:
            return self._under_budget(every, found, network, seen, v)
        kept, more = self._cheaper(picks)
        return kept, left | more, {}

    def _gate(self, pick: Pick) -> bool:
        """Under `auto`, only what is faster on this machine."""
        from netxform.factorization.rank_selection import faster

        return not self._gated() or faster(pick, self.batch)

    def _gated(self) -> bool:
        return self.using == ("auto",) and self.gate == "measured"

    def _under_budget(
        self,
        every: Sequence[Target],
        found: Sequence[Mapping[str, Any]],
        network: Network,
        seen: Mapping[str, Seen],
        v: Mapping[str, Any],
    ) -> tuple[list[Pick], dict[str, str], dict[str, Any]]:
        from netxform.factorization.latency import seconds, whole_seconds
        from netxform.factorization.rank_selection import Unaffordable, cheapest, share_out, timed

        assert self.until is not None
        name = _counted(self.until)
        size = next(network.module.parameters()).element_size()
        extra = {t.path: _new_biases(t, network) if self.over is not None else 0 for t in every}
        measures: dict[str, Callable[[Pick], float]] = {
            "params": lambda p: p.cost[0] + extra[p.target.path],
            "macs": lambda p: p.cost[1],
            "bytes": lambda p: size * (p.cost[0] + extra[p.target.path]),
            "latency": lambda p: 1e3 * timed(p, self.batch)[0],
        }
        if name == "latency":
            timeable = [i for i, t in enumerate(every) if t.dense is not None]
            every, found = [every[i] for i in timeable], [found[i] for i in timeable]
            dense = [1e3 * seconds([t.dense], (self.batch, *t.shape[1:])) for t in every if t.dense is not None]
            now = 1e3 * whole_seconds(network, self.batch)
            wanted = self.until.value * (now if self.until.of is not None else 1)
        else:
            dense = [float(t.macs if name == "macs" else t.params * (size if name == "bytes" else 1)) for t in every]
            now, wanted = float(v["now"][name]), self._wanted(v)
        weights = [_weight(seen.get(t.path)) for t in every]
        rest = now - sum(dense)
        try:
            shares = share_out(every, found, weights, measures[name], dense, wanted - rest, self.round_to, self._gate)
        except Unaffordable as error:
            least, any_form = rest + error.least, rest + cheapest(every, found, measures[name], dense, self.round_to)
            write = short if short(least) != short(wanted) else "{:,.6g}".format
            helps = ("select more layers, allow more",)
            if self._gated() and any_form < least:
                slower = f"slower forms go down to {short(any_form)}"
                helps = (f"{helps[0]}, or let slower forms in: `gate=none` ({slower})",)
            raise fail(
                "X0604",
                f"`{self.until}` cannot be met: {write(least)} is the least, {write(wanted)} the budget",
                self.until.span,
                f"the selected layers are {sum(dense) / now:.0%} of the {name}" if now else "",
                helps=helps,
            ) from None
        picks = [p for p in shares.picks if p is not None]
        left = {t.path: "the budget is met without it" for t, p in zip(every, shares.picks, strict=True) if p is None}
        a = shares.allocation
        felt = {t.path: w for t, w in zip(every, weights, strict=True)}
        return picks, left, {"allocation": f"{a.solver}, gap {a.gap:.2%}", "weighted error": a.loss, "sensitivity": felt}

    def _make(
        self, picks: Sequence[Pick], network: Network, seen: Mapping[str, Seen], v: Mapping[str, Any], material: Material
    ) -> Choice:
        """Every factor, with its bound; on data, the mean error goes into the bias."""
        from netxform.factorization.output_covariance import observe
        from netxform.factorization.worst_case import worst_case
        from netxform.graph.surgery import perform

        chosen = self._choice(picks, v)
        chains: dict[str, Any] = dict(chosen.values["chains"])
        parts: dict[str, dict[str, Any]] = {}
        bounds: list[LayerBound] = []
        errors: dict[str, str] = {}
        now = network
        for pick in picks:
            path = pick.target.path
            material.step(path)
            data = seen.get(path)
            if self.sequential and data is not None:
                data = observe(now, [path], self._batches(material, v["data"], held=False))[path].over_all(material.total)
            module = network.module.get_submodule(path)
            made = pick.way.make(module, pick.ranks, seed=v["seed"], exact=self.exact, seen=data)
            parts[path] = dict(made.tensors)
            bounds += made.bounds
            errors[path] = f", rel error {made.error / (made.norm or 1.0):.3g} ({made.method})"
            if self.sequential:
                self._correct([pick], now, chains, parts, v, material)
                now = perform(network, _edit(chains, parts, list(parts)))
        if self.over is not None:
            if not self.sequential:
                self._correct(picks, network, chains, parts, v, material)
            for path, gap in self._gaps(network, chains, parts, v, material, held=True).items():
                errors[path] += f", output error {gap.relative:.3g} on {material.held_out(v['data'])}"
        shown = [f"{p.target.path}: {_line(p)}{errors[p.target.path]}" for p in picks]
        shown += [f"{path}: left as it is: {why}" for path, why in v["left"].items()]
        values = {**chosen.values, "chains": chains, "factors": shown, "bounds": bounds}
        if self.worst_case is not None:
            gains = {b.path.partition("::")[0]: b.gain for b in bounds}
            shifts = {path: _bias_change(network, path, chains[path], held) for path, held in parts.items()}
            values["worst case"] = worst_case(network, gains, self.worst_case, shifts)
        return replace(chosen, values=values, tensors=_named(parts), provisional="")

    def _gaps(
        self,
        network: Network,
        chains: Mapping[str, Any],
        parts: Mapping[str, Mapping[str, Any]],
        v: Mapping[str, Any],
        material: Material,
        held: bool,
    ) -> dict[str, Gap]:
        from netxform.factorization.rank_selection import assembled, gaps

        modules = {p: network.module.get_submodule(p) for p in parts}
        made = {p: assembled(chains[p], parts[p], m) for p, m in modules.items()}
        found = gaps(network, made, self._batches(material, v["data"], held))
        return {path: one.over_all(material.total) for path, one in found.items()}

    def _correct(
        self,
        picks: Sequence[Pick],
        network: Network,
        chains: dict[str, Any],
        parts: dict[str, dict[str, Any]],
        v: Mapping[str, Any],
        material: Material,
    ) -> None:
        """Put the mean error of each chain into the bias of its last layer; one is added where there is none."""
        mine = {p.target.path: p for p in picks if p.target.dense is not None}
        found = self._gaps(network, chains, {path: parts[path] for path in mine}, v, material, held=False)
        for path, gap in found.items():
            held = parts[path]
            layers_ = mine[path].way.layers(mine[path].ranks, bias=True)
            name = f"{layers_[-1].name}.bias" if layers_[-1].name else "bias"
            like = next(iter(held.values()))
            held[name] = (held[name].double() + gap.mean_O if name in held else gap.mean_O).to(like.dtype)
            chains[path] = layers_

    def rewrite(self, network: Network, choice: Choice) -> Edit:
        """A chain in the place of each layer."""
        chains = choice.values["chains"]
        return Edit(tuple(Replace(p, tuple(c)) for p, c in chains.items()), choice.tensors)

    def law(self, choice: Choice) -> tuple[Claim, ...]:
        """Each layer within its bound; how far the outputs moved."""
        bounds = tuple(choice.values.get("bounds", ()))
        fit = self._fit_samples()
        output = OutputError(choice.values.get("data"), fit, self.samples - fit) if self.over is not None else OutputError()
        worst = choice.values.get("worst case")
        return (LayerErrors(bounds), replace(output, worst=worst, radius=self.worst_case or 0.0))


def _edit(chains: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]], paths: Sequence[str]) -> Edit:
    return Edit(tuple(Replace(p, tuple(chains[p])) for p in paths), _named(parts))


def _named(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{path}.{name}": tensor for path, held in parts.items() for name, tensor in held.items()}


def _counted(limit: Limit | None) -> str:
    assert limit is not None
    return {"flops": "macs"}.get(limit.name, limit.name)


def _line(pick: Pick) -> str:
    params, macs = pick.cost
    target = pick.target
    ranks = "×".join(str(r) for r in pick.ranks)
    sizes = f"{short(target.params)} → {short(params)} parameters, {short(target.macs)} → {short(macs)} MACs"
    return f"{pick.form} rank {ranks}, {sizes}"


def _weight(seen: Seen | None) -> float:
    """What a relative squared error of the output costs: its variance a sample, times what the loss feels of it."""
    if seen is None:
        return 1.0
    return float(seen.covariance_OO.trace()) * seen.count / max(seen.samples, 1) * (seen.slope or 1.0)


def _new_biases(target: Target, network: Network) -> int:
    """Biases that a correction adds to a layer that has none."""
    module: Any = network.module.get_submodule(target.path)
    g = getattr(next(iter(target.ways.values())), "g", None)
    return int(g.outputs) if g is not None and getattr(module, "bias", None) is None else 0


def _bias_change(network: Network, path: str, layers_: Sequence[Any], held: Mapping[str, Any]) -> float:
    """‖b − b′‖ of a layer and what takes its place."""
    module: Any = network.module.get_submodule(path)
    old, new = getattr(module, "bias", None), held.get(f"{layers_[-1].name}.bias" if layers_[-1].name else "bias")
    if new is None or isinstance(old, bool):
        return 0.0
    return float((new.double() - (old.detach().double() if old is not None else 0.0)).norm())


def _enough(seen: Mapping[str, Seen], data: Name) -> None:
    """Refuse to fit a covariance to fewer positions than channels: it would follow the sample."""
    for path, one in seen.items():
        if one.count < len(one.total_O):
            raise fail(
                "X0817",
                f"`{path}` has {len(one.total_O)} outputs and was seen at {one.count} positions",
                data.span,
                "not enough samples",
                helps=(f"write `samples={10 * len(one.total_O)}` or more",),
            )
