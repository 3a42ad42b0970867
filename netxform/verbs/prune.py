"""prune: remove what the loss needs least, whole coupled classes of indices at a time (Optimal Brain Damage on neurons)."""

# Long: one verb, whose clauses say which score, how much, in what order and what makes good for it.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from netxform.errors import Diagnostic, NetxformError, Span, fail
from netxform.graph.edits import Assign, Bias, Edit
from netxform.graph.layer_spec import Invocation
from netxform.language.choice import AS_TEXT, HIDDEN, IF_KNOWN, Choice, Part, Values, named
from netxform.language.claims import Claim, LossChange, MaskedTwin, Sparse, Untouched
from netxform.language.laws import Contract
from netxform.language.limit import Limit, compare
from netxform.language.values import Name, Selection
from netxform.language.verb import Material, Scope, comparison, key, lines, nested, operand, prep, verb
from netxform.language.work import Training
from netxform.pruning.needs import SCORES, nothing_goes, out_of_range, untrained

if TYPE_CHECKING:
    from netxform.graph.network import Network
    from netxform.pruning.removal import Sign, Wanted
    from netxform.pruning.unstructured import Sparsity

_BUDGETS = ("params", "macs", "flops", "bytes", "latency")
_MEASURES = {"saliency": (-inf, inf), "score": (-inf, inf), "activation": (0, inf), "zeros": (0, 1), "magnitude": (0, inf)}


@dataclass(frozen=True)
class Stop:
    """`stop_if val_accuracy < 90%`: the rounds end before the one after which this holds."""

    limit: Limit = comparison()


@dataclass(frozen=True, kw_only=True)
class Pruning(Values):
    """What every kind of pruning chooses: the indices that go, by axis, and what trains in between."""

    removed: Mapping[str, Sequence[int]] = field(metadata=HIDDEN)
    recover: tuple[Training, ...] = field(metadata=HIDDEN)

    @property
    def trains(self) -> bool:
        """Between the rounds."""
        return bool(self.recover)


@dataclass(frozen=True, kw_only=True)
class Open(Pruning):
    """What is asked for, before weights and data say which indices go; `curvature`: where Gauss–Newton is exact."""

    curvature: str | None = field(default=None, metadata=IF_KNOWN | named("gauss-newton"))
    by: str
    along: str | None = field(default=None, metadata=IF_KNOWN)
    axes: int
    wanted: Wanted = field(metadata=HIDDEN)


@dataclass(frozen=True, kw_only=True)
class Removal(Pruning):
    """The indices that go: see `pruning.iterative.Pruned`; `assigned` are tensors that were computed anew."""

    curvature: str | None = field(default=None, metadata=IF_KNOWN | named("gauss-newton"))
    by: str
    along: str | None = field(default=None, metadata=IF_KNOWN)
    score: str
    axes: int
    indices: Part = field(metadata=AS_TEXT)
    biases: tuple[str, ...] = field(metadata=HIDDEN)
    mixes: tuple[str, ...] = field(metadata=HIDDEN)
    assigned: tuple[str, ...] = field(metadata=HIDDEN)
    twin: bool = field(metadata=HIDDEN)
    means: tuple[tuple[str, int, str], ...] = field(metadata=HIDDEN)
    data: str | None
    chosen_on: int
    samples: int
    predicted: float | None
    error: float | None
    wanted: Wanted = field(metadata=HIDDEN)
    latency: str | None = field(default=None, metadata=IF_KNOWN)


@dataclass(frozen=True, kw_only=True)
class OpenWeights(Pruning):
    """The tensors whose single weights may go, and what is asked for."""

    by: str
    tensors: int
    weights: tuple[str, ...] = field(metadata=HIDDEN)
    data: str | None
    wanted: Sparsity = field(metadata=HIDDEN)


@dataclass(frozen=True, kw_only=True)
class Zeros(OpenWeights):
    """The zeros: how many of how many, in which tensors, and every tensor that is another one now."""

    zeros: Part = field(metadata=AS_TEXT)
    assigned: tuple[str, ...] = field(metadata=HIDDEN)
    changed: tuple[str, ...]
    sparse: tuple[str, ...]
    chosen_on: int
    samples: int
    predicted: float | None
    error: float | None


