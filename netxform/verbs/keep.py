"""keep: which epoch of a stage's training is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netxform.errors import Diagnostic, Span, did_you_mean
from netxform.graph.edits import Edit
from netxform.language.choice import Choice, Values
from netxform.language.claims import Claim
from netxform.language.laws import Contract
from netxform.language.methods import kept_metrics
from netxform.language.values import Name
from netxform.language.verb import Scope, operand, prep, verb

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Kept(Values):
    """The metric whose best epoch is kept."""

    by: str


@verb("keep", setting=True)
@dataclass(frozen=True)
class Keep:
    """Keep the best epoch of this stage's training: its weights are put back when the training ends.

    Example: model net = zoo.smallcnn(); data d = sklearn.digits(); stage s { train ** for 1epochs; keep best by val_loss }

    Contract: none of its own; it sets the `train` statements of its stage. Refused: an unknown metric (X0204).
    Paper: Prechelt, "Early stopping, but when?", in Neural networks: tricks of the trade, 1998.
    """

    what: Name = operand()
    by: Name = prep("by", Name("val_loss"))
    contract: ClassVar[Contract] = Contract.NONE

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """Only the best can be kept, and only by a metric that training reports."""
        if self.what.text != "best":
            yield Diagnostic("X0401", f"`keep {self.what}`: only `best` can be kept", self.what.span, "expected `best`")
        known = kept_metrics()
        if self.by.text not in known:
            helps = did_you_mean(self.by.text, known) or (f"metrics: {', '.join(known)}",)
            yield Diagnostic("X0204", f"`{self.by}` is no metric of training", self.by.span, "unknown", helps=helps)

    def resolve(self, network: Network, scope: Scope) -> Choice[Kept]:
        """Nothing to settle: `train` reads it."""
        return Choice(Kept(self.by.text))

    def rewrite(self, network: Network, choice: Choice[Kept]) -> Edit:
        """No change of structure."""
        return Edit()

    def law(self, choice: Choice[Kept]) -> tuple[Claim, ...]:
        """Nothing to claim."""
        return ()
