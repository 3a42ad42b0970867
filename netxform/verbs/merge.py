"""merge: adapters folded into the layers that they stand beside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from netxform.errors import fail
from netxform.graph.edits import Assign, Edit, TakeAway
from netxform.language.choice import HIDDEN, Choice, Values
from netxform.language.claims import Claim, SameFunction
from netxform.language.laws import Contract
from netxform.language.values import Selection
from netxform.language.verb import Material, Role, Scope, operand, verb

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Merged(Values):
    """The adapters that go, and the weights that take up their products."""

    adapters: tuple[str, ...]
    weights: tuple[str, ...] = field(metadata=HIDDEN)


@verb("merge")
@dataclass(frozen=True)
class Merge:
    """Fold the selected adapters into their layers: each weight becomes itself plus the product, and the adapter goes.

    The network then has the layers, the size and the speed that it had before `adapt`. Products are formed in float64 and
    rounded once, to the precision of the layer.

    Example: model net = zoo.smallcnn(); data d = sklearn.digits(train=100); adapt layer4 with lora rank=2;
    train ** for 1epochs; merge layer4

    Contract: exact in eval mode, measured in float64; as stored, within rounding.
    Refused: a selection without adapters (X0846).
    Paper: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022 (section 4.1, no additional latency).
    """

    selection: Selection = operand()
    contract: ClassVar[Contract] = Contract.EXACT
    role: ClassVar[Role] = Role.OTHER

    def resolve(self, network: Network, scope: Scope) -> Choice[Merged]:
        """Which adapters: those of the selected layers, and those that are selected themselves."""
        from netxform.graph.adapters import adapters

        asked = set(scope.modules_of(self.selection))
        known = adapters(network)
        found = [a for a in known if asked & {a.path, a.name, f"{a.name}.A", f"{a.name}.B"}]
        if not found:
            raise fail(
                "X0846",
                f"`{self.selection}` holds no adapter",
                self.selection.span,
                "nothing to merge",
                helps=(f"adapters: {', '.join(a.name for a in known[:6])}",)
                if known
                else ("`adapt … with lora` puts some in",),
            )
        gone = tuple(n for a in found for n in (a.name, f"{a.name}.A", f"{a.name}.B"))
        values = Merged(tuple(a.name for a in found), tuple(f"{a.path}.weight" for a in found))
        return Choice(values, (str(self.selection),), removed=gone, provisional="the products are formed from the weights")

    def settle(self, network: Network, choice: Choice[Merged], material: Material) -> Choice[Merged]:
        """Each weight plus its product, in float64."""
        from netxform.graph.adapters import adapters, product

        module = network.module
        tensors = {}
        for a in adapters(network):
            if a.name in choice.values.adapters:
                layer = module.get_submodule(a.path)
                A, B = (module.get_parameter(f"{a.name}.{part}.weight").detach().double() for part in ("A", "B"))
                tensors[f"{a.path}.weight"] = module.get_parameter(f"{a.path}.weight").detach().double() + a.scale * product(
                    layer, A, B
                )
        return choice.settled(choice.values, tensors)

    def rewrite(self, network: Network, choice: Choice[Merged]) -> Edit:
        """The new weights, and the layers alone."""
        v = choice.values
        return Edit((Assign(v.weights), TakeAway(v.adapters)), choice.tensors)

    def law(self, choice: Choice[Merged]) -> tuple[Claim, ...]:
        """The same function."""
        return (SameFunction(),)
