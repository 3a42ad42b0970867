"""features: the neck of a network as an extractor of flat features."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from netxform.graph.edits import Append, Edit, Truncate
from netxform.graph.layer_spec import Layer
from netxform.language.choice import HIDDEN, Choice, Values
from netxform.language.claims import Claim, SameValue
from netxform.language.laws import Contract
from netxform.language.values import Selection
from netxform.language.verb import Role, Scope, key, prep, verb

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Neck(Values):
    """The value that becomes the output, how it is pooled, and the layers that make it flat."""

    node: str = field(metadata=HIDDEN)
    pool: str
    layers: tuple[Layer, ...] = field(metadata=HIDDEN)

    def lines(self) -> tuple[str, ...]:
        """The layers, then the pooling."""
        made = ("; ".join(f"{layer.name} = {layer.make}" for layer in self.layers),) if self.layers else ()
        return (*made, *super().lines())


@verb("features")
@dataclass(frozen=True)
class Features:
    """Take the network up to a point as an extractor: its output is one flat vector of features for each sample.

    A map is pooled (`pool=avg` or `max`, global) or only flattened (`pool=none`). Put any classifier on it:
    `attach random_forest(500)`, `attach logistic_regression()`, or a class of scikit-learn by its full name.

    Example: model net = zoo.smallcnn(); data d = sklearn.digits(); features at layer4; attach random_forest(10)

    Contract: exact. Before pooling, the value is the original's, bit for bit.
    Refused: a sequence, whose pooling is a choice (X0312); two places (X0301).
    Paper: Razavian, Azizpour, Sullivan, Carlsson, "CNN features off-the-shelf", 2014.
    """

    at: Selection = prep("at", MISSING)
    pool: Literal["avg", "max", "none"] = key("avg")
    contract: ClassVar[Contract] = Contract.EXACT
    role: ClassVar[Role] = Role.CUTS

    def resolve(self, network: Network, scope: Scope) -> Choice[Neck]:
        """Find the point and what flattens it."""
        from netxform.graph.building import flattening
        from netxform.graph.outputs import kept_by

        node = scope.point(self.at, "after")
        kept = kept_by(network, node)
        every = [n for n, _ in network.module.named_modules(remove_duplicate=False)]
        return Choice(
            Neck(node, self.pool, tuple(flattening(network, node, self.pool))),
            targets=(str(self.at),),
            defines={"body": tuple(n for n in every if n in kept or n == "")},
            removed=tuple(n for n in every if n and n not in kept),
        )

    def rewrite(self, network: Network, choice: Choice[Neck]) -> Edit:
        """Cut, then flatten."""
        node, layers = choice.values.node, choice.values.layers
        append = (Append("features", node, layers, replace=True, open=True, seed=0),) if layers else ()
        return Edit((Truncate(node), *append))

    def law(self, choice: Choice[Neck]) -> tuple[Claim, ...]:
        """What is pooled is the original's value at that point."""
        return (SameValue(choice.values.node),)
