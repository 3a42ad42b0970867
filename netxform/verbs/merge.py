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
    from netxform.graph.adapters import Adapter
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

    With `dora=true` the sum is given the lengths that were trained; of `ia3` the weight is multiplied by the factors.

    The network then has the layers, the size and the speed that it had before `adapt`. Products are formed in float64 and
    rounded once, to the precision of the layer.

    Example: model net = zoo.smallcnn(); data d = sklearn.digits(train=100); adapt layer4 with lora rank=2;
    train ** for 1epochs; merge layer4

    Contract: exact in eval mode, measured in float64; as stored, within rounding.
    Refused: a selection without adapters, and bottleneck adapters, for no layer is what their activation computes (X0846).
    Paper: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022 (section 4.1, no additional latency).
    """

    selection: Selection = operand()
    contract: ClassVar[Contract] = Contract.EXACT
    role: ClassVar[Role] = Role.OTHER

    def resolve(self, network: Network, scope: Scope) -> Choice[Merged]:
        """Which adapters: those of the selected layers, and those that are selected themselves."""
        from netxform.graph.adapters import BOTTLENECK, adapters, bottlenecks

        asked = set(scope.modules_of(self.selection))
        known = adapters(network)
        found = [a for a in known if asked & {a.path, a.name, *a.parts}]
        stuck = [n for n in bottlenecks(network) if asked & {n, n.removesuffix(BOTTLENECK), f"{n}.down", f"{n}.up"}]
        if stuck:
            raise fail(
                "X0846",
                f"a bottleneck adapter cannot be folded in: `{stuck[0]}` holds an activation",
                self.selection.span,
                "no layer computes this",
                notes=(f"{len(stuck)} of the {len(stuck) + len(found)} adapters selected hold one",),
                helps=("leave them where they are, or name the others",),
            )
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
        gone = tuple(dict.fromkeys(n for a in found for n in (a.name, *a.parts)))
        weights = tuple(f"{a.path}.{n}" for a in found for n in _changed(a, network))
        values = Merged(tuple(a.name for a in found), weights)
        return Choice(values, (str(self.selection),), removed=gone, provisional="the products are formed from the weights")

    def settle(self, network: Network, choice: Choice[Merged], material: Material) -> Choice[Merged]:
        """Each weight with its adapter, in float64."""
        from netxform.graph.adapters import adapters, merged

        tensors = {}
        for a in adapters(network):
            if a.name in choice.values.adapters:
                tensors |= merged(network, a)
        return choice.settled(choice.values, tensors)

    def rewrite(self, network: Network, choice: Choice[Merged]) -> Edit:
        """The new weights, and the layers alone."""
        v = choice.values
        return Edit((Assign(v.weights), TakeAway(v.adapters)), choice.tensors)

    def law(self, choice: Choice[Merged]) -> tuple[Claim, ...]:
        """The same function."""
        return (SameFunction(),)


def _changed(adapter: Adapter, network: Network) -> tuple[str, ...]:
    """The tensors of the layer that take it up."""
    layer = network.module.get_submodule(adapter.path)
    factors = adapter.kind == "ia3" and adapter.side == "output"
    return ("weight", "bias") if factors and getattr(layer, "bias", None) is not None else ("weight",)
