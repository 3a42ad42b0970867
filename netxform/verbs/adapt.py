"""adapt: small trainable layers at the selected ones, which stand still; or another kind of input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from netxform.errors import Diagnostic, Span, fail
from netxform.graph.edits import Beside, Edit, Insert, Operation, Rescale, Trainable
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
    """What is put at which layers; what stands still from here on, by name; and why other layers are left."""

    put: tuple[Operation, ...] = field(metadata=HIDDEN)
    settings: str
    adds: int = field(metadata=HIDDEN)
    parameters: tuple[str, ...] = field(metadata=HIDDEN)
    norms: tuple[str, ...] = field(metadata=HIDDEN)
    buffers: tuple[str, ...] = field(metadata=HIDDEN)
    left: tuple[str, ...] | None = field(default=None, metadata=IF_KNOWN)

    def lines(self) -> tuple[str, ...]:
        """How many layers and numbers, then the rest."""
        what = f"{len(self.put)} layers, {self.adds:,} new parameters; {len(self.parameters)} tensors stand still"
        return (what, *super().lines())


@verb("adapt")
@dataclass(frozen=True)
class Adapt:
    """Put an adapter at each selected layer, and let nothing else be trained.

    - `with lora rank=8`: beside each Linear, convolution and Embedding stand two small layers without bias: `A`, down to
      `rank` numbers, and `B`, up again, zero at first. What comes out is the layer's result plus `alpha / rank` times theirs
      (`alpha` is the rank, unless it is given). `dropout=0.1` drops values before `A` while training; `scale=sqrt` divides
      by the root of the rank instead (rank-stabilised). `dora=true` trains the lengths of the weights apart from their
      directions.
    - `with ia3`: a factor for every output of each Linear and convolution, or with `side=input` for every input; one at first.
    - `with bottleneck width=16`: behind each selected part, whatever it is, a layer down to `width`, an activation
      (`act=gelu`) and a layer up again, zero at first, whose result is added.

    Everything that was there stands still, BatchNorm too; `unfreeze head` lets a head move again, and what is attached later
    moves anyway. The adapter of `fc1` is called `fc1_lora`, `fc1_ia3` or `fc1_adapter`; `merge` folds the first two into the
    layer. `netxform export BUNDLE FOLDER --to peft` writes those apart, as PEFT reads them, and
    `init ** from peft("FOLDER")` reads such a folder.

    Example: model net = zoo.smallcnn(); adapt layer4 | fc1 with lora rank=2

    Contract: exact. The outputs are bit-equal, for the new part gives zero, or is one; after any training the tensors and
    buffers that were there have the same bits.
    Refused: a selection without a layer that can have one (X0845): tied or quantized weights, grouped convolutions, layers
    whose weights another layer reads, parts that do not give one tensor.
    Papers: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022; Kalajdzievski, "A rank stabilization
    scaling factor for fine-tuning with LoRA", 2023; Liu et al., "DoRA: weight-decomposed low-rank adaptation", ICML 2024; Liu
    et al., "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning", NeurIPS 2022; Houlsby et
    al., "Parameter-efficient transfer learning for NLP", ICML 2019.
    """

    selection: Selection = operand()
    form: Literal["lora", "ia3", "bottleneck"] = prep("with")
    rank: int | None = key(None)
    alpha: float | None = key(None)
    scale: Literal["rank", "sqrt"] = key("rank")
    dropout: float = key(0.0)
    dora: bool = key(False)
    side: Literal["input", "output"] = key("output")
    width: int | None = key(None)
    act: Literal["relu", "gelu", "silu", "tanh"] = key("gelu")
    seed: int | None = key(None)
    contract: ClassVar[Contract] = Contract.EXACT
    role: ClassVar[Role] = Role.FREEZES

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """The settings of the form, and numbers that make sense."""
        yield from _foreign(self, span)
        needed = {"lora": "rank", "bottleneck": "width"}.get(self.form)
        if needed is not None and getattr(self, needed) is None:
            helps = (f"write `{needed}=8`",)
            yield Diagnostic("X0408", f"`adapt … with {self.form}` needs `{needed}`", span, "incomplete", helps=helps)
        for name in ("rank", "width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Diagnostic("X0406", f"a {name} is at least 1, not {value}", span, name)
        if not 0 <= self.dropout < 1:
            yield Diagnostic("X0406", f"`dropout` is in [0, 1), not {self.dropout:g}", span, "dropout")
        if self.alpha is not None and not self.alpha > 0:
            yield Diagnostic("X0406", f"`alpha` is above 0, not {self.alpha:g}", span, "alpha")

    def resolve(self, network: Network, scope: Scope) -> Choice[Adapted]:
        """Which layers, and what is put at each."""
        from netxform.graph.adapters import parameters_of
        from netxform.graph.frozen import norms_in

        module = network.module
        seed = scope.seed + scope.index if self.seed is None else self.seed
        put, left, warnings = self._put(network, scope, seed)
        if not put:
            raise fail(
                "X0845",
                f"`{self.selection}` holds no layer that could have an adapter",
                self.selection.span,
                "nothing to adapt",
                notes=left[:6],
                helps=("select Linear layers, convolutions without groups, or embeddings",),
            )
        held = {n.rpartition(".")[0] for n, _ in (*module.named_parameters(), *module.named_buffers())}
        norms, _ = norms_in(network, held)
        kept = set(parameters_of(network))
        parameters = tuple(n for n, p in module.named_parameters(remove_duplicate=False) if p.requires_grad and n not in kept)
        buffers = tuple(n for n, _ in module.named_buffers() if n.rpartition(".")[0] in set(norms))
        adds = sum(_numbers(one, network) for one in put)
        values = Adapted(put, self._settings(), adds, parameters, tuple(norms), buffers, left or None)
        origins = {"alpha": "the rank"} if self.alpha is None and self.form == "lora" else {}
        defines = {one.name: _modules_of(one) for one in put}
        return Choice(values, (str(self.selection),), origins, defines, warnings=warnings)

    def _settings(self) -> str:
        """What was asked for, in words."""
        match self.form:
            case "lora":
                return f"{'dora' if self.dora else 'lora'}, rank {self.rank}, alpha {self._alpha():g}"
            case "ia3":
                return f"factors of the {self.side}s"
            case "bottleneck":
                return f"bottleneck of {self.width}, {self.act}"

    def _alpha(self) -> float:
        assert self.rank is not None
        return float(self.rank) if self.alpha is None else float(self.alpha)

    def _put(
        self, network: Network, scope: Scope, seed: int
    ) -> tuple[tuple[Beside | Rescale | Insert, ...], tuple[str, ...], tuple[str, ...]]:
        """What is put where; why other layers are left; and warnings."""
        from netxform.graph.adapters import ADAPTABLE, BOTTLENECK, FACTORS, SUFFIX, adapters, bottlenecks, obstacle

        modules = dict(network.module.named_modules())
        own = {p for a in adapters(network) for p in a.parts} | set(bottlenecks(network))
        own |= {f"{n}.{part}" for n in bottlenecks(network) for part in ("down", "up")}
        if self.form == "bottleneck":
            from netxform.graph.bottleneck import obstacle as in_the_way
            from netxform.graph.bottleneck import place

            asked = [p for p in scope.modules(self.selection) if p not in own]
            why = {p: in_the_way(network, p) for p in asked}
        else:
            asked = [p for p in scope.modules_of(self.selection) if p not in own]
            side = self.side if self.form == "ia3" else ""
            why = {p: obstacle(network, p, side) for p in asked if isinstance(modules.get(p), ADAPTABLE)}
        targets = [p for p, text in why.items() if text is None]
        left = tuple(f"{p}: {text}" for p, text in why.items() if text is not None)
        warnings: tuple[str, ...] = ()
        make: Callable[[int, str], Beside | Rescale | Insert]
        match self.form:
            case "lora":
                assert self.rank is not None
                rank = self.rank
                scale = self._alpha() / (rank if self.scale == "rank" else rank**0.5)
                small = [p for p in targets if rank >= min(_sides(modules[p]))]
                warnings = (f"rank {rank} is no less than the sides of {', '.join(small[:4])}",) if small else ()

                def make(i: int, p: str) -> Beside:
                    layers, zeroed = _beside(modules[p], rank, self.dropout)
                    return Beside(p, f"{p}{SUFFIX}", layers, zeroed, scale, seed + i, self.dora)
            case "ia3":

                def make(i: int, p: str) -> Rescale:
                    weight = modules[p].weight
                    size = int(weight.shape[0 if self.side == "output" else 1])
                    return Rescale(p, f"{p}{FACTORS}", self.side, size, max(int(weight.dim()) - 2, 0))
            case "bottleneck":

                def make(i: int, p: str) -> Insert:
                    assert self.width is not None
                    node, layers = place(network, p, self.width, self.act)
                    return Insert(f"{p}{BOTTLENECK}", node, layers, "branch", seed + i)

        return tuple(make(i, p) for i, p in enumerate(targets)), left, warnings

    def rewrite(self, network: Network, choice: Choice[Adapted]) -> Edit:
        """An adapter at each layer; everything else stands still."""
        v = choice.values
        return Edit((*v.put, Trainable(v.parameters, False, v.norms)))

    def law(self, choice: Choice[Adapted]) -> tuple[Claim, ...]:
        """Same outputs; nothing that was there moves."""
        return (SameOutputs(), FrozenInTraining(choice.values.parameters, choice.values.buffers))


_OF: dict[str, tuple[str, ...]] = {
    "lora": ("rank", "alpha", "scale", "dropout", "dora"),
    "ia3": ("side",),
    "bottleneck": ("width", "act"),
}


def _foreign(action: Adapt, span: Span) -> Iterator[Diagnostic]:
    """Settings that belong to another form."""
    fields = Adapt.__dataclass_fields__
    for form, names in _OF.items():
        for name in names:
            if form != action.form and getattr(action, name) != fields[name].default:
                helps = (f"write `with {form}`, or leave `{name}=` out",)
                yield Diagnostic("X0407", f"`{name}` belongs to `{form}`", span, f"with {action.form}", helps=helps)


def _beside(layer: Any, rank: int, dropout: float) -> tuple[tuple[Layer, ...], str]:
    """The layers beside this one, and the name of that which begins at zero."""
    from torch import nn

    first = (Layer("dropout", Invocation("Dropout", (dropout,))),) if dropout else ()
    bare = {"bias": False}
    zeroed = "B"
    match layer:
        case nn.Linear():
            A = Invocation("Linear", (layer.in_features, rank), bare)
            B = Invocation("Linear", (rank, layer.out_features), bare)
        case nn.Embedding():
            # a dropout would drop words: there is none before a table
            first, zeroed = (), "A"
            A = Invocation("Embedding", (layer.num_embeddings, rank), {"padding_idx": layer.padding_idx})
            B = Invocation("Linear", (rank, layer.embedding_dim), bare)
        case _:
            how = {n: getattr(layer, n) for n in ("kernel_size", "stride", "padding", "dilation")}
            kind = type(layer).__name__
            A = Invocation(kind, (layer.in_channels, rank), how | bare)
            B = Invocation(kind, (rank, layer.out_channels), {"kernel_size": 1} | bare)
    return (*first, Layer("A", A), Layer("B", B)), zeroed


def _sides(layer: Any) -> tuple[int, int]:
    """The numbers that A and B hold for each unit of rank."""
    weight = layer.weight
    if type(layer).__name__ == "Embedding":
        return int(weight.shape[0]), int(weight.shape[1])
    return int(weight[0].numel()), int(weight.shape[0])


def _numbers(one: Beside | Rescale | Insert, network: Network) -> int:
    """The new parameters."""
    if isinstance(one, Rescale):
        return one.size
    if isinstance(one, Insert):
        down, *_, up = (layer.make.arguments for layer in one.layers)
        return int(down[0] * down[1] + down[1] + up[0] * up[1] + up[1])
    layer: Any = network.module.get_submodule(one.path)
    rank = int(one.layers[-1].make.arguments[0])
    table = type(layer).__name__ == "Embedding"
    return rank * sum(_sides(layer)) + (int(layer.weight.shape[1 if table else 0]) if one.lengths else 0)


def _modules_of(one: Beside | Rescale | Insert) -> tuple[str, ...]:
    """The modules that a later statement may name together."""
    if isinstance(one, Rescale):
        return (one.name,)
    inner = [layer.name for layer in one.layers] + (["M"] if isinstance(one, Beside) and one.lengths else [])
    return (one.name, *(f"{one.name}.{n}" for n in inner))
