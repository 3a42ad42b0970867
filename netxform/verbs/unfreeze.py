"""unfreeze: let training change tensors again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from netxform.errors import fail
from netxform.graph.edits import Edit, Trainable
from netxform.language.choice import HIDDEN, Choice, Values
from netxform.language.claims import Claim, SameOutputs
from netxform.language.laws import Contract
from netxform.language.values import Selection
from netxform.language.verb import Role, Scope, key, operand, verb

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Thawed(Values):
    """What moves again from here on, by name."""

    parameters: tuple[str, ...] = field(metadata=HIDDEN)
    norms: tuple[str, ...] = field(metadata=HIDDEN)
    bn: str
    held: tuple[str, ...] = field(default=(), metadata=HIDDEN)

    def lines(self) -> tuple[str, ...]:
        """How many, then the rest."""
        norms = f", {len(self.norms)} BatchNorm" if self.norms else ""
        return (f"{len(self.parameters)} parameters{norms}", *super().lines())


@verb("unfreeze")
@dataclass(frozen=True)
class Unfreeze:
    """Unfreeze parameters; BatchNorm in the selection updates its statistics again, unless `bn=eval`.

    The parameters join the optimizer of the next `train`.

    Example: model net = zoo.smallcnn(); cut at layer4; freeze body; unfreeze layer4

    Contract: exact in eval mode. Refused: a selection in which nothing is frozen (X0307).
    Paper: Howard, Ruder, "Universal language model fine-tuning for text classification", ACL 2018 (gradual unfreezing).
    """

    selection: Selection = operand()
    bn: Literal["eval", "train"] = key("train")
    contract: ClassVar[Contract] = Contract.EXACT
    role: ClassVar[Role] = Role.FREEZES

    def resolve(self, network: Network, scope: Scope) -> Choice[Thawed]:
        """Name the frozen tensors and norms of the selection."""
        from netxform.graph.frozen import frozen_norms
        from netxform.graph.memory import held_by

        tensors = set(scope.tensors(self.selection))
        named = network.module.named_parameters(remove_duplicate=False)
        parameters = [n for n, p in named if n in tensors and not p.requires_grad]
        owners = {t.rpartition(".")[0] for t in tensors}
        norms = [n for n in frozen_norms(network) if n in owners] if self.bn == "train" else []
        held = [n for n in held_by(network.module).values() if n in owners or n in tensors] if self.bn == "train" else []
        if not parameters and not norms and not held:
            raise fail(
                "X0307",
                f"nothing in `{self.selection}` is frozen",
                self.selection.span,
                "already trainable",
            )
        return Choice(Thawed(tuple(parameters), tuple(norms), self.bn, tuple(dict.fromkeys(held))), (str(self.selection),))

    def rewrite(self, network: Network, choice: Choice[Thawed]) -> Edit:
        """Flags only; frozen norms become ordinary ones."""
        return Edit((Trainable(choice.values.parameters, True, choice.values.norms, held=choice.values.held),))

    def law(self, choice: Choice[Thawed]) -> tuple[Claim, ...]:
        """Same outputs."""
        return (SameOutputs(),)
