"""adapt: small trainable layers beside the selected ones, which stand still (LoRA)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from netxform.errors import Diagnostic, Span, fail
from netxform.graph.edits import Beside, Edit, Operation, Trainable
from netxform.graph.layer_spec import Invocation, Layer
from netxform.language.choice import HIDDEN, IF_KNOWN, Choice, Values
from netxform.language.claims import Claim, FrozenInTraining, SameOutputs
from netxform.language.laws import Contract
from netxform.language.values import Selection
from netxform.language.verb import Role, Scope, key, operand, prep, verb

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Adapted(Values):
    """What is put beside which layers; what stands still from here on, by name; and why other layers are left."""

    beside: tuple[Beside, ...] = field(metadata=HIDDEN)
    rank: int
    alpha: float
    adds: int = field(metadata=HIDDEN)
    parameters: tuple[str, ...] = field(metadata=HIDDEN)
    norms: tuple[str, ...] = field(metadata=HIDDEN)
    buffers: tuple[str, ...] = field(metadata=HIDDEN)
    left: tuple[str, ...] | None = field(default=None, metadata=IF_KNOWN)

    def lines(self) -> tuple[str, ...]:
        """How many layers and numbers, then the rest."""
        what = f"{len(self.beside)} layers, {self.adds:,} new parameters; {len(self.parameters)} tensors stand still"
        return (what, *super().lines())


@verb("adapt")
@dataclass(frozen=True)
class Adapt:
    """Put a low-rank adapter beside each selected Linear, convolution and Embedding, and let nothing else be trained.

    Beside the layer stand two small ones without bias: `A`, down to `rank` numbers, and `B`, up again, zero at first.
    What comes out is the layer's result plus `alpha / rank` times theirs (`alpha` is the rank, unless it is given).
    `dropout=0.1` drops values before `A` while training; `scale=sqrt` divides by the root of the rank instead (rank-
    stabilised). Everything that was there stands still, BatchNorm too; `unfreeze head` lets a head move again, and what
    is attached later moves anyway.

    The adapter of `fc1` is called `fc1_lora`; `merge` folds it into the layer. `netxform export BUNDLE FOLDER --to peft` writes
    the adapters apart, as PEFT reads them, and `init ** from peft("FOLDER")` reads such a folder.

    Example: model net = zoo.smallcnn(); adapt layer4 | fc1 with lora rank=2

    Contract: exact. The outputs are bit-equal, for the new product is zero; after any training the tensors and buffers that
    were there have the same bits.
    Refused: a selection without a layer that can have one (X0845): tied or quantized weights, grouped convolutions, layers
    whose weights another layer reads.
    Papers: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022; Kalajdzievski, "A rank stabilization
    scaling factor for fine-tuning with LoRA", 2023.
    """

    selection: Selection = operand()
    form: Literal["lora"] = prep("with", MISSING)
    rank: int = key()
    alpha: float | None = key(None)
    scale: Literal["rank", "sqrt"] = key("rank")
    dropout: float = key(0.0)
    seed: int | None = key(None)
    contract: ClassVar[Contract] = Contract.EXACT
    role: ClassVar[Role] = Role.FREEZES

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """Numbers that make sense."""
        if self.rank < 1:
            yield Diagnostic("X0406", f"a rank is at least 1, not {self.rank}", span, "rank")
        if not 0 <= self.dropout < 1:
            yield Diagnostic("X0406", f"`dropout` is in [0, 1), not {self.dropout:g}", span, "dropout")
        if self.alpha is not None and not self.alpha > 0:
            yield Diagnostic("X0406", f"`alpha` is above 0, not {self.alpha:g}", span, "alpha")

    def resolve(self, network: Network, scope: Scope) -> Choice[Adapted]:
        """Which layers, and what stands beside each."""
        from netxform.graph.adapters import ADAPTABLE, SUFFIX, adapters, obstacle
        from netxform.graph.frozen import norms_in

        module = network.module
        modules = dict(module.named_modules())
        own = {f"{a.name}.{part}" for a in adapters(network) for part in ("A", "B")}
        asked = [p for p in scope.modules_of(self.selection) if p not in own]
        why = {p: obstacle(network, p) for p in asked if isinstance(modules.get(p), ADAPTABLE)}
        targets = [p for p, text in why.items() if text is None]
        left = tuple(f"{p}: {text}" for p, text in why.items() if text is not None)
        if not targets:
            raise fail(
                "X0845",
                f"`{self.selection}` holds no layer that could have an adapter",
                self.selection.span,
                "nothing to adapt",
                notes=left[:6],
                helps=("select Linear layers, convolutions without groups, or embeddings",),
            )
        alpha = float(self.rank) if self.alpha is None else float(self.alpha)
        scale = alpha / (self.rank if self.scale == "rank" else self.rank**0.5)
        seed = scope.seed + scope.index if self.seed is None else self.seed
        beside = tuple(
            Beside(p, f"{p}{SUFFIX}", *self._layers(modules[p]), scale=scale, seed=seed + i) for i, p in enumerate(targets)
        )
        held = {n.rpartition(".")[0] for n, _ in (*module.named_parameters(), *module.named_buffers())}
        norms, _ = norms_in(network, held)
        kept = {f"{n}.weight" for n in own}
        parameters = tuple(n for n, p in module.named_parameters(remove_duplicate=False) if p.requires_grad and n not in kept)
        buffers = tuple(n for n, _ in module.named_buffers() if n.rpartition(".")[0] in set(norms))
        small = [p for p in targets if self.rank >= min(_sides(modules[p]))]
        warnings = (f"rank {self.rank} is no less than the sides of {', '.join(small[:4])}",) if small else ()
        adds = sum(self.rank * sum(_sides(modules[p])) for p in targets)
        values = Adapted(beside, self.rank, alpha, adds, parameters, tuple(norms), buffers, left or None)
        origins = {"alpha": "the rank"} if self.alpha is None else {}
        defines = {b.name: (b.name, *(f"{b.name}.{one.name}" for one in b.layers)) for b in beside}
        return Choice(values, (str(self.selection),), origins, defines, warnings=warnings)

    def _layers(self, layer: Any) -> tuple[tuple[Layer, ...], str]:
        """The layers beside this one, and the name of that which begins at zero."""
        from torch import nn

        first = (Layer("dropout", Invocation("Dropout", (self.dropout,))),) if self.dropout else ()
        bare = {"bias": False}
        zeroed = "B"
        match layer:
            case nn.Linear():
                A = Invocation("Linear", (layer.in_features, self.rank), bare)
                B = Invocation("Linear", (self.rank, layer.out_features), bare)
            case nn.Embedding():
                # a dropout would drop words: there is none before a table
                first, zeroed = (), "A"
                A = Invocation("Embedding", (layer.num_embeddings, self.rank), {"padding_idx": layer.padding_idx})
                B = Invocation("Linear", (self.rank, layer.embedding_dim), bare)
            case _:
                how = {n: getattr(layer, n) for n in ("kernel_size", "stride", "padding", "dilation")}
                kind = type(layer).__name__
                A = Invocation(kind, (layer.in_channels, self.rank), how | bare)
                B = Invocation(kind, (self.rank, layer.out_channels), {"kernel_size": 1} | bare)
        return (*first, Layer("A", A), Layer("B", B)), zeroed

    def rewrite(self, network: Network, choice: Choice[Adapted]) -> Edit:
        """An adapter beside each layer; everything else stands still."""
        v = choice.values
        operations: tuple[Operation, ...] = v.beside
        return Edit((*operations, Trainable(v.parameters, False, v.norms)))

    def law(self, choice: Choice[Adapted]) -> tuple[Claim, ...]:
        """Same outputs; nothing that was there moves."""
        return (SameOutputs(), FrozenInTraining(choice.values.parameters, choice.values.buffers))


def _sides(layer: Any) -> tuple[int, int]:
    """The numbers that A and B hold for each unit of rank."""
    weight = layer.weight
    if type(layer).__name__ == "Embedding":
        return int(weight.shape[0]), int(weight.shape[1])
    return int(weight[0].numel()), int(weight.shape[0])
