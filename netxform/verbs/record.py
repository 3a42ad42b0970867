"""record: the trajectory of a stage's training, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from netxform.errors import Diagnostic, Span
from netxform.graph.edits import Edit
from netxform.language.choice import Choice, Values
from netxform.language.claims import Claim
from netxform.language.laws import Contract
from netxform.language.values import Count, Name
from netxform.language.verb import Scope, key, operand, prep, verb

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Recorded(Values):
    """What a point of the trajectory is, on how many samples, after how many epochs each."""

    what: str
    samples: int
    every: int


@verb("record", setting=True)
@dataclass(frozen=True)
class Record:
    """Record where the network stands before the training of this stage and after every epoch: `record trajectory`.

    A point is what the network computes on a probe set, all outputs one behind the other (softmax where the loss is
    cross-entropy): a place in function space. With `what=weights` it is the trained parameters. The probe set is the first
    `samples` of the test part of the data (`part=val` or `train` for another, `on DATA` for other data). The runs of
    `compare` are recorded too, so that one spec gives pre-trained and random trajectories over many seeds.

    The bundle keeps them; `netxform compare BUNDLE …` draws them (t-SNE, PCA or Isomap) and says how well the two kinds part.

    Example: model net = zoo.smallcnn() input="1x1x8x8"; data d = sklearn.digits(train=50);
    stage s { train ** for 2epochs on d; record trajectory samples=50 }

    Contract: none of its own; the training is the same with and without it. Refused: `every=` in steps (X0402); no sample
    (X0406).
    Paper: Erhan et al., "Why does unsupervised pre-training help deep learning?", JMLR 2010, section 6.3.
    """

    what_is: Name = operand()
    on: Name | None = prep("on")
    what: Literal["outputs", "weights"] = key("outputs")
    part: Literal["test", "val", "train"] = key("test")
    samples: int = key(256)
    every: Count = key(Count(1, "epochs"))
    contract: ClassVar[Contract] = Contract.NONE

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """Only trajectories are recorded, of at least one sample, by epochs."""
        if self.what_is.text != "trajectory":
            helps = ("write `record trajectory`",)
            yield Diagnostic("X0401", f"`record {self.what_is}`", self.what_is.span, "expected `trajectory`", helps=helps)
        if self.every.unit != "epochs":
            yield Diagnostic("X0402", "a trajectory is recorded by epochs", span, "in steps", helps=("`every=2epochs`",))
        if self.samples < 1:
            yield Diagnostic("X0406", f"`samples` is at least 1, not {self.samples}", span, "no sample")

    def resolve(self, network: Network, scope: Scope) -> Choice[Recorded]:
        """Nothing to settle: `train` reads it."""
        if self.on is not None:
            scope.data(self.on.text, self.on.span)
        return Choice(Recorded(self.what, self.samples, self.every.value))

    def rewrite(self, network: Network, choice: Choice[Recorded]) -> Edit:
        """No change of structure."""
        return Edit()

    def law(self, choice: Choice[Recorded]) -> tuple[Claim, ...]:
        """Nothing to claim."""
        return ()
