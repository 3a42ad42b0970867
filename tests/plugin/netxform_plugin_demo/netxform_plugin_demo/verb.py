"""hold: parameters that a later training leaves as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netxform.graph.edits import Edit, Trainable
from netxform.language.choice import Choice, Values
from netxform.language.claims import Claim, SameOutputs
from netxform.language.laws import Contract
from netxform.language.values import Selection
from netxform.language.verb import Scope, operand, verb

if TYPE_CHECKING:
    from netxform.graph.network import Network


@verb("hold")
@dataclass(frozen=True)
class Hold:
    """Hold parameters: `freeze` without norms.

    Example: model net = zoo.mlp(); hold fc1

    Contract: exact. The function is unchanged.
    Paper: none.
    """

    selection: Selection = operand()
    contract: ClassVar[Contract] = Contract.EXACT

    def resolve(self, network: Network, scope: Scope) -> Choice[Values]:
        """Name the tensors."""
        return Choice(Values(), tuple(scope.tensors(self.selection)))

    def rewrite(self, network: Network, choice: Choice[Values]) -> Edit:
        """Flags only."""
        return Edit((Trainable(tuple(choice.targets), False),))

    def law(self, choice: Choice[Values]) -> tuple[Claim, ...]:
        """Same outputs, and no parameter more or less."""
        from netxform_plugin_demo.claim import SameSize

        return (SameOutputs(), SameSize())
