"""freeze: parameters and running statistics that training must leave as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from netxform.errors import fail
from netxform.graph.edits import Edit, Trainable
from netxform.language.choice import HIDDEN, Choice, Values
from netxform.language.claims import Claim, FrozenInTraining, SameOutputs
from netxform.language.laws import Contract
from netxform.language.values import Selection
from netxform.language.verb import Role, Scope, key, operand, verb

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Frozen(Values):
    """What stands still from here on, by name."""

    parameters: tuple[str, ...] = field(metadata=HIDDEN)
    norms: tuple[str, ...] = field(metadata=HIDDEN)
    buffers: tuple[str, ...] = field(metadata=HIDDEN)
    bn: str
    still: tuple[str, ...] = field(default=(), metadata=HIDDEN)
    held: tuple[str, ...] = field(default=(), metadata=HIDDEN)

    def lines(self) -> tuple[str, ...]:
        """How many, then the rest."""
        norms = f", {len(self.norms)} BatchNorm" if self.norms else ""
        norms += f", what {', '.join(self.still)} keeps of its inputs" if self.still else ""
        return (f"{len(self.parameters)} parameters{norms}", *super().lines())


@verb("freeze")
@dataclass(frozen=True)
class Freeze:
    """Freeze parameters, and with them what a module keeps of its inputs: running statistics, counters, vectors of a norm.

    With `bn=eval` (the default) BatchNorm in the selection normalises by its running statistics even in `train()` mode
    and never updates them, and no other buffer of the selection is written; with `bn=train` only the parameters stand still.

    Example: model net = zoo.smallcnn(); cut at layer4; freeze body

    Contract: exact. The function is unchanged, and after any training the frozen tensors have the same bits.
    Refused: a selection without parameters that could be frozen (X0307); a layer that writes buffers of its own and is of a
    class that cannot be frozen (X0306).
    Paper: Ioffe, Szegedy, "Batch normalization", ICML 2015 (running statistics are no parameters, and move without gradients).
    """

    selection: Selection = operand()
    bn: Literal["eval", "train"] = key("eval")
    contract: ClassVar[Contract] = Contract.EXACT
    role: ClassVar[Role] = Role.FREEZES

    def resolve(self, network: Network, scope: Scope) -> Choice[Frozen]:
        """Name the tensors and the norms."""
        from netxform.graph.frozen import norms_in, still_in

        tensors = scope.tensors(self.selection)
        known = dict(network.module.named_parameters(remove_duplicate=False))
        parameters = [t for t in tensors if t in known]
        owners = {t.rpartition(".")[0] for t in tensors}
        norms, stuck = norms_in(network, owners) if self.bn == "eval" else ([], [])
        if stuck:
            raise fail(
                "X0306",
                f"what `{stuck[0]}` keeps of its inputs cannot be frozen",
                self.selection.span,
                f"{len(stuck)} layer(s) of an unknown kind",
                notes=("netxform freezes BatchNorm1d, BatchNorm2d and BatchNorm3d",),
                helps=("write `bn=train` to freeze the parameters alone",),
            )
        still, held = still_in(network, owners, norms) if self.bn == "eval" else ([], [])
        if not parameters and not norms and not still:
            raise fail(
                "X0307",
                f"`{self.selection}` has no parameters to freeze",
                self.selection.span,
                "nothing to freeze",
            )
        buffers = [t for t in tensors if t not in known and t.rpartition(".")[0] in {*norms, *still}]
        values = Frozen(tuple(parameters), tuple(norms), tuple(buffers), self.bn, tuple(still), tuple(held))
        return Choice(values, (str(self.selection),))

    def rewrite(self, network: Network, choice: Choice[Frozen]) -> Edit:
        """Flags only; norms change their class."""
        v = choice.values
        return Edit((Trainable(v.parameters, False, v.norms, v.still, v.held),))

    def law(self, choice: Choice[Frozen]) -> tuple[Claim, ...]:
        """Same outputs; nothing frozen moves."""
        return (SameOutputs(), FrozenInTraining(choice.values.parameters, choice.values.buffers))
