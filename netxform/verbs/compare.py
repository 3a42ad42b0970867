"""compare: is the result due to what was carried over? Run the spec again beside a variant, over several seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from netxform.errors import Diagnostic, Span, did_you_mean
from netxform.graph.edits import Edit
from netxform.language.choice import Choice, Values
from netxform.language.claims import Claim
from netxform.language.laws import Contract
from netxform.language.methods import compared_metrics
from netxform.language.verb import Scope, key, prep, verb
from netxform.language.work import Comparison

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Runs(Values):
    """Over how many seeds, and what is compared."""

    seeds: int
    metric: str


@verb("compare")
@dataclass(frozen=True)
class Compare:
    """Compare with a variant: the whole spec runs again for each seed, and so does the variant; both are reported.

    `compare to scratch`: the same network with fresh weights, nothing frozen, everything trained on the last data set.
    `compare to random`: the same spec on fresh weights: frozen parts stay random. What was trained before the first
    change of structure (the pre-training) is left out of both variants.
    `metric=test_f1` compares by another metric than `test_accuracy`.
    `compare to alone`: the same spec without its teachers, on the labels alone: does distillation help, and how much? Given are
    mean and standard error over the seeds.

    Example: model net = zoo.smallcnn(); data d = sklearn.digits(train=50); train ** for 1epochs; compare to scratch seeds=2

    Contract: none; what is measured goes to the certificate.
    Refused: one seed alone (X0406); an unknown metric (X0204), or one that nothing measured (X0602).
    Papers: Yosinski, Clune, Bengio, Lipson, "How transferable are features in deep neural networks?", 2014 (random and trained
    controls); Erhan et al., "Why does unsupervised pre-training help deep learning?", JMLR 11, 2010 (over seeds).
    """

    to: tuple[Literal["scratch", "random", "alone"], ...] = prep("to", MISSING)
    seeds: int = key(5)
    metric: str = key("test_accuracy")
    contract: ClassVar[Contract] = Contract.NONE

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """A standard error needs two runs."""
        if self.seeds < 2:
            yield Diagnostic("X0406", f"`seeds` is at least 2, not {self.seeds}", span, "no standard error from one run")
        known = compared_metrics()
        if self.metric not in known:
            helps = did_you_mean(self.metric, known) or (f"metrics: {', '.join(known)}",)
            yield Diagnostic("X0204", f"`{self.metric}` is not measured on test data", span, "unknown metric", helps=helps)

    def resolve(self, network: Network, scope: Scope) -> Choice[Runs]:
        """Nothing to settle."""
        work = Comparison(self.to, self.seeds, self.metric)
        return Choice(Runs(self.seeds, self.metric), self.to, work=work)

    def rewrite(self, network: Network, choice: Choice[Runs]) -> Edit:
        """No change of structure."""
        return Edit()

    def law(self, choice: Choice[Runs]) -> tuple[Claim, ...]:
        """Nothing to claim."""
        return ()