@verb("prune")
@dataclass(frozen=True)
class Prune:
    """Remove channels, neurons, heads: `prune saliency<1e-3`, `prune conv3 by magnitude amount=30%`.

    What is coupled is scored and removed together: residual sums, concatenations, norms, grouped and depthwise convolutions,
    heads, tied weights. Without a selection everything free is meant; outputs of the network are never free. `along=` takes one
    kind of axis alone: `heads`, the width `within` them, the inner width of dense layers (`mlp`), the `residual` stream.
    Scores, `by …`:
    `obd` (default: s = ½ ∂²L/∂m² of a gate m on everything that reads the class; `obd(method=exact)`,
    `obd(method=monte-carlo, draws=4)`), `obd-weights`, `taylor`, `magnitude(norm=2)`, `bn-scale`, `activation`, `random`,
    and those that Python code registers with `netxform.pruning.scores.score`. `obd` uses the Gauss–Newton form; the plan says
    for how many axes that is the second derivative itself. It is not on residual streams (read again behind themselves)
    and before GELU, SiLU, softmax: there `obd(method=exact)` is, at one Hessian-vector product an index.

    How much: a threshold (`saliency < 1e-3`, `where zeros >= 99%`, `where activation < 0.01`), `amount=30%` of all indices,
    or a budget (`until macs <= 50% of base`; params, macs, flops, bytes; `latency <= 5ms` is timed at the captured batch, its
    `base` is the network before the statement, and times are kept: the same spec chooses the same on the same machine).
    `ranking=global` compares all layers (each keeps `least` and `min_channels`: 10 %, and half under a threshold on the score,
    which does not see how indices stand in for each other), `ranking=layer` takes a share of each;
    `normalise=mean|max|l2` divides scores by that of their class first. `round_to=8` rounds what is left up; `keep [a, b]`
    leaves those alone. `step=10%` removes in rounds of that share, scoring again in between (`obd` then adds the first order to
    the rank: `obd(first=false)` does not); in a block, `recover { train … }` trains after each, `stop_if val_accuracy < 90%`
    ends. `compensate=mean` folds the means of what goes into biases, `refit` fits the readers
    again by least squares. `granularity=weight` zeroes single weights instead (`by magnitude`, or `obd`: ½ h w²),
    `granularity="2:4"` two of every four along the inputs; zeros are stored as zeros, trainings in `recover` keep them, and
    so does a later `train … zeros=hold`.

    Example: model net = zoo.smallcnn() input="1x1x8x8"; data d = sklearn.digits();
    train ** for 1epochs on d; prune saliency<1e-4

    Contract: lossy. The change of the loss, predicted on samples that chose nothing, stands beside the measured one; what hurts
    draws a warning. The network is compared with its masked twin: the same function, with statistics (LayerNorm, means,
    softmax) taken over what is left. Refused: nothing free or nothing scored (X0331); an unknown score (X0412); a budget that
    cannot be met (X0603); no word of how much (X0408); what has no meaning for single weights (X0407).
    Papers: LeCun, Denker, Solla, "Optimal brain damage", 1990; Hassibi, Stork, 1993; Molchanov et al., 2017; Liu et al.,
    "Learning efficient convolutional networks through network slimming", 2017.
    """

    selection: Selection | None = operand(None)
    below: Limit | None = comparison()
    by: Invocation = prep("by", Invocation("obd"))
    where: Limit | None = prep("where")
    until: Limit | None = prep("until")
    keep: tuple[Selection, ...] = prep("keep", ())
    over: Name | None = prep("over")
    amount: float | None = key(None)
    along: Literal["heads", "within", "mlp", "residual"] | None = key(None)
    ranking: Literal["global", "layer"] = key("global")
    normalise: Literal["none", "mean", "max", "l2"] | None = key(None)
    min_channels: int = key(1)
    least: float | None = key(None)
    round_to: int = key(1)
    step: float | None = key(None)
    compensate: Literal["none", "mean", "refit"] = key("none")
    granularity: Literal["channel", "weight", "2:4"] = key("channel")
    samples: int = key(512)
    loss: Literal["cross_entropy", "mse", "bce"] | None = key(None)
    output: int | str | None = key(None)
    seed: int | None = key(None)
    recover: tuple[Any, ...] = nested("recover")
    stops: tuple[Stop, ...] = lines("stop_if", Stop)
    contract: ClassVar[Contract] = Contract.LOSSY

    @property
    def _output(self) -> str | None:
        return None if self.output is None else str(self.output)

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """One way to say how much, and values in range."""
        ways = [w for w in (self.below, self.where, self.until, self.amount) if w is not None]
        if len(ways) != 1 and self.granularity != "2:4":
            yield Diagnostic(
                "X0408", "`prune` needs one way to say how much", span, "how much?",
                helps=("write `saliency < 1e-3`, `amount=30%`, or `until macs <= 50% of base`",),
            )  # fmt: skip
        for limit in (x for x in (self.below, self.where) if x is not None):
            if limit.name not in _MEASURES:
                yield Diagnostic("X0412", f"`{limit.name}` is no score", limit.span, f"one of {', '.join(_MEASURES)}")
            else:
                yield from limit.divides(*_MEASURES[limit.name])
        if self.granularity != "channel":
            yield from self._single(span)
        if self.until is not None and (self.until.name not in _BUDGETS or self.until.op not in ("<", "<=")):
            helps = (f"write one of {', '.join(_BUDGETS)}, and `<=`",)
            yield Diagnostic("X0406", f"`{self.until}` is no budget", self.until.span, "", helps=helps)
        yield from out_of_range(self, span)
        if self.step is not None and self.amount is None and self.until is None:
            yield Diagnostic("X0407", "rounds need `amount=` or `until`", span, "`step` with a threshold")
        if (self.recover or self.stops) and self.step is None:
            yield Diagnostic(
                "X0408", "`recover` and `stop_if` belong to rounds", span, "no `step=`", helps=("write `step=10%`",)
            )

    def _single(self, span: Span) -> Iterator[Diagnostic]:
        """What single weights have no meaning for is refused, not passed over."""
        if self.by.name not in SCORES or SCORES.find(self.by.name).single is None:
            helps = ("write `by magnitude` or `by obd-weights`",)
            yield Diagnostic(
                "X0412", f"`{self.by.name}` scores no single weights", self.by.span, "whole axes alone", helps=helps
            )
        plain = Prune()
        names = ("until", "keep", "along", "normalise", "min_channels", "least", "round_to", "compensate")
        more = ("amount", "below", "where", "step", "ranking") if self.granularity == "2:4" else ()
        for name in (*names, *more):
            if getattr(self, name) != getattr(plain, name):
                word = {"below": "a threshold", "until": "`until`", "where": "`where`"}.get(name, f"`{name}`")
                why = "two of every four go" if name in more else "no axis goes"
                yield Diagnostic("X0407", f"{word} and `granularity={self.granularity}`: {why}", span, name)
        limit = self.below or self.where
        if limit is not None and not limit.op.startswith("<"):
            yield Diagnostic("X0406", f"`{limit}`: what is below goes", limit.span, "")
        other = limit is not None and limit.name == "magnitude" and self.by.name != "magnitude"
        if limit is not None and (limit.name in ("zeros", "activation") or other):
            helps = ("write `by magnitude`",) if other else ("write `score < …`",)
            yield Diagnostic("X0412", f"`{limit.name}` is not what single weights are scored by", limit.span, "", helps=helps)

    def resolve(self, network: Network, scope: Scope) -> Choice[Open] | Choice[OpenWeights]:
        """Find the axes; estimate the sizes by taking the same share of each."""
        from netxform.pruning.removal import Wanted, candidates, estimate, nothing

        kind = SCORES.find(self.by.name)
        if self.granularity != "channel":
            return self._weights(network, scope)
        inside = None if self.selection is None else scope.modules_of(self.selection)
        spared = [p for s in self.keep for p in scope.modules_of(s)]
        names, warnings = candidates(network, inside, spared, self.along)
        if not names:
            span = self.selection.span if self.selection is not None else scope.span
            raise nothing(network, inside, self.along, str(self.selection or "the network"), span)
        limit = self._limit(scope)
        if kind.data or self.compensate != "none" or self._measure() in ("zeros", "activation"):
            data = scope.data(None if self.over is None else self.over.text, scope.span).name
        else:
            data = self._other_data(scope)
        wanted = Wanted(
            names, self.by.name, dict(self.by.keywords), self.amount, self._threshold(), limit, self.ranking,
            self._normalise(), self.min_channels, self._least(), self.round_to, self.step, self.compensate, data, self.samples,
            self._loss(network, scope, data), self._output, scope.seed if self.seed is None else self.seed,
            self.until is not None and self.until.name == "latency" and self.until.of is not None,
        )  # fmt: skip
        recover = self._trainings(network, scope)
        removed, curvature = estimate(network, wanted), None
        if self.by.name == "obd" and self.by.keywords.get("method") != "exact":
            from netxform.pruning.exactness import described
            from netxform.pruning.gates import gates

            curvature = described(network, gates(network))
        values = Open(removed=removed, recover=recover, curvature=curvature, by=str(self.by), along=self.along,
                      axes=len(names), wanted=wanted)  # fmt: skip
        text = "which indices go needs weights" + (f" and {self.samples} samples of `{data}`" if data else "")
        text += "; how many as well" if wanted.threshold is not None else ""
        origins = {} if self.normalise is not None else {"normalise": f"{wanted.normalise}, for {self.by.name}"}
        origins |= {} if self.least is not None else {"least": f"{wanted.least:.0%} of an axis stays"}
        open_ = wanted.threshold is not None or (limit is not None and limit[0] == "latency")
        first = untrained(self.by.name, scope.untrained, wanted.threshold is not None)
        warnings = (*first, *nothing_goes(open_ or any(removed.values())), *warnings)
        return Choice(values, (str(self.selection or "**"),), origins, warnings=warnings, provisional=text)

    def _trainings(self, network: Network, scope: Scope) -> tuple[Training, ...]:
        """What `recover` trains."""
        found = tuple(t.resolve(network, scope).work for t in self.recover)
        if any(not isinstance(w, Training) for w in found):
            raise fail("X0404", "`recover` takes statements that train", scope.span, "something else")
        return cast("tuple[Training, ...]", found)

    def _measure(self) -> str:
        limit = self.below or self.where
        return "" if limit is None else limit.name

    def _least(self) -> float:
        """What stays of an axis at least: half, where a number that is compared with the loss says how much goes."""
        default = 0.5 if self._measure() in ("saliency", "score") else 0.1
        return default if self.least is None else self.least

    def _threshold(self) -> tuple[str, Sign, float] | None:
        limit = self.below or self.where
        return None if limit is None else (limit.name, limit.op, float(limit.value))

    def _normalise(self) -> Any:
        if self.normalise is not None:
            return self.normalise
        return SCORES.find(self.by.name).normalise if self.ranking == "global" else "none"

    def _limit(self, scope: Scope) -> tuple[str, float] | None:
        if self.until is None:
            return None
        value = float(self.until.value)
        if self.until.name == "latency" and self.until.of == "base":
            return "latency", value  # a share: the whole is timed where the weights are
        if self.until.of is not None:
            whole = scope.cost(self.until.name)
            if whole is None or self.until.of != "base":
                raise fail("X0406", "shares are of `base`, and of a cost", self.until.span, "a share of what?")
            value *= whole
        elif self.until.dimension == "share":
            raise fail("X0402", "a share of what?", self.until.span, helps=(f"write `{self.until} of base`",))
        return self.until.name, value

    def _weights(self, network: Network, scope: Scope) -> Choice[OpenWeights]:
        from netxform.pruning.unstructured import Sparsity, weights_in

        names = weights_in(network, scope.modules_of(self.selection) if self.selection else None)
        if not names:
            raise fail("X0331", "there are no weights of Linear or Conv layers here", scope.span, "nothing to prune")
        by = SCORES.find(self.by.name).single or self.by.name
        if SCORES.find(by).data:
            data = scope.data(None if self.over is None else self.over.text, scope.span).name
        else:
            data = self._other_data(scope)
        limit = self.below or self.where
        below = None if limit is None else (limit.op, float(limit.value))
        wanted = Sparsity(by, 0.5 if self.amount is None else self.amount, below, self.granularity == "2:4", self.ranking,
                          self.step, data, self.samples, self._loss(network, scope, data))  # fmt: skip
        trains = self._trainings(network, scope)
        values = OpenWeights(
            removed={}, recover=trains, by=by, tensors=len(names), weights=names, data=data, wanted=wanted
        )  # fmt: skip
        text = "which weights go needs weights" + (f" and {self.samples} samples of `{data}`" if SCORES.find(by).data else "")
        warnings = untrained(by, scope.untrained, limit is not None)
        return Choice(values, (str(self.selection or "**"),), warnings=warnings, provisional=text)

    def _loss(self, network: Network, scope: Scope, data: str | None) -> Literal["cross_entropy", "mse", "bce"]:
        """The loss on the data. Raises NetxformError X0351 where targets do not fit, or a score needs labels that are not
        there.
        """
        from netxform.language.fits import settled_loss

        span = self.over.span if self.over is not None else scope.span
        info = None if data is None else scope.data(data, span)
        if info is not None and not info.labelled and SCORES.find(self.by.name).slope:
            helps = ("by what the outputs feel: `by obd`", "without data: `by magnitude`")
            message = f"`{self.by.name}` is the slope of a loss, and `{info.name}` has no labels"
            raise fail("X0351", message, span, "no labels", helps=helps)
        return settled_loss(network, info, self.loss, self._output, span)

    def _other_data(self, scope: Scope) -> str | None:
        """Where the score needs no data: what the change of the loss is measured on, if anything is declared for it."""
        if self.over is not None:
            return scope.data(self.over.text, self.over.span).name
        try:
            return scope.data(None, scope.span).name
        except NetxformError:
            return None

    def settle(
        self, network: Network, choice: Choice[Open | OpenWeights], material: Material
    ) -> Choice[Removal] | Choice[Zeros]:
        """Score, rank, remove; in rounds, if asked for."""
        from netxform.pruning.iterative import prune
        from netxform.pruning.unstructured import zero_weights

        v = choice.values
        if isinstance(v, OpenWeights):
            made = zero_weights(network, v.weights, v.wanted, v.recover, self._broken, material)
            names = tuple(made.tensors)
            zeros = Zeros(
                removed={}, recover=v.recover, by=v.by, tensors=v.tensors, weights=v.weights, data=v.data, wanted=v.wanted,
                zeros=Part(made.zeros, made.count), assigned=names, changed=names, sparse=made.sparse,
                chosen_on=made.chosen_on, samples=made.samples, predicted=made.predicted, error=made.error,
            )  # fmt: skip
            return choice.settled(zeros, made.tensors, made.metrics, made.notes)
        found = prune(network, v.wanted, v.recover, self._broken, material)
        means = {name for _, _, name in found.means}
        times = "{:.3g} ms → {:.3g} ms on this machine, at the captured batch"
        values = Removal(
            removed=found.removed, recover=v.recover, curvature=v.curvature, by=v.by, along=v.along, score=found.score,
            axes=v.axes, indices=Part(sum(map(len, found.removed.values())), found.total), biases=found.biases,
            mixes=found.mixes, assigned=tuple(n for n in found.tensors if n not in means), twin=found.twin, means=found.means,
            data=v.wanted.data, chosen_on=found.chosen_on, samples=found.samples, predicted=found.predicted,
            error=found.error, wanted=v.wanted, latency=None if found.latency is None else times.format(*found.latency),
        )  # fmt: skip
        return choice.settled(values, found.tensors, found.metrics, found.notes)

    def _broken(self, metrics: Mapping[str, float]) -> str | None:
        """The first `stop_if` that holds, with what was measured. Raises NetxformError X0602 for what nothing measures."""
        for limit in (s.limit for s in self.stops):
            if limit.name not in metrics:
                raise fail("X0602", f"`stop_if {limit}`: nothing measures it", limit.span, "not measured by `recover`")
            if compare(limit.op, metrics[limit.name], limit.value):
                return f"`{limit}` ({metrics[limit.name]:.4g})"
        return None

    def rewrite(self, network: Network, choice: Choice[Pruning]) -> Edit:
        """One reindexing, biases where a compensation needs them, and the tensors that were computed."""
        from netxform.axes.index_maps import Reindex
        from netxform.pruning.removal import maps_of

        v = choice.values
        maps = maps_of(network, v.removed)
        operations: list[Any] = [Reindex(maps)] if maps else []
        operations += [Bias(v.biases)] if isinstance(v, Removal) and v.biases else []
        operations += [Assign(v.assigned)] if isinstance(v, Removal | Zeros) and v.assigned else []
        return Edit(tuple(operations), choice.tensors)

    def law(self, choice: Choice[Pruning]) -> tuple[Claim, ...]:
        """The masked twin, and the change of the loss; nothing before the choice is final."""
        v = choice.values
        claims: list[Claim] = []
        if isinstance(v, Zeros) and v.sparse:
            claims += [Untouched(v.changed), Sparse(v.sparse, v.zeros.count, self.granularity == "2:4")]
        if isinstance(v, Removal) and v.twin:
            removed = tuple((n, tuple(i)) for n, i in v.removed.items())
            claims.append(MaskedTwin(removed, v.mixes, v.means))
        if isinstance(v, Removal | Zeros) and v.data is not None:
            claims.append(LossChange(v.data, v.samples, v.wanted.loss, v.predicted, v.error, self._output, v.chosen_on))
        return tuple(claims)
