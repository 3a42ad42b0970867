"""remove: whole blocks out of the network, those that are named or those that do least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from netxform.errors import Diagnostic, Span, fail
from netxform.graph.edits import Bypass, Edit
from netxform.language.choice import HIDDEN, IF_KNOWN, Choice, Values
from netxform.language.claims import Bypassed, Claim, LossChange, OutputError
from netxform.language.laws import Contract
from netxform.language.values import Name, Selection
from netxform.language.verb import Material, Role, Scope, key, operand, prep, verb

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Gone(Values):
    """The blocks that go, of those that could; what each does, once that is measured."""

    blocks: tuple[str, ...]
    candidates: tuple[str, ...] = field(metadata=HIDDEN)
    data: str | None = field(default=None, metadata=IF_KNOWN)
    influence: Mapping[str, float] | None = field(default=None, metadata=HIDDEN | IF_KNOWN)
    predicted: float | None = field(default=None, metadata=IF_KNOWN)
    loss: Literal["cross_entropy", "mse", "bce"] = field(default="cross_entropy", metadata=HIDDEN)

    @property
    def recorded(self) -> tuple[str, ...]:
        """What each block does, least first."""
        if self.influence is None:
            return ()
        order = sorted(self.influence, key=lambda p: self.influence[p] if self.influence else 0.0)
        return tuple(f"{p}: {self.influence[p]:.4g}{' (removed)' if p in self.blocks else ''}" for p in order)


@verb("remove")
@dataclass(frozen=True)
class Remove:
    """Take whole blocks out: whoever read what a block gave reads what it was given.

    `remove layer3.1` takes out what is named. `remove blocks(layer3) count=2 over DATA` takes out the two of the selected
    blocks that do least: `by cosine` (the default) by how little they turn their input, one minus the cosine of input and
    output, averaged over samples and positions; `by loss` by how little the mean loss grows without each alone, which is
    then the prediction. A block reads one value and gives one of the same shape; those of the selection that do not are
    left out of the choice.

    Example: model net = zoo.resnet_small(); data d = sklearn.digits(train=100); remove blocks(layer1) count=1 over d

    Contract: lossy. The network computes what it did with these blocks passed by, bit for bit; how far the outputs moved is
    measured, and with data what the loss became, beside what was predicted.
    Refused: a block that changes the shape or that is read from outside (X0848); more blocks than there are (X0406).
    Papers: Men et al., "ShortGPT: layers in large language models are more redundant than you expect", 2024; Veit, Wilber,
    Belongie, "Residual networks behave like ensembles of relatively shallow networks", NeurIPS 2016.
    """

    selection: Selection = operand()
    by: Literal["cosine", "loss"] | None = prep("by")
    over: Name | None = prep("over")
    count: int | None = key(None)
    samples: int = key(512)
    loss: Literal["cross_entropy", "mse", "bce"] | None = key(None)
    output: int | str | None = key(None)
    contract: ClassVar[Contract] = Contract.LOSSY
    role: ClassVar[Role] = Role.CUTS

    @property
    def _output(self) -> str | None:
        return None if self.output is None else str(self.output)

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """A choice needs a number and data; without one there is nothing to choose by."""
        if self.count is not None and self.count < 1:
            yield Diagnostic("X0406", f"`count` is at least 1, not {self.count}", span, "count")
        if self.count is not None and self.over is None:
            yield Diagnostic("X0408", "which blocks do least is seen on data", span, "no data", helps=("write `over DATA`",))
        if self.by is not None and self.count is None:
            yield Diagnostic("X0408", "`by` chooses among blocks", span, "how many?", helps=("write `count=2`",))
        if self.samples < 1:
            yield Diagnostic("X0406", f"`samples` is at least 1, not {self.samples}", span, "samples")

    def resolve(self, network: Network, scope: Scope) -> Choice[Gone]:
        """The blocks that can go, and which of them."""
        from netxform.graph.bypass import obstacle
        from netxform.language.fits import settled_loss

        asked = scope.modules(self.selection)
        info = None if self.over is None else scope.data(self.over.text, self.over.span)
        data = None if info is None else info.name
        span = scope.span if self.over is None else self.over.span
        loss = settled_loss(network, info, self.loss, self._output, span)
        why = {p: obstacle(network, p) for p in asked}
        able = tuple(p for p in asked if why[p] is None)
        stuck = [f"{p}: {text}" for p, text in why.items() if text is not None]
        if stuck and (self.count is None or not able):
            raise fail(
                "X0848",
                f"{len(stuck)} of {len(asked)} blocks cannot be taken out",
                self.selection.span,
                "not to be passed by",
                notes=tuple(stuck[:6]),
                helps=("select blocks that give what they are given: `netxform ls SPEC` shows the modules",),
            )
        if self.count is None:
            return Choice(Gone(able, able, data, loss=loss), (str(self.selection),), removed=_under(network, able))
        if self.count > len(able):
            notes = tuple(stuck[:6])
            raise fail("X0406", f"{self.count} of {len(able)} blocks", self.selection.span, "more than there are", notes=notes)
        first = able[-self.count :]
        text = f"which blocks do least is measured on `{data}`; shown are the last {self.count}"
        return Choice(
            Gone(first, able, data, loss=loss), (str(self.selection),), removed=_under(network, first), provisional=text
        )

    def settle(self, network: Network, choice: Choice[Gone], material: Material) -> Choice[Gone]:
        """Measure what the blocks do, and choose."""
        from netxform.pruning.influence import by_cosine, by_loss
        from netxform.pruning.loss import answered

        v = choice.values
        if self.count is None or v.data is None:
            return choice.settled(v)
        data, material = v.data, answered(material, network, self._output)

        def source():
            return material.batches(data, self.samples)

        if self.by == "loss":
            found = by_loss(network, v.candidates, source, v.loss, self._output)
        else:
            found = by_cosine(network, v.candidates, source)
        order = sorted(v.candidates, key=lambda p: (found[p], v.candidates.index(p)))
        chosen = set(order[: self.count])
        blocks = tuple(p for p in v.candidates if p in chosen)
        predicted = sum(found[p] for p in blocks) if self.by == "loss" else None
        made = choice.settled(replace(v, blocks=blocks, influence=found, predicted=predicted))
        return replace(made, removed=_under(network, blocks))

    def rewrite(self, network: Network, choice: Choice[Gone]) -> Edit:
        """The blocks passed by."""
        return Edit((Bypass(choice.values.blocks),))

    def law(self, choice: Choice[Gone]) -> tuple[Claim, ...]:
        """As before without the blocks; how far the outputs moved, and the loss."""
        v = choice.values
        claims: tuple[Claim, ...] = (Bypassed(v.blocks), OutputError())
        if v.data is not None:
            claims = (*claims, LossChange(v.data, self.samples, v.loss, v.predicted, None, self._output))
        return claims


def _under(network: Network, blocks: tuple[str, ...]) -> tuple[str, ...]:
    """The modules of the blocks."""
    names = [n for n, _ in network.module.named_modules(remove_duplicate=False)]
    return tuple(n for n in names if any(n == b or n.startswith(f"{b}.") for b in blocks))
