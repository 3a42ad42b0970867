"""snapshot: remember the network as it is now, as a model for later statements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netxform.graph.edits import Edit
from netxform.language.choice import Choice, Values
from netxform.language.claims import Claim, SameOutputs
from netxform.language.laws import Contract
from netxform.language.values import Name
from netxform.language.verb import Scope, operand, verb
from netxform.language.work import Snapshot

if TYPE_CHECKING:
    from netxform.graph.network import Network


@verb("snapshot")
@dataclass(frozen=True)
class Snap:
    """Remember the network as it is now under a name: the teacher of what the following statements make of it.

    Example: model net = zoo.smallcnn(); data d = sklearn.digits(train=100);
    train ** for 1epochs; snapshot teacher; widen conv1 x2; distill from teacher for 1epochs

    Contract: exact. The network itself stays as it is. Refused: a name that a model already has (X0303).
    Paper: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015 (what it is for).
    """

    name: Name = operand()
    contract: ClassVar[Contract] = Contract.EXACT

    def resolve(self, network: Network, scope: Scope) -> Choice[Values]:
        """The name is free."""
        return Choice(Values(), (self.name.text,), work=Snapshot(self.name.text))

    def rewrite(self, network: Network, choice: Choice[Values]) -> Edit:
        """No change of structure."""
        return Edit()

    def law(self, choice: Choice[Values]) -> tuple[Claim, ...]:
        """Nothing has changed."""
        return (SameOutputs(),)
